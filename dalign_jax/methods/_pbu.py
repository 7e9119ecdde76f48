"""PBU: gradient ascent on a class, held back by a quadratic penalty."""

import dataclasses

import jax

from dalign_jax import importance, losses, objectives, optim, training, types


def pbu(
  *,
  num_epochs: int = 20,
  learning_rate: float = 2e-4,
  momentum: float = 0.9,
  batch_size: int = 64,
  forget_weight: float = 1.0,
  fisher_weight: float = 1000.0,
  distance_weight: float = 1.0,
  stop_accuracy: float = 0.1,
) -> types.UnlearnFn:
  r"""Ascends the loss of a class, anchored by a quadratic penalty on important weights.

  .. math:: \min_\theta \; -\alpha \, E_{forget} \, CE(y, f_\theta(x)) +
    \beta \, (\theta - \theta_o)^T F (\theta - \theta_o) + \gamma \, \|\theta - \theta_o\|^2

  with F the mean squared gradient of single forget examples at the original. The first term has no
  bound, so the run stops at the first epoch that starts with a forget accuracy of `stop_accuracy`
  or less. Batch statistics stay as they are. Sees forget data only. Class forgetting only.

  Args:
    num_epochs: passes over the forget set, at most.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    forget_weight: alpha.
    fisher_weight: beta.
    distance_weight: gamma.
    stop_accuracy: forget accuracy at which to stop, in [0, 1].

  Raises:
    ValueError: when run, if no whole class is forgotten.

  References:
    Panda, Sourav, A.P.: Partially Blinded Unlearning: Class Unlearning for Deep Networks a Bayesian
    Perspective. https://arxiv.org/abs/2403.16246

  Deviation: the paper's full text was not readable to us; taking F on the forget set, the weights
  and the stop rule are our reconstruction.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    problem.forgotten_classes('pbu')
    information = importance.squared_gradients(
      problem.apply_fn, problem.original, problem.forget, devices=problem.devices
    )
    weights = jax.tree.map(lambda f: 2 * (fisher_weight * f + distance_weight), information)
    return training.minimize(
      problem,
      _Loss(problem.apply_fn, forget_weight),
      rule,
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      constants_fn=lambda epoch: (problem.original.params, weights),
      stop_fn=objectives.is_forgotten(problem, stop_accuracy),
    )

  return unlearn


@dataclasses.dataclass(frozen=True)
class _Loss:
  """Ascent on forget rows, held at the anchor by the constants' weights."""

  apply_fn: types.ApplyFn
  forget_weight: float

  def __call__(self, params, batch_stats, batch, constants, key):
    forget_loss = objectives.MeanLoss(self.apply_fn, 'forget', objectives.cross_entropy)
    loss, batch_stats = forget_loss(params, batch_stats, batch, (), key)
    anchor, weights = constants
    pull = losses.quadratic(anchor, params, weights=weights)
    return -self.forget_weight * loss + pull, batch_stats

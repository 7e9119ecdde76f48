"""NegGrad+: descent on the retain set and ascent on the forget set in one loss."""

import dataclasses

import jax

from dalign_jax import errors, objectives, optim, training, types


def neggrad_plus(
  *,
  num_epochs: int = 5,
  retain_weight: float = 0.995,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Descends the retain loss and ascends the forget loss, in one weighted loss.

  .. math:: \min_\theta \; \alpha \, E_{retain} \, CE(y, f_\theta(x)) -
    (1 - \alpha) \, E_{forget} \, CE(y, f_\theta(x))

  Each step takes a batch of either set. Batch statistics are those of the retain rows; the forget
  rows are normalised by the running ones. Sees all retain data, augmented as by the recipe, and all
  forget data. Serves any request.

  Args:
    num_epochs: passes over the retain set.
    retain_weight: alpha in [0, 1]; at 1 this is `finetune`.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch of each set.

  Raises:
    ValueError: if `retain_weight` is outside [0, 1].

  References:
    Kurmanji, Triantafillou, Hayes, Triantafillou: Towards Unbounded Machine Unlearning (NegGrad+).
    https://arxiv.org/abs/2302.09880

  Deviation: the forget rows are normalised by running statistics, so that a forget batch of one
  class keeps what tells it from the others.
  """
  if not 0 <= retain_weight <= 1:
    raise errors.InputError(f'retain_weight must be in [0, 1], got {retain_weight}')
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      _Loss(problem.apply_fn, problem.recipe.augmentation, retain_weight),
      rule,
      {'retain': problem.retain, 'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn


@dataclasses.dataclass(frozen=True)
class _Loss:
  """The weighed loss of retain rows minus that of forget rows."""

  apply_fn: types.ApplyFn
  augmentation: str
  retain_weight: float

  def __call__(self, params, batch_stats, batch, constants, key):
    args = params, batch_stats, batch, constants
    _, forget_key = jax.random.split(key)  # the retain rows' is the step's own
    forget_loss = objectives.MeanLoss(self.apply_fn, 'forget', objectives.cross_entropy)
    retain_loss = training.ClassificationLoss(self.apply_fn, 'retain', self.augmentation)
    retain, batch_stats = retain_loss(*args, key)
    forget, _ = forget_loss(*args, forget_key)
    return self.retain_weight * retain - (1 - self.retain_weight) * forget, batch_stats

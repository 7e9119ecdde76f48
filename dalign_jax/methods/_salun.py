"""SalUn: wrong labels for the forget set, on the weights that matter for it."""

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, importance, objectives, optim, training, types


def salun(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.013,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
  saliency: float = 0.5,
) -> types.UnlearnFn:
  r"""Trains as `random_label` does, but only the weights that are salient for the forget set.

  .. math:: \theta_u = \theta_o + m \odot \Delta, \quad
    m = \big[ \, |\nabla_\theta E_{forget} \, CE(y, f_{\theta_o}(x))| \ge \gamma \, \big]

  with gamma such that m holds the share `saliency` of all weights of the network. All other weights
  stay as they are to the bit: the mask is applied to the optimizer's updates, behind momentum and
  weight decay. Batch statistics are learned as usual. Sees all retain and all forget data,
  augmented as by the recipe. Serves any request.

  Args:
    num_epochs: passes over retain and forget together.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
    saliency: share of the weights to train, in (0, 1].

  Raises:
    ValueError: if `saliency` is outside (0, 1].

  References:
    Fan, Liu, Zhang, Wong, Wei, Liu: SalUn: Empowering Machine Unlearning via Gradient-based Weight
    Saliency. https://arxiv.org/abs/2310.12508

  Deviation: the gradient is taken in evaluation mode, over the whole forget set; the wrong labels
  are drawn at each step. Where more gradients than fit are exactly 0, the order of the weights
  decides between them.
  """
  if not 0 < saliency <= 1:
    raise errors.InputError(f'saliency must be in (0, 1], got {saliency}')
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    gradient = importance.mean_gradient(
      problem.apply_fn, problem.original, problem.forget, devices=problem.devices
    )
    loss_fn, datasets, extra = objectives.random_labels(problem)
    size = len(next(iter(datasets.values())))
    tx = rule.of(problem, optim.num_steps(size, batch_size, num_epochs))
    return training.minimize(
      problem,
      loss_fn,
      optim.restricted(tx, _largest(gradient, saliency)),
      datasets,
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      extra=extra,
    )

  return unlearn


def _largest(tree, share):
  """Masks of that share of all numbers in the tree, the largest in absolute value."""
  leaves, structure = jax.tree.flatten(tree)
  sizes = np.cumsum([leaf.size for leaf in leaves])
  magnitudes = np.abs(np.concatenate([np.ravel(leaf) for leaf in leaves]))
  chosen = np.argsort(-magnitudes, kind='stable')[: max(1, round(share * magnitudes.size))]
  mask = np.zeros(magnitudes.size, bool)
  mask[chosen] = True
  parts = np.split(mask, sizes[:-1])
  return jax.tree.unflatten(
    structure, [p.reshape(jnp.shape(leaf)) for p, leaf in zip(parts, leaves, strict=True)]
  )

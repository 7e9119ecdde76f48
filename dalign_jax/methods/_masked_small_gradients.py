"""MSG: weights that tell retain from forget the least start anew."""

import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, fresh, importance, optim, trainable, training, types


def msg(
  *,
  num_epochs: int = 5,
  learning_rate: float = 0.05,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 64,
  reset_share: float = 0.3,
  kept_rate: float = 0.1,
) -> types.UnlearnFn:
  r"""Draws the weights of small gradient anew, then trains on the retain set, these above all.

  .. math:: g = \nabla_\theta \big( E_{B \subset retain} \, CE(y, f_{\theta_o}(x)) -
    E_{forget} \, CE(y, f_{\theta_o}(x)) \big)

  In each convolution kernel, the share `reset_share` of smallest :math:`|g|` gets new weights of
  the network's own initialisation; the gradients of the kernel's other weights are scaled by
  `kept_rate` from then on. Biases, dense layers and normalisation train as usual. In a network
  without convolutions, all kernels before the head take their place. B is as large as the forget
  set. Sees all retain data, augmented as by the recipe, and all forget data. Serves any request.

  Args:
    num_epochs: passes over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
    reset_share: share of a kernel that starts anew, in (0, 1].
    kept_rate: factor of the gradients of the weights that are kept, in [0, 1].

  References:
    Cadet, Borovykh, Malekzadeh, Ahmadi-Abhari, Haddadi: Deep Unlearn: Benchmarking Machine
    Unlearning for Image Classification (MSG). https://arxiv.org/abs/2410.01276

  Deviation: biases are kept (the release loses those of convolutions); B is as large as the forget
  set, where the release takes 32 rows; new weights are drawn as the network draws them; a constant
  learning rate of .05 (the release: .001 at the peak, found on other networks).
  """
  if not 0 < reset_share <= 1:
    raise errors.InputError(f'reset_share must be in (0, 1], got {reset_share}')
  sgd = optim.sgd(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    init_key, row_key, train_key = training.split(key, 3)
    rng = training.epoch_rng(row_key, 0)
    rows = data_lib.epoch_batches(len(problem.retain), len(problem.forget), rng, num_batches=1)[0]
    of_retain, of_forget = (
      importance.mean_gradient(problem.apply_fn, problem.original, dataset, devices=problem.devices)
      for dataset in (problem.retain.take(rows), problem.forget)
    )
    is_reset = jax.tree.map(lambda a, b: _smallest(a - b, reset_share), of_retain, of_forget)
    takes_part = _taking_part(problem)
    anew = fresh.model(problem.init_fn, init_key, problem.retain).params
    is_reset = jax.tree.map(np.logical_and, takes_part, is_reset)
    params = jax.tree.map(np.where, is_reset, anew, problem.original.params)
    slow, usual = np.float32(kept_rate), np.float32(1)
    is_slow = jax.tree.map(np.greater, takes_part, is_reset)
    rates = jax.tree.map(lambda mask: np.where(mask, slow, usual), is_slow)
    return training.minimize(
      problem,
      training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation),
      optim.scaled(sgd, rates),
      {'retain': problem.retain},
      train_key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      start=types.ModelState(params, problem.original.batch_stats),
    )

  return unlearn


def _smallest(gradient, share):
  """Mask of that share of an array's entries, the smallest in absolute value."""
  mask = np.zeros(gradient.size, bool)
  mask[np.argsort(np.abs(gradient), axis=None, kind='stable')[: round(share * gradient.size)]] = (
    True
  )
  return mask.reshape(gradient.shape)


def _taking_part(problem):
  """For each leaf, whether it is a convolution; where there are none, a kernel before the head."""
  params = problem.original.params
  is_convolution = jax.tree.map(lambda leaf: np.ndim(leaf) == 4, params)
  if any(jax.tree.leaves(is_convolution)):
    return is_convolution
  head = '/'.join(problem.head_path) + '/'
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.ndim(leaf) >= 2 and not trainable.path_of(path).startswith(head), params
  )

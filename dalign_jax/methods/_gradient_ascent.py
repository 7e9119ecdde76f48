"""Gradient ascent on the forget set."""

import jax
import jax.numpy as jnp

from dalign_jax import losses, optim, training, types


def gradient_ascent(
  *,
  num_epochs: int = 5,
  learning_rate: float = 2e-5,
  momentum: float = 0.9,
  batch_size: int = 64,
  batch_statistics: bool = False,
) -> types.UnlearnFn:
  r"""Undoes learning by ascending the loss of the forget set.

  .. math:: \max_\theta \; E_{(x, y) \in forget} \, CE(y, f_\theta(x))

  Sees forget data only. The loss has no upper bound and grows exponentially: a few steps too many
  destroy the network.

  Args:
    num_epochs: passes over the forget set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    batch_statistics: whether batch norm uses (and learns) the forget batches' statistics; by
      default the original's stay as they are.

  References:
    Golatkar, Achille, Soatto: Eternal Sunshine of the Spotless Net (negative gradient).
    https://arxiv.org/abs/1911.04933
  """
  tx = optim.sgd(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    def loss_fn(params, batch_stats, batch, constants, key):
      del constants, key
      model = types.ModelState(params, batch_stats)
      outputs, batch_stats = problem.apply_fn(
        model, batch['forget']['images'], train=batch_statistics
      )
      cross_entropy = losses.label_loss(batch['forget']['labels'], outputs.logits)
      return -jnp.mean(cross_entropy), batch_stats

    return training.minimize(
      loss_fn,
      tx,
      problem.original,
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      devices=problem.devices,
      monitor=problem.monitor,
    )

  return unlearn

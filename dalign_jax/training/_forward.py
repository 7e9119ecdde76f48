"""The network's pass in a training step: what batch norm and dropout do there."""

import jax

from dalign_jax import parallel, trainable, types

_STREAM = 2**32 - 1  # folded into a step's key; other draws fold in numbers of examples


def forward(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: types.Array,
  key: jax.Array,
  *,
  keep_statistics: bool = False,
) -> tuple[types.Outputs, types.PyTree]:
  """Outputs and new batch statistics of a network in training mode, for a loss of `make_step`.

  Dropout and stochastic depth draw from a key of their own for each step and device, so that what
  else the loss draws from `key` stays as it is. Results thus depend on how many devices share a
  batch where a network draws.

  Args:
    apply_fn: the network.
    model: its state.
    images: `[B, H, W, C]` float32 in [0, 1], this device's rows.
    key: the step's key. A loss with two passes splits it, or both draw the same masks.
    keep_statistics: normalise by the running batch statistics and leave them as they are, as for
      batches of forget images alone. That is evaluation mode, without dropout too, since modules
      have one flag for both; a network without batch statistics trains as ever.
  """
  has_statistics = bool(jax.tree.leaves(trainable.own_statistics(model.batch_stats)))
  if keep_statistics and has_statistics:
    return apply_fn(model, images, train=False)
  if not types.takes_key(apply_fn):
    return apply_fn(model, images, train=True)
  own_key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), jax.lax.axis_index(parallel.AXIS))
  return types.with_key(apply_fn, own_key)(model, images, train=True)

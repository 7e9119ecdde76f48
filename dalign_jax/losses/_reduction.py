"""Reductions that give the same value and gradient on one device and on many."""

import chex
import jax
import jax.numpy as jnp


def weighted_mean(values, weights=None, *, axis_name: str | None = None):
  r"""Mean of per-example values over the whole (global) batch.

  .. math:: \frac{\sum_i w_i v_i}{\sum_i w_i}

  Args:
    values: `[B]` per-example values.
    weights: `[B]` non-negative weights, 0 for padding; None for all ones.
    axis_name: mapped axis to reduce over; the value is then the one of the global batch.

  Returns:
    Scalar; 0 where all weights are 0.

  Example:
    >>> import jax.numpy as jnp
    >>> float(weighted_mean(jnp.array([1., 3., 9.]), jnp.array([1., 1., 0.])))
    2.0
  """
  values = jnp.asarray(values, jnp.float32)
  chex.assert_rank(values, 1)
  weights = example_weights(weights, values.shape[0])
  total = jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)
  count = jnp.sum(weights)
  total, count = global_sum((total, count), axis_name)
  return total / jnp.where(count > 0, count, 1.0)


def example_weights(weights, batch_size: int):
  """`weights` as float32 `[B]`; all ones where None."""
  if weights is None:
    return jnp.ones((batch_size,), jnp.float32)
  weights = jnp.asarray(weights, jnp.float32)
  chex.assert_shape(weights, (batch_size,))
  return weights


def global_sum(tree, axis_name: str | None):
  """Sum over the mapped axis, or the tree itself where there is none."""
  return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def global_mean(value, axis_name: str | None):
  """Mean over the mapped axis, or the value itself where there is none."""
  return value if axis_name is None else jax.lax.pmean(value, axis_name)


def gather_rows(tree, axis_name: str | None):
  """The rows of every device one after another, on each of them: for terms of the whole batch."""
  return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, axis=0, tiled=True)

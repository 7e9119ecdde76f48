"""Reductions that give the same value and gradient on one device and on many."""

from collections.abc import Callable
import functools
from typing import Any, ParamSpec, TypeVar

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from dalign_jax import types

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def weighted_mean(
  values: types.Array, weights: types.Array | None = None, *, axis_name: str | None = None
) -> jax.Array:
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


def example_weights(weights: types.Array | None, batch_size: int) -> jax.Array:
  """`weights` as float32 `[B]`; all ones where None."""
  if weights is None:
    return jnp.ones((batch_size,), jnp.float32)
  weights = jnp.asarray(weights, jnp.float32)
  chex.assert_shape(weights, (batch_size,))
  return weights


def global_sum(tree: Any, axis_name: str | None) -> Any:
  """Sum over the mapped axis, or the tree itself where there is none."""
  return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def global_mean(value: Any, axis_name: str | None) -> Any:
  """Mean over the mapped axis, or the value itself where there is none."""
  return value if axis_name is None else jax.lax.pmean(value, axis_name)


def gather_rows(tree: Any, axis_name: str | None) -> Any:
  """Rows of all devices, concatenated on each of them, for terms of the whole batch."""
  return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, axis=0, tiled=True)


def on_any_mesh(fn: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
  """Lets a term of the whole batch take rows that are sharded over a mesh with explicit axes.

  `jax.make_mesh` makes such axes by default, and under them a sum of products over the sharded rows
  is refused as ambiguous. The compiler shards the inside; the result is whole on every device.
  """

  @functools.wraps(fn)
  def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    named = {**{str(i): x for i, x in enumerate(args)}, **kwargs}
    arrays = {name: x for name, x in named.items() if hasattr(x, 'shape')}
    if not any(map(_has_explicit_axes, arrays.values())):
      return fn(*args, **kwargs)

    def call(arrays):
      given = [arrays.get(str(i), x) for i, x in enumerate(args)]
      return fn(*given, **{name: arrays.get(name, x) for name, x in kwargs.items()})

    return jax.sharding.auto_axes(call, out_sharding=PartitionSpec())(arrays)

  return wrapped


def _has_explicit_axes(array: Any) -> bool:
  mesh = jax.typeof(array).sharding.mesh if isinstance(array, jax.Array) else None
  return mesh is not None and AxisType.Explicit in mesh.axis_types

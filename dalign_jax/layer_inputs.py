"""Second moments of what enters each layer, of any network that is a plain function.

The network is traced; the trace is evaluated anew, and where a kernel meets its input, the input's
second moment is kept. So no network has to offer its inner values.
"""

from collections.abc import Sequence
import dataclasses

import jax
from jax import lax
from jax.extend import core
import jax.numpy as jnp

from dalign_jax import depth, parallel, prediction, training, types

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call')
_SAME_VALUES = ('reshape', 'convert_element_type', 'copy', 'optimization_barrier')


def second_moments(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  *,
  batch_size: int = 32,
  devices: parallel.Devices = None,
) -> list[jax.Array | None]:
  r"""Uncentred second moments of the inputs of each linear layer and convolution.

  .. math:: S = \sum_i \sum_p a_{ip} \, a_{ip}^\top

  with a the layer's input at example i and position p; of a convolution it is the window, flattened
  as its kernel is. A kernel `[..., D]` of a layer with moment `[K, K]` can thus be multiplied from
  the left as `kernel.reshape(K, -1)`. The network is in evaluation mode.

  Args:
    apply_fn: the network.
    model: host model state.
    dataset: N >= 1 examples.
    batch_size: rows per call and device; the windows of one batch are in memory at a time.
    devices: devices to run on, None for all.

  Returns:
    For each leaf of `model.params`, in the order of `jax.tree.leaves`, `[K, K]` float32 on the
    host; None where no input is found: biases, normalisation, grouped convolutions, and kernels
    that are used in another way than the above.
  """
  found = prediction.sum_examples(
    _Moments(apply_fn),
    model,
    {'images': dataset.images},
    batch_size=batch_size,
    devices=devices,
  )
  return [found.get(str(i)) for i in range(len(jax.tree.leaves(model.params)))]


@dataclasses.dataclass(frozen=True)
class _Moments:
  """Sums over a batch, by the number of the kernel's leaf."""

  apply_fn: types.ApplyFn

  def __call__(self, model, batch, weights):
    images = training.to_float(batch['images'])
    traced = jax.make_jaxpr(lambda m, x: self.apply_fn(m, x, train=False)[0])(model, images)
    leaf_of = dict(
      zip(traced.jaxpr.invars, range(len(jax.tree.leaves(model.params))), strict=False)
    )
    moments: dict[str, jax.Array] = {}
    values = [*jax.tree.leaves(model), images]
    _evaluate(traced.jaxpr, traced.consts, values, leaf_of, weights, moments)
    return moments


def _evaluate(jaxpr, consts, values, leaf_of, weights, moments) -> list:
  """The jaxpr's outputs; adds to the moments on the way."""
  known = {**dict(zip(jaxpr.constvars, consts, strict=True))}
  known |= dict(zip(jaxpr.invars, values, strict=True))
  read = lambda v: v.val if isinstance(v, core.Literal) else known[v]
  leaf_of = dict(leaf_of)
  for equation in jaxpr.eqns:
    inputs = [read(v) for v in equation.invars]
    leaves = [None if isinstance(v, core.Literal) else leaf_of.get(v) for v in equation.invars]
    inner = depth.called(equation) if equation.primitive.name in _CALLS else None
    if equation.primitive.name in _SAME_VALUES and leaves[0] is not None:
      leaf_of[equation.outvars[0]] = leaves[0]
    if inner is not None:
      of_inner = {v: i for v, i in zip(inner.jaxpr.invars, leaves, strict=True) if i is not None}
      outputs = _evaluate(inner.jaxpr, inner.consts, inputs, of_inner, weights, moments)
    else:
      moment = _moment(equation, inputs, leaves, weights)
      if moment is not None:
        name = str(leaves[1])
        moments[name] = moments[name] + moment if name in moments else moment
      outputs = equation.primitive.bind(*inputs, **equation.params)
      outputs = outputs if equation.primitive.multiple_results else [outputs]
    known.update(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _moment(equation, inputs, leaves, weights) -> jax.Array | None:
  """The moment of the first operand, if the second is a kernel and the layer one that we know."""
  if len(inputs) != 2 or leaves[0] is not None or leaves[1] is None:
    return None
  if equation.primitive.name == 'dot_general':
    rows = _rows_of_dot(inputs, equation.params['dimension_numbers'])
  elif equation.primitive.name == 'conv_general_dilated':
    rows = _windows(inputs, equation.params)
  else:
    return None
  if rows is None or len(rows) != len(weights):
    return None
  rows = rows.reshape(len(weights), -1, rows.shape[-1]).astype(jnp.float32)
  weighted = rows * weights[:, None, None]
  return jnp.einsum('bpk,bpl->kl', weighted, rows, precision=lax.Precision.HIGHEST)


def _rows_of_dot(inputs, numbers: tuple[tuple[Sequence, Sequence], tuple]) -> jax.Array | None:
  """The input `[B, ..., K]` of a product whose kernel is `[K, ...]`."""
  (contracted, of_kernel), batched = numbers
  if batched[0] or tuple(of_kernel) != tuple(range(len(of_kernel))) or 0 in contracted:
    return None
  others = [axis for axis in range(inputs[0].ndim) if axis not in contracted]
  moved = inputs[0].transpose(*others, *contracted)
  return moved.reshape(*moved.shape[: len(others)], -1)


def _windows(inputs, settings) -> jax.Array | None:
  """The windows `[B, H', W', h * w * C]` of a convolution, flattened as the kernel is."""
  images, kernel = inputs
  numbers = lax.conv_dimension_numbers(images.shape, kernel.shape, _LAYOUT)
  groups = settings['feature_group_count'] * settings['batch_group_count']
  if images.ndim != 4 or settings['dimension_numbers'] != numbers or groups != 1:
    return None
  windows = lax.conv_general_dilated_patches(
    images,
    kernel.shape[:2],
    settings['window_strides'],
    settings['padding'],
    settings['lhs_dilation'],
    settings['rhs_dilation'],
    dimension_numbers=_LAYOUT,
  )
  windows = windows.reshape(*windows.shape[:3], images.shape[-1], -1)
  return windows.swapaxes(-1, -2).reshape(*windows.shape[:3], -1)

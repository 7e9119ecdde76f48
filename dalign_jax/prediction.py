"""Outputs of a finished model over whole sets: N rows in, N rows out, always."""

from collections.abc import Callable, Iterator, Mapping
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, losses, parallel, training, types


def predict(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: np.ndarray,
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> types.Outputs:
  """Outputs of a model in evaluation mode.

  Each process computes all rows, on its own devices.

  Args:
    apply_fn: the network.
    model: host model state.
    images: `[N, H, W, C]` uint8, N >= 1.
    batch_size: rows per call and device.
    devices: devices to run on, None for all.

  Returns:
    Host arrays `logits [N, C]` and `features [N, D]`, float32.
  """
  chex.assert_rank(images, 4)
  parts = []
  for outputs, _, weights in _passes(apply_fn, model, images, batch_size, devices):
    outputs = jax.device_get(outputs)
    parts.append(jax.tree.map(lambda x, w=weights: x[w > 0], outputs))
  return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def second_moment(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: np.ndarray,
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> np.ndarray:
  """Uncentred second moment of a set's features, streamed: `[N, D]` is never held.

  Args:
    apply_fn: the network.
    model: host model state.
    images: `[N, H, W, C]` uint8, N >= 1.
    batch_size: rows per call and device.
    devices: devices to run on, None for all.

  Returns:
    `[D, D]` float32.
  """
  chex.assert_rank(images, 4)
  total = None
  for _, moment, _ in _passes(apply_fn, model, images, batch_size, devices):
    if parallel.must_block(devices):
      jax.block_until_ready(moment)
    total = moment if total is None else _add(total, moment)
  return parallel.fetch(total) / np.float32(len(images))


def map_examples(
  fn: Callable,
  constants: types.PyTree,
  fields: Mapping[str, np.ndarray],
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> types.PyTree:
  """A function of each example, over a whole set.

  Args:
    fn: `(constants, {field: [B, ...]}) -> pytree of [B, ...]`; a row of the result must depend on
      that row alone. Equal functions are
      compiled once: pass a module-level function, or a frozen dataclass without data.
    constants: host pytree, a model say.
    fields: host arrays `[N, ...]`, N >= 1.
    batch_size: rows per call and device.
    devices: devices to run on, None for all.

  Returns:
    Pytree of host arrays `[N, ...]`.
  """
  local = tuple(parallel.local_devices(devices))
  mapped = _mapped(fn, local, parallel.mapping())
  constants = parallel.replicate(constants, local)
  parts = []
  for batch, weights in _padded_batches(fields, batch_size, len(local)):
    outputs = jax.device_get(mapped(constants, batch))
    parts.append(jax.tree.map(lambda x, w=weights: x[w > 0], outputs))
  return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def sum_examples(
  fn: Callable,
  constants: types.PyTree,
  fields: Mapping[str, np.ndarray],
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> types.PyTree:
  """A weighted sum over a whole set, streamed.

  Args:
    fn: `(constants, {field: [B, ...]}, weights [B]) -> pytree`, the sum over the rows it receives;
      padded rows have weight 0. Equal functions are
      compiled once: pass a module-level function, or a frozen dataclass without data.
    constants: host pytree, a model say.
    fields: host arrays `[N, ...]`, N >= 1.
    batch_size: rows per call and device.
    devices: devices to run on, None for all.

  Returns:
    Host pytree, the sum over all examples.
  """
  local = tuple(parallel.local_devices(devices))
  mapped = _summed(fn, local, parallel.mapping())
  constants = parallel.replicate(constants, local)
  total = None
  for batch, weights in _padded_batches(fields, batch_size, len(local)):
    part = mapped(constants, batch, weights)
    if parallel.must_block(local):
      jax.block_until_ready(part)
    total = part if total is None else _add(total, part)
  return parallel.fetch(total)


@jax.jit
def _add(total, part):
  """Sum of two pytrees, in one program."""
  return jax.tree.map(jnp.add, total, part)


def _padded_batches(
  fields: Mapping[str, np.ndarray], batch_size: int, num_devices: int
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
  """Batches `{field: [devices, B, ...]}` with weights `[devices, B]`, 0 for padding."""
  size = len(next(iter(fields.values())))
  if not size:
    raise errors.InputError('there must be one example or more, there is none')
  needed = -(-size // num_devices)
  per_device = min(batch_size, 1 << (needed - 1).bit_length())  # few shapes for sets of any size
  rows = per_device * num_devices
  for start in range(0, size, rows):
    batch = {}
    for name, values in fields.items():
      part = np.asarray(values[start : start + rows])
      padded = np.zeros((rows, *values.shape[1:]), values.dtype)
      padded[: len(part)] = part
      batch[name] = padded.reshape(num_devices, per_device, *values.shape[1:])
    weights = (np.arange(rows) < len(part)).astype(np.float32)
    yield batch, weights.reshape(num_devices, per_device)


@functools.lru_cache(maxsize=32)
def _mapped(fn, devices, mapping):
  del mapping  # the one in use, by which `spmd` maps
  return parallel.spmd(fn, devices=devices)


@functools.lru_cache(maxsize=32)
def _summed(fn, devices, mapping):
  del mapping  # the one in use, by which `spmd` maps

  def summed(constants, batch, weights):
    return jax.lax.psum(fn(constants, batch, weights), parallel.AXIS)

  return parallel.spmd(summed, devices=devices)


def _passes(
  apply_fn, model, images, batch_size, devices
) -> Iterator[tuple[types.Outputs, jax.Array, np.ndarray]]:
  """Of each batch: outputs, the sum of its features' outer squares, and the rows' weights.

  One program gives both, since compiling the network takes longer than either.
  """
  local = tuple(parallel.local_devices(devices))
  forward = _forward(apply_fn, local, parallel.mapping())
  model = parallel.replicate(model, local)
  for batch, weights in _padded_batches({'images': images}, batch_size, len(local)):
    yield *forward(model, batch, weights), weights


@functools.lru_cache(maxsize=8)
def _forward(apply_fn, devices, mapping):
  del mapping  # the one in use, by which `spmd` maps

  def forward(model, batch, weights):
    outputs, _ = apply_fn(model, training.to_float(batch['images']), train=False)
    moment = losses.second_moment(outputs.features, weights=weights) * jnp.sum(weights)
    return outputs, jax.lax.psum(moment, parallel.AXIS)

  return parallel.spmd(forward, devices=devices)

"""Outputs of a finished model over whole sets: N rows in, N rows out, always."""

from collections.abc import Iterator
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import losses, parallel, training, types


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
  local = tuple(parallel.local_devices(devices))
  forward = _forward(apply_fn, local)
  model = parallel.replicate(model, local)
  parts = []
  for batch, weights in _padded_batches(images, batch_size, len(local)):
    outputs = jax.device_get(forward(model, batch))
    parts.append(jax.tree.map(lambda x, w=weights: x[w > 0], outputs))
  return types.Outputs(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def second_moment(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: np.ndarray,
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> jax.Array:
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
  local = tuple(parallel.local_devices(devices))
  moment_of = _moment(apply_fn, local)
  model = parallel.replicate(model, local)
  total = None
  for batch, weights in _padded_batches(images, batch_size, len(local)):
    part = moment_of(model, batch, weights)
    if parallel.must_block(local):
      jax.block_until_ready(part)
    total = part if total is None else total + part
  return jnp.asarray(parallel.fetch(total)) / len(images)


def _padded_batches(
  images: np.ndarray, batch_size: int, num_devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Batches `[devices, B, H, W, C]` of equal shape with weights `[devices, B]`, 0 for padding."""
  chex.assert_rank(images, 4)
  per_device = min(batch_size, -(-len(images) // num_devices))
  rows = per_device * num_devices
  for start in range(0, len(images), rows):
    part = np.asarray(images[start : start + rows])
    padded = np.zeros((rows, *images.shape[1:]), images.dtype)
    padded[: len(part)] = part
    weights = (np.arange(rows) < len(part)).astype(np.float32)
    yield (
      padded.reshape(num_devices, per_device, *images.shape[1:]),
      weights.reshape(num_devices, per_device),
    )


@functools.lru_cache(maxsize=8)
def _forward(apply_fn, devices):
  def forward(model, images):
    return apply_fn(model, training.to_float(images), train=False)[0]

  return parallel.pmap(forward, devices=devices)


@functools.lru_cache(maxsize=8)
def _moment(apply_fn, devices):
  def moment(model, images, weights):
    features = apply_fn(model, training.to_float(images), train=False)[0].features
    mean = losses.second_moment(features, weights=weights, axis_name=parallel.AXIS)
    return mean * jax.lax.psum(jnp.sum(weights), parallel.AXIS)

  return parallel.pmap(moment, devices=devices)

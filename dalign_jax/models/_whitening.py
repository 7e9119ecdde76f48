"""Patch whitening: a first layer that is computed from the training images and never trained."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, types
from dalign_jax.models import _convolution

SIZE = 2  # side of a patch in pixels
MAX_IMAGES = 5000  # whose patches the covariance is estimated from
_CHUNK = 500  # images at a time


class Whitening(nn.Module):
  """Convolution with a constant whitening kernel, plus a trained bias.

  The kernel and the mean that is subtracted first are in `batch_stats`, so that no optimizer and
  no method that edits `params` moves them. They are constants: training hands them back as they
  are. `kernel_and_mean` computes them.

  Returns `[B, H - 1, W - 1, 8 C]` for images `[B, H, W, C]`.
  """

  @nn.compact
  def __call__(self, images: types.Array) -> types.Array:
    if min(images.shape[1:3]) < SIZE:
      raise errors.InputError(
        f'image_shape must be at least {SIZE} x {SIZE} for a whitening layer, '
        f'got {tuple(images.shape[1:])}'
      )
    channels = images.shape[-1]
    kernel = self.variable('batch_stats', 'kernel', lambda: jnp.asarray(unit_kernel(channels)))
    mean = self.variable('batch_stats', 'mean', lambda: jnp.zeros(channels))
    width = kernel.value.shape[-1]
    bias = self.param('bias', nn.initializers.zeros, (width,))
    centred = (images - mean.value[None, None, None]).astype(images.dtype)
    whitener = kernel.value.astype(images.dtype)
    response = _convolution.convolution(centred, whitener, (1, 1), 'VALID')
    return response + bias[None, None, None]


def unit_kernel(channels: int) -> np.ndarray:
  """The kernel for white images: each pixel of a patch by itself, `[2, 2, C, 8 C]`."""
  return _paired(np.eye(SIZE * SIZE * channels, dtype=np.float32), channels)


def kernel_and_mean(
  images: np.ndarray, mean: np.ndarray, std: np.ndarray, *, epsilon: float = 5e-4
) -> tuple[np.ndarray, np.ndarray]:
  r"""Whitening of the 2x2 patches of a set of images.

  .. math:: S = E[p p^T] = V \Lambda V^T, \quad K = (\Lambda + \epsilon I)^{-1/2} V^T

  over all patches p of the centred images, eigenvalues in falling order. The kernel holds K and -K,
  so that a rectifier after it keeps both signs. An eigenvector's sign is such that its largest
  entry is positive.

  Args:
    images: `[N, H, W, C]` uint8; of more than 5,000, so many at equal distances are used.
    mean: subtracted from images in [0, 1], as the network does.
    std: images are divided by it after that.
    epsilon: added to the eigenvalues, in the unit of normalised pixels squared.

  Returns:
    The kernel `[2, 2, C, 8 C]` and the channel mean `[C]` of the normalised images, float32.

  References:
    Keller Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU.
    https://arxiv.org/abs/2404.00498
  """
  rows = np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).astype(int)
  channels = images.shape[-1]
  chunks = np.array_split(rows, -(-len(rows) // _CHUNK))
  normalised = lambda chunk: (images[chunk].astype(np.float32) / 255 - mean) / std
  sums = [normalised(chunk).sum((0, 1, 2), dtype=np.float64) for chunk in chunks]
  centre = (sum(sums) / (len(rows) * images.shape[1] * images.shape[2])).astype(np.float32)
  second_moment, count = 0.0, 0
  for chunk in chunks:
    patches = _patches(normalised(chunk) - centre)
    second_moment += (patches.T @ patches).astype(np.float64)
    count += len(patches)
  values, vectors = np.linalg.eigh(second_moment / count)
  filters = (vectors / np.sqrt(np.maximum(values, 0) + epsilon)).T[::-1]
  largest = np.take_along_axis(filters, np.abs(filters).argmax(1, keepdims=True), axis=1)
  return _paired((filters * np.sign(largest)).astype(np.float32), channels), centre


def _patches(images: np.ndarray) -> np.ndarray:
  """All patches `[M, 4 C]`, pixels in the order of a kernel `[2, 2, C]`."""
  height, width = images.shape[1] - SIZE + 1, images.shape[2] - SIZE + 1
  shifted = [images[:, i : i + height, j : j + width] for i in range(SIZE) for j in range(SIZE)]
  return np.stack(shifted, 3).reshape(-1, SIZE * SIZE * images.shape[-1])


def _paired(filters: np.ndarray, channels: int) -> np.ndarray:
  """Filters `[F, 4 C]` and their negatives as a kernel `[2, 2, C, 2 F]`."""
  both = np.concatenate([filters, -filters])
  return both.reshape(len(both), SIZE, SIZE, channels).transpose(1, 2, 3, 0)

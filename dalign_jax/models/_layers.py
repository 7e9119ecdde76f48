"""The layers that the models share."""

from collections.abc import Callable
import functools

import flax.linen as nn

from dalign_jax import errors, types
from dalign_jax.models import _convolution

NORMS = ('batch', 'group', 'none')


def conv(features: int, size: int, strides: int = 1, *, use_bias: bool = False) -> nn.Conv:
  """A square convolution, padded by half its size on every side, He-normal at the start.

  Args:
    features: number of output channels.
    size: side of the kernel in pixels.
    strides: stride in pixels, the same in both directions.
    use_bias: whether to add a bias.

  Returns:
    The layer, `[B, H, W, C] -> [B, H', W', features]`.
  """
  return nn.Conv(
    features,
    (size, size),
    (strides, strides),
    padding=((size // 2, size // 2),) * 2,
    use_bias=use_bias,
    kernel_init=nn.initializers.he_normal(),
    conv_general_dilated=_convolution.convolution,
  )


def normalize(images: types.Array, *, norm: str, train: bool, axis_name: str | None) -> types.Array:
  """Normalises activations; to be called inside a compact Linen method.

  Args:
    images: activations `[B, H, W, C]`.
    norm: 'batch' (batch statistics in training, running ones otherwise), 'group' (at most 32
      groups, each of at least 4 channels where C allows it) or 'none'.
    train: whether to use and record batch statistics.
    axis_name: mapped axis over which batch statistics are synchronised in training, or None.

  Returns:
    Activations `[B, H, W, C]`.

  Raises:
    ValueError: if `norm` is none of the three.

  References:
    Sergey Ioffe, Christian Szegedy: Batch Normalization, https://arxiv.org/abs/1502.03167
    Yuxin Wu, Kaiming He: Group Normalization, https://arxiv.org/abs/1803.08494
  """
  if norm == 'batch':
    layer = nn.BatchNorm(
      use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name
    )
    return layer(images)
  if norm == 'group':
    channels = images.shape[-1]
    groups = next((count for count in (32, 16, 8, 4, 2) if channels % (4 * count) == 0), 1)
    return nn.GroupNorm(groups, epsilon=1e-5)(images)
  if norm == 'none':
    return images
  raise errors.InputError(f'norm must be one of {NORMS}, got {norm!r}')


def conv_and_normalize(
  *, norm: str, train: bool, axis_name: str | None
) -> tuple[Callable[..., nn.Conv], Callable[[types.Array], types.Array]]:
  """`conv` and `normalize` for one model; convolutions have a bias if no normalisation follows."""
  return (
    functools.partial(conv, use_bias=norm == 'none'),
    functools.partial(normalize, norm=norm, train=train, axis_name=axis_name),
  )


def max_pool(images: types.Array, size: int = 2) -> types.Array:
  """Non-overlapping max pooling; its gradient is many times faster than `flax.linen.max_pool`'s.

  A remainder at the right and bottom is dropped, as with 'VALID' padding. An image smaller than the
  window is returned as it is. At ties the gradient is shared between the maxima.

  Args:
    images: `[B, H, W, C]`.
    size: side of the window in pixels.

  Returns:
    Pooled images `[B, H // size, W // size, C]`.

  Example:
    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(20.0).reshape(1, 4, 5, 1))[0, :, :, 0].tolist()
    [[6.0, 8.0], [16.0, 18.0]]
  """
  batch, height, width, channels = images.shape
  rows, columns = height // size, width // size
  if rows == 0 or columns == 0:
    return images
  images = images[:, : rows * size, : columns * size]
  return images.reshape(batch, rows, size, columns, size, channels).max((2, 4))


def global_average_pool(images: types.Array) -> types.Array:
  """The mean over all pixels, `[B, H, W, C] -> [B, C]`."""
  return images.mean((1, 2))


def classify(features: types.Array, num_classes: int) -> types.Outputs:
  """The final linear layer `head`; to be called inside a compact Linen method.

  Args:
    features: penultimate features `[B, D]`.
    num_classes: number of classes C.

  Returns:
    `logits [B, C]` and the given `features [B, D]`.
  """
  return types.Outputs(nn.Dense(num_classes, name='head')(features), features)


def scale_width(width: int, multiplier: float) -> int:
  """The number of channels `width * multiplier`, rounded, at least 1."""
  if not multiplier > 0:
    raise errors.InputError(f'width_multiplier must be positive, got {multiplier}')
  return max(1, round(width * multiplier))

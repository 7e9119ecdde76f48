"""Residual networks."""

from collections.abc import Callable, Sequence
import functools

import flax.linen as nn
import jax.numpy as jnp

from dalign_jax import errors, types
from dalign_jax.models import _layers

STEMS = ('cifar', 'imagenet')


class ResNet(nn.Module):
  """A residual network; the first block of every stage but the first halves the resolution.

  Deviation: none from the widespread PyTorch versions, whose numbers of parameters it has. In
  bottleneck blocks the 3x3 convolution is the strided one.

  Attributes:
    num_classes: number of classes C.
    stage_sizes: number of blocks in each stage.
    widths: channels of each stage (before expansion).
    bottleneck: blocks of 1x1, 3x3, 1x1 convolutions that expand the width by 4, not of two 3x3.
    shortcut: where the shape changes, 'projection' (1x1 convolution and norm, option B of the
      paper) or 'padding' (every other pixel, zero channels on both sides, option A).
    stem: 'cifar' (3x3 convolution) or 'imagenet' (7x7 with stride 2, then 3x3 max pooling with
      stride 2).
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales `widths` and the stem.
    remat: whether gradients in training keep only what enters each block, and compute the rest
      again.
    axis_name: mapped axis over which batch statistics are synchronised, or None.

  References:
    Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun: Deep Residual Learning for Image Recognition,
    https://arxiv.org/abs/1512.03385
  """

  num_classes: int
  stage_sizes: Sequence[int]
  widths: Sequence[int] = (64, 128, 256, 512)
  bottleneck: bool = False
  shortcut: str = 'projection'
  stem: str = 'cifar'
  norm: str = 'batch'
  width_multiplier: float = 1.0
  remat: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    if self.stem not in STEMS:
      raise errors.InputError(f'stem must be one of {STEMS}, got {self.stem!r}')
    if self.shortcut not in ('projection', 'padding'):
      raise errors.InputError(f"shortcut must be 'projection' or 'padding', got {self.shortcut!r}")
    conv, normalize = _layers.conv_and_normalize(
      norm=self.norm, train=train, axis_name=self.axis_name
    )
    widths = [_layers.scale_width(width, self.width_multiplier) for width in self.widths]
    size, strides = (7, 2) if self.stem == 'imagenet' else (3, 1)
    images = nn.relu(normalize(conv(widths[0], size, strides)(images)))
    if self.stem == 'imagenet':
      images = nn.max_pool(images, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for stage, (num_blocks, width) in enumerate(zip(self.stage_sizes, widths, strict=True)):
      for number in range(num_blocks):
        strides = 2 if stage > 0 and number == 0 else 1
        block = functools.partial(
          ResNet._block, width=width, strides=strides, conv=conv, normalize=normalize
        )
        images = (nn.remat(block) if self.remat and train else block)(self, images)
    return _layers.classify(_layers.global_average_pool(images), self.num_classes)

  def _block(
    self, images: types.Array, width: int, strides: int, conv: Callable, normalize: Callable
  ) -> types.Array:
    """One residual block of the given width and stride."""
    if self.bottleneck:
      outputs = nn.relu(normalize(conv(width, 1)(images)))
      outputs = nn.relu(normalize(conv(width, 3, strides)(outputs)))
      outputs = normalize(conv(4 * width, 1)(outputs))
    else:
      outputs = nn.relu(normalize(conv(width, 3, strides)(images)))
      outputs = normalize(conv(width, 3)(outputs))
    if outputs.shape != images.shape:
      if self.shortcut == 'projection':
        images = normalize(conv(outputs.shape[-1], 1, strides)(images))
      else:
        images = _pad_channels(images[:, ::strides, ::strides], outputs.shape[-1])
    return nn.relu(outputs + images)


class WideResNet(nn.Module):
  """A wide residual network: pre-activation blocks of two 3x3 convolutions in three stages.

  Deviation: no dropout.

  Attributes:
    num_classes: number of classes C.
    depth: number of layers, 6 n + 4 for n blocks a stage.
    widen_factor: channels of the three stages are 16, 32 and 64 times this.
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales all numbers of channels, also the 16 of the first convolution.
    remat: whether gradients in training keep only what enters each block, and compute the rest
      again.
    axis_name: mapped axis over which batch statistics are synchronised, or None.

  References:
    Sergey Zagoruyko, Nikos Komodakis: Wide Residual Networks, https://arxiv.org/abs/1605.07146
  """

  num_classes: int
  depth: int
  widen_factor: int
  norm: str = 'batch'
  width_multiplier: float = 1.0
  remat: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    if self.depth < 10 or self.depth % 6 != 4:
      raise errors.InputError(f'depth must be 6 n + 4 with n >= 1, got {self.depth}')
    conv, normalize = _layers.conv_and_normalize(
      norm=self.norm, train=train, axis_name=self.axis_name
    )
    images = conv(_layers.scale_width(16, self.width_multiplier), 3)(images)
    for stage in range(3):
      width = _layers.scale_width(16 * 2**stage * self.widen_factor, self.width_multiplier)
      for number in range((self.depth - 4) // 6):
        strides = 2 if stage > 0 and number == 0 else 1
        block = functools.partial(
          WideResNet._block, width=width, strides=strides, conv=conv, normalize=normalize
        )
        images = (nn.remat(block) if self.remat and train else block)(self, images)
    images = nn.relu(normalize(images))
    return _layers.classify(_layers.global_average_pool(images), self.num_classes)

  def _block(
    self, images: types.Array, width: int, strides: int, conv: Callable, normalize: Callable
  ) -> types.Array:
    """One pre-activation block of the given width and stride."""
    active = nn.relu(normalize(images))
    outputs = nn.relu(normalize(conv(width, 3, strides)(active)))
    outputs = conv(width, 3)(outputs)
    if outputs.shape != images.shape:
      images = conv(width, 1, strides)(active)
    return outputs + images


def _pad_channels(images: types.Array, channels: int) -> types.Array:
  """Zero channels on both sides, `[B, H, W, C] -> [B, H, W, channels]`."""
  missing = channels - images.shape[-1]
  return jnp.pad(images, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))

"""Vision transformers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dalign_jax import errors, types
from dalign_jax.models import _layers


class ViT(nn.Module):
  """A vision transformer: pre-norm blocks over image patches, then mean pooling or a class token.

  It has no batch statistics.

  Deviation: the mean over patches in place of a class token, unless `class_token`; no dropout; all
  linear layers start LeCun-normal.

  Attributes:
    num_classes: number of classes C.
    patch: side of a patch in pixels; None for 4 if the image's longer side is at most 64, else 16.
    width: number D of features of a patch.
    depth: number of blocks.
    num_heads: number of attention heads; divides `width`.
    class_token: whether a learned token goes before the patches, whose last state are the features.
    remat: whether gradients in training keep only what enters each block, and compute the rest
      again.
    axis_name: unused, there are no batch statistics to synchronise.

  References:
    Alexey Dosovitskiy and others: An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929
    Hugo Touvron and others: Training data-efficient image transformers (the size "tiny"),
    https://arxiv.org/abs/2012.12877
  """

  num_classes: int
  patch: int | None = None
  width: int = 192
  depth: int = 12
  num_heads: int = 3
  class_token: bool = False
  remat: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    batch, height, width, channels = images.shape
    patch = self.patch or (4 if max(height, width) <= 64 else 16)
    if height % patch or width % patch:
      raise errors.InputError(
        f'image sides must be multiples of {patch} pixels, got {height} x {width}'
      )
    rows, columns = height // patch, width // patch
    tokens = images.reshape(batch, rows, patch, columns, patch, channels).swapaxes(2, 3)
    tokens = tokens.reshape(batch, rows * columns, patch * patch * channels)
    tokens = nn.Dense(self.width, name='patch_embedding')(tokens)
    small = nn.initializers.normal(0.02)
    if self.class_token:
      first = self.param('class_token', small, (1, 1, self.width)).astype(tokens.dtype)
      tokens = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, self.width)), tokens], axis=1)
    tokens += self.param('position_embedding', small, (1, tokens.shape[1], self.width))
    block = nn.remat(_Block) if self.remat and train else _Block
    for number in range(self.depth):
      tokens = block(self.num_heads, name=f'_Block_{number}')(tokens)
    tokens = nn.LayerNorm(epsilon=1e-6)(tokens)
    features = tokens[:, 0] if self.class_token else tokens.mean(1)
    return _layers.classify(features, self.num_classes)


class _Block(nn.Module):
  """Self-attention and a multi-layer perceptron, each behind a norm and around it a shortcut."""

  num_heads: int

  @nn.compact
  def __call__(self, tokens: types.Array) -> types.Array:
    batch, length, width = tokens.shape
    if width % self.num_heads:
      raise errors.InputError(
        f'width must be a multiple of num_heads={self.num_heads}, got {width}'
      )
    heads = (batch, length, self.num_heads, width // self.num_heads)
    inputs = nn.LayerNorm(epsilon=1e-6)(tokens)
    query, key, value = (
      nn.Dense(width, name=name)(inputs).reshape(heads) for name in ('query', 'key', 'value')
    )
    attended = jax.nn.dot_product_attention(query, key, value).reshape(tokens.shape)
    tokens += nn.Dense(width, name='out')(attended)
    hidden = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm(epsilon=1e-6)(tokens)), approximate=False)
    return tokens + nn.Dense(width)(hidden)

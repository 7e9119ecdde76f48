"""Plain convolutional networks."""

from collections.abc import Sequence

import flax.linen as nn

from dalign_jax import types
from dalign_jax.models import _layers


class CNN(nn.Module):
  """A small network: blocks of convolution, norm, ReLU and pooling, then one hidden layer.

  Attributes:
    num_classes: number of classes C.
    widths: channels of each block.
    hidden: number D of penultimate features.
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales `widths` and `hidden`.
    axis_name: mapped axis over which batch statistics are synchronised, or None.
  """

  num_classes: int
  widths: Sequence[int] = (32, 64)
  hidden: int = 128
  norm: str = 'batch'
  width_multiplier: float = 1.0
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    conv, normalize = _layers.conv_and_normalize(
      norm=self.norm, train=train, axis_name=self.axis_name
    )
    for width in self.widths:
      images = conv(_layers.scale_width(width, self.width_multiplier), 3)(images)
      images = _layers.max_pool(nn.relu(normalize(images)))
    hidden = _layers.scale_width(self.hidden, self.width_multiplier)
    features = nn.relu(nn.Dense(hidden, name='hidden')(images.reshape(len(images), -1)))
    return _layers.classify(features, self.num_classes)


class AllCNN(nn.Module):
  """All-CNN-C: convolutions alone, with strided ones in place of pooling.

  Deviation: the last 1x1 convolution is a linear layer after the average pooling, which is the same
  without the ReLU that the paper has between the two; no dropout; a norm after each convolution
  unless `norm='none'`; the last 3x3 convolution is padded.

  Attributes:
    num_classes: number of classes C.
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales the number of channels.
    axis_name: mapped axis over which batch statistics are synchronised, or None.

  References:
    Jost Tobias Springenberg, Alexey Dosovitskiy, Thomas Brox, Martin Riedmiller: Striving for
    Simplicity: The All Convolutional Net, https://arxiv.org/abs/1412.6806
  """

  num_classes: int
  norm: str = 'batch'
  width_multiplier: float = 1.0
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    conv, normalize = _layers.conv_and_normalize(
      norm=self.norm, train=train, axis_name=self.axis_name
    )
    width_size_strides = (
      *((96, 3, 1), (96, 3, 1), (96, 3, 2)),
      *((192, 3, 1), (192, 3, 1), (192, 3, 2)),
      *((192, 3, 1), (192, 1, 1)),
    )
    for width, size, strides in width_size_strides:
      width = _layers.scale_width(width, self.width_multiplier)
      images = nn.relu(normalize(conv(width, size, strides)(images)))
    return _layers.classify(_layers.global_average_pool(images), self.num_classes)

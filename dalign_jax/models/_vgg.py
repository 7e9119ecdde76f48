"""VGG networks in the form that is usual for small images."""

from collections.abc import Sequence

import flax.linen as nn

from dalign_jax import types
from dalign_jax.models import _layers


class VGG(nn.Module):
  """Stages of 3x3 convolutions, each followed by pooling; then average pooling and the head.

  A pooling that would leave no pixel is skipped, so that images of any size work.

  Deviation: a norm after each convolution, and one linear layer in place of three.

  Attributes:
    num_classes: number of classes C.
    stage_sizes: number of convolutions in each stage.
    widths: channels of each stage.
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales `widths`.
    axis_name: mapped axis over which batch statistics are synchronised, or None.

  References:
    Karen Simonyan, Andrew Zisserman: Very Deep Convolutional Networks for Large-Scale Image
    Recognition, https://arxiv.org/abs/1409.1556
  """

  num_classes: int
  stage_sizes: Sequence[int]
  widths: Sequence[int] = (64, 128, 256, 512, 512)
  norm: str = 'batch'
  width_multiplier: float = 1.0
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    conv, normalize = _layers.conv_and_normalize(
      norm=self.norm, train=train, axis_name=self.axis_name
    )
    for num_layers, width in zip(self.stage_sizes, self.widths, strict=True):
      width = _layers.scale_width(width, self.width_multiplier)
      for _ in range(num_layers):
        images = nn.relu(normalize(conv(width, 3)(images)))
      images = _layers.max_pool(images)
    return _layers.classify(_layers.global_average_pool(images), self.num_classes)

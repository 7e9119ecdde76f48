"""A convolutional network that learns CIFAR-10 in minutes."""

from collections.abc import Sequence
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import types
from dalign_jax.models import _layers, _whitening

_LOGIT_SCALE = 1 / 9


class FastCNN(nn.Module):
  """Patch whitening, then blocks of two convolutions each, without residual connections.

  A block is convolution, 2x2 max pooling, batch normalisation without scale, GELU, and the same
  again without pooling. Features are the maxima over all pixels, divided by 9, on which the linear
  head works.

  The whitening kernel comes from the training set (`FastInit.prepare`). It is a constant in
  `batch_stats`, at `whitening`.

  Deviation: the published network pools 3x3 at the end, which is the same for 32x32 images; its
  head has no bias; its normalisation has epsilon 1e-12 and a running average of momentum 0.6; its
  GELU is exact, ours the usual tanh form.

  Attributes:
    num_classes: number of classes C.
    widths: channels of each block.
    width_multiplier: scales `widths`.
    axis_name: mapped axis over which batch statistics are synchronised, or None.

  References:
    Keller Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU.
    https://arxiv.org/abs/2404.00498
  """

  num_classes: int
  widths: Sequence[int] = (64, 256, 256)
  width_multiplier: float = 1.0
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: types.Array, *, train: bool) -> types.Outputs:
    """Normalised images `[B, H, W, C]` to logits and features."""
    activate = lambda x: nn.gelu(
      nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_scale=False,
        axis_name=self.axis_name,
      )(x)
    )
    images = nn.gelu(_whitening.Whitening(name='whitening')(images))
    for width in self.widths:
      width = _layers.scale_width(width, self.width_multiplier)
      images = activate(_layers.max_pool(_layers.conv(width, 3)(images)))
      images = activate(_layers.conv(width, 3)(images))
    return _layers.classify(_LOGIT_SCALE * images.max((1, 2)), self.num_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class FastInit:
  """Initialisation of `FastCNN`; see `dalign_jax.fresh` on `prepare`.

  The first channels of a convolution pass their input on (a partial identity), the others are
  uniform with the bound 1 / sqrt(fan in), as is the head. Without `prepare` the first layer is the
  whitening of white images.

  Attributes:
    shapes: `jax.eval_shape` of the module's `init`.
    mean: subtracted from images in [0, 1] before the network.
    std: images are divided by it after that.
  """

  shapes: types.PyTree
  mean: np.ndarray
  std: np.ndarray

  def __call__(self, key: jax.Array) -> types.ModelState:
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    draw = lambda path, leaf: jnp.asarray(_draw(generator, path[-1].key, leaf.shape))
    params = jax.tree_util.tree_map_with_path(draw, self.shapes['params'])
    stats = jax.tree_util.tree_map_with_path(_start, self.shapes['batch_stats'])
    return types.ModelState(params, stats)

  def prepare(self, model: types.ModelState, dataset: types.Dataset) -> types.ModelState:
    """The model with the whitening of the given training set."""
    kernel, mean = _whitening.kernel_and_mean(dataset.images, self.mean, self.std)
    whitening = {'kernel': jnp.asarray(kernel), 'mean': jnp.asarray(mean)}
    return model._replace(batch_stats={**model.batch_stats, 'whitening': whitening})


def _draw(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  if name == 'bias':
    return np.zeros(shape, np.float32)
  fan_in = int(np.prod(shape[:-1]))
  kernel = generator.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
  if len(shape) == 4:
    passed = min(shape[2:])
    kernel[..., :passed] = 0
    kernel[shape[0] // 2, shape[1] // 2, range(passed), range(passed)] = 1
  return kernel


def _start(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """Running statistics, and the whitening, before any data are seen."""
  if path[-1].key == 'kernel':
    return jnp.asarray(_whitening.unit_kernel(leaf.shape[2]))
  return jnp.full(leaf.shape, path[-1].key == 'var', jnp.float32)

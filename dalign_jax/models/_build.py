"""Models by name, and a model as the two plain functions that the rest of the library uses."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, types
from dalign_jax.models import _cnn, _fast_cnn, _initialization, _resnet, _vgg, _vit

_DEFAULTS = {'norm': 'batch', 'width_multiplier': 1.0, 'stem': 'cifar', 'remat': False}
_NORM_AND_WIDTH = ('norm', 'width_multiplier')
_AND_REMAT = (*_NORM_AND_WIDTH, 'remat')
_SMALL: dict[str, Any] = {
  'widths': (16, 32, 64),
  'shortcut': 'padding',
}  # the paper's networks for CIFAR
_PUBLISHED: dict[str, Any] = {'patch': 16, 'class_token': True}  # as pretrained weights are


def _factory(
  module: type[nn.Module], *, options: Sequence[str] = _NORM_AND_WIDTH, **fields
) -> Callable[..., nn.Module]:
  """A function that makes `module` with `fields` and those of the shared `options` it has."""

  def make(
    num_classes: int,
    *,
    norm: str = 'batch',
    width_multiplier: float = 1.0,
    stem: str = 'cifar',
    remat: bool = False,
    axis_name: str | None = None,
  ) -> nn.Module:
    given = {'norm': norm, 'width_multiplier': width_multiplier, 'stem': stem, 'remat': remat}
    for option, default in _DEFAULTS.items():
      if option not in options and given[option] != default:
        raise errors.InputError(
          f'this {module.__name__} has no option {option}: '
          f'it must stay {default!r}, got {given[option]!r}'
        )
    chosen = {option: given[option] for option in options}
    return module(num_classes=num_classes, axis_name=axis_name, **fields, **chosen)

  return make


MODELS: dict[str, Callable[..., nn.Module]] = {
  'cnn': _factory(_cnn.CNN),
  'allcnn': _factory(_cnn.AllCNN),
  'resnet8': _factory(_resnet.ResNet, options=_AND_REMAT, stage_sizes=(1, 1, 1), **_SMALL),
  'resnet20': _factory(_resnet.ResNet, options=_AND_REMAT, stage_sizes=(3, 3, 3), **_SMALL),
  'resnet18': _factory(_resnet.ResNet, options=tuple(_DEFAULTS), stage_sizes=(2, 2, 2, 2)),
  'resnet34': _factory(_resnet.ResNet, options=tuple(_DEFAULTS), stage_sizes=(3, 4, 6, 3)),
  'resnet50': _factory(
    _resnet.ResNet, options=tuple(_DEFAULTS), stage_sizes=(3, 4, 6, 3), bottleneck=True
  ),
  'wide_resnet16_4': _factory(_resnet.WideResNet, options=_AND_REMAT, depth=16, widen_factor=4),
  'wide_resnet28_10': _factory(_resnet.WideResNet, options=_AND_REMAT, depth=28, widen_factor=10),
  'vgg11': _factory(_vgg.VGG, stage_sizes=(1, 1, 2, 2, 2)),
  'vgg16': _factory(_vgg.VGG, stage_sizes=(2, 2, 3, 3, 3)),
  'vit_tiny': _factory(_vit.ViT, options=('remat',)),
  'vit_tiny16': _factory(_vit.ViT, options=('remat',), **_PUBLISHED),
  'vit_small16': _factory(_vit.ViT, options=('remat',), width=384, num_heads=6, **_PUBLISHED),
  'vit_base16': _factory(_vit.ViT, options=('remat',), width=768, num_heads=12, **_PUBLISHED),
  'fast_cnn': _factory(_fast_cnn.FastCNN, options=('width_multiplier',)),
  'fast_cnn_small': _factory(
    _fast_cnn.FastCNN, options=('width_multiplier',), widths=(32, 128, 192)
  ),
}


def build(
  name: str,
  *,
  num_classes: int,
  image_shape: Sequence[int],
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.25,
  norm: str = 'batch',
  width_multiplier: float = 1.0,
  stem: str = 'cifar',
  remat: bool = False,
  axis_name: str | None = 'devices',
) -> tuple[types.ApplyFn, Callable[[jax.Array], types.ModelState]]:
  """A model as two plain functions.

  Args:
    name: a key of `MODELS`.
    num_classes: number of classes.
    image_shape: `(H, W, C)`.
    mean: subtracted from images in [0, 1]; one number, or one a channel.
    std: images are divided by it after that; one number, or one a channel.
    norm: 'batch', 'group' or 'none'.
    width_multiplier: scales the numbers of channels.
    stem: of resnet18, resnet34 and resnet50: 'cifar' or 'imagenet'.
    remat: of residual networks and transformers: keep only what enters each block for the gradient
      and compute the rest of it again (`jax.checkpoint`), for less memory and more time.
    axis_name: mapped axis over which batch statistics are synchronised when training. It must be
      bound then, as by `jax.pmap(..., axis_name)`; None trains outside of any mapped axis.

  Returns:
    `apply_fn(state, images, *, train) -> (Outputs, batch_stats)`, see `dalign_jax.types.ApplyFn`,
    and `init_fn(key) -> ModelState`, which runs on the host and cannot be traced. Where a part of
    the initialisation is computed from the training images (`fast_cnn`), `init_fn` has a method
    `prepare(model, dataset)`; `dalign_jax.fresh.model` calls both.

  Raises:
    ValueError: for an unknown name, an option that the model does not have or a bad value.

  Example:
    >>> import jax
    >>> apply_fn, init_fn = build('cnn', num_classes=3, image_shape=(8, 8, 1))
    >>> state = init_fn(jax.random.key(0))
    >>> outputs, _ = apply_fn(state, jax.numpy.ones((2, 8, 8, 1)), train=False)
    >>> outputs.logits.shape, outputs.features.shape
    ((2, 3), (2, 128))
  """
  if name not in MODELS:
    raise errors.InputError(f'name must be one of {", ".join(sorted(MODELS))}, got {name!r}')
  image_shape = tuple(image_shape)
  if len(image_shape) != 3 or min(image_shape) < 1:
    raise errors.InputError(f'image_shape must be (H, W, C), all positive, got {image_shape}')
  model = MODELS[name](
    num_classes,
    norm=norm,
    width_multiplier=width_multiplier,
    stem=stem,
    remat=remat,
    axis_name=axis_name,
  )
  means = _per_channel('mean', mean, image_shape[-1])
  stds = _per_channel('std', std, image_shape[-1])
  if not (stds > 0).all():
    raise errors.InputError(f'std must be positive, got {stds.ravel().tolist()}')
  return _functions(model, image_shape, tuple(means.ravel()), tuple(stds.ravel()))


@functools.lru_cache(maxsize=64)
def _functions(model, image_shape, mean, std):
  """Equal networks are the same functions, which share their compiled programs."""
  means, stds = (np.float32(values).reshape(1, 1, 1, -1) for values in (mean, std))
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False), jax.random.key(0)
  )

  def apply_fn(state, images, *, train, key=None):
    del key  # none of the models draws
    if images.shape[1:] != image_shape or not jnp.issubdtype(images.dtype, jnp.floating):
      raise errors.InputError(
        f'images must be floating point [B, {", ".join(map(str, image_shape))}], '
        f'got {images.dtype} {list(images.shape)}'
      )
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    images = ((images.astype(jnp.float32) - means) / stds).astype(images.dtype)
    if not train:
      return model.apply(variables, images, train=False), state.batch_stats
    outputs, updated = model.apply(variables, images, train=True, mutable=['batch_stats'])
    return outputs, updated.get('batch_stats', {})

  if isinstance(model, _fast_cnn.FastCNN):
    return apply_fn, _fast_cnn.FastInit(shapes, means, stds)

  def init_fn(key):
    return _initialization.initialize(shapes, key)

  return apply_fn, init_fn


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> np.ndarray:
  """`value` as a float32 array `[1, 1, 1, 1]` or `[1, 1, 1, C]`."""
  array = np.asarray(value, np.float32)
  if array.shape not in ((), (channels,)) or not np.isfinite(array).all():
    raise errors.InputError(
      f'{name} must be a number or one for each of {channels} channels, got {value}'
    )
  return array.reshape(1, 1, 1, -1)

r"""The convolution that all models use: on a CPU, one that stays fast in training and in loops.

With XLA's own gradients a convolution is slow on a CPU: the weight gradient recomputes the
normalisation and activation before it, and inside `lax.scan`, `fori_loop` or `while_loop` it falls
off the fast path. `canonical_convolution` states both gradients as ordinary convolutions in the one
layout that has a fast kernel, and an optimisation barrier on its input ends the recomputation.

Time of an SGD step at batch 128, relative to `lax.conv_general_dilated` ("stock") in a plain jitted
step, for the step alone and inside a `lax.scan`; "barrier" is stock with the barrier alone. Tuned:
`XLA_FLAGS='--xla_disable_hlo_passes=cse_barrier_expander
--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE'`.

====================  =============  ===============  ===========  =============  ===============
model, compiler       step: barrier  step: canonical  scan: stock  scan: barrier  scan: canonical
====================  =============  ===============  ===========  =============  ===============
ResNet-8, tuned                0.75             0.73           24             26             0.67
ResNet-20, tuned               0.75             0.73            -              -             0.70
CNN 28x28x1, tuned             1.01             1.03           12             13             0.82
ResNet-8, default              1.03             0.99           29             39             0.91
ResNet-20, default             0.97             1.05            -              -             0.96
CNN 28x28x1, default           0.99             1.04            9             10             0.80
====================  =============  ===============  ===========  =============  ===============

(2 x86-64 cores under other, changing load, jax 0.10.2: ratios of medians over 6 to 24 interleaved
rounds, among which times differed by up to a factor of 2; stock and barrier in a scan: one round. A
"-" was not measured.) So `canonical_convolution` is within the noise of the best everywhere, and
it is the only form: used always on a CPU, never elsewhere.
"""

from collections.abc import Callable, Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp

from dalign_jax import errors, types

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_Pair = tuple[int, int]


def convolution(lhs: types.Array, rhs: types.Array, *args, **kwargs) -> jax.Array:
  """`canonical_convolution` on a CPU, `jax.lax.conv_general_dilated` on any other backend.

  The backend is JAX's default backend when the function is traced.

  Args:
    lhs: images `[B, H, W, C]`.
    rhs: kernel `[h, w, C, D]`.
    *args: as in `jax.lax.conv_general_dilated`.
    **kwargs: as in `jax.lax.conv_general_dilated`.

  Returns:
    The convolved images `[B, H', W', D]`.
  """
  on_cpu = jax.default_backend() == 'cpu'
  stock: Callable[..., jax.Array] = lax.conv_general_dilated
  function = canonical_convolution if on_cpu else stock
  return function(lhs, rhs, *args, **kwargs)


def canonical_convolution(
  lhs: types.Array,
  rhs: types.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[_Pair],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = None,
  feature_group_count: int = 1,
  precision: lax.PrecisionLike = None,
) -> jax.Array:
  r"""A 2-D convolution whose gradients are themselves such convolutions.

  With strides s, padding p, image dilation a and kernel dilation b (T swaps the batch or output
  axis with the channel axis, R reverses the kernel's spatial axes):

  .. math::
    y = c(x, w; s, p, a, b), \quad
    \bar x = c(\bar y, T R w; a, p', s, b), \quad
    \bar w = T c(T x, T \bar y; b, p'', a, s)

  so that gradients of any order take the same path. It works under jit, vmap, pmap, loops and
  repeated reverse differentiation, but not in forward mode (`jax.jvp`, `jax.linearize`): for that
  use `jax.lax.conv_general_dilated`. Pass it to `flax.linen.Conv` as `conv_general_dilated`.

  Args:
    lhs: images `[B, H, W, C]`.
    rhs: kernel `[h, w, C, D]`.
    window_strides: two strides in pixels.
    padding: 'SAME', 'VALID' or two pairs (before, after) in pixels.
    lhs_dilation: dilation of the images, None for none.
    rhs_dilation: dilation of the kernel, None for none.
    dimension_numbers: None or those of the layouts above.
    feature_group_count: must be 1.
    precision: as in `jax.lax.conv_general_dilated`.

  Returns:
    The convolved images `[B, H', W', D]`.

  Raises:
    ValueError: for grouped or not two-dimensional convolutions, another layout, or `padding` in a
      word together with `lhs_dilation`.

  Example:
    >>> import jax.numpy as jnp
    >>> images, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    >>> canonical_convolution(images, kernel, (1, 1), 'SAME').shape
    (1, 4, 4, 5)
  """
  _check(lhs, rhs, dimension_numbers, feature_group_count)
  lhs_dilation, rhs_dilation = tuple(lhs_dilation or (1, 1)), tuple(rhs_dilation or (1, 1))
  strides = tuple(window_strides)
  if isinstance(padding, str):
    if lhs_dilation != (1, 1):
      raise errors.InputError(
        f'padding must be two pairs where lhs_dilation is given, got {padding!r}'
      )
    window = _dilated(rhs.shape[:2], rhs_dilation)
    padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
  padding = tuple((int(low), int(high)) for low, high in padding)
  lhs = lax.optimization_barrier(lhs)
  return _convolve(lhs, rhs, strides, padding, lhs_dilation, rhs_dilation, precision)


def _check(lhs, rhs, dimension_numbers, feature_group_count):
  """Raises if the convolution is none that `canonical_convolution` can do."""
  if lhs.ndim != 4 or rhs.ndim != 4:
    raise errors.InputError(
      'lhs and rhs must be [B, H, W, C] and [h, w, C, D], '
      f'got shapes {list(lhs.shape)} and {list(rhs.shape)}'
    )
  if feature_group_count != 1:
    raise errors.InputError(
      f'feature_group_count must be 1, got {feature_group_count}; '
      'use jax.lax.conv_general_dilated for grouped convolutions'
    )
  layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
  if dimension_numbers is not None and layout != lax.conv_dimension_numbers(
    lhs.shape, rhs.shape, dimension_numbers
  ):
    raise errors.InputError(
      f'dimension_numbers must be those of {_LAYOUT}, got {dimension_numbers}'
    )


def _dilated(shape: Sequence[int], dilation: Sequence[int]) -> _Pair:
  """The spatial shape after dilation."""
  height, width = ((size - 1) * step + 1 for size, step in zip(shape, dilation, strict=True))
  return height, width


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5, 6))
def _convolve(images, kernel, strides, padding, image_dilation, kernel_dilation, precision):
  return lax.conv_general_dilated(
    images,
    kernel,
    strides,
    padding,
    image_dilation,
    kernel_dilation,
    dimension_numbers=_LAYOUT,
    precision=precision,
  )


def _forward(images, kernel, *args):
  return _convolve(images, kernel, *args), (images, kernel)


def _backward(strides, padding, image_dilation, kernel_dilation, precision, residuals, gradient):
  images, kernel = residuals
  image_sizes = _dilated(images.shape[1:3], image_dilation)
  kernel_sizes = _dilated(kernel.shape[:2], kernel_dilation)
  gradient_sizes = _dilated(gradient.shape[1:3], strides)
  sizes = list(zip(image_sizes, kernel_sizes, gradient_sizes, padding, strict=True))
  image_padding = tuple((k - 1 - low, n + low - g) for n, k, g, (low, _) in sizes)
  kernel_padding = tuple((low, k - 1 + g - n - low) for n, k, g, (low, _) in sizes)
  image_gradient = _convolve(
    gradient,
    jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
    image_dilation,
    image_padding,
    strides,
    kernel_dilation,
    precision,
  )
  kernel_gradient = _convolve(
    images.transpose(3, 1, 2, 0),
    gradient.transpose(1, 2, 0, 3),
    kernel_dilation,
    kernel_padding,
    image_dilation,
    strides,
    precision,
  )
  return image_gradient, kernel_gradient.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)

"""Networks for quick looks, as `--model=experiments.networks:mlp`: smaller than any of the library.

A function of this form is all that a network of one's own needs (docs/deletion_own.md has one of
Flax layers).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import types

_WIDTHS = (64, 32)  # of the hidden layers


def mlp(*, num_classes: int, image_shape: tuple[int, ...]):
  """Two hidden layers of ReLUs without normalisation; compiles in a second, where a CNN takes many.

  Args:
    num_classes: number of logits.
    image_shape: of an image, `(H, W, C)`.

  Returns:
    `(apply_fn, init_fn)`.
  """
  return _apply, functools.partial(_init, num_classes, int(np.prod(image_shape)))


def _apply(state, images, *, train):
  del train
  x = images.reshape(len(images), -1)
  for name in ('hidden_0', 'hidden_1'):
    x = jax.nn.relu(_dense(state.params[name], x))
  return types.Outputs(_dense(state.params['head'], x), x), state.batch_stats


def _dense(layer, x):
  return x @ layer['kernel'] + layer['bias'][None]


def _init(num_classes, num_inputs, key):
  sizes = [num_inputs, *_WIDTHS, num_classes]
  names = ('hidden_0', 'hidden_1', 'head')
  params = {}
  for name, n, m, k in zip(names, sizes[:-1], sizes[1:], jax.random.split(key, 3), strict=True):
    kernel = (2 / n) ** 0.5 * jax.random.normal(k, (n, m))
    params[name] = {'kernel': kernel, 'bias': jnp.zeros(m)}
  return types.ModelState(params, {})

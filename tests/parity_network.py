"""The tiny network on which authors' released code was run, and the stored numbers.

`tests/parity/methods.npz` keeps weights as one vector: what the authors' step added to the
network's, which is more exact in float32 than the sum is.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import types

_SHAPES = (
  (('conv', 'kernel'), (3, 3, 1, 6)),
  (('conv', 'bias'), (6,)),
  (('hidden', 'kernel'), (96, 16)),
  (('hidden', 'bias'), (16,)),
  (('head', 'kernel'), (16, 4)),
  (('head', 'bias'), (4,)),
)


@functools.cache
def stored() -> dict[str, np.ndarray]:
  """All stored arrays, by `file__name`."""
  with np.load(pathlib.Path(__file__).parent / 'parity' / 'methods.npz') as arrays:
    return dict(arrays)


def tree(vector) -> dict:
  """A stored vector as parameters."""
  result, start = {}, 0
  for (layer, name), shape in _SHAPES:
    size = int(np.prod(shape))
    result.setdefault(layer, {})[name] = np.reshape(vector[start : start + size], shape)
    start += size
  return result


def vector(params) -> np.ndarray:
  """Parameters as a stored vector, in float64."""
  leaves = [np.ravel(params[layer][name]) for (layer, name), _ in _SHAPES]
  return np.concatenate(leaves).astype(np.float64)


def mask(name) -> np.ndarray:
  """A stored mask over all weights, as a vector of booleans."""
  return np.unpackbits(stored()[name])[: len(stored()['network__weights'])].astype(bool)


def apply_fn(state, images, *, train):
  """A convolution, average pooling, a hidden layer and the head; nothing depends on `train`."""
  del train
  params = state.params
  layout = ('NHWC', 'HWIO', 'NHWC')
  x = jax.lax.conv_general_dilated(
    images, params['conv']['kernel'], (1, 1), 'SAME', dimension_numbers=layout
  )
  x = jnp.tanh(x + params['conv']['bias'][None, None, None])
  x = x.reshape(len(x), 4, 2, 4, 2, 6).mean((2, 4)).reshape(len(x), 96)
  features = jnp.tanh(x @ params['hidden']['kernel'] + params['hidden']['bias'][None])
  head = params['head']
  logits = features @ head['kernel'] + head['bias'][None]
  return types.Outputs(logits, features), state.batch_stats


def state(change=None) -> types.ModelState:
  """The network, or the network with a stored change of its weights."""
  weights = stored()['network__weights'].astype(np.float64)
  weights = weights if change is None else weights + stored()[change]
  return types.ModelState(tree(weights.astype(np.float32)), {})


def dataset(name) -> types.Dataset:
  """The stored set: 'retain', 'forget' or 'test'."""
  images, labels = (stored()[f'network__{name}_{field}'] for field in ('images', 'labels'))
  ids = np.array([f'{name}_{i}' for i in range(len(labels))])
  return types.Dataset(images, labels.astype(np.int32), ids)


def problem(*, forgets_class: bool = False) -> types.Problem:
  """The stored random request, or the request to forget class 2."""
  retain, forget = dataset('retain'), dataset('forget')
  if forgets_class:
    both = types.concatenate(retain, forget)
    forget, retain = (
      both.take(stored()[f'network__class2_{name}_rows'].astype(int))
      for name in ('forget', 'retain')
    )
  return types.Problem(
    apply_fn=apply_fn,
    init_fn=lambda key: state(),
    original=state(),
    retain=retain,
    forget=forget,
    validation=dataset('test'),
    num_classes=4,
    devices=tuple(jax.devices()[:1]),
  )


def relative_gap(params, change) -> float:
  """|our update - the authors' update| / |the authors' update|, over all weights."""
  ours, theirs = vector(params) - vector(state().params), stored()[change].astype(np.float64)
  return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))

"""A problem small enough for every test: scikit-learn's digits and a two-layer network.

The network is a plain function with batch normalisation written out, so it also shows that methods
need nothing of Flax.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from dalign_jax import parallel, types

CLASSES = 10
HIDDEN = 24


def dataset() -> types.Dataset:
  images, labels = datasets.load_digits(return_X_y=True)
  images = (images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
  ids = np.array([f'digit_{i:04d}' for i in range(len(labels))])
  return types.Dataset(images, labels.astype(np.int32), ids)


def init_fn(key) -> types.ModelState:
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  dense = lambda n, m: {
    'kernel': rng.normal(0, (2 / n) ** 0.5, (n, m)).astype(np.float32),
    'bias': np.zeros(m, np.float32),
  }
  params = {'hidden': dense(64, HIDDEN), 'head': dense(HIDDEN, CLASSES)}
  return types.ModelState(
    params, {'mean': np.zeros(HIDDEN, np.float32), 'var': np.ones(HIDDEN, np.float32)}
  )


def apply_fn(state, images, *, train):
  x = images.reshape(len(images), -1)
  x = x @ state.params['hidden']['kernel'] + state.params['hidden']['bias'][None]
  stats = state.batch_stats
  if train:
    mean, square = jax.lax.pmean((x.mean(0), (x**2).mean(0)), parallel.AXIS)
    now = {'mean': mean, 'var': square - mean**2}
    stats = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, stats, now)
  else:
    now = stats
  features = jax.nn.relu((x - now['mean'][None]) * jax.lax.rsqrt(now['var'][None] + 1e-5))
  head = state.params['head']
  return types.Outputs(features @ head['kernel'] + head['bias'][None], features), stats


def apply_without_batch_norm(state, images, *, train):
  del train
  x = images.reshape(len(images), -1)
  x = x @ state.params['hidden']['kernel'] + state.params['hidden']['bias'][None]
  features = jnp.tanh(x)
  head = state.params['head']
  outputs = types.Outputs(features @ head['kernel'] + head['bias'][None], features)
  return outputs, state.batch_stats


def made_up(made: types.Problem) -> dict:
  """What only controls and matching read: a gold and models of subsets that nobody trained."""
  rng = np.random.default_rng(0)
  sizes = [len(data) for data in (made.retain, made.forget, made.validation)]
  logits = lambda *shape: rng.normal(size=(*shape, made.num_classes)).astype(np.float32)
  is_trained = rng.permuted(np.tile([[False], [True], [True]], (4, sum(sizes[:2]))), axis=0)
  return {
    'gold_logits': {'retain': logits(sizes[0]), 'forget': logits(sizes[1])},
    'subset_outputs': types.SubsetOutputs(is_trained, logits(12, sum(sizes))),
  }


def problem(original=None, **changes) -> types.Problem:
  """Class 3 is to be forgotten."""
  data = dataset()
  held_out = np.arange(len(data)) % 5 == 0
  is_forget = (data.labels == 3) & ~held_out
  fields = {
    'apply_fn': apply_fn,
    'init_fn': init_fn,
    'original': original or init_fn(jax.random.key(0)),
    'retain': data.take(np.flatnonzero(~is_forget & ~held_out)),
    'forget': data.take(np.flatnonzero(is_forget)),
    'validation': data.take(np.flatnonzero(held_out)),
    'num_classes': CLASSES,
    'recipe': types.Recipe(num_epochs=3, batch_size=64),
    'devices': tuple(jax.devices()[:1]),
  }
  return types.Problem(**{**fields, **changes})

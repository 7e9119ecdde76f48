"""A problem where gold's answers are known beforehand: some images carry a wrong label.

Such an image can be memorised, but no model that has not seen it gives it its label.
"""

import dataclasses

import jax
import numpy as np

from dalign_jax import training, types
from tests import tiny

RECIPE = types.Recipe(num_epochs=30, batch_size=32, learning_rate=0.3, weight_decay=0.0)


def problem(share: float = 0.3) -> tuple[types.Problem, np.ndarray]:
  """A tenth of the images to forget, and which of these have their own label."""
  data = tiny.dataset().take(np.arange(900))
  rng = np.random.default_rng(0)
  is_wrong = rng.random(len(data)) < share
  shift = np.where(is_wrong, rng.integers(1, tiny.CLASSES, len(data)), 0)
  labels = ((data.labels + shift) % tiny.CLASSES).astype(np.int32)
  data = dataclasses.replace(data, labels=labels)
  order = rng.permutation(len(data))
  parts = {'forget': order[:120], 'validation': order[120:400], 'retain': order[400:]}
  sets = {name: data.take(rows) for name, rows in parts.items()}
  made = tiny.problem(**sets, recipe=RECIPE, init_fn=_init, original=_init(jax.random.key(0)))
  original = fit(made, types.concatenate(made.retain, made.forget))
  return dataclasses.replace(made, original=original), ~is_wrong[parts['forget']]


def told(made: types.Problem, known: np.ndarray) -> types.Problem:
  """The problem with a gold that gets the forget examples of a mask right, and no others."""
  answers = (made.forget.labels + ~known) % tiny.CLASSES
  return dataclasses.replace(made, gold_logits={'forget': np.eye(tiny.CLASSES)[answers]})


def fit(made: types.Problem, dataset: types.Dataset) -> types.ModelState:
  """A network trained by the recipe."""
  return training.fit(
    made.apply_fn,
    _init(jax.random.key(3)),
    dataset,
    made.recipe,
    jax.random.key(4),
    devices=made.devices,
  )


def _init(key) -> types.ModelState:
  """Eight times as wide as the tiny network: it can memorise."""
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  width = 8 * tiny.HIDDEN
  dense = lambda n, m: {
    'kernel': rng.normal(0, (2 / n) ** 0.5, (n, m)).astype(np.float32),
    'bias': np.zeros(m, np.float32),
  }
  params = {'hidden': dense(64, width), 'head': dense(width, tiny.CLASSES)}
  return types.ModelState(
    params, {'mean': np.zeros(width, np.float32), 'var': np.ones(width, np.float32)}
  )

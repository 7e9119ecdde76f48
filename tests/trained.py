"""A small network that knows some digits: the original of deletion requests on one's own model."""

import functools

import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import models, training, types

BUILD = {'num_classes': 10, 'image_shape': (8, 8, 1), 'width_multiplier': 0.125}


def digits(rows: slice) -> types.Dataset:
  """Some of the embedded digits."""
  source = data_lib.load('digits').dataset
  return source.take(np.arange(len(source))[rows])


@functools.cache
def model(rows: int, num_epochs: int = 12) -> types.ModelState:
  """The library's `cnn`, trained on the first digits."""
  apply_fn, init_fn = models.build('cnn', **BUILD)
  recipe = types.Recipe(num_epochs=num_epochs, batch_size=20, learning_rate=0.1)
  state = init_fn(jax.random.key(0))
  fitted = training.fit(
    apply_fn, state, digits(slice(rows)), recipe, jax.random.key(1), devices=jax.devices()[:1]
  )
  return jax.tree.map(np.asarray, fitted)

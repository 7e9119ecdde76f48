"""Fresh models for a training set: the start of original, gold and every retraining."""

from collections.abc import Callable

import jax

from dalign_jax import types


def model(
  init_fn: Callable[[jax.Array], types.ModelState], key: jax.Array, dataset: types.Dataset
) -> types.ModelState:
  """A fresh model for a training set.

  Some networks compute a part of their initialisation from the training images: `models.FastCNN`
  does for its whitening layer. The `init_fn` of such a network has a method
  `prepare(model, dataset) -> ModelState`, which is called here. Whoever trains a model from scratch
  starts from this function, with the set that it trains on: so a gold model has seen nothing of the
  forget set, neither in training nor before.

  Args:
    init_fn: `key -> ModelState`, perhaps with a method `prepare`.
    key: random key.
    dataset: what the model will be trained on.

  Returns:
    The model state.

  Example:
    >>> import jax, numpy as np
    >>> from dalign_jax import models
    >>> _, init_fn = models.build('fast_cnn_small', num_classes=2, image_shape=(8, 8, 1))
    >>> images = np.arange(192, dtype=np.uint8).reshape(3, 8, 8, 1)
    >>> dataset = types.Dataset(images, np.zeros(3, np.int32), np.array(['a', 'b', 'c']))
    >>> prepared = model(init_fn, jax.random.key(0), dataset)
    >>> prepared.batch_stats['whitening']['kernel'].shape
    (2, 2, 1, 8)
  """
  drawn = init_fn(key)
  prepare = getattr(init_fn, 'prepare', None)
  return prepare(drawn, dataset) if prepare else drawn

"""Mean features of each class, streamed over a set."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import prediction, training, types


class ClassMeans(NamedTuple):
  """Statistics of a set's features, in float64.

  Attributes:
    counts: examples of each class, `[C]`.
    features: mean features of each class, `[C, D]`; 0 for a class without examples.
    directions: means of the features divided by their lengths, `[C, D]`.
    length: mean length of the features of all examples.
  """

  counts: np.ndarray
  features: np.ndarray
  directions: np.ndarray
  length: float


def measure(problem: types.Problem, dataset: types.Dataset) -> ClassMeans:
  """Class means of a set under the original, in evaluation mode."""
  fields = {'images': dataset.images, 'labels': dataset.labels}
  sums = prediction.sum_examples(
    _Sums(problem.apply_fn, problem.num_classes), problem.original, fields, devices=problem.devices
  )
  counts, features, directions, lengths = (np.asarray(x, np.float64) for x in sums)
  each = np.maximum(counts, 1)[:, None]
  return ClassMeans(counts, features / each, directions / each, float(lengths / counts.sum()))


@dataclasses.dataclass(frozen=True)
class _Sums:
  """Counts, sums of features and of their directions by class, and the sum of their lengths."""

  apply_fn: types.ApplyFn
  num_classes: int

  def __call__(self, model, batch, weights):
    images = training.to_float(batch['images'])
    features = self.apply_fn(model, images, train=False)[0].features
    lengths = jnp.linalg.norm(features, axis=1)
    of_class = jax.nn.one_hot(batch['labels'], self.num_classes) * weights[:, None]
    unit = features / jnp.maximum(lengths, 1e-12)[:, None]
    summed = lambda rows: jnp.matmul(of_class.T, rows, precision=jax.lax.Precision.HIGHEST)
    return of_class.sum(axis=0), summed(features), summed(unit), jnp.sum(weights * lengths)

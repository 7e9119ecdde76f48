"""Gaps between recovery curves and gold's, and classification by prototypes."""

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks


def recovery_area(accuracies: np.ndarray, gold: np.ndarray) -> float:
  r"""Area between a model's recovery curve and gold's.

  .. math:: \frac1B \sum_b |acc(m, b) - acc(gold, b)|

  Args:
    accuracies: `[B]` forget accuracies of the model after recovery with each budget, in [0, 1].
    gold: `[B]` those of gold.

  Returns:
    The mean distance, in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or accuracies outside [0, 1].

  Example:
    >>> recovery_area(np.array([0.0, 0.9]), np.array([0.0, 0.4]))
    0.25
  """
  return _area('accuracies', accuracies, gold)


def recovery_gap(
  accuracies: np.ndarray, gold: np.ndarray, second_gold: np.ndarray, *, resolution: float = 0.0
) -> float:
  r"""Area between a model's recovery curve and gold's, in noise floors.

  .. math:: \frac{A(m, gold)}{\max\{A(gold', gold), \rho\}}, \quad
    A = \frac1B \sum_b |acc(m, b) - acc(gold, b)|

  Args:
    accuracies: `[B]` forget accuracies of the model after recovery with each budget, in [0, 1].
    gold: `[B]` those of gold.
    second_gold: `[B]` those of the second gold.
    resolution: the smallest floor :math:`\rho`, such as the accuracy of a single image.

  Returns:
    The gap; 1 is as far as two golds are apart. Infinite where the two golds have equal curves and
    the model another one, 0 where all three are equal.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or accuracies outside [0, 1].

  Example:
    >>> round(recovery_gap(np.array([0.0, 0.9]), np.array([0.0, 0.2]), np.array([0.1, 0.2])), 6)
    7.0
  """
  if not 0 <= resolution <= 1:
    raise errors.InputError(f'resolution must be in [0, 1], got {resolution}')
  gap = _area('accuracies', accuracies, gold)
  floor = max(_area('second_gold', second_gold, gold), resolution)
  if floor == 0:
    return np.inf if gap else 0.0
  return gap / floor


def _area(name, curve, gold):
  curves = {'gold': gold, name: curve}
  curves = {key: _checks.as_array(key, values, ('B',)) for key, values in curves.items()}
  _checks.same_shape('gold', curves['gold'], name, curves[name])
  for key, values in curves.items():
    if values.min() < 0 or values.max() > 1:
      raise errors.InputError(f'{key} must be in [0, 1], got {values.min()} to {values.max()}')
  return float(np.mean(np.abs(curves[name] - curves['gold'])))


def class_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Mean feature of each class.

  Args:
    features: `[N, D]`.
    labels: `[N]` class indices.
    num_classes: number of classes C.

  Returns:
    `[C, D]` prototypes, NaN for a class without examples.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> class_means(np.array([[0.0], [2.0], [5.0]]), np.array([0, 0, 1]), 2)
    array([[1.],
           [5.]])
  """
  features = _checks.as_array('features', features, ('N', 'D'))
  labels = _checks.as_labels('labels', labels, len(features), num_classes)
  counts = np.bincount(labels, minlength=num_classes)
  sums = np.zeros((num_classes, features.shape[1]))
  np.add.at(sums, labels, features)
  means = np.full_like(sums, np.nan)
  return np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)


def nearest_prototype(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
  r"""Class of the nearest prototype by Euclidean distance.

  .. math:: \arg\min_c \| f - w_c \|_2

  Args:
    features: `[N, D]`.
    prototypes: `[C, D]`; a class whose row is NaN is never chosen.

  Returns:
    `[N]` class indices; ties are broken by the lower index.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or no prototype at all.

  Example:
    >>> nearest_prototype(np.array([[0.9], [4.0]]), np.array([[0.0], [np.nan], [5.0]]))
    array([0, 2])

  References:
    SeungBum Ha, Saerom Park, Sung Whan Yoon, "Unlearning's Blind Spots: Over-Unlearning and
    Prototypical Relearning Attack", https://arxiv.org/abs/2506.01318.

  Deviation: a nearest-mean classifier over all classes, in place of one new column of the head.
  """
  features = _checks.as_array('features', features, ('N', 'D'))
  prototypes = np.asarray(prototypes, np.float64)
  if prototypes.ndim != 2 or prototypes.shape[1] != features.shape[1]:
    raise errors.InputError(
      f'prototypes must have shape [C, {features.shape[1]}], got {list(prototypes.shape)}'
    )
  there = np.flatnonzero(np.isfinite(prototypes).all(1))
  if not len(there):
    raise errors.InputError('prototypes must have a finite row, got none')
  known = prototypes[there]
  scores = features @ known.T - np.sum(known**2, 1) / 2  # largest where the distance is smallest
  return there[scores.argmax(1)]

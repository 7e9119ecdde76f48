"""Difficulty as an axis: strata of a forget set by a score of each example."""

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks

STRATA = ('low', 'middle', 'high')
_BLOCK = 256  # rows whose distances are in memory at a time


def strata(scores: np.ndarray, which: str) -> np.ndarray:
  """The examples in one third of a score: memorisation, entanglement or influence.

  Args:
    scores: `[N]` a score of each example, N >= 3.
    which: 'low', 'middle' or 'high'.

  Returns:
    Ascending indices of the third. The thirds are disjoint and cover all examples; their sizes
    differ by one at most. Ties go to the lower third by the lower index.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or another name.

  Example:
    >>> scores = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    >>> strata(scores, 'low'), strata(scores, 'high')
    (array([1, 3]), array([0, 4]))

  References:
    Kairan Zhao, Meghdad Kurmanji, George-Octavian Barbulescu, Eleni Triantafillou, Peter
    Triantafillou, "What Makes Unlearning Hard and What to Do About It",
    https://arxiv.org/abs/2406.01257.
  """
  scores = _checks.as_array('scores', scores, ('N',))
  _checks.at_least('number of scores', len(scores), 3)
  if which not in STRATA:
    raise errors.InputError(f'which must be one of {", ".join(STRATA)}, got {which!r}')
  thirds = np.array_split(np.argsort(scores, kind='stable'), 3)
  return np.sort(thirds[STRATA.index(which)])


def entanglement_distances(
  forget_features: np.ndarray,
  forget_labels: np.ndarray,
  retain_features: np.ndarray,
  retain_labels: np.ndarray,
) -> np.ndarray:
  r"""Mean distance of each forget example to the retain examples of its class, in feature space.

  .. math:: d(i) = \frac{1}{|R_{y_i}|} \sum_{j \in R_{y_i}} \| f_i - f_j \|_2

  Args:
    forget_features: `[N, D]` penultimate features of the original.
    forget_labels: `[N]` class indices.
    retain_features: `[M, D]`.
    retain_labels: `[M]`.

  Returns:
    `[N]` distances; the smallest are the most entangled (`strata(distances, 'low')`).

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or a forget class without
      retain examples.

  Example:
    >>> retain = np.array([[0.0], [2.0], [9.0]])
    >>> entanglement_distances(np.array([[1.0]]), np.array([0]), retain, np.array([0, 0, 1]))
    array([1.])

  Deviation: distances of single examples, in place of the entanglement of a whole forget set.
  """
  forget = _checks.as_array('forget_features', forget_features, ('N', 'D'))
  retain = _checks.as_array('retain_features', retain_features, ('M', 'D'))
  _checks.same_columns('forget_features', forget, 'retain_features', retain)
  forget_labels = _checks.as_labels('forget_labels', forget_labels, len(forget))
  retain_labels = _checks.as_labels('retain_labels', retain_labels, len(retain))
  missing = np.setdiff1d(forget_labels, retain_labels)
  if len(missing):
    raise errors.InputError(
      f'retain_labels must hold every class of forget_labels, got none of {missing.tolist()}'
    )
  distances = np.empty(len(forget))
  for label in np.unique(forget_labels):
    same, rows = retain[retain_labels == label], np.flatnonzero(forget_labels == label)
    for some in np.array_split(rows, -(-len(rows) // _BLOCK)):
      distances[some] = _distances(forget[some], same).mean(axis=1)
  return distances


def _distances(first, second) -> np.ndarray:
  """Euclidean distances `[N, M]`, as a product of matrices."""
  squares = [np.sum(x**2, axis=1) for x in (first, second)]
  found = squares[0][:, None] + squares[1] - 2 * first @ second.T
  return np.sqrt(np.maximum(found, 0))

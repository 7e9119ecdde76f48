"""Probes of features: a new linear head, and clusters."""

from collections.abc import Sequence
from typing import NamedTuple
import warnings

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks


class ProbeResult(NamedTuple):
  """Test `accuracy` of a linear probe, and that on the forget classes (NaN if none are named)."""

  accuracy: float
  forget_accuracy: float


class ClusteringScores(NamedTuple):
  """Normalised mutual information `nmi` and pair `f1` of clusters and labels, in [0, 1]."""

  nmi: float
  f1: float


def linear_probe(
  train_features: np.ndarray,
  train_labels: np.ndarray,
  test_features: np.ndarray,
  test_labels: np.ndarray,
  *,
  forget_classes: Sequence[int] | None = None,
) -> ProbeResult:
  """Test accuracy of a new linear head on frozen features, for comparison with gold's.

  The head is a multinomial logistic regression (L2, C = 1) on features standardised by the
  training set; it has no randomness.

  Args:
    train_features: `[N, D]` features of forget and retain training examples.
    train_labels: `[N]` class indices.
    test_features: `[M, D]` features under the same model.
    test_labels: `[M]` class indices.
    forget_classes: classes whose test examples make up `forget_accuracy`.

  Returns:
    Accuracy over all test examples, and over those of the forget classes.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, training labels of one class,
      or forget classes without a test example.

  Example:
    >>> features, labels = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
    >>> linear_probe(features, labels, np.array([[0.5], [1.0]]), np.array([0, 1]))
    ProbeResult(accuracy=0.5, forget_accuracy=nan)

  References:
    Seonguk Seo, Dongwan Kim, Bohyung Han, "Revisiting Machine Unlearning with Dimensional
    Alignment", https://arxiv.org/abs/2407.17710.
  """
  correct = probe_correct(train_features, train_labels, test_features, test_labels)
  test_labels = np.asarray(test_labels)
  if forget_classes is None:
    return ProbeResult(float(correct.mean()), float('nan'))
  of_forget = np.isin(test_labels, forget_classes)
  if not of_forget.any():
    raise errors.InputError(
      f'forget_classes must have examples in test_labels, got {list(forget_classes)}'
    )
  return ProbeResult(float(correct.mean()), float(correct[of_forget].mean()))


def probe_correct(
  train_features: np.ndarray,
  train_labels: np.ndarray,
  test_features: np.ndarray,
  test_labels: np.ndarray,
) -> np.ndarray:
  """Which test examples the head of `linear_probe` gets right, for shares of groups.

  Args:
    train_features: `[N, D]` frozen features that the head is fitted to.
    train_labels: `[N]` class indices.
    test_features: `[M, D]`.
    test_labels: `[M]`.

  Returns:
    bool `[M]`.

  Raises:
    ValueError: as `linear_probe`.

  Example:
    >>> features, labels = np.array([[0.0], [1.0]]), np.array([0, 1])
    >>> probe_correct(features, labels, np.array([[-1.0], [3.0]]), np.array([0, 0]))
    array([ True, False])
  """
  from sklearn import linear_model, preprocessing  # heavy: imported where it is used

  train, train_labels = _check('train_', train_features, train_labels)
  test, test_labels = _check('test_', test_features, test_labels)
  _checks.same_columns('train_features', train, 'test_features', test)
  if len(np.unique(train_labels)) < 2:
    raise errors.InputError(
      f'train_labels must have two classes or more, got only {train_labels[0]}'
    )
  scaler = preprocessing.StandardScaler().fit(train)
  head = linear_model.LogisticRegression(max_iter=10_000).fit(scaler.transform(train), train_labels)
  return head.predict(scaler.transform(test)) == test_labels


def clustering_scores(
  features: np.ndarray, labels: np.ndarray, *, num_clusters: int | None = None, seed: int
) -> ClusteringScores:
  r"""Agreement of k-means clusters with the classes, for comparison with gold's.

  With :math:`n_{ij}` examples of cluster i and class j, F1 is taken over pairs of examples:

  .. math::
    F_1 = \frac{2 \sum_{ij} \binom{n_{ij}}{2}}
    {\sum_i \binom{n_{i\cdot}}{2} + \sum_j \binom{n_{\cdot j}}{2}}

  Args:
    features: `[N, D]` features of test examples of all classes.
    labels: `[N]` class indices.
    num_clusters: number of clusters, None for the number of classes in `labels`.
    seed: of the ten k-means starts.

  Returns:
    Normalised mutual information (arithmetic mean) and pair F1, each in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, labels of one class (NMI is 0
      by definition there) or without two examples of a class, or more clusters than examples.

  Example:
    >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> clustering_scores(features, np.array([3, 3, 7, 7]), seed=0)
    ClusteringScores(nmi=1.0, f1=1.0)
  """
  from sklearn import cluster, exceptions, metrics  # heavy: imported where it is used

  features, labels = _check('', features, labels)
  classes = len(np.unique(labels))
  if classes < 2 or classes == len(labels):
    raise errors.InputError(
      'labels must have two classes or more, and two examples of one, '
      f'got {classes} classes in {len(labels)} examples'
    )
  num_clusters = _checks.at_least('num_clusters', num_clusters or classes, 1)
  if num_clusters > len(features):
    raise errors.InputError(f'num_clusters must be at most {len(features)}, got {num_clusters}')
  k_means = cluster.KMeans(num_clusters, n_init=10, random_state=seed)
  with warnings.catch_warnings():
    # Fewer distinct points than clusters: a collapsed model, whose scores stand.
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
    clusters = k_means.fit_predict(features)
  nmi = metrics.normalized_mutual_info_score(labels, clusters)
  return ClusteringScores(float(nmi), _pair_f1(clusters, labels))


def _pair_f1(clusters, labels):
  from sklearn import metrics  # heavy: imported where it is used

  counts = metrics.cluster.contingency_matrix(clusters, labels).astype(np.float64)
  pairs = lambda n: np.sum(n * (n - 1) / 2)
  return float(2 * pairs(counts) / (pairs(counts.sum(0)) + pairs(counts.sum(1))))


def _check(prefix, features, labels):
  features = _checks.as_array(f'{prefix}features', features, ('N', 'D'))
  return features, _checks.as_labels(f'{prefix}labels', labels, len(features))

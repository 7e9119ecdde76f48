"""Membership attacks on per-example scores of one model."""

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks, _curves


def population_attack(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  *,
  seed: int,
  num_folds: int = 5,
  num_bootstrap: int = 500,
) -> _curves.AttackResult:
  """Membership attack by logistic regression on per-example scores, with out-of-fold predictions.

  Both sides are cut at random to equal size (see `match_classes` for equal classes); features are
  standardised within each training fold; decision values are pooled over the folds.

  Args:
    member_scores: `[N]` or `[N, K]`: K scores an example, such as loss and entropy.
    nonmember_scores: `[M]` or `[M, K]`.
    seed: of the cut, the folds and the bootstrap.
    num_folds: cross-validation folds.
    num_bootstrap: resamples behind each interval.

  Returns:
    The attack's metrics; compare them with gold's. The intervals resample examples with the
    regressions held fixed, so for identical distributions they are somewhat too narrow.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, or fewer examples than folds.

  Example:
    >>> rng = np.random.default_rng(0)
    >>> result = population_attack(rng.normal(0, 1, 500), rng.normal(2, 1, 800), seed=0)
    >>> 0.85 < result.auc_interval[0] < result.auc < result.auc_interval[1] < 0.96
    True
  """
  decisions = population_scores(member_scores, nonmember_scores, seed=seed, num_folds=num_folds)
  return _curves.attack_metrics(*decisions, seed=seed, num_bootstrap=num_bootstrap)


def population_scores(
  member_scores: np.ndarray, nonmember_scores: np.ndarray, *, seed: int, num_folds: int = 5
) -> tuple[np.ndarray, np.ndarray]:
  """The out-of-fold decision values of `population_attack`, positive for members.

  Args:
    member_scores: `[N]` or `[N, K]`.
    nonmember_scores: `[M]` or `[M, K]`.
    seed: of the cut to equal size S and of the folds.
    num_folds: cross-validation folds.

  Returns:
    `[S]` of members and `[S]` of non-members.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, or fewer examples than folds.
  """
  return _out_of_fold(_logistic(), member_scores, nonmember_scores, seed, num_folds)


def svc_attack(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  *,
  seed: int,
  num_folds: int = 5,
  num_bootstrap: int = 500,
  max_examples: int = 2000,
) -> _curves.AttackResult:
  """Membership attack by a support-vector classifier (RBF, C = 3), with out-of-fold predictions.

  The literature runs it on correctness, confidence, entropy, modified entropy or the probabilities,
  one at a time; any columns will do.

  Args:
    member_scores: `[N]` or `[N, K]`.
    nonmember_scores: `[M]` or `[M, K]`.
    seed: of the cut to equal size, the folds and the bootstrap.
    num_folds: cross-validation folds.
    num_bootstrap: resamples behind each interval.
    max_examples: of each side, since its time grows with their square.

  Returns:
    The attack's metrics; compare them with gold's.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, or fewer examples than folds.

  Deviation: released code trains it on retain against test and reports the share of forget called
  non-member, which is `attack_efficacy`; this one is balanced and cross-validated on the two sides
  themselves.
  """
  from sklearn import svm  # heavy: imported where it is used

  _checks.at_least('max_examples', max_examples, num_folds)
  rng = np.random.default_rng(seed)
  cut = lambda x: x[np.sort(rng.permutation(len(x))[:max_examples])]
  members, nonmembers = (cut(x) for x in _columns(member_scores, nonmember_scores))
  classifier = svm.SVC(C=3, kernel='rbf', gamma='scale')
  decisions = _out_of_fold(classifier, members, nonmembers, seed, num_folds)
  return _curves.attack_metrics(*decisions, seed=seed, num_bootstrap=num_bootstrap)


def _out_of_fold(classifier, member_scores, nonmember_scores, seed, num_folds):
  from sklearn import model_selection  # heavy: imported where it is used

  members, nonmembers = _columns(member_scores, nonmember_scores)
  _checks.at_least('num_folds', num_folds, 2)
  members, nonmembers = _curves.balance(members, nonmembers, np.random.default_rng(seed))
  size = len(members)
  if size < num_folds:
    raise errors.InputError(
      f'num_folds must be at most the {size} examples a side, got {num_folds}'
    )
  features, is_member = np.concatenate([members, nonmembers]), np.arange(2 * size) < size
  folds = model_selection.StratifiedKFold(num_folds, shuffle=True, random_state=seed)
  decision = np.empty(2 * size)
  for train, test in folds.split(features, is_member):
    decision[test] = _fit(classifier, features[train], is_member[train])(features[test])
  return decision[:size], decision[size:]


def attack_efficacy(
  member_scores: np.ndarray, nonmember_scores: np.ndarray, target_scores: np.ndarray, *, seed: int
) -> float:
  """Share of the target (forget) examples that an attack calls non-members.

  The attack of `population_attack` is trained on members (retain) against non-members (test). The
  aim is gold's value: higher is not better.

  Args:
    member_scores: `[N]` or `[N, K]` scores of retain examples.
    nonmember_scores: `[M]` or `[M, K]` scores of examples never trained on.
    target_scores: `[T]` or `[T, K]` scores of forget examples.
    seed: of the cut to equal sizes.

  Returns:
    The share, in [0, 1].

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores.
  """
  members, nonmembers = _columns(member_scores, nonmember_scores)
  target = _column('target_scores', target_scores)
  _checks.same_columns('member_scores', members, 'target_scores', target)
  members, nonmembers = _curves.balance(members, nonmembers, np.random.default_rng(seed))
  is_member = np.arange(2 * len(members)) < len(members)
  decision = _fit(_logistic(), np.concatenate([members, nonmembers]), is_member)
  return float(np.mean(decision(target) <= 0))


def match_classes(
  labels_a: np.ndarray, labels_b: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Random subsets of two sets with equally many examples of each class, as many as possible.

  An attack on the forget set must not win by knowing which classes it holds.

  Args:
    labels_a: `[N]` class indices.
    labels_b: `[M]` class indices.
    seed: of the choice.

  Returns:
    Two ascending index arrays `[K]`, into `labels_a` and `labels_b`.

  Raises:
    ValueError: for empty or wrongly shaped labels, or without a common class.

  Example:
    >>> match_classes(np.array([0, 1, 1, 2]), np.array([1, 1, 2, 3]), seed=0)
    (array([1, 2, 3]), array([0, 1, 2]))
  """
  labels_a = _checks.as_labels('labels_a', labels_a)
  labels_b = _checks.as_labels('labels_b', labels_b)
  common = np.intersect1d(labels_a, labels_b)
  if not len(common):
    raise errors.InputError(
      f'labels_b must share a class with labels_a {np.unique(labels_a)}, got {np.unique(labels_b)}'
    )
  rng = np.random.default_rng(seed)
  chosen = [
    _curves.balance(np.flatnonzero(labels_a == label), np.flatnonzero(labels_b == label), rng)
    for label in common
  ]
  rows_a, rows_b = (np.sort(np.concatenate(side)) for side in zip(*chosen, strict=True))
  return rows_a, rows_b


def _logistic():
  from sklearn import linear_model  # heavy: imported where it is used

  return linear_model.LogisticRegression(max_iter=10_000)


def _fit(classifier, features, is_member):
  """The decision function, positive for members, of a classifier on standardised features."""
  from sklearn import base, pipeline, preprocessing  # heavy: imported where it is used

  model = pipeline.make_pipeline(preprocessing.StandardScaler(), base.clone(classifier))
  return model.fit(features, is_member).decision_function


def _columns(members, nonmembers):
  members = _column('member_scores', members)
  nonmembers = _column('nonmember_scores', nonmembers)
  _checks.same_columns('member_scores', members, 'nonmember_scores', nonmembers)
  return members, nonmembers


def _column(name, scores):
  """Scores as `[N, K]`."""
  if np.ndim(scores) == 2:
    return _checks.as_array(name, scores, ('N', 'K'))
  return _checks.as_array(name, scores, ('N',))[:, None]

"""From attack scores to the metrics of an attack, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks

Interval = tuple[float, float]


class AttackResult(NamedTuple):
  """Metrics of a membership attack; each interval is a 95 % bootstrap interval.

  Attributes:
    auc: area under the ROC curve, .5 for a blind attack.
    balanced_accuracy: mean of true-positive and true-negative rate at the attack's threshold.
    tpr_at_1_percent: largest true-positive rate with at most 1 % false positives.
    tpr_at_01_percent: the same with at most 0.1 %.
    auc_interval: of `auc`.
    balanced_accuracy_interval: of `balanced_accuracy`.
    tpr_at_1_percent_interval: of `tpr_at_1_percent`.
    tpr_at_01_percent_interval: of `tpr_at_01_percent`.
    num_pairs: members, and as many non-members, that were used.
  """

  auc: float
  balanced_accuracy: float
  tpr_at_1_percent: float
  tpr_at_01_percent: float
  auc_interval: Interval
  balanced_accuracy_interval: Interval
  tpr_at_1_percent_interval: Interval
  tpr_at_01_percent_interval: Interval
  num_pairs: int


def attack_metrics(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  *,
  seed: int,
  threshold: float = 0.0,
  num_bootstrap: int = 500,
) -> AttackResult:
  """Metrics of an attack whose score is larger for members, cut to equal sizes.

  Args:
    member_scores: `[N]`.
    nonmember_scores: `[M]`.
    seed: of the cut to min(N, M) examples a side and of the bootstrap.
    threshold: scores above it are called member; only `balanced_accuracy` depends on it.
    num_bootstrap: resamples behind each interval; examples are resampled, not models.

  Returns:
    The metrics; false-positive rates are not interpolated: below 1000 non-members the rate at
    0.1 % is that without any false positive.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, or no resamples.

  Example:
    >>> result = attack_metrics(np.array([1.0, 2.0, 3.0]), np.array([-1.0, -2.0]), seed=0)
    >>> result.auc, result.balanced_accuracy, result.num_pairs
    (1.0, 1.0, 2)
  """
  rng = np.random.default_rng(seed)
  members = _checks.as_array('member_scores', member_scores, ('N',))
  nonmembers = _checks.as_array('nonmember_scores', nonmember_scores, ('M',))
  _checks.at_least('num_bootstrap', num_bootstrap, 1)
  members, nonmembers = balance(members, nonmembers, rng)
  size = len(members)
  values, group = np.unique(-np.concatenate([members, nonmembers]), return_inverse=True)
  positives = np.bincount(group[:size], minlength=len(values))
  negatives = np.bincount(group[size:], minlength=len(values))
  called = int(np.sum(-values > threshold))
  values = _measured(positives, negatives, called)
  draws = np.concatenate(
    [
      _measured(_resample(positives, count, rng), _resample(negatives, count, rng), called)
      for count in np.diff(np.r_[0:num_bootstrap:50, num_bootstrap])
    ]
  )
  lows, highs = np.quantile(draws, [0.025, 0.975], axis=0)
  intervals = ((float(low), float(high)) for low, high in zip(lows, highs, strict=True))
  return AttackResult._make([*map(float, values), *intervals, size])


def roc_curve(
  member_scores: np.ndarray, nonmember_scores: np.ndarray, rates: np.ndarray
) -> np.ndarray:
  """True-positive rates of an attack whose score is larger for members.

  Args:
    member_scores: `[N]`.
    nonmember_scores: `[M]`.
    rates: `[R]` false-positive rates in [0, 1].

  Returns:
    `[R]` the largest true-positive rates with at most those false-positive rates, not
    interpolated.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, or rates out of range.

  Example:
    >>> roc_curve(np.array([1.0, 2.0, 3.0, 0.5]), np.array([0.0, 1.5]), np.array([0.0, 0.5, 1.0]))
    array([0.5, 1. , 1. ])
  """
  members = np.sort(_checks.as_array('member_scores', member_scores, ('N',)))
  nonmembers = np.sort(_checks.as_array('nonmember_scores', nonmember_scores, ('M',)))
  rates = _checks.as_array('rates', rates, ('R',))
  if rates.min() < 0 or rates.max() > 1:
    raise errors.InputError(f'rates must be in [0, 1], got {rates.min()} to {rates.max()}')
  allowed = np.floor(rates * len(nonmembers) + 1e-9).astype(int)  # non-members that may be called
  thresholds = np.append(nonmembers[::-1], -np.inf)[allowed]  # called: scores above it
  return 1 - np.searchsorted(members, thresholds, side='right') / len(members)


def balance(
  a: np.ndarray, b: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Random rows of the longer array, in their order, as many as the shorter one has."""
  size = min(len(a), len(b))
  cut = lambda x: x if len(x) == size else x[np.sort(rng.permutation(len(x))[:size])]
  return cut(a), cut(b)


def _resample(counts, num_draws, rng):
  """`[num_draws, U]` bootstrap counts over distinct scores."""
  return rng.multinomial(counts.sum(), counts / counts.sum(), size=num_draws)


def _measured(positives, negatives, called):
  """AUC, balanced accuracy and the two rates `[..., 4]` from counts by descending score."""
  size = positives.sum(-1, keepdims=True)
  true, false = np.cumsum(positives, -1), np.cumsum(negatives, -1)
  auc = np.sum(negatives * (true - positives / 2), -1, keepdims=True) / size**2
  first = lambda x: x[..., called - 1 : called] if called else 0 * size
  accuracy = (first(true) + size - first(false)) / (2 * size)
  rates = [
    np.max(np.where(false <= share * size, true, 0), -1, keepdims=True) / size
    for share in (0.01, 0.001)
  ]
  return np.concatenate([auc, accuracy, *rates], -1)

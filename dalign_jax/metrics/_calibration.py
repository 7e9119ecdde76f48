"""Calibration and ranking of predicted probabilities."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks


class ReliabilityCurve(NamedTuple):
  """Bins of equal size, by rising chance.

  Attributes:
    chance: `[B]` mean predicted chance in a bin.
    share: `[B]` share of its examples for which the outcome came.
    count: `[B]` its examples.
  """

  chance: np.ndarray
  share: np.ndarray
  count: np.ndarray  # type: ignore[assignment]  # hides tuple.count


class PredictionAuc(NamedTuple):
  """An area under the ROC curve, .5 for a blind prediction, and its 95 % bootstrap interval."""

  auc: float
  interval: tuple[float, float]


def reliability_curve(
  chances: np.ndarray, outcomes: np.ndarray, *, num_bins: int = 10
) -> ReliabilityCurve:
  """Predicted chances against frequencies: equal where the prediction is calibrated.

  Args:
    chances: `[N]` in [0, 1].
    outcomes: bool `[N]`.
    num_bins: bins of equal size, at most one for each example.

  Returns:
    The curve.

  Raises:
    ValueError: for an empty or wrongly shaped argument, chances out of range, or no bins.

  Example:
    >>> curve = reliability_curve(np.array([0.1, 0.3, 0.9]), np.array([False, True, True]))
    >>> curve.share
    array([0., 1., 1.])
  """
  chances = _checks.as_array('chances', chances, ('N',))
  outcomes = _checks.as_mask('outcomes', outcomes, chances.shape)
  _checks.at_least('num_bins', num_bins, 1)
  if chances.min() < 0 or chances.max() > 1:
    raise errors.InputError(f'chances must be in [0, 1], got {chances.min()} to {chances.max()}')
  bins = np.array_split(np.argsort(chances, kind='stable'), min(num_bins, len(chances)))
  mean = lambda values: np.array([values[rows].mean() for rows in bins])
  return ReliabilityCurve(mean(chances), mean(outcomes), np.array([len(rows) for rows in bins]))


def prediction_auc(
  chances: np.ndarray, outcomes: np.ndarray, *, seed: int, num_bootstrap: int = 500
) -> PredictionAuc:
  """Mean AUC of predicted probabilities against outcomes, over several predictions.

  Args:
    chances: `[S, N]`, S predictions for the same examples.
    outcomes: bool `[S, N]`, the outcome that each predicts.
    seed: of the bootstrap.
    num_bootstrap: resamples of the examples, which all predictions share.

  Returns:
    The mean AUC and its interval; examples are resampled, training is not.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, no resamples, or a row of
      outcomes that are all the same.

  Example:
    >>> chances = np.array([[0.1, 0.4, 0.35, 0.8]])
    >>> prediction_auc(chances, np.array([[False, False, True, True]]), seed=0).auc
    0.75
  """
  chances = _checks.as_array('chances', chances, ('S', 'N'))
  outcomes = _checks.as_mask('outcomes', outcomes, chances.shape)
  _checks.at_least('num_bootstrap', num_bootstrap, 1)
  if np.any(outcomes.all(axis=1) | ~outcomes.any(axis=1)):
    raise errors.InputError('outcomes must differ within each row, got a row that is all the same')
  rng, size = np.random.default_rng(seed), chances.shape[1]
  rows = rng.integers(size, size=(num_bootstrap, size))
  draws = [np.mean(_auc(chances[:, r], outcomes[:, r])) for r in rows]
  low, high = np.nanquantile(draws, [0.025, 0.975])
  return PredictionAuc(float(np.mean(_auc(chances, outcomes))), (float(low), float(high)))


def _auc(chances, outcomes):
  """`[S]` areas; NaN where all outcomes are the same."""
  from scipy import stats  # heavy: imported where it is used

  positive = outcomes.sum(axis=1)
  pairs = positive * (outcomes.shape[1] - positive)
  above = np.sum(stats.rankdata(chances, axis=1) * outcomes, axis=1) - positive * (positive + 1) / 2
  return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)

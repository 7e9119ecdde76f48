"""Is a column's value one that a retrained model could have? A band around golds."""

import itertools
import math

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks

_MOST_CHOICES = 500  # of golds that are held out


def outside_golds(
  values: np.ndarray, golds: np.ndarray, *, is_distance: bool = False, alpha: float = 0.05
) -> bool:
  r"""Whether a method's mean lies outside the band in which the mean of as many golds would lie.

  .. math:: |\bar u - \bar g| > t_{1 - \alpha / 2, G - 1} \, s_g \sqrt{1/K + 1/G}

  Args:
    values: `[K]` of a method's models, one for each seed.
    golds: `[G]` of golds, G >= 2.
    is_distance: the values are distances to gold: only larger ones are outside, with
      :math:`t_{1 - \alpha, G - 1}`.
    alpha: share of golds outside, where they are normal and independent.

  Returns:
    True where the method is outside.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, one gold, or an alpha outside
      (0, 1).

  Example:
    >>> golds = np.array([0.5, 0.52, 0.48])
    >>> outside_golds(np.array([0.51]), golds), outside_golds(np.array([0.9]), golds)
    (False, True)
  """
  values, golds = (
    _checks.as_array('values', values, ('K',)),
    _checks.as_array('golds', golds, ('G',)),
  )
  _checks.at_least('number of golds', len(golds), 2)
  if not 0 < alpha < 1:
    raise errors.InputError(f'alpha must be in (0, 1), got {alpha}')
  quantile = special.stdtrit(len(golds) - 1, 1 - alpha / (1 if is_distance else 2))
  width = quantile * golds.std(ddof=1) * np.sqrt(1 / len(values) + 1 / len(golds))
  gap = values.mean() - golds.mean()
  return bool((gap if is_distance else abs(gap)) > width + 1e-12)


def held_out_alarms(
  golds: np.ndarray, num_held_out: int, *, is_distance: bool = False, alpha: float = 0.05
) -> float:
  """Share of held-out golds that `outside_golds` rejects: the false-alarm rate of a column.

  Every choice of golds plays the method against the golds that remain (500 evenly spread choices
  where there are more).

  Args:
    golds: `[G]` of a column.
    num_held_out: K, how many models a method has.
    is_distance: as in `outside_golds`.
    alpha: as in `outside_golds`.

  Returns:
    The share, in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or if fewer than two golds
      remain.

  Example:
    >>> held_out_alarms(np.array([0.5, 0.52, 0.48, 0.51]), 2)
    0.0
  """
  golds = _checks.as_array('golds', golds, ('G',))
  _checks.at_least('num_held_out', num_held_out, 1)
  _checks.at_least('number of golds that remain', len(golds) - num_held_out, 2)
  total = math.comb(len(golds), num_held_out)
  step = -(-total // _MOST_CHOICES)
  choices = itertools.islice(itertools.combinations(range(len(golds)), num_held_out), 0, None, step)
  found = [
    outside_golds(golds[[*chosen]], np.delete(golds, chosen), is_distance=is_distance, alpha=alpha)
    for chosen in choices
  ]
  return float(np.mean(found))

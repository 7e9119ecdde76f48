"""Is a column's value one that a retrained model could have? A band around golds."""

import functools
import itertools
import math

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks

_MOST_CHOICES = 500  # of golds that are held out


def outside_golds(
  values: np.ndarray,
  golds: np.ndarray,
  *,
  is_distance: bool = False,
  alpha: float = 0.05,
  resolution: float = 0.0,
) -> bool:
  r"""Whether a method's mean lies outside the band in which the mean of as many golds would lie.

  .. math:: |\bar u - \bar g| > t_{1 - \alpha / 2, G - 1} \, s_g \sqrt{1/K + 1/G}

  Args:
    values: `[K]` of a method's models, one for each seed.
    golds: `[G]` of golds, G >= 2.
    is_distance: the values are distances to gold: only larger ones are outside, with
      :math:`t_{1 - \alpha, G - 1}`.
    alpha: share of golds outside, where they are normal and independent.
    resolution: a gap up to this is no gap, though all golds may have the same value.

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
  return bool((gap if is_distance else abs(gap)) > max(width, resolution) + 1e-12)


def held_out_alarms(
  golds: np.ndarray,
  num_held_out: int,
  *,
  is_distance: bool = False,
  alpha: float = 0.05,
  resolution: float = 0.0,
) -> float:
  """Share of held-out golds that `outside_golds` rejects: the false-alarm rate of a column.

  Every choice of golds plays the method against the golds that remain (500 random choices where
  there are more).

  Args:
    golds: `[G]` of a column.
    num_held_out: K, how many models a method has.
    is_distance: as in `outside_golds`.
    alpha: as in `outside_golds`.
    resolution: as in `outside_golds`.

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
  is_outside = functools.partial(
    outside_golds, is_distance=is_distance, alpha=alpha, resolution=resolution
  )
  found = [
    is_outside(golds[chosen], np.delete(golds, chosen))
    for chosen in held_out_choices(len(golds), num_held_out, most=_MOST_CHOICES)
  ]
  return float(np.mean(found))


def held_out_choices(num_golds: int, num_held_out: int, *, most: int) -> list[list[int]]:
  """Choices of golds to hold out: all of them, or random ones where there are more than `most`.

  Args:
    num_golds: G.
    num_held_out: K, at most G.
    most: number of choices.

  Returns:
    Ascending numbers of golds, no choice twice. The same for equal arguments.

  Example:
    >>> held_out_choices(3, 2, most=9)
    [[0, 1], [0, 2], [1, 2]]
    >>> len(held_out_choices(100, 16, most=9))
    9
  """
  _checks.at_least('num_held_out', num_held_out, 1)
  _checks.at_least('number of golds', num_golds, num_held_out)
  if math.comb(num_golds, num_held_out) <= most:
    return [list(chosen) for chosen in itertools.combinations(range(num_golds), num_held_out)]
  rng = np.random.default_rng(0)
  found: dict[tuple[int, ...], None] = {}
  while len(found) < most:
    found[tuple(np.sort(rng.permutation(num_golds)[:num_held_out]).tolist())] = None
  return [list(chosen) for chosen in found]

"""Scores that fold several metrics into one number of closeness to gold."""

from collections.abc import Mapping

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks


def average_gap(unlearned: Mapping[str, float], gold: Mapping[str, float]) -> float:
  r"""Mean distance to gold over forgetting, retained, test and attack metrics; 0 is best.

  .. math:: \tfrac14 \sum_{k \in \{UA, RA, TA, MIA\}} |u_k - g_k|

  Args:
    unlearned: metrics by name; `UA` (1 - forget accuracy), `RA` (retain accuracy), `TA` (test
      accuracy) and `MIA` (attack score) must be there, others are ignored.
    gold: the same metrics of gold, in the same unit.

  Returns:
    The gap, in the unit of the metrics.

  Raises:
    ValueError: for a missing or non-finite metric.

  Example:
    >>> gold = dict(UA=0.2, RA=1.0, TA=0.8, MIA=0.5)
    >>> round(average_gap(dict(UA=0.0, RA=1.0, TA=0.8, MIA=0.7), gold), 3)
    0.1

  References:
    Jinghan Jia, Jiancheng Liu, Parikshit Ram, Yuguang Yao, Gaowen Liu, Yang Liu, Pranay Sharma,
    Sijia Liu, "Model Sparsity Can Simplify Machine Unlearning", https://arxiv.org/abs/2304.04934.
  """
  return float(np.mean(_differences(unlearned, gold, ('UA', 'RA', 'TA', 'MIA'))))


def tug_of_war(
  unlearned: Mapping[str, float], gold: Mapping[str, float], *, forget_key: str = 'FA'
) -> float:
  r"""Product of closeness to gold on forget, retain and test; 1 is best.

  .. math:: (1 - |\Delta FA|) (1 - |\Delta RA|) (1 - |\Delta TA|)

  Args:
    unlearned: metrics in [0, 1] by name; `FA` (forget accuracy), `RA` (retain accuracy) and `TA`
      (test accuracy) must be there, others are ignored.
    gold: the same metrics of gold.
    forget_key: the metric that takes the place of `FA`; `'MIA'` gives ToW-MIA.

  Returns:
    The score, in [0, 1].

  Raises:
    ValueError: for a missing metric, or one outside [0, 1].

  Example:
    >>> gold = dict(FA=0.8, RA=1.0, TA=0.8)
    >>> round(tug_of_war(dict(FA=1.0, RA=1.0, TA=0.7), gold), 3)
    0.72

  References:
    Kairan Zhao, Meghdad Kurmanji, George-Octavian Barbulescu, Eleni Triantafillou, Peter
    Triantafillou, "What makes unlearning hard and what to do about it",
    https://arxiv.org/abs/2406.01257.
  """
  keys = (forget_key, 'RA', 'TA')
  for name, values in (('unlearned', unlearned), ('gold', gold)):
    for key in keys:
      if key in values:
        _checks.fraction(f'{name}[{key!r}]', values[key])
  return float(np.prod(1 - _differences(unlearned, gold, keys)))


def _differences(unlearned, gold, keys):
  for name, values in (('unlearned', unlearned), ('gold', gold)):
    missing = [key for key in keys if key not in values]
    if missing:
      raise errors.InputError(f'{name} must hold {", ".join(keys)}, got no {", ".join(missing)}')
    bad = [key for key in keys if not np.isfinite(values[key])]
    if bad:
      raise errors.InputError(f'{name} must be finite, got {values[bad[0]]} for {bad[0]}')
  return np.abs([unlearned[key] - gold[key] for key in keys])

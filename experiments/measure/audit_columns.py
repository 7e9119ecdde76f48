"""The columns of an audit: what the update gives away, difficulty, groups; one entry each."""

from collections.abc import Callable
import functools

import numpy as np

from dalign_jax import evaluation, metrics
from experiments.measure import audit_case

Case = audit_case.Case
_percent = functools.partial(evaluation.Measure, scale=100.0, digits=1)


def _leak(side: str, field: str) -> Callable[[Case], float | None]:
  return lambda case: getattr(case.leaks[side], field) if side in case.leaks else None


def _epsilon(field: str) -> Callable[[Case], float | None]:
  return lambda case: None if case.epsilon is None else getattr(case.epsilon, field)


def _stratum_accuracy(kind: str, which: str) -> Callable[[Case], float | None]:
  def compute(case):
    rows = case.stratum(kind, which)
    return None if rows is None else case.of_model.accuracy('forget', rows)

  return compute


def _stratum_distance(kind: str, which: str) -> Callable[[Case], float | None]:
  def compute(case):
    rows, gold = case.stratum(kind, which), case.of_model.gold
    if rows is None or gold is None:
      return None
    own = case.of_model.logits('forget')[rows]
    return metrics.activation_distance(own, np.asarray(gold['forget'].logits)[rows])

  return compute


def _worst(values: Callable[[Case], metrics.GroupValues | None], pick: Callable) -> Callable:
  def compute(case):
    found = values(case)
    return None if found is None else float(pick(found.values))

  return compute


def _group_gap(case):
  gold = case.of_model.gold
  if gold is None or case.grouped is None:
    return None
  own = case.group_accuracy(case.of_model.own)
  return float(np.abs(metrics.group_gaps(own, case.group_accuracy(gold)).values).max())


_OTHERS = {'retain': 'retain examples', 'unseen': 'unseen examples of the same classes'}
_LEAKS = tuple(
  entry
  for side, words in _OTHERS.items()
  for entry in (
    evaluation.Measure(
      f'update_{side}_auc',
      f'vs {side}',
      'AUC of an attacker who holds the models before and after, by the changes of loss, margin, '
      f"logits and features: forget or {words}? Gold's is what retraining gives away.",
      _leak(side, 'auc'),
      part='leakage',
    ),
    _percent(
      f'update_{side}_tpr_at_1_percent',
      f'vs {side} @1%',
      'Its true-positive rate at 1 % false positives, %.',
      _leak(side, 'tpr_at_1_percent'),
      part='leakage',
    ),
  )
)
_EPSILON = (
  evaluation.Measure(
    'epsilon',
    'epsilon >=',
    'Lower bound on epsilon at 95 % (Clopper-Pearson) from the population attack, forget against '
    'unseen images; one half of them chose the threshold. Never a guarantee.',
    _epsilon('threshold'),
    digits=2,
    part='leakage',
  ),
  evaluation.Measure(
    'epsilon_one_run',
    'one run >=',
    'One-run lower bound on epsilon from the same scores. Never a guarantee.',
    _epsilon('one_run'),
    digits=2,
    part='leakage',
  ),
)
DIFFICULTY = {
  'memorised': 'memorisation score',
  'entangled': "entanglement (nearness to retain features of the class in the original's features)",
  'influential': "influence on validation data (the original's gradients)",
}
_STRATA = tuple(
  entry
  for kind, words in DIFFICULTY.items()
  for which in metrics.STRATA
  for entry in (
    _percent(
      f'{kind}_{which}_accuracy',
      f'{kind} {which}',
      f'Accuracy on the third of the forget set with {which} {words}, %.',
      _stratum_accuracy(kind, which),
      part='difficulty',
    ),
    evaluation.Measure(
      f'{kind}_{which}_distance',
      f'AD {kind} {which}',
      f'Activation distance to gold on the third of the forget set with {which} {words}.',
      _stratum_distance(kind, which),
      is_distance=True,
      part='difficulty',
    ),
  )
)
_GROUPS = (
  _percent(
    'group_worst_accuracy',
    'worst group',
    'Smallest test accuracy of a group with 10 test images or more, %.',
    _worst(lambda case: case.group_accuracy(case.of_model.own), np.min),
    part='groups',
  ),
  _percent(
    'group_gap',
    'largest gap',
    "Largest gap of a group's test accuracy to gold's, points: who pays.",
    _group_gap,
    is_distance=True,
    part='groups',
  ),
  _percent(
    'group_worst_probe',
    'LP worst group',
    'Smallest test accuracy of a group by a linear probe on frozen features, %.',
    _worst(lambda case: case.group_probe, np.min),
    part='groups',
  ),
  evaluation.Measure(
    'group_attack',
    'attack, worst group',
    'Largest AUC of the attack on the loss inside a group with 20 images a side or more.',
    _worst(lambda case: case.group_attack, np.max),
    part='groups',
  ),
)

MEASURES: tuple[evaluation.Measure, ...] = (*_LEAKS, *_EPSILON, *_STRATA, *_GROUPS)

"""Columns of an audit on made-up outputs: thirds of the forget set, and groups."""

import numpy as np
import pytest

from dalign_jax import evaluation, metrics, types
from experiments.measure import audit_case, audit_columns


def _grouped_case(gold_logits, own_logits):
  groups = np.repeat([0, 1, 2, -1], [40, 40, 3, 7]).astype(np.int32)
  labels = (np.arange(90) % 2).astype(np.int32)
  images = np.zeros((90, 1, 1, 1), np.uint8)
  dataset = types.Dataset(images, labels, np.arange(90).astype(str), groups)
  sets = dict.fromkeys(('retain', 'forget', 'test'), dataset)
  outputs = lambda logits: dict.fromkeys(sets, types.Outputs(logits, logits))
  of_model = evaluation.Case(
    sets=sets,
    outputs=outputs(own_logits),
    original=outputs(gold_logits),
    gold=outputs(gold_logits),
    num_classes=2,
  )
  return audit_case.Case(of_model=of_model, difficulty={'entangled': np.arange(90.0)})


def test_groups_pay_by_what_stays_and_are_attacked_class_by_class():
  """Class 2 is forgotten: its test images are right nowhere, and tell nothing of a group."""
  groups, labels = np.repeat([0, 1], 90).astype(np.int32), (np.arange(180) % 3).astype(np.int32)
  images, ids = np.zeros((180, 1, 1, 1), np.uint8), np.arange(180).astype(str)
  test = types.Dataset(images, labels, ids, groups)
  gone = labels == 2
  sets = {'retain': test.take(np.flatnonzero(~gone)), 'forget': test.take(np.flatnonzero(gone))}
  sets['test'], rng = test, np.random.default_rng(0)

  def outputs_on(dataset):  # class 0 for the forgotten class
    logits = 5.0 * np.eye(3)[dataset.labels % 2] + rng.normal(0, 0.1, (len(dataset), 3))
    return types.Outputs(logits, logits)

  outputs = {name: outputs_on(dataset) for name, dataset in sets.items()}
  options = {'original': outputs, 'gold': outputs, 'num_classes': 3}
  of_model = evaluation.Case(sets=sets, outputs=outputs, **options)
  case = audit_case.Case(of_model=of_model, difficulty={})
  values = {m.key: m.compute(case) for m in audit_columns.MEASURES}
  assert case.of_model.is_forgotten('test').sum() == 60
  assert values['group_worst_accuracy'] == 1
  assert values['group_attack'] < 0.8  # by class alone, it would be 1


def test_groups_and_strata():
  labels = np.arange(90) % 2
  right = np.stack([1.0 - labels, labels], axis=1)
  wrong = right.copy()
  wrong[:20] = right[:20, ::-1]  # half of group 0
  case = _grouped_case(right, wrong)
  values = {m.key: m.compute(case) for m in audit_columns.MEASURES}
  assert values['group_worst_accuracy'] == 0.5 and values['group_gap'] == 0.5
  assert values['group_worst_probe'] <= 1 and values['group_attack'] == pytest.approx(0.5, abs=0.3)
  accuracies = [values[f'entangled_{s}_accuracy'] for s in ('low', 'middle', 'high')]
  np.testing.assert_allclose(accuracies, [1 / 3, 1, 1])
  assert values['entangled_high_distance'] == 0 < values['entangled_low_distance']
  assert values['memorised_low_accuracy'] is None


def test_a_probe_by_group_is_trained_on_no_more_rows_than_the_other_probe(monkeypatch):
  monkeypatch.setattr('dalign_jax.evaluation._case._PROBED', 30)
  sizes, probe = [], metrics.probe_correct
  monkeypatch.setattr(
    metrics, 'probe_correct', lambda x, *more: sizes.append(len(x)) or probe(x, *more)
  )
  labels = np.arange(90) % 2
  case = _grouped_case(*[np.stack([1.0 - labels, labels], axis=1)] * 2)
  assert case.group_probe is not None and sizes == [30]

"""Audit records of version 0.1.0 still replay."""

import copy

from dalign_jax.deletion import audit_record, summary

NEW = {
  'forget_accuracy': 0.5,
  'retain_accuracy': 0.9,
  'test_accuracy': 0.8,
  'test_accuracy_same': 0.7,
  'dimensional_alignment': 0.6,
  'da_rank': 3.0,
  'moved': 0.2,
  'activation_distance': 0.1,
}
OLD = {
  'forget': 0.5,
  'retain': 0.9,
  'test': 0.8,
  'test_same_classes': 0.7,
  'alignment': 0.6,
  'moved': 0.2,
  'to_gold': 0.1,
}


def _records():
  """What a replay gives, and the record as the first version wrote it."""
  replayed = {
    'request': {'ids': ['a']},
    'samples': {'train': {'count_before': 3, 'count_after': 2}},
    'model': {'after': 'x'},
    'method': {'name': 'muda', 'hparams': {}, 'sees': 'all retain, forget'},
    'seeds': {'unlearn': 0, 'streams': 2},
    'metrics': {'original': NEW, 'unlearned': NEW},
  }
  replayed['summary'] = summary.sentences(replayed)
  record = copy.deepcopy(replayed)
  record['method']['sees'] = 'forget, all retain'
  record['summary'] = summary.sentences(record)
  record['metrics'] = {'original': OLD, 'unlearned': OLD}
  return record, replayed


def test_record_with_the_first_keys_replays():
  record, replayed = _records()
  assert audit_record.differences(record, replayed) == []
  assert audit_record.differences(replayed, replayed) == []


def test_another_number_or_more_data_is_a_difference():
  record, replayed = _records()
  record['metrics']['original'] = {**OLD, 'to_gold': 0.2}
  assert audit_record.differences(record, replayed) == ['metrics']
  record, replayed = _records()
  replayed['method']['sees'] = 'all retain, forget, validation'
  assert 'method' in audit_record.differences(record, replayed)

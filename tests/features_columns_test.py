"""Columns of features: ranks, overlap of eigenspaces and distance to gold's features."""

import numpy as np
import pytest

from dalign_jax import evaluation, metrics, types

KEYS = {'dimensional_alignment', 'da_rank', 'subspace_overlap', 'cka_distance'}


def _set(rng, count, label):
  images = rng.integers(0, 255, (count, 4, 4, 1)).astype(np.uint8)
  return types.Dataset(images, np.full(count, label, np.int32), np.arange(count).astype(str))


@pytest.fixture(scope='module')
def case():
  """Retain features in two directions, forget features in one of them and a third."""
  rng = np.random.default_rng(0)
  sets = {'retain': _set(rng, 40, 0), 'forget': _set(rng, 20, 1), 'test': _set(rng, 30, 0)}
  basis = {'retain': (0, 1), 'forget': (1, 2), 'test': (0, 1)}
  outputs = {}
  for name, dataset in sets.items():
    features = np.zeros((len(dataset), 6), np.float32)
    features[:, basis[name]] = rng.normal(size=(len(dataset), 2))
    outputs[name] = types.Outputs(rng.normal(size=(len(dataset), 2)), features)
  gold = {name: types.Outputs(o.logits, 3 * o.features[:, ::-1]) for name, o in outputs.items()}
  return evaluation.Case(
    sets=sets, outputs=outputs, original=outputs, gold=gold, num_classes=2, energy=0.99
  )


def test_rank_and_overlap_are_of_the_eigenspaces(case):
  found = evaluation.measure(case, keys=KEYS)
  assert found['da_rank'] == 2
  assert found['subspace_overlap'] == pytest.approx(0.5)
  assert 0.2 < found['dimensional_alignment'] < 0.8


def test_cka_is_blind_to_rotation_and_scale_and_sees_other_features(case):
  found = evaluation.measure(case, keys=KEYS)
  assert found['cka_distance'] == pytest.approx(0, abs=1e-6)
  rng = np.random.default_rng(1)
  features = rng.normal(size=(20, 6)).astype(np.float32)
  gold = {**case.gold, 'forget': types.Outputs(case.gold['forget'].logits, features)}
  other = evaluation.Case(
    sets=case.sets, outputs=case.outputs, original=case.original, gold=gold, num_classes=2
  )
  value = evaluation.measure(other, keys=KEYS)['cka_distance']
  expected = 1 - metrics.linear_cka(case.outputs['forget'].features, features)
  assert value == pytest.approx(expected) and value > 0.5


def test_features_that_say_nothing_have_no_columns(case):
  zero = {n: types.Outputs(o.logits, 0 * o.features) for n, o in case.outputs.items()}
  dead = evaluation.Case(
    sets=case.sets, outputs=zero, original=case.original, gold=case.gold, num_classes=2
  )
  assert not KEYS & set(evaluation.measure(dead, keys=KEYS))
  alone = evaluation.Case(
    sets=case.sets, outputs=case.outputs, original=case.original, gold=None, num_classes=2
  )
  assert 'cka_distance' not in evaluation.measure(alone, keys=KEYS)

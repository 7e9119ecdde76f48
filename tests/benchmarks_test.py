"""The benchmarks' arithmetic, and that both sides of them compute the same."""

import json
import sys

from absl import app, flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from dalign_jax import errors, training
from dalign_jax.training import _feeding
from experiments.benchmarks import (
  alignment,
  difficulty_features,
  harness,
  loading,
  loops,
  precision,
  transport,
)

FIELDS = {'name', 'seconds', 'first_call_seconds', 'ratios'}


def _check_row(row):
  assert row.keys() >= FIELDS
  assert json.loads(json.dumps(row)) == row
  assert row['seconds'].keys() == row['first_call_seconds'].keys()
  assert all(seconds > 0 for seconds in row['seconds'].values())
  for name, value in row['ratios'].items():
    assert set(name.split(' / ')) <= row['seconds'].keys()
    assert 0 < value['low'] <= value['median'] <= value['high']


def test_interleave_takes_turns():
  calls = []
  functions = {name: lambda name=name: calls.append(name) for name in 'ab'}
  timings = harness.interleave(functions, rounds=3, warm_up=2)
  assert calls == ['a', 'b'] * 6
  assert {name: len(timing.rounds) for name, timing in timings.items()} == {'a': 3, 'b': 3}


def test_ratio_is_taken_round_by_round():
  ours = harness.Timing(9.0, [1.0, 20.0, 3.0])
  other = harness.Timing(9.0, [2.0, 10.0, 3.0])
  assert harness.ratio(ours, other) == {'low': 0.75, 'median': 1.0, 'high': 1.5}
  once = harness.ratio(harness.Timing(9.0, [1.0]), harness.Timing(9.0, [4.0]))
  assert once == {'low': 0.25, 'median': 0.25, 'high': 0.25}


def test_row_and_environment():
  timings = {'a': harness.Timing(5.0, [1.0, 3.0]), 'b': harness.Timing(6.0, [1.0, 1.0])}
  row = harness.row('name', timings, [('a', 'b')], batch_size=2)
  assert row['seconds'] == {'a': 2.0, 'b': 1.0}
  assert row['first_call_seconds'] == {'a': 5.0, 'b': 6.0}
  assert row['ratios']['a / b']['median'] == 2.0
  assert row['batch_size'] == 2
  environment = harness.environment()
  assert environment['cores'] >= 1
  assert {'jax', 'numpy'} <= environment['versions'].keys()


def test_program_writes_json(tmp_path, monkeypatch, capsys):
  path = tmp_path / 'result.json'
  timings = {'a': harness.Timing(5.0, [1.0]), 'b': harness.Timing(6.0, [2.0])}
  measure = lambda quick: [harness.row(f'quick={quick}', timings, [('a', 'b')])]
  monkeypatch.setattr(harness.parallel, 'tune_cpu', lambda: None)
  monkeypatch.setattr(sys, 'argv', ['x/name.py', '--quick', f'--output={path}'])
  monkeypatch.setattr(app, 'run', lambda main: main(flags.FLAGS(sys.argv)))
  with flagsaver.flagsaver():
    harness.run(measure)
  result = json.loads(path.read_text())
  assert result.keys() == {'command', 'environment', 'rows'}
  assert result['command'].startswith('python -m experiments.benchmarks.name --quick')
  assert result['rows'][0]['name'] == 'quick=True'
  assert '0.5 x' in capsys.readouterr().out


def test_missing_torch_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.InputError, match='not installed'):
    harness.import_torch()


def test_streamed_alignment_is_that_of_the_svd():
  found = {way: function(16, 1500)[0] for way, function in alignment.WAYS.items()}
  assert found['streamed'].rank == found['svd'].rank == found['jax svd'].rank > 1
  assert found['streamed'].value == pytest.approx(found['svd'].value, abs=1e-5)
  assert found['jax svd'].value == pytest.approx(found['svd'].value, abs=1e-5)


@pytest.mark.slow
def test_alignment_runs():
  rows = alignment.measure(quick=True)
  for row in rows:
    _check_row(row)
    assert row['largest_value_difference'] < 1e-5
    assert row['peak_megabytes'].keys() == set(alignment.WAYS)


@pytest.mark.slow
@pytest.mark.usefixtures('exact_sums')
def test_loops_run():
  rows = loops.measure(quick=True)
  assert [row['name'] for row in rows] == ['8 training steps', 'per-example gradient norms']
  for row in rows:
    _check_row(row)
    assert row['largest_value_difference'] < 1e-4


@pytest.mark.slow
def test_transport_runs():
  with jax.numpy_rank_promotion('allow'):  # ott-jax needs it
    rows = transport.measure(quick=True)
  for row in rows:
    _check_row(row)
    assert row['value_difference'] < 1e-3


def test_loading_takes_the_same_steps_from_both_places():
  before = _feeding._chosen[0]
  try:
    for row in loading.measure(quick=True):
      _check_row(row)
  finally:
    training.keep_data_on_device(before)


def test_precision_compares_types_at_equal_seeds_and_seeds_at_equal_types():
  right, wrong = np.eye(2), np.eye(2)[::-1]
  of_model = lambda logits: {name: logits for name in precision.SETS}
  models = {
    ('float32', 0): of_model(right),
    ('float32', 1): of_model(wrong),
    ('bfloat16', 0): of_model(right),
    ('bfloat16', 1): of_model(np.array([[0.0, 1.0], [0.0, 1.0]])),
  }
  found = {key: dict.fromkeys(precision.ROLES, model) for key, model in models.items()}
  rows = precision.table(found, {name: np.arange(2) for name in precision.SETS})
  assert len(rows) == len(precision.ROLES) * 6
  row = next(r for r in rows if (r['role'], r['metric']) == ('gold', 'test accuracy'))
  assert (row['gap'], row['floor']) == (25.0, 100.0)


def _prediction(seed):
  """One feature that tells what gold knows, and one of noise; 80 % are easy."""
  rng = np.random.default_rng(seed)
  right, known = rng.random(600) < 0.8, rng.random(500) < 0.8
  shown = lambda easy: np.c_[rng.normal(size=len(easy)) - 3 * easy, rng.normal(size=len(easy))]
  return {
    'known_to_gold': known,
    'held_out_easy': right,
    'held_out_features': shown(right),
    'features': shown(known),
    'names': np.array(['told', 'noise']),
  }


def test_features_are_compared_by_what_gold_knows(tmp_path):
  arrays = _prediction(0)
  columns = difficulty_features.COLUMNS
  told, noise = (
    dict(zip(columns, difficulty_features.measured(arrays, [k]), strict=True)) for k in (0, 1)
  )
  assert min(told['AUC held out'], told['AUC gold']) > 0.95 and told['as gold'] > 85
  assert abs(noise['AUC gold'] - 0.5) < 0.1 and abs(noise['as gold'] - 50) < 8
  assert told['known to gold'] == 100 * arrays['known_to_gold'].mean()
  for seed in (0, 1):
    (tmp_path / f'seed_{seed}').mkdir()
    np.savez(tmp_path / f'seed_{seed}' / 'reliability.npz', **_prediction(seed))
  table = difficulty_features.markdown(difficulty_features.read(str(tmp_path)))
  assert '| told+noise |' in table and table.count('\n') == 4
  with pytest.raises(app.UsageError, match='run the stage evaluate first'):
    difficulty_features.read(str(tmp_path / 'seed_0'))

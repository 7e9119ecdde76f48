"""What gold knows, in the experiments: predictions beside gold, oracles, parts of a class."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from dalign_jax import checkpoints, errors, metrics
from experiments import config, stages
from experiments.measure import predictions

TINY = {
  'dataset': 'digits',
  'model': 'experiments.networks:mlp',
  'num_epochs': 3,
  'batch_size': 64,
  'num_seeds': 2,
  'ensemble_size': 1,
  'validation_fraction': 0.3,
  'methods': ('tmu', 'tmu:random', 'tmu:oracle'),
  'hparam': ('tmu.num_epochs=2', 'tmu:random.easy=random', 'tmu:oracle.easy=oracle'),
  'num_devices': 1,
  'cache_dir': '',
  'compilation_cache_dir': '',
}


def _config(workdir, **changes):
  return config.Config(**{**TINY, 'workdir': str(workdir), 'forget': 'class:3:0.5', **changes})


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  made = _config(tmp_path_factory.mktemp('predictions'))
  stages.run(made)
  return made, tmp_path_factory.getbasetemp() / made.workdir / made.problem_name()


def test_prediction_is_kept_beside_the_model_without_pickle(finished):
  _, folder = finished
  for name in ('seed_0', 'seed_0-original_1'):
    with np.load(folder / 'runs/tmu,num_epochs=2' / name / 'prediction.npz') as arrays:
      assert arrays['names'].tolist() == ['distance', 'curriculum', 'instability']
      assert arrays['easy'].dtype == bool and arrays['features'].shape == (len(arrays['easy']), 3)
  assert not (folder / 'runs/tmu:oracle/seed_0/prediction.npz').exists()


def test_oracle_knows_the_gold_of_its_seed_and_is_not_ranked(finished):
  _, folder = finished
  for number, name in enumerate(('seed_0', 'seed_0-original_1')):
    record = checkpoints.read_record(folder / 'runs/tmu:oracle' / name / 'unlearned')
    gold = checkpoints.read_record(folder / f'gold/seed_{100 + number}/model')
    assert record['gold'] == gold['digest'] and record['sees'].endswith('gold: an oracle')
  record = checkpoints.read_record(folder / 'runs/tmu:random/seed_0/unlearned')
  assert 'gold' not in record and 'gold' not in record['sees']
  lines = (folder / 'report.csv').read_text(encoding='utf-8').splitlines()
  kinds = {row['model']: row['kind'] for row in csv.DictReader(lines)}
  assert kinds['tmu:oracle'] == 'oracle' and kinds['tmu:random'] == 'unlearned'
  text = (folder / 'report.md').read_text(encoding='utf-8')
  ranking = text[text.index('| rank by') :].split('\n\n')[0]
  assert 'tmu:random' in ranking and 'tmu:oracle' not in ranking
  assert 'is not ranked: tmu:oracle.' in text
  assert 'tmu:oracle in' not in text


def test_alignment_is_measured_beside_gold(finished):
  _, folder = finished
  read = lambda name: json.loads((folder / name / 'evaluation.json').read_text())['values']
  original, gold = read('original/seed_0'), read('gold/seed_100')
  gap = abs(original['forget_accuracy'] - gold['forget_accuracy'])
  assert original['forget_gap'] == pytest.approx(gap)
  assert 'forget_gap' not in gold and 'balanced_agreement' not in gold
  assert 0 <= original['balanced_agreement'] <= 1


def test_report_sets_predictions_against_gold(finished):
  _, folder = finished
  text = (folder / 'report.md').read_text(encoding='utf-8')
  table = text[text.index('| prediction') :].split('\n\n')[0].splitlines()
  assert len(table) == 3  # one line: the random control made the same prediction
  cells = [cell.strip() for cell in table[2].split('|')[1:-1]]
  runs = folder / 'runs/tmu,num_epochs=2'
  read = predictions.read([runs / 'seed_0', runs / 'seed_0-original_1'])
  assert cells[0] == 'tmu,num_epochs=2' and cells[1] == 'distance+curriculum+instability'
  assert cells[3] == f'{100 * read["easy"].mean():.1f}'
  assert cells[4] == f'{100 * read["known_to_gold"].mean():.1f}'
  page = (folder / 'report.html').read_text(encoding='utf-8')
  assert 'Predictions of what gold knows' in page
  assert page.count('<figure id="figure-') == 10


def test_inside_a_class_the_report_looks_at_each_class(finished):
  _, folder = finished
  text = (folder / 'report.md').read_text(encoding='utf-8')
  start = text.rindex('| model', 0, text.index('retain, same class'))
  table = text[start:].split('\n\n')[0]
  assert 'test, other classes' in table and 'test 9' in table and '| tmu:oracle' in table


def test_second_run_does_nothing(finished, capsys):
  made, _ = finished
  stages.run(made)
  out = capsys.readouterr().out
  assert 'evaluate: done before' in out and out.count('done before') >= 8


def test_oracle_needs_its_gold(tmp_path):
  made = _config(tmp_path, methods=('tmu:oracle',), num_seeds=1, num_epochs=1)
  with pytest.raises(errors.InputError, match='run train_gold first'):
    stages.run(dataclasses.replace(made, stages=('train_original', 'unlearn')))


def test_data_that_do_not_do_are_named(tmp_path):
  made = _config(tmp_path, methods=('tmu',), num_seeds=1, num_epochs=1, validation_fraction=0.002)
  with pytest.raises(errors.InputError, match=r'methods: tmu,num_epochs=2: validation must hold'):
    stages.run(dataclasses.replace(made, stages=('train_original', 'unlearn')))


def test_part_of_a_class_as_a_problem(tmp_path):
  assert config.Config(forget='class:3:0.1').problem_name() == 'mnist5k-cnn-class_3_0.1'
  for forget, message in (
    ('class:3:2.5', 'must give a share between 0 and 1 or a whole number of rows'),
    ('class:3:9999', 'the class has .* training rows; give fewer'),
    ('class:33:0.1', "there is no class '33'"),
  ):
    with pytest.raises(errors.InputError, match=f'forget: {forget}: {message}'):
      stages.run(_config(tmp_path, forget=forget))


def test_reliability_and_auc():
  rng = np.random.default_rng(0)
  chance = rng.random((3, 4000))
  came = rng.random((3, 4000)) < chance
  curve = metrics.reliability_curve(chance[0], came[0])
  np.testing.assert_allclose(curve.chance, np.arange(0.05, 1, 0.1), atol=0.02)
  np.testing.assert_allclose(curve.share, curve.chance, atol=0.08)
  assert curve.count.sum() == 4000
  found = metrics.prediction_auc(chance, came, seed=0, num_bootstrap=200)
  assert found.interval[0] < 5 / 6 < found.interval[1]  # E[p (1 - q); p > q] of uniform p, q
  assert found.interval[1] - found.interval[0] < 0.04
  blind = metrics.prediction_auc(chance, rng.permuted(came, axis=1), seed=0, num_bootstrap=200)
  assert blind.interval[0] < 0.5 < blind.interval[1]
  ties = metrics.prediction_auc(
    np.full((1, 4), 0.5), np.array([[True, False, True, False]]), seed=0
  )
  assert ties.auc == 0.5
  with pytest.raises(ValueError, match='outcomes must differ'):
    metrics.prediction_auc(chance, came | True, seed=0)
  with pytest.raises(ValueError, match=r'chances must be in \[0, 1\]'):
    metrics.reliability_curve(2 + chance[0], came[0])

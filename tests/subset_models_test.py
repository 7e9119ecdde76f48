"""Models of subsets in a run: trained once for all requests, matched, reported, refused."""

import csv
import dataclasses
import types

import jax
import numpy as np
import pytest

from dalign_jax import checkpoints, errors
from dalign_jax.store import files
from experiments import config as config_lib
from experiments import stages
from experiments.measure import datamodel_margins
from experiments.problem import ensembles, folders, memorisation, subset_models
from experiments.tuning import search
from tests import tiny


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run of both matchings."""
  config = config_lib.Config(
    workdir=str(tmp_path_factory.mktemp('subsets')),
    dataset='digits',
    max_examples=300,
    model='experiments.networks:mlp',
    num_epochs=2,
    batch_size=64,
    forget='random:0.1',
    memorisation_models=6,
    ensemble_size=6,
    methods=('datamodel_matching', 'oracle_matching'),
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
  )
  stages.run(config)
  return config


def _job(config):
  return stages.prepare(config, folders.problem_folder(config))


def test_report_has_predicted_margins_and_calls_gold_an_oracle(finished):
  folder = folders.problem_folder(finished)
  text = (folder / 'report.md').read_text(encoding='utf-8')
  assert 'Predicted and true margins of gold' in text
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
  (row,) = [cells for cells in rows if cells[:2] == ['datamodel_matching', 'retain']]
  assert row[-2] == '4.4'  # 6 models of two thirds, gold of nine tenths
  run = folder / 'runs' / 'datamodel_matching' / 'seed_0'
  found = files.read_arrays(run / datamodel_margins.FILE)
  assert len(found['forget_predicted']) == len(found['forget_gold']) == 24
  assert set(datamodel_margins.agreements(run)) == {'forget', 'retain', 'validation'}
  assert 'oracle_matching' in text.partition('An oracle knows')[2]


def test_no_method_is_charged_for_the_models_of_subsets(finished):
  runs = folders.problem_folder(finished) / 'runs'
  record = lambda name: checkpoints.read_record(runs / name / 'seed_0' / 'unlearned')
  mine, other = record('datamodel_matching'), record('oracle_matching')
  assert 0 < other['flop'] <= mine['flop'] < 1.05 * other['flop']  # the same steps


def test_rows_are_those_of_the_problem(finished):
  job = _job(finished)
  found = subset_models.outputs(job, job.sets['forget'])
  count = len(job.training_set)
  assert found.is_trained.shape == (6, count)
  np.testing.assert_array_equal(found.is_trained.sum(axis=0), np.full(count, 4))
  assert found.logits.shape == (6, count + len(job.sets['validation']), 10)
  half = subset_models.outputs(job, job.sets['forget'].take(np.arange(10)))
  retain = len(job.sets['retain'])
  np.testing.assert_array_equal(half.is_trained, found.is_trained[:, : retain + 10])
  np.testing.assert_array_equal(half.logits[:, : retain + 10], found.logits[:, : retain + 10])


def test_models_serve_other_requests(finished):
  """The same models in another order: nothing is trained again."""
  other = _job(dataclasses.replace(finished, forget='class:3'))
  before = (memorisation.folder_of(finished) / 'outputs.npz').stat().st_mtime_ns
  found = subset_models.outputs(other, other.sets['forget'])
  mine = _job(finished)
  first = subset_models.outputs(mine, mine.sets['forget'])
  place = {name: k for k, name in enumerate(mine.training_set.ids)}
  order = [place[name] for name in other.training_set.ids]
  np.testing.assert_array_equal(found.is_trained, first.is_trained[:, order])
  np.testing.assert_array_equal(found.logits[:, : len(order)], first.logits[:, order])
  assert (memorisation.folder_of(finished) / 'outputs.npz').stat().st_mtime_ns == before


def test_a_search_uses_the_models_that_are_there(finished):
  before = (memorisation.folder_of(finished) / 'outputs.npz').stat().st_mtime_ns
  config = dataclasses.replace(finished, methods=('datamodel_matching',), stages=())
  tuning = config_lib.Tuning(num_trials=1, num_tuning_seeds=1)
  search.run(config, tuning)
  log = search.tuning_folder(config) / 'search' / 'trials.csv'
  (row,) = csv.DictReader(log.read_text(encoding='utf-8').splitlines())
  assert row['status'] == 'ok' and np.isfinite(float(row['score']))
  assert (memorisation.folder_of(finished) / 'outputs.npz').stat().st_mtime_ns == before


def test_other_training_data_are_refused(finished):
  job = _job(dataclasses.replace(finished, forget='mislabelled:0.1'))
  with pytest.raises(errors.InputError, match='trained on the data as they are'):
    subset_models.outputs(job, job.sets['forget'])
  job = _job(dataclasses.replace(finished, memorisation_models=4))
  with pytest.raises(errors.InputError, match='memorisation_models: must be a multiple of 3'):
    subset_models.outputs(job, job.sets['forget'])


def test_other_training_rows_are_refused_before_any_training(finished, tmp_path):
  """Ids that a random request holds out: the models of subsets have not seen them."""
  held_out = _job(finished).sets['test'].ids[:5]
  (tmp_path / 'ids.txt').write_text('\n'.join(held_out), encoding='utf-8')
  config = dataclasses.replace(finished, forget=f'ids:{tmp_path}/ids.txt', problem='ids')
  with pytest.raises(errors.InputError, match='are trained on other examples than this problem'):
    stages.run(config)
  assert not (folders.problem_folder(config) / 'original').exists()


def test_the_models_of_scores_belong_to_no_seed_and_to_one_network(finished, tmp_path, monkeypatch):
  """A search has seeds of its own, and its scores are those of tables."""
  with memorisation.prepared(dataclasses.replace(finished, original_seed=1000, gold_seed=1000), ''):
    pass
  changed = tmp_path / 'own_network.py'
  source = 'from experiments.networks import mlp\n'
  changed.write_text(source, encoding='utf-8')
  monkeypatch.syspath_prepend(tmp_path)
  own = dataclasses.replace(
    finished, workdir=str(tmp_path), model='own_network:mlp', num_epochs=1, methods=()
  )
  own = dataclasses.replace(own, forget='memorised:0.1', stages=('prepare',))
  stages.run(own)
  changed.write_text(f'{source}# changed\n', encoding='utf-8')
  with pytest.raises(errors.InputError, match=r'^model: it is not what it was when the models of'):
    stages.run(dataclasses.replace(own, problem='another'))


def test_a_group_that_failed_is_tried_again_in_the_size_that_is_asked_for(tmp_path):
  folders_of = {seed: tmp_path / f'seed_{seed}' for seed in range(6)}
  size = lambda count: types.SimpleNamespace(config=types.SimpleNamespace(ensemble_size=count))
  group = lambda count: ensembles._next_group(size(count), tmp_path / 'ensemble', folders_of)
  assert group(4) == [0, 1, 2, 3]
  assert group(2) == [0, 1]  # fewer, since the memory was not enough
  model = tiny.init_fn(jax.random.key(0))
  checkpoints.save_training(tmp_path / 'ensemble' / 'training', 1, model, {})
  checkpoints.save(folders_of[0] / 'model', model, {})
  assert group(4) == [0, 1]  # goes on, and its first model is kept
  checkpoints.save(folders_of[1] / 'model', model, {})
  assert group(4) == [2, 3, 4, 5]

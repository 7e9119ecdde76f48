"""Tuning: what is tried, what wins, and that a search which was stopped goes on."""

import csv
import dataclasses

import numpy as np
import pytest

from dalign_jax import errors, hparams, methods, types
from experiments import config as config_lib
from experiments.tuning import ranges, score, search

TUNING = config_lib.Tuning(num_trials=4, search='random', search_seed=0, tuning_seed=1000)
GRID = dataclasses.replace(TUNING, search='grid')


def _config(workdir, **changes):
  settings = {
    'workdir': str(workdir),
    'dataset': 'digits',
    'width_multiplier': 0.125,
    'num_epochs': 2,
    'batch_size': 64,
    'methods': ('fisher', 'head_only'),
    'num_devices': 1,
    'cache_dir': '',
    'compilation_cache_dir': '',
  }
  return config_lib.Config(**{**settings, **changes})


def _log(path):
  return list(csv.DictReader(path.read_text(encoding='utf-8').splitlines()))


def _settings(method, tuning, fixed=()):
  return search.settings(method, hparams.defaults(method), set(fixed), tuning)


@pytest.mark.parametrize('method', methods.METHODS)
def test_ranges_are_of_hyper_parameters_and_make_methods(method):
  for tuning in (TUNING, GRID):
    for values in _settings(method, dataclasses.replace(tuning, num_trials=12)):
      methods.METHODS[method].make(**values)
      texts = tuple(f'{method}.{name}={value}' for name, value in values.items())
      assert hparams.resolve((method,), texts) == {method: values}  # as a flag file gives it back


@pytest.mark.parametrize('tuning', [TUNING, GRID], ids=['random', 'grid'])
def test_trials_are_seeded_begin_with_defaults_and_grow(tuning):
  few = _settings('muda', tuning)
  assert few[0] == hparams.defaults('muda')
  assert _settings('muda', dataclasses.replace(tuning, num_trials=7))[:4] == few
  assert len({str(values) for values in few}) == 4
  assert _settings('muda', dataclasses.replace(tuning, search_seed=1))[1:] != few[1:]


def test_a_fixed_hyper_parameter_is_not_searched():
  found = _settings('finetune', TUNING, fixed={'learning_rate'})
  assert {values['learning_rate'] for values in found} == {0.01}
  assert len({values['num_epochs'] for values in found}) > 1
  both = {'learning_rate', 'num_epochs'}
  assert _settings('finetune', TUNING, fixed=both) == [hparams.defaults('finetune')]


def test_a_grid_is_tried_once_and_random_values_stay_in_range():
  grid = _settings('delete', dataclasses.replace(GRID, num_trials=1000))
  space = ranges.RANGES['delete']
  assert len(grid) == 1 + len(space['num_epochs'].levels()) * len(space['learning_rate'].levels())
  drawn = [ranges.Log(1e-3, 0.1).draw(np.random.default_rng(i)) for i in range(400)]
  assert 1e-3 <= min(drawn) and max(drawn) <= 0.1
  assert 0.4 < np.mean(np.array(drawn) < 0.01) < 0.6  # half of them in either decade


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
  """A finished search."""
  config = _config(tmp_path_factory.mktemp('searched'))
  search.run(config, TUNING)
  return config


def test_search_leaves_a_log_and_a_flag_file_that_run_accepts(searched):
  rows = _log(search.tuning_folder(searched) / 'search' / 'trials.csv')
  assert [(r['method'], r['trial']) for r in rows] == [
    *(('fisher', str(i)) for i in range(4)),
    ('head_only', '0'),  # has nothing to tune
  ]
  assert all(r['status'] == 'ok' and float(r['seconds']) >= 0 for r in rows)
  best = min(rows[:4], key=lambda r: float(r['score']))
  text = (search.tuning_folder(searched) / 'search' / 'tuned.flags').read_text(encoding='utf-8')
  flags = tuple(line[9:] for line in text.splitlines() if line.startswith('--hparam='))
  found = hparams.resolve(('fisher',), flags)['fisher']
  assert hparams.label('fisher', found) == best['setting']


def test_score_is_the_mean_gap_to_the_tuning_gold(searched):
  judge = search.prepare_judge(searched, TUNING)
  gold, second = judge.references['gold'], judge.references['second gold']
  names = ('forget_accuracy', 'retain_accuracy', 'validation_accuracy', 'attack')
  assert second['score'] == pytest.approx(np.mean([abs(second[n] - gold[n]) for n in names]))
  assert judge.metrics(judge.originals[0]) == judge.references['original']
  assert set(judge.judged.sets) == {'retain', 'forget', 'test'}
  assert judge.judged.sets['test'] is judge.job.sets['validation']
  assert not {1000, 1001} & {0, 100, 101}  # seeds of the table's models


def test_finished_trials_are_not_run_again_and_more_can_follow(searched, monkeypatch):
  path = search.tuning_folder(searched) / 'search' / 'fisher' / 'trials.csv'
  before = _log(path)
  monkeypatch.setattr(search, '_trial', None)
  search.run(searched, TUNING)
  assert _log(path) == before
  monkeypatch.undo()
  search.run(searched, dataclasses.replace(TUNING, num_trials=5))
  assert _log(path)[:4] == before and len(_log(path)) == 5


def test_another_search_in_the_folder_is_refused(searched):
  with pytest.raises(
    errors.InputError, match=r'log of another search.*search_seed: 0 there, 3 now'
  ):
    search.run(searched, dataclasses.replace(TUNING, search_seed=3))


def test_over_several_originals_a_score_is_the_mean_of_each_ones_own(searched, tmp_path):
  config = dataclasses.replace(searched, workdir=str(tmp_path), methods=('head_only',))
  tuning = dataclasses.replace(TUNING, num_tuning_seeds=2)
  search.run(config, tuning)
  folder = search.tuning_folder(config)
  (row,) = _log(folder / 'search' / 'trials.csv')
  scores = [float(score) for score in row['scores'].split()]
  assert len(set(scores)) == 2 and float(row['score']) == pytest.approx(np.mean(scores), abs=1e-4)
  assert sorted(p.name for p in (folder / 'gold').iterdir()) == [
    f'seed_{1000 + i}' for i in range(4)
  ]

  judge = search.prepare_judge(config, tuning)
  each = [judge.metrics(model, number) for number, model in enumerate(judge.originals)]
  assert score.mean(each) == judge.references['original']
  swapped = [judge.metrics(model, 1 - number) for number, model in enumerate(judge.originals)]
  assert [s['score'] for s in swapped] != [s['score'] for s in each]  # each has a gold of its own

  with pytest.raises(errors.InputError, match='num_tuning_seeds: 2 there, 1 now'):
    search.run(config, TUNING)


def test_failing_and_broken_trials_are_logged_and_lose(searched, monkeypatch):
  def make(*, noise: float = 0.0, max_variance: float = 0.0):
    del max_variance

    def unlearn(problem, key):
      del key
      if noise > 3e-6:
        raise RuntimeError('out of memory\nand more')
      broken = types.ModelState({**problem.original.params}, problem.original.batch_stats)
      if noise:
        head = {name: value * np.nan for name, value in broken.params['head'].items()}
        broken.params['head'] = head
      return broken

    return unlearn

  monkeypatch.setitem(methods.METHODS, 'ssd', methods.Method(make, sees='nothing'))
  monkeypatch.setitem(ranges.RANGES, 'ssd', ranges.RANGES['fisher'])
  config = dataclasses.replace(searched, methods=('ssd',))
  search.run(config, dataclasses.replace(TUNING, num_trials=8))
  rows = _log(search.tuning_folder(config) / 'search' / 'ssd' / 'trials.csv')
  statuses = [row['status'] for row in rows]
  assert set(statuses[1:]) == {'RuntimeError: out of memory', 'outputs are not finite'}
  text = (search.tuning_folder(config) / 'search' / 'ssd' / 'tuned.flags').read_text(
    encoding='utf-8'
  )
  assert statuses[0] == 'ok' and '--hparam=ssd.noise=0.0\n' in text


BAD = {
  'trials': ({}, {'num_trials': 0}, 'num_trials'),
  'search': ({}, {'search': 'bayes'}, 'search.*random, grid'),
  'gold': ({}, {'tuning_seed': 100}, 'tuning_seed: 100'),
  'seeds': ({}, {'num_tuning_seeds': 0}, 'num_tuning_seeds'),
  'later gold': ({}, {'tuning_seed': 97, 'num_tuning_seeds': 2}, 'tuning_seed: 97 to 100'),
  'original': ({'num_seeds': 3}, {'tuning_seed': 2}, 'tuning_seed: 2'),
  'processes': ({'num_processes': 2}, {}, 'num_processes'),
  'method': ({'methods': ('scrubb',)}, {}, "methods.*'scrubb'"),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_refused_before_any_work(case, tmp_path):
  config, tuning, message = BAD[case]
  with pytest.raises(errors.InputError, match=message):
    search.run(_config(tmp_path, **config), dataclasses.replace(TUNING, **tuning))
  assert not list(tmp_path.iterdir())

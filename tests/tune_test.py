"""Tuning: what is tried, what wins, and that a search which was stopped goes on."""

import csv
import dataclasses

import numpy as np
import pytest

from dalign_jax import errors, hparams, methods, types
from dalign_jax.store import timing
from experiments import config as config_lib
from experiments.tuning import ranges, score, search, study

TUNING = config_lib.Tuning(
  num_trials=4, search='random', search_seed=0, tuning_seed=1000, num_tuning_seeds=1
)
TPE = dataclasses.replace(TUNING, search='tpe', num_trials=12)


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


def _tried(folder, method, tuning, fixed=(), score_of=None):
  """The values that a study tries, each trial ended with a score of its values."""
  trials = study.Study(folder, method, hparams.defaults(method), set(fixed), tuning)
  found = []
  while (trial := trials.next()) is not None:
    found.append(trial.values)
    trial.end({'trial': trial.position}, score_of(trial.values) if score_of else 1.0)
  return found


@pytest.mark.parametrize('method', methods.METHODS)
def test_ranges_are_of_hyper_parameters_and_make_methods(method, tmp_path):
  for values in _tried(tmp_path, method, TUNING):
    methods.METHODS[method].make(**values)
    texts = tuple(f'{method}.{name}={value}' for name, value in values.items())
    assert hparams.resolve((method,), texts) == {method: values}  # as a flag file gives it back


@pytest.mark.parametrize('tuning', [TUNING, TPE], ids=['random', 'tpe'])
def test_trials_are_seeded_begin_with_defaults_and_grow(tuning, tmp_path):
  score_of = lambda values: abs(np.log(values['learning_rate'] / 0.02))
  few = _tried(tmp_path / 'a', 'muda', tuning, score_of=score_of)
  assert few[0] == hparams.defaults('muda') and len(few) == tuning.num_trials
  assert len({str(values) for values in few}) == len(few)
  assert _tried(tmp_path / 'b', 'muda', tuning, score_of=score_of) == few
  more = dataclasses.replace(tuning, num_trials=tuning.num_trials + 2)
  assert len(_tried(tmp_path / 'b', 'muda', more, score_of=score_of)) == 2  # the rest alone
  other = dataclasses.replace(tuning, search_seed=1)
  assert _tried(tmp_path / 'c', 'muda', other, score_of=score_of)[1:] != few[1:]


def test_tpe_comes_nearer_to_the_best_setting_than_chance(tmp_path):
  score_of = lambda values: abs(np.log(values['learning_rate'] / 0.003))
  best = {}
  for name in ('tpe', 'random'):
    tuning = dataclasses.replace(TUNING, search=name, num_trials=30)
    found = _tried(tmp_path / name, 'delete', tuning, score_of=score_of)
    best[name] = np.median(sorted(map(score_of, found))[:10])
  assert best['tpe'] < best['random'] / 2


def test_a_fixed_hyper_parameter_is_not_searched(tmp_path):
  found = _tried(tmp_path / 'a', 'finetune', TUNING, fixed={'learning_rate'})
  assert {values['learning_rate'] for values in found} == {0.01}
  assert len({values['num_epochs'] for values in found}) > 1
  both = {'learning_rate', 'num_epochs'}
  assert _tried(tmp_path / 'b', 'finetune', TUNING, fixed=both) == [hparams.defaults('finetune')]


def test_ranges_reach_the_defaults():
  for method, space in ranges.RANGES.items():
    defaults = hparams.defaults(method)
    for name, values_of in space.items():
      widened, default = values_of.including(defaults, name)
      if isinstance(widened, ranges.Log):
        assert 0 < widened.low <= default <= widened.high, (method, name)
      else:
        assert default in widened.values, (method, name)


def test_a_trial_whose_process_died_is_tried_again(tmp_path):
  open_ = lambda: study.Study(
    tmp_path, 'delete', hparams.defaults('delete'), set(), dataclasses.replace(TUNING, num_trials=3)
  )
  first, second = open_(), open_()  # as two processes
  zero, one = first.next(), second.next()
  assert (zero.position, one.position) == (0, 1)
  one_values = one.values
  one._lock.close()  # as when its process dies
  zero.end({'trial': '0'}, 1.0)
  again = first.next()
  assert again.position == 1 and again.values == one_values
  last = first.next()
  assert last.position == 2 and open_().next() is None
  for trial in (again, last):
    trial.end({'trial': str(trial.position)}, None)
  assert [row['trial'] for row in open_().rows()] == ['0', '1', '2']
  assert not list(tmp_path.glob('.trial_*'))


def test_a_trial_that_died_keeps_its_values_though_others_have_ended_since(tmp_path):
  """TPE would propose other values by now."""
  of_method = tmp_path, 'muda', hparams.defaults('muda'), set(), TPE
  trials = study.Study(*of_method)
  for position in range(10):
    trials.next().end({'trial': str(position)}, float(position))
  died, other = trials.next(), study.Study(*of_method).next()
  assert (died.position, other.position) == (10, 11)
  died._lock.close()
  other.end({'trial': '11'}, -1.0)
  again = trials.next()
  assert (again.position, again.values) == (10, died.values)
  again.end({'trial': '10'}, 1.0)


def test_the_defaults_count_in_successive_halving(tmp_path):
  trials = study.Study(tmp_path, 'delete', hparams.defaults('delete'), set(), TUNING)
  defaults, other = trials.next(), trials.next()
  assert not defaults.falls_behind(1.0, 1) and other.falls_behind(100.0, 1)
  for trial in (defaults, other):
    trial.end({'trial': str(trial.position)}, 1.0)


def test_successive_halving_stops_what_falls_behind_but_not_the_defaults(tmp_path):
  trials = study.Study(
    tmp_path, 'delete', hparams.defaults('delete'), set(), dataclasses.replace(TUNING, num_trials=6)
  )
  stopped = []
  while (trial := trials.next()) is not None:
    value = 9.0 if trial.position == 0 else 1.0 + trial.position
    stopped.append(trial.falls_behind(value, 1))
    trial.end({'trial': '0'}, value, is_stopped=stopped[-1])
  assert not stopped[0] and not stopped[1] and all(stopped[3:])


def test_halving_compares_a_point_with_the_same_point_and_not_with_what_died(tmp_path):
  tuning = dataclasses.replace(TUNING, num_trials=5)
  open_ = lambda: study.Study(tmp_path, 'delete', hparams.defaults('delete'), set(), tuning)
  trials = open_()
  for value in (5.0, 2.0):  # of one epoch each: judged at the end alone
    trial = trials.next()
    assert not trial.falls_behind(value, 1)
    trial.end({'trial': str(trial.position)}, value)
  long = trials.next()
  assert not long.falls_behind(2.5, 0)  # the first at half of its epochs
  long.falls_behind(1.0, 1)
  long._lock.close()  # its process dies
  again = open_().next()
  assert again.position == 2 and not again.falls_behind(2.5, 0) and not again.falls_behind(1.0, 1)
  again.end({'trial': '2'}, 1.0)
  last = trials.next()
  assert not last.falls_behind(1.5, 1)  # second of 5, 2, 1 and 1.5; third, if 1 counted twice
  last.end({'trial': '3'}, 1.5)


def test_halving_stops_a_run_after_half_of_its_epochs():
  """The second of four epochs is judged; a run of one epoch is not."""

  class Judge:
    def metrics(self, model):
      return dict(model.params)

  class Trial:
    def falls_behind(self, score, networks):
      assert networks == 0
      return score > 5

  watch, seen = timing.Stopwatch(), []

  def run(num_epochs, score):
    monitor = search._Halfway(Judge(), Trial(), watch)
    monitor.on_start(num_epochs)
    for epoch in range(num_epochs):
      seen.append(epoch)
      monitor.on_epoch(epoch, lambda: types.TrainState({'score': score}, {}, None, 0), {})

  run(4, 1.0)
  assert seen == [0, 1, 2, 3]
  assert watch.seconds < 0  # the measurement is left out of the trial's time
  seen.clear()
  with pytest.raises(search._FallsBehindError) as error:
    run(4, 9.0)
  assert seen == [0, 1] and error.value.metrics == {'score': 9.0}
  seen.clear()
  run(1, 9.0)
  assert seen == [0]


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
  on, off = ([r for r in rows[:4] if bool(r['front']) is front] for front in (True, False))
  beats = lambda a, b: all(float(a[name]) <= float(b[name]) for name in ('score', 'seconds'))
  assert on and all(any(beats(a, b) for a in on) for b in off)
  assert not any(beats(a, b) for a in on for b in on if a is not b)
  best = min(rows[:4], key=lambda r: float(r['score']))
  text = (search.tuning_folder(searched) / 'search' / 'tuned.flags').read_text(encoding='utf-8')
  flags = tuple(line[9:] for line in text.splitlines() if line.startswith('--hparam='))
  found = hparams.resolve(('fisher',), flags)['fisher']
  assert hparams.label('fisher', found) == best['setting']


def test_one_trial_scores_settings_as_given(tmp_path):
  """Variants side by side, as one does to check on the full problem what a smaller one found."""
  names = ('finetune:short', 'finetune:long')
  given = ('finetune:short.num_epochs=1', 'finetune:long.num_epochs=2')
  config = _config(tmp_path, methods=names, hparam=given)
  search.run(config, dataclasses.replace(TUNING, num_trials=1))
  rows = _log(search.tuning_folder(config) / 'search' / 'trials.csv')
  assert [(r['method'], r['setting']) for r in rows] == [
    ('finetune:long', 'finetune,num_epochs=2'),
    ('finetune:short', 'finetune,num_epochs=1'),
  ]
  assert rows[0]['score'] != rows[1]['score'] and all(r['status'] == 'ok' for r in rows)


def test_score_is_the_mean_gap_to_the_tuning_gold_in_noise_floors(searched):
  judge = search.prepare_judge(searched, TUNING)
  gold, second = judge.references['gold'], judge.references['second gold']
  floors = judge.references['noise floor']
  assert set(floors) == {*score.JUDGED, 'da_rank'}
  gaps = {n: abs(second[n] - gold[n]) / floor for n, floor in floors.items()}
  gaps['dimensional_alignment'] = max(gaps['dimensional_alignment'], gaps.pop('da_rank'))
  assert second['score'] == pytest.approx(np.mean(list(gaps.values())))
  assert floors['retain_accuracy'] >= 0.01 and floors['attack'] >= 0.01 and floors['da_rank'] >= 1
  assert second['score'] < 1.5 < judge.references['original']['score']
  assert floors['activation_distance'] == pytest.approx(second['activation_distance'])
  assert judge.metrics(judge.originals[0]) == judge.references['original']
  assert set(judge.judged.sets) == {'retain', 'forget', 'test'}
  assert judge.judged.sets['test'] is judge.job.sets['validation']
  assert not {1000, 1001} & {0, 100, 101}  # seeds of the table's models


def test_a_collapsed_retain_space_does_not_have_golds_alignment(searched, monkeypatch):
  judge = search.prepare_judge(searched, TUNING)
  target = judge._seeds[0].target
  scores = {}
  for rank in (target['da_rank'], 1.0):
    monkeypatch.setattr(judge, '_measure', lambda *args, r=rank: {**target, 'da_rank': r})
    scores[rank] = judge.metrics(judge.originals[0])['score']
  away = (target['da_rank'] - 1) / judge.floors['da_rank'] / len(score.JUDGED)
  assert list(scores.values()) == [0.0, pytest.approx(away)] and away > 0


def test_finished_trials_are_not_run_again_and_more_can_follow(searched, monkeypatch):
  path = search.tuning_folder(searched) / 'search' / 'fisher' / 'trials.csv'
  before = _log(path)
  monkeypatch.setattr(search, '_trial', None)
  search.run(searched, TUNING)
  assert _log(path) == before
  monkeypatch.undo()
  search.run(searched, dataclasses.replace(TUNING, num_trials=5))
  front = lambda rows: [{**row, 'front': ''} for row in rows]  # a fifth may beat one of them
  assert front(_log(path)[:4]) == front(before) and len(_log(path)) == 5


def test_another_search_in_the_folder_is_refused(searched):
  with pytest.raises(
    errors.InputError, match=r'trials of another search.*search_seed: 0 there, 3 now'
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
  assert set(statuses[1:]) == {'RuntimeError: out of memory', search._NOT_FINITE}
  text = (search.tuning_folder(config) / 'search' / 'ssd' / 'tuned.flags').read_text(
    encoding='utf-8'
  )
  assert statuses[0] == 'ok' and '--hparam=ssd.noise=0.0\n' in text


BAD = {
  'trials': ({}, {'num_trials': 0}, 'num_trials'),
  'search': ({}, {'search': 'bayes'}, 'search.*tpe, random'),
  'gold': ({}, {'tuning_seed': 100}, 'tuning_seed: 100'),
  'seeds': ({}, {'num_tuning_seeds': 0}, 'num_tuning_seeds'),
  'later gold': ({}, {'tuning_seed': 97, 'num_tuning_seeds': 2}, 'tuning_seed: 97 to 100'),
  'original': ({'num_seeds': 3}, {'tuning_seed': 2}, 'tuning_seed: 2'),
  'processes': ({'num_processes': 2}, {}, 'num_processes'),
  'one job of several': ({'distributed': 'auto'}, {}, 'distributed'),
  'method': ({'methods': ('scrubb',)}, {}, "methods.*'scrubb'"),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_refused_before_any_work(case, tmp_path):
  config, tuning, message = BAD[case]
  with pytest.raises(errors.InputError, match=message):
    search.run(_config(tmp_path, **config), dataclasses.replace(TUNING, **tuning))
  assert not list(tmp_path.iterdir())


def test_trials_under_other_settings_are_of_another_search(tmp_path):
  of = lambda settings: study.Study(
    tmp_path, 'delete', hparams.defaults('delete'), set(), TUNING, settings
  )
  usual = search._settings(config_lib.Config())
  assert usual == {'settings': None}
  study.Study(tmp_path, 'delete', hparams.defaults('delete'), set(), TUNING)  # of an older version
  of(usual)
  for changes in (
    {'method_schedule': 'cosine'},
    {'trainable': ('^head/',)},
    {'da_energy': 0.5},
    {'evaluation_seed': 7},
  ):
    with pytest.raises(errors.InputError, match=r'trials of another search \(settings: None'):
      of(search._settings(config_lib.Config(**changes)))


def test_a_search_waits_for_the_models_that_another_process_trains(monkeypatch, capsys):
  calls, slept = [], []

  def busy_twice():
    calls.append(1)
    if len(calls) < 3:
      raise errors.BusyError('another process is at work')

  monkeypatch.setattr(search.time, 'sleep', slept.append)
  search._when_free(busy_twice)
  assert len(calls) == 3 and slept == [search._WAIT_SECONDS] * 2
  assert capsys.readouterr().out.count('waiting: another process is at work') == 1
  with pytest.raises(errors.InputError, match='wrong'):
    search._when_free(lambda: _raise(errors.InputError('wrong')))


def _raise(error):
  raise error

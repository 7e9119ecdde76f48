"""The main job: end to end, twice, interrupted, misused."""

import contextlib
import csv
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

from absl.testing import flagsaver
import chex
import jax
import numpy as np
from plotly import offline
import pytest

from dalign_jax import checkpoints, errors, flop, hparams
from dalign_jax.store import files, model_folder, progress
from experiments import config as config_lib
from experiments import run, stages, sweep, tune
from experiments.benchmarks import without_gold
from experiments.measure import seed_groups
from experiments.problem import folders

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
  'dataset': 'digits',
  'width_multiplier': 0.125,
  'num_epochs': 3,
  'batch_size': 64,
  'methods': ('finetune', 'head_only', 'muda'),
  'hparam': ('finetune.num_epochs=1', 'muda.rounds=1'),
  'num_devices': 1,
  'cache_dir': '',
  'compilation_cache_dir': '',
}


QUICK = {'model': 'experiments.networks:mlp', 'width_multiplier': 1.0}  # compiles in a second


def _config(workdir, **changes):
  return config_lib.Config(**{**TINY, 'workdir': str(workdir), **changes})


def _arguments(config):
  """The configuration as command line arguments."""
  arguments = []
  for name, value in dataclasses.asdict(config).items():
    if name == 'hparam':
      arguments += [f'--hparam={v}' for v in value]
    elif isinstance(value, tuple):
      arguments.append(f'--{name}={",".join(value)}')
    elif value != '':
      arguments.append(f'--{name}={value}')
  return arguments


def _start(*arguments, **environment):
  return subprocess.Popen(
    [sys.executable, '-m', 'experiments.run', *arguments],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _run(*arguments, **environment):
  process = _start(*arguments, **environment)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished run."""
  config = _config(tmp_path_factory.mktemp('finished'))
  stages.run(config)
  return config, pathlib.Path(config.workdir) / config.problem_name()


def _files(folder):
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def _rows(folder):
  lines = (folder / 'report.csv').read_text(encoding='utf-8').splitlines()
  return {row['model']: row for row in csv.DictReader(lines)}


def test_a_method_that_was_asked_for_stays_one(finished):
  """`head_only` is a control only where nobody asked for it."""
  config, folder = finished
  job = stages.prepare(dataclasses.replace(config, methods=('muda',), hparam=()), folder)
  kinds = {group.name: group.kind for group in seed_groups.runs(job)}
  assert kinds['head_only'] == 'unlearned'
  assert seed_groups.of_run(job, 'head_only', 'head_only', seed=7).kind == 'control'


def test_job_leaves_what_it_promises(finished):
  _, folder = finished
  for name in (
    'problem.json',
    'splits.npz',
    'original/seed_0/train.jsonl',
    'original/seed_0/evaluation.json',
    'gold/seed_100/train.jsonl',
    'gold/seed_101/evaluation.json',
    'runs/head_only/seed_0/evaluation.json',
    'runs/head_only/seed_0/flags.txt',
    'report.html',
    'report.md',
    'report.csv',
  ):
    assert (folder / name).is_file(), name
  for name in ('original/seed_0/model', 'gold/seed_100/model', 'runs/head_only/seed_0/unlearned'):
    assert checkpoints.exists(folder / name), name
  assert not list(folder.rglob('training'))
  reports = {'report.html', 'report.md', 'report.csv', 'rows.json'}
  known = {'.lock', 'problem.json', 'splits.npz', *reports}
  assert {p.name for p in folder.iterdir() if p.is_file()} == known


def test_table_tells_the_story(finished):
  _, folder = finished
  rows = _rows(folder)
  assert set(rows) == {
    'original',
    'gold',
    'second gold',
    'finetune,num_epochs=1',
    'head_only',
    'muda,rounds=1',
  }
  number = lambda name, column: float(rows[name][column])
  assert number('gold', 'forget_accuracy') == 0
  assert number('original', 'forget_accuracy') > 0.8
  assert number('head_only', 'forget_accuracy') == 0
  for same in ('dimensional_alignment', 'linear_probe', 'nmi', 'f1'):
    assert number('head_only', same) == number('original', same)
  assert number('gold', 'average_gap') == 0 and number('gold', 'tug_of_war') == 1
  assert rows['second gold']['activation_distance_at_floor'] == 'True'
  assert rows['gold']['activation_distance'] == ''


def test_report_is_one_self_contained_page(finished):
  config, folder = finished
  page = (folder / 'report.html').read_text(encoding='utf-8')
  assert page.count('<figure id="figure-') == 9
  assert len([*(folder / 'figures').glob('*.svg')]) == 9 + len(config.methods)
  own = page.replace(offline.get_plotlyjs(), '')
  assert 'http' not in own and own.count('<script>') == 2 and ' src=' not in own
  for name in ('original', 'second gold', 'head_only', 'Nothing can be ranked here'):
    assert name in page


def test_second_run_does_nothing_and_restores_no_weights(finished, capsys, monkeypatch):
  config, folder = finished
  before = _files(folder)
  restored = []
  monkeypatch.setattr(checkpoints, 'restore', lambda *args: restored.append(args))
  stages.run(config)
  after = _files(folder)
  changed = {p.name for p in after if after[p] != before.get(p) and p.parent.name != 'figures'}
  assert changed <= {'report.html', 'report.md', 'report.csv', 'rows.json', '.lock'}
  assert 'done before' in capsys.readouterr().out
  assert not restored


def test_equal_seeds_give_equal_checkpoints(finished, tmp_path):
  config, folder = finished
  again = dataclasses.replace(config, workdir=str(tmp_path))
  stages.run(dataclasses.replace(again, stages=('prepare', 'train_original', 'unlearn')))
  for name in ('original/seed_0/model', 'runs/muda,rounds=1/seed_0/unlearned'):
    first, _ = checkpoints.restore(folder / name)
    second, _ = checkpoints.restore(tmp_path / config.problem_name() / name)
    chex.assert_trees_all_equal(first, second)


def test_flags_of_a_run_are_a_flag_file_that_makes_it_again(finished):
  config, folder = finished
  text = (folder / 'runs' / 'muda,rounds=1' / 'seed_0' / 'flags.txt').read_text(encoding='utf-8')
  assert '--hparam=muda.rounds=1\n' in text and '--dataset=digits\n' in text
  resolved = hparams.resolve(
    ('muda',), tuple(line[9:] for line in text.splitlines() if line.startswith('--hparam='))
  )
  expected = {**hparams.defaults('muda'), 'rounds': 1}
  assert resolved == {'muda': expected}
  assert f'--workdir={config.workdir}' in text


@pytest.mark.parametrize(
  ('changes', 'difference'),
  [
    ({'learning_rate': 0.05}, r'learning_rate: 0.1 there, 0.05 now'),
    ({'forget': 'class:7'}, r"forget: 'class:3' there, 'class:7' now"),
    ({'dataset': 'mnist5k'}, r"dataset: 'digits' there, 'mnist5k' now"),
    ({'split_seed': 1}, r'split_hash.*split_seed: 0 there, 1 now'),
  ],
)
def test_changed_configuration_is_refused_with_the_difference(finished, changes, difference):
  config, folder = finished
  before = _files(folder)
  other = dataclasses.replace(config, **{'problem': config.problem_name(), **changes})
  with pytest.raises(errors.InputError, match=difference):
    stages.run(other)
  after = _files(folder)
  assert {p for p in after if after[p] != before[p]} <= {folder / '.lock'}


def test_changed_deletion_request_is_refused(tmp_path):
  request = tmp_path / 'request.txt'
  request.write_text('digits_00003\ndigits_00013\n', encoding='utf-8')
  config = _config(tmp_path, forget=f'ids:{request}', stages=('prepare',), methods=('muda',))
  stages.run(config)
  stages.run(config)
  request.write_text('digits_00100\ndigits_00200\n', encoding='utf-8')
  with pytest.raises(errors.InputError, match='split_hash'):
    stages.run(config)
  request.write_text('digits_00003\nno_such_id\n', encoding='utf-8')
  with pytest.raises(errors.InputError, match='no_such_id'):
    stages.run(config)


def test_one_image_can_be_forgotten(tmp_path):
  request = tmp_path / 'request.txt'
  request.write_text('digits_00003\n', encoding='utf-8')
  config = _config(tmp_path, forget=f'ids:{request}', methods=('muda',))
  stages.run(config)
  rows = _rows(tmp_path / config.problem_name())
  assert rows['gold']['average_gap'] == '' and float(rows['gold']['tug_of_war']) == 1
  assert 'attack' not in rows['gold']


def test_evaluation_follows_its_models(finished, tmp_path, capsys):
  config, folder = finished
  copy = tmp_path / config.problem_name()
  shutil.copytree(folder, copy)
  config = dataclasses.replace(config, workdir=str(tmp_path), methods=('head_only',))
  stages.run(config)
  assert 'evaluate: done before' in capsys.readouterr().out
  gold, record = checkpoints.restore(folder / 'gold' / 'seed_101' / 'model')
  checkpoints.save(copy / 'gold' / 'seed_100' / 'model', gold, {**record, 'seed': 100})
  stages.run(config)
  out = capsys.readouterr().out
  assert 'evaluate: 4 models' in out and 'left out' in out
  assert set(_rows(copy)) == {'original', 'gold', 'second gold', 'head_only'}
  assert float(_rows(copy)['second gold']['activation_distance']) == 0


def test_roles_with_equal_seeds_have_nothing_in_common(tmp_path):
  config = _config(
    tmp_path,
    methods=('retrain',),
    hparam=(),
    original_seed=5,
    gold_seed=5,
    unlearn_seed=5,
    num_epochs=1,
    stages=('train_original', 'train_gold', 'unlearn'),
  )
  stages.run(config)
  folder = tmp_path / config.problem_name()
  kernels = [
    checkpoints.restore(folder / name)[0].params['head']['kernel']
    for name in ('original/seed_5/model', 'gold/seed_5/model', 'runs/retrain/seed_5/unlearned')
  ]
  for i, first in enumerate(kernels):
    assert all((first != second).all() for second in kernels[:i])


def test_group_norm_and_several_seeds(tmp_path):
  config = _config(tmp_path, norm='group', methods=('muda',), hparam=('muda.rounds=1',))
  for seed in (0, 1):
    stages.run(dataclasses.replace(config, unlearn_seed=seed))
  rows = _rows(tmp_path / config.problem_name())
  assert {'muda,rounds=1 (seed 0)', 'muda,rounds=1 (seed 1)'} < set(rows)


def test_flag_files_can_be_narrowed():
  both = ('finetune.num_epochs=1', 'muda.rounds=1')
  assert hparams.resolve(('muda',), both) == {'muda': {**hparams.defaults('muda'), 'rounds': 1}}


def test_flags_beside_a_model_are_those_that_made_it(tmp_path):
  """Not those of an attempt that failed before."""
  config = _config(tmp_path, methods=('finetune:x',), stages=('prepare', 'train_original'))
  stages.run(config)
  of = lambda rate: dataclasses.replace(
    config,
    hparam=('finetune:x.num_epochs=1', f'finetune:x.learning_rate={rate}'),
    stages=('unlearn',),
  )
  with pytest.raises(errors.InputError, match='Try a lower learning rate'):
    stages.run(of(1000.0))
  stages.run(of(0.01))
  (path,) = folders.problem_folder(config).glob('runs/*/seed_0/flags.txt')
  assert '--hparam=finetune:x.learning_rate=0.01' in path.read_text(encoding='utf-8').splitlines()


def test_interrupted_run_is_not_continued_with_other_settings(tmp_path):
  monitor = lambda flags: progress.RunMonitor(
    tmp_path, progress.Quiet(), lambda: 0.0, {'xla_flags': flags}
  )
  state = {'w': np.zeros(2, np.float32)}
  first = monitor('--a')
  assert first.restore(state) is None
  first.on_start(2)
  first.on_epoch(0, lambda: state, {'loss': 1.0})
  assert monitor('--a').restore(state)[0] == 1
  for other in (state, {'w': state['w'], 'trace': state['w']}):  # of another optimizer, say
    with pytest.raises(errors.InputError, match="xla_flags: '--a' there, '--b' now"):
      monitor('--b').restore(other)
  assert monitor('--a').restore(state)[0] == 1  # nothing was removed


def test_what_a_resumed_run_does_again_is_counted_once(tmp_path, monkeypatch):
  done = [0.0]
  monkeypatch.setattr(flop, 'total', lambda: done[0])
  state = {'w': np.zeros(2, np.float32)}
  for epoch in range(2):
    monitor = progress.RunMonitor(tmp_path, progress.Quiet(), lambda: 0.0, {})
    done[0] += 100  # before the first epoch: a twin, a mask
    assert (monitor.restore(state) is None) == (epoch == 0)
    monitor.on_start(2)
    done[0] += 7
    monitor.on_epoch(epoch, lambda: state, {'loss': 1.0})
  assert monitor.seconds()['flop'] == 100 + 7 + 7


def test_interrupted_model_is_not_continued_on_another_number_of_devices(tmp_path):
  state = {'w': np.zeros(2, np.float32)}

  def stop(monitor):
    if monitor.restore(state) is None:
      monitor.on_start(2)
      monitor.on_epoch(0, lambda: state, {'loss': 1.0})
    raise KeyboardInterrupt

  make = lambda count: model_folder.make_model(
    tmp_path, 'model', stop, {'seed': 0}, 'a model', devices=jax.devices()[:count]
  )
  for _ in range(2):
    with pytest.raises(KeyboardInterrupt):
      make(1)
  with pytest.raises(errors.InputError, match="devices: '1 x cpu' there, '2 x cpu' now"):
    make(2)


def test_progress_counts_the_steps_of_all_phases_since_the_start(tmp_path):
  shown = []

  class Shown(progress.Quiet):
    def update(self, done, total, note):
      shown.append((done, total))

  monitor = progress.RunMonitor(tmp_path, Shown(), lambda: 0.0, {})
  monitor.on_start(2)
  for epoch in range(2):
    for phase, total in (('forget', 2), ('recover', 3)):
      for done in range(1, total + 1):
        monitor.on_step(phase, done, total)
    monitor.on_epoch(epoch, lambda: {'w': np.zeros(1)}, {})
  assert [done for done, _ in shown] == list(range(1, 11))
  assert shown[-1] == (10, 10)


def test_second_process_in_a_folder_is_refused(finished):
  config, folder = finished
  with files.lock(folder), pytest.raises(errors.InputError, match='another process is at work'):
    stages.run(config)


@pytest.mark.parametrize('wrong', [{'dataset': 'digitsz'}, {'forget': 'class:77'}])
def test_refused_run_leaves_no_folder(tmp_path, wrong):
  with pytest.raises(errors.InputError, match=f'{next(iter(wrong))}.*(digitsz|77)'):
    stages.run(_config(tmp_path / 'a' / 'b', **wrong))
  assert not any(tmp_path.iterdir())


def test_folder_that_was_there_or_is_written_in_stays(tmp_path):
  for folder in (tmp_path / 'there', tmp_path / 'written'):
    if folder.name == 'there':
      folder.mkdir()
    with contextlib.suppress(ZeroDivisionError), files.lock(folder):
      if folder.name == 'written':
        (folder / 'a').touch()
      raise ZeroDivisionError
  assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*')} == {
    'there',
    'there/.lock',
    'written',
    'written/.lock',
    'written/a',
  }


def test_stages_run_alone(tmp_path):
  config = _config(tmp_path, methods=('head_only',), hparam=())
  folder = tmp_path / config.problem_name()
  with pytest.raises(errors.InputError, match='run train_original first'):
    stages.run(dataclasses.replace(config, stages=('unlearn',)))
  stages.run(dataclasses.replace(config, stages=('train_original',), num_epochs=3))
  assert checkpoints.exists(folder / 'original/seed_0/model')
  assert not (folder / 'gold').exists()
  stages.run(dataclasses.replace(config, stages=('unlearn',)))
  with pytest.raises(errors.InputError, match='gold'):
    stages.run(dataclasses.replace(config, stages=('evaluate',)))
  with pytest.raises(errors.InputError, match='run evaluate first'):
    stages.run(dataclasses.replace(config, stages=('report',)))


def test_damaged_model_is_named(finished, tmp_path):
  config, folder = finished
  copy = tmp_path / config.problem_name()
  shutil.copytree(folder, copy)
  for path in (copy / 'original/seed_0/model').rglob('*'):
    if path.is_file() and path.parent.name == 'd':
      path.write_bytes(b'')
  shutil.rmtree(copy / 'runs')  # a run that has nothing to do reads no weights
  with pytest.raises(errors.InputError, match=r'unreadable checkpoint in .*original'):
    stages.run(dataclasses.replace(config, workdir=str(tmp_path)))


def test_group_and_random_forgetting_have_no_class_columns(tmp_path):
  config = _config(tmp_path, forget='random:0.1', methods=('gradient_ascent',), hparam=())
  stages.run(config)
  rows = _rows(tmp_path / config.problem_name())
  assert 'test_forget_accuracy' not in rows['gold'] and 'attack' in rows['gold']
  with pytest.raises(errors.InputError, match='head_only forgets whole classes'):
    stages.run(dataclasses.replace(config, methods=('head_only',)))


def test_nan_stops_the_run_and_says_what_is_kept(tmp_path):
  config = _config(tmp_path, learning_rate=1000.0, warmup_epochs=0.0)
  with pytest.raises(errors.InputError, match=r"epoch 1 of 3: loss is .*'train'.*no epoch was"):
    stages.run(config)


@pytest.mark.slow
def test_killed_run_continues_to_the_same_bits(tmp_path):
  config = _config(tmp_path, stages=('train_original',), num_epochs=30)
  folder = tmp_path / config.problem_name() / 'original' / 'seed_0'
  process = _start(*_arguments(config))
  deadline = time.monotonic() + 240
  log = folder / 'train.jsonl'  # checkpoints come and go while the process runs
  finished_epochs = lambda: len(log.read_text(encoding='utf-8').splitlines()) if log.exists() else 0
  while finished_epochs() < 4 and time.monotonic() < deadline:
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not checkpoints.exists(folder / 'model')
  code, out, err = _run(*_arguments(config))
  assert code == 0, err
  assert 'resuming after epoch' in out
  lines = (folder / 'train.jsonl').read_text(encoding='utf-8').splitlines()
  assert len(lines) == 30
  other = dataclasses.replace(config, workdir=str(tmp_path / 'other'))
  assert _run(*_arguments(other))[0] == 0
  whole, _ = checkpoints.restore(
    tmp_path / 'other' / config.problem_name() / 'original/seed_0/model'
  )
  chex.assert_trees_all_equal(checkpoints.restore(folder / 'model')[0], whole)


MUDA = 'runs/muda,rounds=1/seed_0/unlearned'
ORIGINALS = [f'original/seed_{i}/model' for i in range(3)]
GOLDS = [f'gold/seed_{100 + i}/model' for i in range(6)]
TOGETHER = {  # what two processes make, and how they find each other -> the models to compare
  # one epoch: in more, rounding that differs between the two grows past any tolerance
  'one': ({'num_epochs': 1}, 'address', ('original/seed_0/model', MUDA)),
  'ensemble': ({'num_seeds': 3, 'methods': ()}, 'address', ORIGINALS),
  'golds, under SLURM': (
    {'num_seeds': 3, 'methods': (), 'stages': ('train_gold',)},
    'slurm',
    GOLDS,
  ),
}


def _start_two(config, how):
  """Starts a run as two processes, as a user or as SLURM would."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  for i in range(2):
    if how == 'address':
      part = {'coordinator_address': f'localhost:{port}', 'num_processes': 2, 'process_id': i}
      yield _start(*_arguments(dataclasses.replace(config, **part)))
    else:  # JAX derives the port from the job's number
      variables = {'JOB_ID': port, 'STEP_NODELIST': 'localhost', 'NTASKS': 2, 'PROCID': i}
      variables |= {'LOCALID': i, 'STEP_NUM_NODES': 1}
      auto = dataclasses.replace(config, distributed='auto')
      yield _start(*_arguments(auto), **{f'SLURM_{k}': str(v) for k, v in variables.items()})


@pytest.mark.slow
@pytest.mark.usefixtures('exact_sums')
@pytest.mark.parametrize('case', TOGETHER)
def test_two_processes_equal_one(case, tmp_path):
  changes, how, names = TOGETHER[case]
  common = {'stages': ('train_original', 'unlearn'), 'methods': ('muda',), **changes}
  config = _config(tmp_path / 'two', **common, hparam=('muda.rounds=1',), num_devices=0)
  started = list(_start_two(config, how))
  try:
    for process in started:
      _, err = process.communicate(timeout=240)
      assert process.returncode == 0, err
  finally:
    for process in started:
      process.kill()
  alone = dataclasses.replace(config, workdir=str(tmp_path / 'one'), num_devices=1)
  assert _run(*_arguments(alone))[0] == 0
  for name in names:
    two, _ = checkpoints.restore(tmp_path / 'two' / config.problem_name() / name)
    one, _ = checkpoints.restore(tmp_path / 'one' / config.problem_name() / name)
    chex.assert_trees_all_close(two, one, rtol=1e-2, atol=2e-3)


BAD = {
  'dataset': ({'dataset': 'mnist7'}, r'dataset.*mnist7'),
  'model': ({'model': 'resnet19'}, r'model.*resnet19'),
  'model option': ({'model': 'vit_tiny', 'norm': 'group'}, r'model.*norm'),
  'forget class': ({'forget': 'class:12'}, r'forget.*12'),
  'forget form': ({'forget': 'everything'}, r'forget.*everything'),
  'forget all': ({'forget': 'classes:0,1,2,3,4,5,6,7,8,9'}, r'forget'),
  'ids file': ({'forget': 'ids:nowhere.txt'}, r'forget.*nowhere.txt'),
  'batch': ({'batch_size': 0}, r'batch_size'),
  'epochs': ({'num_epochs': 0}, r'num_epochs'),
  'augmentation': ({'augmentation': 'cutout'}, r'augmentation.*cutout'),
  'gold': ({'num_gold': 1}, r'num_gold'),
  'golds': ({'num_seeds': 2, 'num_gold': 2}, r'num_gold.*at least 4'),
  'evaluation': ({'evaluation': 'fully'}, r'evaluation.*standard, recovery, full'),
  'shadows': ({'evaluation': 'full', 'num_shadows': 5}, r'num_shadows.*even'),
  'seeds': ({'num_seeds': -1}, r'num_seeds'),
  'devices': ({'num_devices': 64}, r'num_devices'),
  'method': ({'methods': ('scrubb',)}, r"methods.*'scrubb'"),
  'hparam name': ({'hparam': ('muda.da_wait=5',)}, r"hparam.*'da_wait'.*da_weight"),
  'hparam method': ({'hparam': ('scrub.alpha=5',)}, r'hparam.*scrub'),
  'hparam form': ({'hparam': ('muda',)}, r'hparam.*method.name=value'),
  'hparam type': ({'hparam': ('muda.rounds=many',)}, r'hparam.*rounds must be int'),
  'hparam sign': ({'hparam': ('muda.rounds=-1',)}, r'hparam.*rounds must be in \[0, '),
  'method batch': ({'hparam': ('muda.batch_size=0',)}, r'muda.batch_size.*must be in'),
  'hparam value': ({'hparam': ('muda.energy=2',)}, r'hparam.*energy must be in'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_refused_before_any_work(case, tmp_path):
  changes, message = BAD[case]
  with pytest.raises(errors.InputError, match=message):
    stages.run(_config(tmp_path, **changes))
  assert not list(tmp_path.rglob('model'))
  assert not list(tmp_path.rglob('problem.json'))


def test_command_line_fails_in_one_line_with_code_2(tmp_path):
  for argument, message in (
    ('--flagfile=nowhere.flags', 'nowhere.flags'),
    ('--no_such_flag=1', 'no_such_flag'),
    ('--stages=trian', '--stages: must be some of prepare, train_original'),
    ('--num_epochs=ten', 'num_epochs'),
    ('extra', "unexpected argument 'extra'"),
  ):
    code, _, err = _run(argument, f'--workdir={tmp_path}')
    assert code == 2, err
    assert err.startswith('error: ') and message in err and len(err.splitlines()) == 1, err


def test_read_only_workdir_is_named():
  with pytest.raises(errors.InputError, match='workdir: cannot write'):
    stages.run(_config('/proc/nowhere'))


FLAG_FILES = sorted((ROOT / 'experiments' / 'flags').glob('*.flags'))


@pytest.mark.parametrize('path', FLAG_FILES, ids=lambda p: p.name)
@flagsaver.flagsaver
def test_flag_file_parses_and_says_what_it_does(path):
  run.FLAGS(['run', f'--flagfile={path}'])
  config = run.read_config()
  hparams.resolve(config.methods, config.hparam)
  assert set(config.stages) <= set(config_lib.STAGES)
  header = [line for line in path.read_text(encoding='utf-8').splitlines() if line[:1] == '#']
  programs = {'tune': tune, 'sweep': sweep, 'sizes': sweep, 'without': without_gold}
  program = programs.get(path.name.partition('_')[0], run)
  command = f'python -m {program.__name__} --flagfile=experiments/flags/{path.name}'
  assert any(command in line for line in header)


def test_progress_lines_have_rate_and_time_left(monkeypatch, capsys):
  now = iter([0.0, 1.0, 20.0])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(now))
  with progress.bar('train') as shown:
    shown.update(5, 80, 'steps')
    shown.update(40, 80, 'steps')
  assert capsys.readouterr().out == '  train: 40/80 steps, 2.0/s, 20 s left\n'


NETWORK = """
from dalign_jax import models, parallel

def make(num_classes, image_shape):
  # {comment}
  return models.build(
    'cnn', num_classes=num_classes, image_shape=image_shape, width_multiplier=0.125,
    axis_name=parallel.AXIS)
"""


def test_another_source_of_a_network_is_another_problem(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  path = tmp_path / 'own_network_of_a_run.py'
  path.write_text(NETWORK.format(comment='first'), encoding='utf-8')
  options = {'model': 'own_network_of_a_run:make', 'stages': ('prepare',), 'problem': 'p'}
  with pytest.raises(errors.InputError, match=r'width_multiplier: is for networks of the library'):
    stages.run(_config(tmp_path, **options, width_multiplier=0.5))
  config = _config(tmp_path, **options, width_multiplier=1.0)
  stages.run(config)
  stages.run(config)
  path.write_text(NETWORK.format(comment='second'), encoding='utf-8')
  with pytest.raises(errors.InputError, match=r'holds another problem \(network_hash: '):
    stages.run(config)


@pytest.mark.slow
def test_a_signal_ends_the_run_after_its_step_and_it_goes_on(tmp_path):
  config = _config(tmp_path, stages=('train_original',), num_epochs=2000)
  log = tmp_path / config.problem_name() / 'original' / 'seed_0' / 'train.jsonl'
  epochs = lambda: log.read_text(encoding='utf-8').count('\n') if log.exists() else 0
  for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
    before, process = epochs(), _start(*_arguments(config))
    deadline = time.monotonic() + 240
    while epochs() <= before and time.monotonic() < deadline:
      time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert err.splitlines()[-1].startswith(f'stopped by {signal.Signals(number).name}: the same')
    assert 'Traceback' not in err
  assert 'resuming after epoch' in out

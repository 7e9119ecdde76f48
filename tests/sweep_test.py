"""Sweeps: cells that run alone, failures that stop nothing, one report over all."""

import csv
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

from absl.testing import flagsaver
import pytest

from dalign_jax import checkpoints, command, errors, hparams
from dalign_jax.store import files
from experiments import config as config_lib
from experiments import launchers, run, stages, sweep, sweep_cells
from experiments.measure import rows as rows_lib
from experiments.report import sweep_report

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
  'dataset': 'digits',
  'width_multiplier': 0.125,
  'num_epochs': 2,
  'batch_size': 64,
  'methods': ('head_only', 'gradient_ascent'),
  'hparam': ('gradient_ascent.num_epochs=1',),
  'num_seeds': 2,
  'num_devices': 1,
  'cache_dir': '',
  'compilation_cache_dir': '',
}


def _scenario(workdir, **changes):
  config = config_lib.Config(**{**TINY, 'workdir': str(workdir), **changes})
  return sweep_cells.Scenario(config.problem_name(), config)


def _all_cells(scenario, **how):
  unlearning = sweep_cells.unlearning(scenario, **{'split_seeds': True, **how})
  return [sweep_cells.preparation(scenario), *unlearning]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A scenario whose cells were run one by one, as a scheduler would."""
  scenario = _scenario(tmp_path_factory.mktemp('sweep'))
  planned = _all_cells(scenario)
  assert not any(cell.done for cell in planned)
  for cell in [planned[0], *reversed(planned[1:])]:  # methods come in any order
    stages.run(cell.config)
  stages.run(sweep_cells.reporting(scenario, scenario.config.methods).config)
  return scenario


def test_cells_are_one_for_each_method_or_one_for_each_seed_too(tmp_path):
  scenario = _scenario(tmp_path)
  assert [c.name for c in _all_cells(scenario, split_seeds=False)] == [
    'digits-cnn-class_3.prepare',
    'digits-cnn-class_3.head_only',
    'digits-cnn-class_3.gradient_ascent',
  ]
  assert [c.config.member for c in _all_cells(scenario)] == [-1, 0, 1, 0, 1]


def test_finished_cells_are_known_and_changed_ones_are_not(finished):
  assert all(cell.done for cell in _all_cells(finished))
  assert all(cell.done for cell in _all_cells(finished, split_seeds=False))
  more = dataclasses.replace(finished.config, num_seeds=3, num_gold=6)
  planned = _all_cells(dataclasses.replace(finished, config=more))
  assert [cell.done for cell in planned] == [False, True, True, False, True, True, False]
  other = dataclasses.replace(finished.config, hparam=('gradient_ascent.num_epochs=2',))
  planned = _all_cells(dataclasses.replace(finished, config=other), split_seeds=False)
  assert [cell.done for cell in planned] == [True, True, False]


@pytest.mark.parametrize('evaluation', ['recovery', 'full'])
def test_a_preparation_that_lacks_controls_or_shadows_is_not_done(evaluation, finished):
  more = dataclasses.replace(finished.config, evaluation=evaluation)
  planned = _all_cells(dataclasses.replace(finished, config=more))
  has_shadows = evaluation == 'full'  # a method's first member runs from them too
  assert [cell.done for cell in planned] == [False, *(2 * [not has_shadows, True])]


def test_cells_train_nothing_twice_and_equal_a_run_in_one_process(finished, tmp_path):
  whole = dataclasses.replace(finished.config, workdir=str(tmp_path))
  stages.run(whole)
  one = tmp_path / finished.name
  many = finished.folders.folder
  read = lambda folder: list(
    csv.DictReader((folder / 'report.csv').read_text(encoding='utf-8').splitlines())
  )
  times = ('seconds', 'compile_seconds', 'time_ratio')
  for first, second in zip(read(one), read(many), strict=True):
    assert {k: v for k, v in first.items() if k not in times} == {
      k: v for k, v in second.items() if k not in times
    }
  names = lambda folder: {p.name for p in folder.iterdir()}
  assert names(one / 'gold') == names(many / 'gold')
  assert names(one / 'runs') == names(many / 'runs')


def test_unlearning_shares_a_folder_that_training_holds_alone(finished):
  folder = finished.folders.folder
  method = sweep_cells.unlearning(finished, split_seeds=True)[0].config
  with files.lock(folder, is_shared=True):
    stages.run(method)
    with pytest.raises(errors.InputError, match='another process is at work'):
      stages.run(sweep_cells.preparation(finished).config)
  with files.lock(folder), pytest.raises(errors.InputError, match='another process is at work'):
    stages.run(method)


def test_a_member_is_one_of_the_originals(tmp_path):
  with pytest.raises(errors.InputError, match='member: must be less than the 2 originals, got 2'):
    _scenario(tmp_path, member=2)


def test_report_over_scenarios_has_ranks_links_and_failures(finished, tmp_path):
  part = sweep_report.gather(finished)
  assert [row.name for row in part.record.rows] == [
    'original',
    'gold',
    'second gold',
    'gradient_ascent',
    'head_only',
  ]
  failure = sweep_cells.Failure(
    sweep_cells.preparation(finished)._replace(name='other.ssd'), 'no <memory>'
  )
  sweep_report.write(tmp_path, [part, part], [failure])
  page = (tmp_path / 'report.html').read_text(encoding='utf-8')
  assert 'no &lt;memory&gt;' in page and 'src="http' not in page
  flags = finished.folders.run_folders('head_only')[0] / 'flags.txt'
  assert 'href="#flags-0-4"' in page and page.count('--methods=head_only') == 2
  assert {p.name for p in (tmp_path / 'figures').iterdir()} == {'ranks.svg', 'time.svg', 'heat.svg'}
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert '**Failed:** other.ssd: no <memory>' in text and ' ± ' in text
  lines = csv.DictReader((tmp_path / 'report.csv').read_text(encoding='utf-8').splitlines())
  rows = [row for row in lines if row['model'] == 'head_only']
  assert len(rows) == 2 and rows[0]['rank_Avg Gap'] == '1' and not os.path.isabs(rows[0]['flags'])
  assert (tmp_path / rows[0]['flags']).samefile(flags)
  assert float(rows[0]['forget_accuracy_interval']) >= 0 and float(rows[0]['da_rank']) >= 1


def test_refusals_are_told_from_failures(finished, tmp_path):
  cell = sweep_cells.unlearning(finished, split_seeds=False)[0]
  refused = sweep_cells.Failure(cell, '--methods: head_only forgets whole classes')
  failed = sweep_cells.Failure(cell, 'head_only: the loss is not finite')
  assert refused.is_refusal and not failed.is_refusal
  preparing = sweep_cells.preparation(finished)
  assert not sweep_cells.Failure(preparing, refused.error).is_refusal
  part = sweep_report.gather(finished)
  sweep_report.write(tmp_path, [part], [refused, failed])
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert f'**Refused:** {cell.name}: --methods' in text and f'**Failed:** {cell.name}' in text
  lines = (tmp_path / 'report.csv').read_text(encoding='utf-8').splitlines()
  last = list(csv.DictReader(lines))[-2:]
  assert [row['kind'] for row in last] == ['refused', 'failed']
  assert [row['reason'] for row in last] == [refused.error, failed.error]


def test_summary_ranks_over_the_scenarios_that_a_method_has(finished):
  part = sweep_report.gather(finished)
  rows = rows_lib.Results(row for row in part.record.rows if row.name != 'head_only')
  second = sweep_report.Part(
    dataclasses.replace(finished, name='second'), part.record._replace(rows=rows)
  )
  grid = sweep_report.summary([part, second])
  assert grid[0][-1] == 'mean rank' and len({len(line) for line in grid}) == 1
  assert [line[0] for line in grid[1:]] == ['second gold', 'head_only', 'gradient_ascent']
  assert [line[-1] for line in grid[1:]] == ['-', '1.0', '1.5']  # rank 2, then 1 alone
  assert grid[2][4:7] == ['-', '-', '-']


SCRIPTS = {
  'fine': 'print("ok")',
  'refused': 'import sys; print("error: --forget: no", file=sys.stderr); sys.exit(2)',
  'broken': 'raise KeyError("x")',
  'killed': 'import os; os.kill(os.getpid(), 9)',
}


def test_a_failure_is_told_and_stops_nothing(tmp_path, monkeypatch):
  def write_command(cell, folder):
    (folder / 'cells').mkdir(exist_ok=True)
    return ['python', '-c', SCRIPTS[cell.name]]

  monkeypatch.setattr(sweep_cells, 'write_command', write_command)
  scenario = _scenario(tmp_path)
  (tmp_path / 'evaluation.json').touch()
  todo = [sweep_cells.Cell(name, scenario, scenario.config) for name in SCRIPTS]
  todo.append(sweep_cells.Cell('finished', scenario, scenario.config, (tmp_path,)))
  failures = sweep_cells.run(todo, tmp_path, 2, launchers.local(is_alone=False))
  assert {f.cell.name: f.error for f in failures} == {
    'refused': '--forget: no',
    'broken': "KeyError: 'x'",
    'killed': 'killed by signal 9',
  }


@pytest.mark.parametrize('other', ['finishes', 'dies'])
def test_a_cell_at_work_elsewhere_is_waited_for(other, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sweep_cells, 'RETRY_SECONDS', 0.01)
  codes, scenario = [command.BUSY, command.BUSY, 0], _scenario(tmp_path)

  def launch(arguments, log):
    del arguments, log
    if other == 'finishes' and len(codes) == 2:
      (tmp_path / 'evaluation.json').touch()
    return codes.pop(0)

  cell = sweep_cells.Cell('one', scenario, scenario.config, (tmp_path,))
  assert not sweep_cells.run([cell], tmp_path, 1, launch)
  assert len(codes) == (1 if other == 'finishes' else 0)
  assert capsys.readouterr().out.count('one: another process is at work on it') == 1


def test_two_processes_never_make_or_measure_the_same_model(finished, tmp_path):
  method = sweep_cells.unlearning(finished, split_seeds=True)[0]
  (folder,) = method.models
  unlearn = dataclasses.replace(method.config, stages=('unlearn',))
  with files.lock(folder):
    stages.run(unlearn)  # it is there: whoever measures it is left alone
    (folder / 'unlearned').rename(folder / 'away')
    with pytest.raises(errors.BusyError, match=str(folder)):
      stages.run(unlearn)
    (folder / 'away').rename(folder / 'unlearned')
  with files.lock(folder), pytest.raises(errors.BusyError, match=str(folder)):
    stages.run(dataclasses.replace(method.config, stages=('evaluate',)))


CELL = """
import fcntl, sys, time
lock = open(sys.argv[1], 'a')
try:
  fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
  sys.exit(75)
print('at work', flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize('name', ['local', 'submitit'])
def test_a_dead_owner_of_a_lock_is_noticed(name, tmp_path, monkeypatch):
  work = lambda seconds: ['-c', CELL, str(tmp_path / 'lock'), seconds]
  monkeypatch.setattr(sweep_cells, 'write_command', lambda cell, folder: ['python', *work('0')])
  owner = subprocess.Popen([sys.executable, *work('1000')], stdout=subprocess.PIPE, text=True)
  with owner:
    assert owner.stdout.readline() == 'at work\n'
    monkeypatch.setattr(sweep_cells, '_sleep', lambda seconds: owner.kill())
    scenario = _scenario(tmp_path)
    launch = {
      'local': lambda: launchers.local(is_alone=True),
      'submitit': lambda: launchers.submitit(
        tmp_path / 'jobs', launchers.parse_slurm(['cluster=local', 'timeout_min=5'])
      ),
    }[name]()
    cell = sweep_cells.Cell('one', scenario, scenario.config)
    assert not sweep_cells.run([cell], tmp_path, 1, launch)
  assert owner.returncode == -signal.SIGKILL
  assert (tmp_path / 'cells' / 'one.log').read_text(encoding='utf-8') == 'at work\n'


def _scenarios(*arguments):
  run.FLAGS(['sweep', *arguments])
  settings = sweep.read_sweep()
  found = sweep._scenarios(run.read_config(), settings.scenario)
  sweep.check_processes(settings, found.values())
  return found


def test_scenarios_are_forget_values_and_flag_files(tmp_path):
  path = tmp_path / 'own.flags'
  lines = ['--dataset=digits', '--methods=finetune', '--hparam=muda.rounds=9']
  path.write_text('\n'.join(lines), encoding='utf-8')
  run_flags = ['--dataset=mnist5k', '--methods=muda', '--hparam=muda.rounds=2']
  with flagsaver.flagsaver():
    found = _scenarios(*run_flags, '--scenario=class:1', f'--scenario={path}')
  one, two = found['mnist5k-cnn-class_1'], found['digits-cnn-class_3']
  assert one.methods == two.methods == ('muda',)  # the sweep's own prevail
  assert hparams.resolve(one.methods, one.hparam)['muda']['rounds'] == 2
  assert hparams.resolve(two.methods, two.hparam)['muda']['rounds'] == 9
  with flagsaver.flagsaver():
    assert _scenarios(f'--scenario={path}')['digits-cnn-class_3'].methods == ('finetune',)
  path.write_text('--no_such_flag=1', encoding='utf-8')
  with flagsaver.flagsaver(), pytest.raises(errors.InputError, match=r'own.flags.*no_such_flag'):
    _scenarios(f'--scenario={path}')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--scenario=class:1', '--scenario=class:1'], 'scenario: class:1 has the folder'),
    (['--scenario=nowhere.flags'], 'scenario: there is no file nowhere.flags'),
    (['--jobs=0'], r'jobs: must be in \[1, '),
    (['--slurm=nodes=2'], 'slurm: is for --launcher=submitit, got nodes=2'),
    (['--launcher=submitit', '--slurm=nodes=2'], 'slurm: the 2 processes of a cell need --distr'),
    (
      ['--coordinator_address=a:1', '--num_processes=2'],
      'coordinator_address: a sweep starts the processes',
    ),
    (['--problem=x', '--scenario=class:1', '--scenario=class:2'], 'problem: several'),
  ],
)
def test_bad_input_is_refused(arguments, message):
  with flagsaver.flagsaver(), pytest.raises(errors.InputError, match=message):
    _scenarios(*arguments)


@pytest.mark.slow
def test_command_line_runs_prints_and_goes_on(tmp_path):
  path = tmp_path / 'sweep.flags'
  config = dataclasses.replace(_scenario(tmp_path).config, methods=('head_only',), num_seeds=1)
  path.write_text('\n'.join(config.flag_lines()), encoding='utf-8')

  def start(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'experiments.sweep', f'--flagfile={path}', *arguments],
      cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
    )

  scenarios = ['--scenario=class:3', '--scenario=class:99']
  printed = start(*scenarios, '--print_commands').stdout
  assert printed.count('python -m experiments.run --flagfile=') == 6
  result = start(*scenarios, '--jobs=2')
  assert result.returncode == 1, result.stderr
  assert "class_99.prepare: --forget: class:99: there is no class '99'" in result.stdout
  assert (tmp_path / 'sweep' / 'report.html').exists()
  again = start('--scenario=class:3')
  assert again.returncode == 0, again.stderr
  assert again.stdout.count('1 of 1 cells done before') == 2


def _wait_for(condition, process):
  end = time.monotonic() + 240
  while not condition() and process.poll() is None and time.monotonic() < end:
    time.sleep(0.05)
  assert condition(), process.communicate()[0]


STOPS = [
  ('tune', signal.SIGINT, 130),
  ('sweep', signal.SIGTERM, 143),
  ('sweep', signal.SIGKILL, -signal.SIGKILL),
]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'number', 'code'), STOPS)
def test_a_signal_ends_all_processes_and_leaves_no_lock(name, number, code, tmp_path):
  arguments = ['--dataset=digits', '--max_examples=300', '--width_multiplier=0.125']
  arguments += ['--num_epochs=2000', '--batch_size=64', '--num_devices=1', '--methods=head_only']
  process = subprocess.Popen(
    [sys.executable, '-m', f'experiments.{name}', *arguments, f'--workdir={tmp_path}'],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  logs = lambda: [p for p in tmp_path.rglob('train.jsonl') if p.read_bytes().count(b'\n') > 1]
  _wait_for(logs, process)
  process.send_signal(number)
  out, _ = process.communicate(timeout=120)
  assert process.returncode == code and 'Traceback' not in out, out
  if code > 0:
    assert f'stopped by {signal.Signals(number).name}: the same command resumes' in out
  (log,) = logs()
  problem = log.parents[2]
  with files.lock(problem):  # as the next start would take it
    assert checkpoints.latest_epoch(log.parent / 'training') > 0
    assert not checkpoints.exists(log.parent / 'model')

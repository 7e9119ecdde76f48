"""Launchers of a sweep's cells: processes of this machine, and jobs of submitit."""

import importlib.util
import os
import shutil
import signal
import threading
import time

import pytest

from dalign_jax import errors, stopping
from experiments import config as config_lib
from experiments import launchers

LAUNCHERS = {
  'local': lambda folder: launchers.local(is_alone=True),
  'submitit': lambda folder: launchers.submitit(
    folder / 'jobs', {'cluster': 'local', 'timeout_min': 5}
  ),
  'debug': lambda folder: launchers.submitit(
    folder / 'jobs', {'cluster': 'debug', 'timeout_min': 5}
  ),
}
SCRIPTS = {  # -> exit code
  'print("ok")': 0,
  'import sys; print("error: no"); sys.exit(2)': 2,
  'import os; print("ok", flush=True); os.kill(os.getpid(), 9)': -9,
}


LEAVES_OPEN = 'ignore:Exception ignored in.*DEBUG_:pytest.PytestUnraisableExceptionWarning'


@pytest.fixture(
  params=['local', 'submitit', pytest.param('debug', marks=pytest.mark.filterwarnings(LEAVES_OPEN))]
)
def launch(request, tmp_path):
  return LAUNCHERS[request.param](tmp_path)


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_command_gives_its_code_and_adds_to_its_log(script, launch, tmp_path):
  log = tmp_path / 'cells' / 'one.log'
  log.parent.mkdir()
  log.write_text('before\n', encoding='utf-8')
  assert launch(['python', '-c', script], log) == SCRIPTS[script]
  before, line = log.read_text(encoding='utf-8').splitlines()
  assert before == 'before' and line in ('ok', 'error: no')


def test_an_interrupted_job_is_started_again(tmp_path):
  script = """
import os, pathlib, signal, time
starts = pathlib.Path(STARTS)
with open(starts, 'a') as file:
  file.write(f'{os.getpid()} ')
if len(starts.read_text().split()) == 1:
  os.kill(os.getppid(), signal.SIGUSR2)  # as a scheduler that needs the machine
  time.sleep(100)
"""
  starts = tmp_path / 'starts'
  script = script.replace('STARTS', repr(str(starts)))
  assert LAUNCHERS['submitit'](tmp_path)(['python', '-c', script], tmp_path / 'one.log') == 0
  first, second = starts.read_text(encoding='utf-8').split()
  assert first != second and not _is_alive(int(first))


def test_a_job_that_is_lost_is_said_to_be(tmp_path):
  script = 'import os, signal; os.kill(os.getppid(), signal.SIGKILL)'
  with pytest.raises(launchers.LostError, match='has not produced any output'):
    LAUNCHERS['submitit'](tmp_path)(['python', '-c', script], tmp_path / 'one.log')


@pytest.mark.filterwarnings('ignore:.*Popen.__del__:pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('name', ['local', 'submitit'])
def test_stopping_ends_what_was_launched(name, tmp_path, monkeypatch):
  pid = tmp_path / 'pid'
  script = f"""
import os, time
from dalign_jax import stopping
stopping.install()  # as every command does: it ends with its parent
open({str(pid)!r}, "w").write(str(os.getpid()))
time.sleep(100)
"""

  def check():
    if pid.exists() and pid.read_text(encoding='utf-8'):
      raise stopping.Stopped(signal.SIGTERM)

  monkeypatch.setattr(stopping, 'check', check)
  with pytest.raises(stopping.Stopped):
    LAUNCHERS[name](tmp_path)(['python', '-c', script], tmp_path / 'one.log')
  end = time.monotonic() + 60
  while _is_alive(int(pid.read_text(encoding='utf-8'))) and time.monotonic() < end:
    time.sleep(0.1)
  assert not _is_alive(int(pid.read_text(encoding='utf-8')))


def _is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def test_several_threads_launch_at_once(tmp_path):
  launch, codes = LAUNCHERS['submitit'](tmp_path), {}

  def run(number):
    script = f'import sys; sys.exit({number})'
    codes[number] = launch(['python', '-c', script], tmp_path / f'{number}.log')

  threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert codes == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ('gpu', 'slurm: must be NAME=VALUE with one of timeout_min, nodes'),
    ('colour=red', "got 'colour=red'"),
    ('nodes=two', r"slurm: nodes must be in \[1, 1000000\], got 'two'"),
    ('timeout_min=0', r"timeout_min must be in \[1, 1000000\], got '0'"),
    ('partition=', "partition must be text .*, got ''"),
    ('cluster=moon', "cluster must be one of slurm, local, debug, got 'moon'"),
  ],
)
def test_bad_parameters_are_refused_before_any_work(setting, message):
  with pytest.raises(errors.InputError, match=message):
    config_lib.Sweep(launcher='submitit', slurm=(setting,))


def test_jobs_need_submitit_slurm_and_a_time(tmp_path, monkeypatch):
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  with pytest.raises(errors.InputError, match='slurm: there is no srun here'):
    launchers.submitit(tmp_path, {'timeout_min': 5})
  with pytest.raises(errors.InputError, match='slurm: timeout_min is missing'):
    launchers.submitit(tmp_path, {'cluster': 'local'})
  with pytest.raises(errors.InputError, match='cluster=local starts one process'):
    launchers.submitit(tmp_path, {'cluster': 'local', 'timeout_min': 5, 'tasks_per_node': 2})
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'launcher: submitit is missing: .*\[submitit\]'):
    launchers.submitit(tmp_path, {'cluster': 'local', 'timeout_min': 5})
  assert not list(tmp_path.iterdir())


def test_parameters_reach_the_scheduler(tmp_path, monkeypatch):
  """The file that would be handed to sbatch."""
  tools = tmp_path / 'tools'
  tools.mkdir()
  for name in ('srun', 'sbatch'):
    (tools / name).write_text(
      f'#!/bin/sh\ncp "$1" {tmp_path}/{name}.sh; echo no such partition >&2; exit 1\n'
    )
    (tools / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
  parameters = launchers.parse_slurm(
    [
      *('partition=gpu', 'timeout_min=60', 'nodes=2', 'tasks_per_node=4', 'gpus_per_node=4'),
      *('reservation=mine', 'account=a', 'qos=low', 'constraint=fast', 'gres=disk:1', 'exclude=n1'),
    ]
  )
  assert launchers.num_tasks(parameters) == 8
  launch = launchers.submitit(tmp_path / 'jobs', parameters)
  with pytest.raises(launchers.LostError, match='no such partition'):
    launch(['python', '-c', ''], tmp_path / 'one.log')
  lines = (tmp_path / 'sbatch.sh').read_text(encoding='utf-8').splitlines()
  wanted = {'partition=gpu', 'time=60', 'nodes=2', 'ntasks-per-node=4', 'gpus-per-node=4'}
  wanted |= {'reservation=mine', 'account=a', 'qos=low'}
  wanted |= {'constraint=fast', 'gres=disk:1', 'exclude=n1'}
  assert {f'#SBATCH --{line}' for line in wanted} <= set(lines)

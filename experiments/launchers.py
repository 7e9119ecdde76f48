"""Where a cell of a sweep runs: as a process of this machine, or as a job of submitit.

A launcher is `(command, log) -> exit code`, and is called from several threads at once.
"""

from collections.abc import Callable, Sequence
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

from dalign_jax import errors, stopping, valid

Launcher = Callable[[Sequence[str], pathlib.Path], int]
LAUNCHERS = ('local', 'submitit')

_POLL_SECONDS = 1.0
SLURM: dict[str, valid.Valid] = {  # what --slurm may set, by submitit's names
  **dict.fromkeys(('timeout_min', 'nodes', 'tasks_per_node', 'cpus_per_task'), valid.COUNT),
  **dict.fromkeys(('gpus_per_node', 'mem_gb', 'max_num_timeout'), valid.COUNT_OR_ZERO),
  **dict.fromkeys(
    ('partition', 'account', 'qos', 'constraint', 'gres', 'reservation', 'exclude'), valid.TEXT
  ),
  'cluster': valid.OneOf(('slurm', 'local', 'debug')),
}
_OF_SUBMITIT = (
  'timeout_min',
  'nodes',
  'tasks_per_node',
  'cpus_per_task',
  'gpus_per_node',
  'mem_gb',
)


class LostError(Exception):
  """A job ended without an exit code: it was cancelled, or its machine failed."""


def parse_slurm(settings: Sequence[str]) -> dict[str, Any]:
  """Parameters of a job from `name=value` texts; the last value of a name counts.

  Args:
    settings: such as `('partition=gpu', 'timeout_min=60')`.

  Raises:
    errors.InputError: for a name that `SLURM` lacks, or a value that it does not allow.

  Example:
    >>> parse_slurm(['partition=gpu', 'timeout_min=60'])
    {'partition': 'gpu', 'timeout_min': 60}
  """
  found: dict[str, Any] = {}
  for setting in settings:
    name, equals, text = setting.partition('=')
    if not equals or name not in SLURM:
      raise errors.InputError(
        f'must be NAME=VALUE with one of {", ".join(SLURM)}, got {setting!r}', argument='slurm'
      )
    is_number = isinstance(SLURM[name], valid.Between) and text.isascii() and text.isdigit()
    value = int(text) if is_number else text
    if value not in SLURM[name] or value == '':
      raise errors.InputError(f'{name} must be {SLURM[name]}, got {text!r}', argument='slurm')
    found[name] = value
  return found


def num_tasks(parameters: dict[str, Any]) -> int:
  """Processes of one job."""
  return parameters.get('nodes', 1) * parameters.get('tasks_per_node', 1)


def local(*, is_alone: bool) -> Launcher:
  """A launcher of processes on this machine, which end with this one.

  Args:
    is_alone: whether a process runs alone, and may take all of an accelerator's memory.
  """
  more = {} if is_alone else {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}

  def launch(command, log):
    with _started(command, log, more) as process:
      try:
        while (code := _wait(process)) is None:
          stopping.check()
      except stopping.Stopped:
        process.terminate()
        process.wait()
        raise
    return code

  return launch


def submitit(folder: pathlib.Path, parameters: dict[str, Any]) -> Launcher:
  """A launcher of jobs of submitit, each of one cell.

  The jobs are cancelled if this process is stopped; if it is killed, they go on. A job that is
  preempted or reaches its time limit is queued again (as often as `max_num_timeout` allows, by
  default 3 times), and goes on at the last state.

  Args:
    folder: of submitit's files, which every machine must see.
    parameters: from `parse_slurm`.

  Raises:
    errors.InputError: if submitit or SLURM is missing, or a parameter.

  References:
    https://github.com/facebookincubator/submitit
  """
  parameters = {'cluster': 'slurm', **parameters}
  cluster = parameters.pop('cluster')
  if importlib.util.find_spec('submitit') is None:
    raise errors.InputError(
      "submitit is missing: pip install 'dalign-jax[submitit]'", argument='launcher'
    )
  if cluster == 'slurm' and not shutil.which('srun'):
    raise errors.InputError(
      'there is no srun here; start the sweep where SLURM is, or give cluster=local to run the '
      'jobs on this machine',
      argument='slurm',
    )
  if 'timeout_min' not in parameters:
    raise errors.InputError(
      'timeout_min is missing: the minutes after which a job is stopped', argument='slurm'
    )
  if cluster != 'slurm' and num_tasks(parameters) > 1:
    raise errors.InputError(
      f'cluster={cluster} starts one process for a cell; several need SLURM', argument='slurm'
    )
  import submitit as submitit_lib

  of_executor = {'slurm': ('max_num_timeout',), 'local': ('max_num_timeout',), 'debug': ()}
  options = {f'{cluster}_{k}': parameters.pop(k) for k in of_executor[cluster] if k in parameters}
  executor = submitit_lib.AutoExecutor(folder, cluster=cluster, **options)
  if 'reservation' in parameters:  # which submitit does not know
    parameters['additional_parameters'] = {'reservation': parameters.pop('reservation')}
  executor.update_parameters(
    **{k if k in _OF_SUBMITIT else f'slurm_{k}': v for k, v in parameters.items()}
  )
  one_at_a_time = threading.Lock()  # executors are not made for several threads

  def submit(command, log):
    with one_at_a_time:
      job = executor.submit(_Job(tuple(command), log))
      if cluster == 'debug':
        job.wait()  # it runs here
      return job

  def wait(job):
    try:
      while not job.done():
        stopping.check()
        time.sleep(_POLL_SECONDS)
    except stopping.Stopped:
      job.cancel(check=False)
      raise
    return max(job.results(), key=abs)

  def launch(command, log):
    try:
      return wait(submit(command, log))
    except submitit_lib.core.utils.UncompletedJobError as error:  # or refused by the scheduler
      raise LostError(' '.join(str(error).split())[:500]) from None

  return launch


@dataclasses.dataclass(frozen=True)
class _Job:
  """What a job does in each of its tasks; those after the first have a log of their own."""

  command: tuple[str, ...]
  log: pathlib.Path

  def __call__(self) -> int:
    import submitit as submitit_lib

    rank = submitit_lib.JobEnvironment().global_rank
    with _started(self.command, self.log.with_suffix(f'.{rank}.log' if rank else '.log')) as task:
      try:
        return task.wait()
      finally:
        task.kill()  # when submitit ends the job; nothing after an exit

  def checkpoint(self):
    """The job that goes on where this one is stopped."""
    import submitit as submitit_lib

    return submitit_lib.helpers.DelayedSubmission(self)


def _started(command, log, more=None) -> subprocess.Popen:
  """A process that ends with this one, and whose output goes behind what is in the log."""
  environment = {**(more or {}), **os.environ, stopping.PARENT: str(os.getpid())}
  log.parent.mkdir(parents=True, exist_ok=True)
  with open(log, 'a', encoding='utf-8') as output:
    return subprocess.Popen(
      [sys.executable, *command[1:]], stdout=output, stderr=subprocess.STDOUT, env=environment
    )


def _wait(process) -> int | None:
  try:
    return process.wait(timeout=0.5)
  except subprocess.TimeoutExpired:
    return None

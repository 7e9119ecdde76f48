"""A sweep as cells, each a process of `experiments.run` that a scheduler can run alone.

Cells come in phases: one preparation for each scenario trains its originals and golds, which all
others share; then the methods, in any order and side by side; then one report for each scenario.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import NamedTuple

from dalign_jax import hparams, stopping
from dalign_jax.store import files, progress
from experiments import config as config_lib
from experiments.problem import folders


@dataclasses.dataclass(frozen=True)
class Scenario:
  """A problem, and the methods that are run on it, by name with their hyper-parameters."""

  name: str
  config: config_lib.Config

  @property
  def folders(self) -> folders.Folders:
    return folders.Folders(config=self.config, folder=folders.problem_folder(self.config))

  @property
  def methods(self) -> dict[str, dict]:
    return hparams.resolve(self.config.methods, self.config.hparam)


class Cell(NamedTuple):
  """One process.

  Attributes:
    name: of its flag file and log.
    scenario: whose it is.
    config: what it runs with.
    done: whether its results are there.
    method: the method or variant, empty for a preparation or a report.
  """

  name: str
  scenario: Scenario
  config: config_lib.Config
  done: bool
  method: str = ''


class Failure(NamedTuple):
  """A cell that did not succeed, and why."""

  cell: Cell
  error: str

  @property
  def is_refusal(self) -> bool:
    """Whether the method refused the problem, such as a single image where it forgets classes."""
    return bool(self.cell.method) and self.error.startswith('--methods: ')


def preparation(scenario: Scenario) -> Cell:
  """Trains and evaluates what all methods of a scenario share."""
  where, config = scenario.folders, scenario.config
  stages = ('prepare', 'train_original', 'train_gold', 'unlearn', 'evaluate')
  models = [where.original_folder(seed) for seed in where.original_seeds]
  models += [where.gold_folder(seed) for seed in where.gold_seeds]
  config = dataclasses.replace(config, methods=(), stages=stages, member=-1)
  return Cell(f'{scenario.name}.prepare', scenario, config, _are_evaluated(models))


def unlearning(scenario: Scenario, *, split_seeds: bool) -> list[Cell]:
  """The methods of a scenario: a cell for each, or one for each of its seeds too."""
  members = range(scenario.config.seeds) if split_seeds else [-1]
  return [
    _of_method(scenario, method, values, member)
    for method, values in scenario.methods.items()
    for member in members
  ]


def _of_method(scenario, method, values, member):
  config = dataclasses.replace(
    scenario.config, methods=(method,), stages=('unlearn', 'evaluate'), member=member
  )
  where = dataclasses.replace(scenario.folders, config=config)
  models = where.run_folders(hparams.label(method, values))
  models = [models[number] for number in where.members]
  settings = {f'--hparam={method}.{name}={value}' for name, value in values.items()}
  done = _are_evaluated(models) and settings <= _lines(models[0] / 'flags.txt')
  ending = '' if member < 0 else f'.{member}'
  return Cell(f'{scenario.name}.{method}{ending}', scenario, config, done, method)


def reporting(scenario: Scenario, methods: Sequence[str]) -> Cell:
  """The report of a scenario, over the methods that succeeded."""
  config = dataclasses.replace(
    scenario.config, methods=tuple(methods), stages=('evaluate', 'report'), member=-1
  )
  return Cell(f'{scenario.name}.report', scenario, config, done=False)


def _are_evaluated(models):
  return all((folder / 'evaluation.json').exists() for folder in models)


def _lines(path):
  return set(_text(path).splitlines()) if path.exists() else set()


def _text(path) -> str:
  """Text of a file that may be damaged."""
  return path.read_text(encoding='utf-8', errors='replace')


def write_command(cell: Cell, folder: pathlib.Path) -> list[str]:
  """Writes a cell's flag file; gives the command that runs the cell alone."""
  path = folder / 'cells' / f'{cell.name}.flags'
  files.write_text(path, '\n'.join(cell.config.flag_lines()) + '\n')
  return ['python', '-m', 'experiments.run', f'--flagfile={path}']


def command_line(cell: Cell, folder: pathlib.Path) -> str:
  """The command as a shell takes it."""
  return shlex.join(write_command(cell, folder))


def run(cells: Sequence[Cell], folder: pathlib.Path, jobs: int) -> list[Failure]:
  """Runs the cells that are not done, some side by side; a failure does not stop the others.

  Args:
    cells: of one phase.
    folder: where flag files and logs go.
    jobs: how many processes at a time.

  Returns:
    Those that failed.
  """
  todo = [cell for cell in cells if not cell.done]
  if len(todo) < len(cells):
    progress.say(f'{len(cells) - len(todo)} of {len(cells)} cells done before')
  failed = []
  with futures.ThreadPoolExecutor(jobs) as pool:
    running = {pool.submit(_run_one, cell, folder, jobs): cell for cell in todo}
    try:
      for count, future in enumerate(futures.as_completed(running), start=1):
        cell, (error, seconds) = running[future], future.result()
        progress.say(f'[{count}/{len(todo)}] {cell.name}: {error or "done"} ({seconds:.0f} s)')
        if error:
          failed.append(Failure(cell, error))
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
  return failed


def _run_one(cell, folder, jobs):
  """Runs a cell; gives its error, empty for none, and the seconds it took."""
  command = [sys.executable, *write_command(cell, folder)[1:]]
  environment = {**os.environ, stopping.PARENT: str(os.getpid())}
  if jobs > 1:  # several processes on one accelerator cannot each take all of its memory
    environment.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  log, start = folder / 'cells' / f'{cell.name}.log', time.monotonic()
  with open(log, 'w', encoding='utf-8') as output:
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
      while (code := _wait(process)) is None:
        stopping.check()
    except stopping.Stopped:
      process.terminate()
      process.wait()
      raise
  return _error(code, log) if code else '', time.monotonic() - start


def _wait(process) -> int | None:
  try:
    return process.wait(timeout=0.5)
  except subprocess.TimeoutExpired:
    return None


def _error(code, log):
  """The line that says what went wrong."""
  lines = [line for line in _text(log).splitlines() if line.strip()]
  if code < 0:
    return f'killed by signal {-code}'
  errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
  return (errors or lines or [f'exit code {code}'])[-1]

"""A sweep as cells, each a process of `experiments.run` that a scheduler can run alone.

Cells come in phases: one preparation for each scenario trains its originals and golds, which all
others share; then the methods, in any order and side by side; then one report for each scenario.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import pathlib
import shlex
import time
from typing import NamedTuple

from dalign_jax import checkpoints, command, from_settings, hparams, stopping
from dalign_jax.store import files, progress
from experiments import config as config_lib
from experiments import launchers
from experiments.problem import folders

RETRY_SECONDS = 10.0  # until a cell is looked at again that another process is at work on


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

  def label(self, method: str, values: dict) -> str:
    """Name of the folder of a method's results."""
    return from_settings.restricted_label(self.config, hparams.label(method, values))

  def control_label(self, name: str) -> str:
    """That of a control, which steps as it always does."""
    return from_settings.restricted_label(self.config.of_controls(), name)


class Cell(NamedTuple):
  """One process.

  Attributes:
    name: of its flag file and log.
    scenario: whose it is.
    config: what it runs with.
    models: folders of the models that it makes and evaluates; none for a report.
    method: the method or variant, empty for a preparation or a report.
    settings: lines of the flag file that the first of the models has.
    shadows: checkpoints of further models that it makes, which are evaluated together.
  """

  name: str
  scenario: Scenario
  config: config_lib.Config
  models: tuple[pathlib.Path, ...] = ()
  method: str = ''
  settings: frozenset[str] = frozenset()
  shadows: tuple[pathlib.Path, ...] = ()

  @property
  def done(self) -> bool:
    """Whether its results are there, by now; a report is never done."""
    if not self.models or not all((m / 'evaluation.json').exists() for m in self.models):
      return False
    if not all(map(checkpoints.exists, self.shadows)):
      return False
    return self.settings <= _lines(self.models[0] / 'flags.txt')


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
  shadows = [where.shadow_folder(index) / 'model' for index in range(config.shadows)]
  for label in map(scenario.control_label, config.controls):
    models += where.run_folders(label)
    shadows += [folder / 'unlearned' for folder in where.run_shadow_folders(label)]
  config = dataclasses.replace(config, methods=(), stages=stages, member=-1)
  name = f'{scenario.name}.prepare'
  return Cell(name, scenario, config, tuple(models), shadows=tuple(shadows))


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
  models = where.run_folders(scenario.label(method, values))
  made = tuple(models[number] for number in where.members)
  shadows = where.run_shadow_folders(scenario.label(method, values)) if member <= 0 else []
  shadows = tuple(folder / 'unlearned' for folder in shadows)
  settings = frozenset(f'--hparam={method}.{name}={value}' for name, value in values.items())
  ending = '' if member < 0 else f'.{member}'
  name = f'{scenario.name}.{method}{ending}'
  return Cell(name, scenario, config, made, method, settings, shadows)


def reporting(scenario: Scenario, methods: Sequence[str]) -> Cell:
  """The report of a scenario, over the methods that succeeded."""
  config = dataclasses.replace(
    scenario.config, methods=tuple(methods), stages=('evaluate', 'report'), member=-1
  )
  return Cell(f'{scenario.name}.report', scenario, config)


def _lines(path):
  """Lines of a file that may be damaged."""
  return set(path.read_bytes().decode(errors='replace').splitlines()) if path.exists() else set()


def write_command(cell: Cell, folder: pathlib.Path) -> list[str]:
  """Writes a cell's flag file; gives the command that runs the cell alone."""
  path = folder / 'cells' / f'{cell.name}.flags'
  files.write_text(path, '\n'.join(cell.config.flag_lines()) + '\n')
  return ['python', '-m', 'experiments.run', f'--flagfile={path}']


def command_line(cell: Cell, folder: pathlib.Path) -> str:
  """The command as a shell takes it."""
  return shlex.join(write_command(cell, folder))


def run(
  cells: Sequence[Cell], folder: pathlib.Path, jobs: int, launch: launchers.Launcher
) -> list[Failure]:
  """Runs the cells that are not done, some side by side; a failure does not stop the others.

  A cell that another process is at work on, perhaps of another sweep, is waited for; if that
  process dies, its lock dies with it, and the cell is run from the last state.

  Args:
    cells: of one phase.
    folder: where flag files and logs go.
    jobs: how many at a time.
    launch: starts them.

  Returns:
    Those that failed.
  """
  todo = [cell for cell in cells if not cell.done]
  if len(todo) < len(cells):
    progress.say(f'{len(cells) - len(todo)} of {len(cells)} cells done before')
  failed = []
  with futures.ThreadPoolExecutor(jobs) as pool:
    running = {pool.submit(_run_one, cell, folder, launch): cell for cell in todo}
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


def _run_one(cell, folder, launch):
  """Runs a cell; gives its error, empty for none, and the seconds it took."""
  start, log = time.monotonic(), folder / 'cells' / f'{cell.name}.log'
  arguments = write_command(cell, folder)
  error, is_waiting = '', False
  while not cell.done:
    before = log.stat().st_size if log.exists() else 0
    try:
      code = launch(arguments, log)
    except launchers.LostError as lost:
      error = str(lost)
      break
    if code != command.BUSY:
      error = _error(code, log, before) if code else ''
      break
    if not is_waiting:
      progress.say(f'{cell.name}: another process is at work on it; waiting for it')
      is_waiting = True
    _sleep(RETRY_SECONDS)
  return error, time.monotonic() - start


def _sleep(seconds):
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    stopping.check()
    time.sleep(0.2)


def _error(code, log, start):
  """The line that says what went wrong, of the log from a position on."""
  if code < 0:
    return f'killed by signal {-code}'
  text = log.read_bytes()[start:].decode(errors='replace') if log.exists() else ''
  lines = [line for line in text.splitlines() if line.strip()]
  errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
  return (errors or lines or [f'exit code {code}'])[-1]

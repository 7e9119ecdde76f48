"""Methods x scenarios x seeds in one command, and one report over all of them.

python -m experiments.sweep --flagfile=experiments/flags/sweep_digits.flags
"""

import copy
import dataclasses
import os
import pathlib
import sys

from absl import flags

from dalign_jax import command, errors
from experiments import config as config_lib
from experiments import run

_SCENARIO = flags.DEFINE_multi_string(
  'scenario', [], 'A value of --forget, or a flag file that says what the problem is. Repeatable.'
)
_SPLIT_SEEDS = flags.DEFINE_boolean('split_seeds', False, 'A process for each seed too.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Processes side by side.')
_PRINT_COMMANDS = flags.DEFINE_boolean(
  'print_commands', False, 'Print the commands that are left to run, for a scheduler; run nothing.'
)
_SWEEP = flags.DEFINE_string('sweep', 'sweep', 'Name of the folder of reports and logs.')


def main(arguments) -> None:
  """Reads the flags and runs the cells; exit code 1 if some failed."""
  base = run.read_config(arguments)
  scenarios = _scenarios(base)
  from experiments import sweep_cells
  from experiments.report import sweep_report  # they import JAX, but use no device

  folder = pathlib.Path(os.path.expanduser(base.workdir)) / _SWEEP.value
  found = [sweep_cells.Scenario(name, config) for name, config in scenarios.items()]
  preparations = [sweep_cells.preparation(s) for s in found]
  unlearning = [c for s in found for c in sweep_cells.unlearning(s, split_seeds=_SPLIT_SEEDS.value)]
  if _PRINT_COMMANDS.value:
    _print(
      folder, preparations, unlearning, [sweep_cells.reporting(s, s.config.methods) for s in found]
    )
    return
  failures = sweep_cells.run(preparations, folder, _JOBS.value)
  lost = {failure.cell.scenario.name for failure in failures}
  failures += sweep_cells.run(
    [c for c in unlearning if c.scenario.name not in lost], folder, _JOBS.value
  )
  failed = {(failure.cell.scenario.name, failure.cell.method) for failure in failures}
  left = [s for s in found if s.name not in lost]
  succeeded = lambda s: [m for m in s.config.methods if (s.name, m) not in failed]
  reports = [sweep_cells.reporting(s, succeeded(s)) for s in left]
  failures += sweep_cells.run(reports, folder, _JOBS.value)
  lost |= {f.cell.scenario.name for f in failures if not f.cell.method}
  parts = [sweep_report.gather(s) for s in left if s.name not in lost]
  sweep_report.write(folder, parts, failures)
  print(f'report: {folder / "report.html"}')
  if failures:
    sys.exit(1)


def _scenarios(base) -> dict[str, config_lib.Config]:
  """The configuration of each scenario, by the name of its problem folder."""
  if _JOBS.value < 1:
    raise errors.InputError(f'must be at least 1, got {_JOBS.value}', argument='jobs')
  if base.problem and len(_SCENARIO.value) > 1:
    raise errors.InputError(
      'several scenarios need folders of their own; leave it out', argument='problem'
    )
  found = {}
  for text in _SCENARIO.value or [base.forget]:
    config = _of_file(base, text) if os.path.isfile(text) else _of_forget(base, text)
    if config.problem_name() in found:
      raise errors.InputError(
        f'{text} has the folder {config.problem_name()} of an earlier one; say '
        '--problem=... in its flag file',
        argument='scenario',
      )
    found[config.problem_name()] = config
  return found


def _of_forget(base, text):
  if text.endswith('.flags'):
    raise errors.InputError(f'there is no file {text}', argument='scenario')
  return dataclasses.replace(base, forget=text)


def _of_file(base, path):
  """Settings of a flag file, behind those of the run (--methods ...) that the sweep was given.

  Its hyper-parameters come after the sweep's, and so prevail.
  """
  values = copy.deepcopy(run.FLAGS)
  try:
    values([sys.argv[0], f'--flagfile={path}'])
  except flags.Error as error:
    raise errors.InputError(f'{path}: {error}', argument='scenario') from None
  given = {
    field.name: getattr(base, field.name)
    for field in dataclasses.fields(config_lib.Config)
    if field.metadata['group'] == 'run' and run.FLAGS[field.name].present and field.name != 'hparam'
  }
  return dataclasses.replace(run.read_config(values=values), **given)


def _print(folder, preparations, unlearning, reports):
  from experiments import sweep_cells

  for title, phase in (
    ('first, in any order', preparations),
    ('then, in any order', unlearning),
    ('then, in any order; then this command without --print_commands', reports),
  ):
    print(f'# {title}')
    for cell in phase:
      if not cell.done:
        print(sweep_cells.command_line(cell, folder))


if __name__ == '__main__':
  command.launch(main, 'workdir')

"""Methods x scenarios x seeds in one command, and one report over all of them.

python -m experiments.sweep --flagfile=experiments/flags/sweep_digits.flags
"""

from collections.abc import Iterable
import copy
import dataclasses
import functools
import os
import pathlib
import sys

from absl import flags

from dalign_jax import command, errors
from experiments import config as config_lib
from experiments import launchers, run

_SWEEP = dataclasses.fields(config_lib.Sweep)


def main(arguments) -> None:
  """Reads the flags and runs the cells; exit code 1 if some failed, other than by a refusal."""
  base = run.read_config(arguments)
  sweep = read_sweep()
  scenarios = _scenarios(base, sweep.scenario)
  check_processes(sweep, scenarios.values())
  for config in scenarios.values():
    run.check_names(config)
  run.keep_quiet(base)
  import jax

  from experiments import sweep_cells
  from experiments.report import sweep_report  # they import JAX

  jax.config.update('jax_platforms', 'cpu')  # of this process alone: the cells need the accelerator

  folder = pathlib.Path(os.path.expanduser(base.workdir)) / sweep.sweep
  found = [sweep_cells.Scenario(name, config) for name, config in scenarios.items()]
  preparations = [sweep_cells.preparation(s) for s in found]
  unlearning = [c for s in found for c in sweep_cells.unlearning(s, split_seeds=sweep.split_seeds)]
  if sweep.print_commands:
    _print(
      folder, preparations, unlearning, [sweep_cells.reporting(s, s.config.methods) for s in found]
    )
    return
  launch = launcher(sweep, folder)
  run_cells = functools.partial(sweep_cells.run, folder=folder, jobs=sweep.jobs, launch=launch)
  failures = run_cells(preparations)
  lost = {failure.cell.scenario.name for failure in failures}
  failures += run_cells([c for c in unlearning if c.scenario.name not in lost])
  failed = {(failure.cell.scenario.name, failure.cell.method) for failure in failures}
  left = [s for s in found if s.name not in lost]
  succeeded = lambda s: [m for m in s.config.methods if (s.name, m) not in failed]
  reports = [sweep_cells.reporting(s, succeeded(s)) for s in left]
  failures += run_cells(reports)
  lost |= {f.cell.scenario.name for f in failures if not f.cell.method}
  parts = [sweep_report.gather(s) for s in left if s.name not in lost]
  sweep_report.write(folder, parts, failures)
  print(f'report: {folder / "report.html"}')
  if not all(failure.is_refusal for failure in failures):
    sys.exit(1)


def read_sweep() -> config_lib.Sweep:
  """The flags of the sweep itself."""
  return config_lib.Sweep(**command.values(_SWEEP))


def launcher(sweep: config_lib.Sweep, folder: pathlib.Path) -> launchers.Launcher:
  """What starts the cells; raises where it cannot, before any work."""
  if sweep.launcher == 'submitit':
    return launchers.submitit(folder / 'jobs', launchers.parse_slurm(sweep.slurm))
  return launchers.local(is_alone=sweep.jobs == 1)


def check_processes(sweep: config_lib.Sweep, configs: Iterable[config_lib.Config]) -> None:
  """Refuses processes of a cell that would not find each other.

  Raises:
    errors.InputError: naming the flag.
  """
  tasks = launchers.num_tasks(launchers.parse_slurm(sweep.slurm))
  for config in configs:
    if config.coordinator_address:
      raise errors.InputError(
        'a sweep starts the processes of its cells itself: use --launcher=submitit with '
        '--slurm=tasks_per_node=... and --distributed=auto',
        argument='coordinator_address',
      )
    if tasks > 1 and config.distributed != 'auto':
      raise errors.InputError(
        f'the {tasks} processes of a cell need --distributed=auto to find each other',
        argument='slurm',
      )


def _scenarios(base, texts) -> dict[str, config_lib.Config]:
  """The configuration of each scenario, by the name of its problem folder."""
  if base.problem and len(texts) > 1:
    raise errors.InputError(
      'several scenarios need folders of their own; leave it out', argument='problem'
    )
  found = {}
  for text in texts or [base.forget]:
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


command.define(_SWEEP)

if __name__ == '__main__':
  command.launch(main, 'workdir')

"""The main job: prepare, train original and gold, unlearn, evaluate, report.

python -m experiments.run --flagfile=experiments/flags/quickstart.flags
"""

from collections.abc import Sequence
import dataclasses
import os

from absl import flags

from dalign_jax import command, errors
from dalign_jax.store import tensorboard
from experiments import config as config_lib

FLAGS = command.FLAGS
_FIELDS = dataclasses.fields(config_lib.Config)


def read_config(
  arguments: Sequence[str] = (), values: flags.FlagValues = FLAGS
) -> config_lib.Config:
  """The flags as a configuration; `arguments` is what flags have left of the command line."""
  if arguments:
    raise errors.InputError(f'unexpected argument {arguments[0]!r}; flags start with --')
  return config_lib.Config(**command.values(_FIELDS, values))


def join_processes(config: config_lib.Config) -> None:
  """Joins the other processes of the run, if there are any; before JAX is used."""
  from dalign_jax import parallel

  if config.distributed == 'auto':
    parallel.initialize()
  elif config.coordinator_address:
    parallel.initialize(config.coordinator_address, config.num_processes, config.process_id)


def check_names(config: config_lib.Config) -> None:
  """Refuses unknown names and missing data before the slow imports, and before any folder is made.

  Raises:
    errors.InputError: for methods, hyper-parameters, `--forget` and paths of `--dataset`.
  """
  from dalign_jax import data, hparams

  hparams.resolve(config.all_methods, config.hparam)
  with errors.blame('forget'):
    data.parse_forget(config.forget)
  kind, _, path = config.dataset.partition(':')
  if kind in data.SOURCES and data.SOURCES[kind].path in ('FILE', 'PATH') and path:
    if not os.path.exists(os.path.expanduser(path)):
      raise errors.InputError(
        f'{config.dataset}: there is no file or folder {path}', argument='dataset'
      )


def keep_quiet(config: config_lib.Config) -> None:
  """Mutes progress with --quiet; imports JAX."""
  from dalign_jax.store import progress

  if config.quiet:
    progress.mute()


def main(arguments: list[str]) -> None:
  """Reads the flags, starts the platform and runs the stages."""
  config = read_config(arguments)
  if config.tensorboard:
    tensorboard.require()
  command.start_platform(config)
  check_names(config)
  join_processes(config)
  keep_quiet(config)
  from experiments import stages  # imports JAX: after the platform's settings

  stages.run(config)


command.define(_FIELDS)

if __name__ == '__main__':
  command.launch(main, 'workdir')

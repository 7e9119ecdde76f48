"""The main job: prepare, train original and gold, unlearn, evaluate, report.

python -m experiments.run --flagfile=experiments/flags/quickstart.flags
"""

from collections.abc import Sequence
import dataclasses

from absl import flags

from experiments import command, errors, events
from experiments import config as config_lib

FLAGS = command.FLAGS
_FIELDS = dataclasses.fields(config_lib.Config)


def read_config(
  arguments: Sequence[str] = (), values: flags.FlagValues = FLAGS
) -> config_lib.Config:
  """The flags as a configuration; `arguments` is what flags have left of the command line."""
  if arguments:
    raise errors.UserError(f'unexpected argument {arguments[0]!r}; flags start with --')
  return config_lib.Config(**command.values(_FIELDS, values))


def main(arguments: list[str]) -> None:
  """Reads the flags, starts the platform and runs the stages."""
  config = read_config(arguments)
  unknown = set(config.stages) - set(config_lib.STAGES)
  if unknown:
    raise errors.UserError(
      f'--stages: unknown {", ".join(sorted(unknown))}; known: {", ".join(config_lib.STAGES)}'
    )
  if config.tensorboard:
    events.require()
  command.start_platform(config)
  from experiments import stages  # imports JAX: after the platform's settings

  stages.run(config)


command.define(_FIELDS)

if __name__ == '__main__':
  command.launch(main, 'workdir')

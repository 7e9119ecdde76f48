"""Tunes methods with equal numbers of trials, on validation data against separate gold models.

python -m experiments.tune --flagfile=experiments/flags/tune_cifar10_random.flags
"""

import dataclasses

from dalign_jax import command
from experiments import config as config_lib
from experiments import run

_TUNING = dataclasses.fields(config_lib.Tuning)


def main(arguments) -> None:
  """Reads the flags, starts the platform and searches."""
  config = run.read_config(arguments)
  tuning = config_lib.Tuning(**command.values(_TUNING))
  command.start_platform(config)
  run.check_names(config)
  run.join_processes(config)
  run.keep_quiet(config)
  from experiments.tuning import search  # imports JAX: after the platform's settings

  search.run(config, tuning)


command.define(_TUNING)

if __name__ == '__main__':
  command.launch(main, 'workdir')

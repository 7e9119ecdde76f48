"""Tunes methods: equally many trials of each, judged on validation against a gold of its own.

python -m experiments.tune --flagfile=experiments/flags/tune_cifar10_random.flags
"""

from absl import flags

from dalign_jax import command
from experiments import run

_NUM_TRIALS = flags.DEFINE_integer(
  'num_trials', 16, 'Settings that are tried of each method; the first is its defaults.'
)
_SEARCH = flags.DEFINE_string(
  'search', 'random', 'How ranges are searched: random, or grid (in random order).'
)
_SEARCH_SEED = flags.DEFINE_integer('search_seed', 0, 'Seed of what is tried.')
_TUNING_SEED = flags.DEFINE_integer(
  'tuning_seed', 1000, 'Seed of the first original and of the first gold that tuning works with.'
)
_NUM_TUNING_SEEDS = flags.DEFINE_integer(
  'num_tuning_seeds', 1, 'Originals, each with two golds, over which a score is averaged.'
)


def main(arguments) -> None:
  """Reads the flags, starts the platform and searches."""
  config = run.read_config(arguments)
  command.start_platform(config)
  run.join_processes(config)
  from experiments.tuning import search  # imports JAX: after the platform's settings

  tuning = search.Tuning(
    num_trials=_NUM_TRIALS.value,
    search=_SEARCH.value,
    search_seed=_SEARCH_SEED.value,
    tuning_seed=_TUNING_SEED.value,
    num_tuning_seeds=_NUM_TUNING_SEEDS.value,
  )
  search.run(config, tuning)


if __name__ == '__main__':
  command.launch(main, 'workdir')

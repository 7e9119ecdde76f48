"""The main job: prepare, train original and gold, unlearn, evaluate, report.

python -m experiments.run --flagfile=experiments/flags/quickstart.flags
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib.util
import os
import sys

from absl import app, flags, logging

from experiments import config as config_lib
from experiments import errors

FLAGS = flags.FLAGS


def _define_flags() -> None:
  define = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
  }
  for field in dataclasses.fields(config_lib.Config):
    help_text = field.metadata['help']
    if field.name == 'hparam':
      flags.DEFINE_multi_string(field.name, [], help_text)
    elif field.type == tuple[str, ...]:
      flags.DEFINE_list(field.name, list(field.default), help_text)
    else:
      define[field.type](field.name, field.default, help_text)


def read_config(argv: Sequence[str] = (), values: flags.FlagValues = FLAGS) -> config_lib.Config:
  """The flags as a configuration; `argv` is what flags have left of the command line."""
  if len(argv) > 1:
    raise errors.UserError(f'unexpected argument {argv[1]!r}; flags start with --')
  read = {f.name: getattr(values, f.name) for f in dataclasses.fields(config_lib.Config)}
  return config_lib.Config(
    **{name: tuple(v) if isinstance(v, list) else v for name, v in read.items()}
  )


def start_platform(config: config_lib.Config) -> None:
  """Settings that must be made before JAX starts."""
  accelerators = ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin', 'libtpu')
  has_accelerator = any(importlib.util.find_spec(name) for name in accelerators)
  is_cpu = os.environ.get('JAX_PLATFORMS', '' if has_accelerator else 'cpu') == 'cpu'
  import jax

  from dalign_jax import parallel

  if is_cpu and config.cpu_tuning:
    parallel.tune_cpu()
  if config.compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache_dir))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  if config.coordinator_address:
    with errors.blame('coordinator_address'):
      parallel.initialize(config.coordinator_address, config.num_processes, config.process_id)


def main(argv) -> None:
  """Reads the flags, starts the platform and runs the stages."""
  config = read_config(argv)
  unknown = set(config.stages) - set(config_lib.STAGES)
  if unknown:
    raise errors.UserError(
      f'--stages: unknown {", ".join(sorted(unknown))}; known: {", ".join(config_lib.STAGES)}'
    )
  start_platform(config)
  from experiments import stages  # imports JAX: after the platform's settings

  stages.run(config)


def start(program: Callable[[list[str]], None]) -> None:
  """Runs a program on the command line; the user's errors end it in one line, with code 2."""
  logging.set_verbosity(logging.FATAL)  # what matters reaches us as an exception
  app.run(functools.partial(_run_and_report_errors, program), flags_parser=_parse_flags)


def _run_and_report_errors(program, argv) -> None:
  try:
    program(argv)
  except errors.UserError as error:
    _fail(error)
  except OSError as error:
    _fail(f'--workdir: {error}')


def _parse_flags(argv):
  try:
    return FLAGS(argv)
  except flags.Error as error:
    _fail(error)


def _fail(error) -> None:
  print(f'error: {error}', file=sys.stderr)
  sys.exit(2)


_define_flags()

if __name__ == '__main__':
  start(main)

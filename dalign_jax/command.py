"""What the commands share: flags from dataclasses, the platform, and how errors are shown."""

from collections.abc import Callable, Iterable
import dataclasses
import importlib.util
import os
import sys

from absl import app, flags, logging

from dalign_jax import errors
from dalign_jax import settings as settings_lib

FLAGS = flags.FLAGS


def define(fields: Iterable[dataclasses.Field]) -> None:
  """Defines a flag for each field of a dataclass, with the help in its metadata."""
  define_by_type = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
  }
  for field in fields:
    help_text = field.metadata['help']
    if field.name == 'hparam':
      flags.DEFINE_multi_string(field.name, [], help_text)
    elif field.type == tuple[str, ...]:
      flags.DEFINE_list(field.name, list(field.default), help_text)
    else:
      define_by_type[field.type](field.name, field.default, help_text)


def values(fields: Iterable[dataclasses.Field], read: flags.FlagValues = FLAGS) -> dict:
  """The flags' values by name."""
  found = {f.name: getattr(read, f.name) for f in fields}
  return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def start_platform(config: settings_lib.Settings) -> None:
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


def launch(main: Callable[[list[str]], None], folder: str) -> None:
  """Runs a command.

  An `InputError` is one line and exit code 2; so is a file that cannot be read or written. Any
  other error is a bug: it keeps its traceback, says where the state so far is, and ends in exit
  code 1.

  Args:
    main: is passed the arguments that are no flags.
    folder: the flag that names the folder in which the command works.
  """

  def run(argv):
    try:
      main(argv[1:])
    except errors.InputError as error:
      _fail(error)
    except OSError as error:
      _fail(errors.InputError(str(error), argument=folder))
    except Exception as error:
      error.add_note(
        f'Not an input error but a bug. The state so far: --{folder}={FLAGS[folder].value}'
      )
      raise

  logging.set_verbosity(logging.FATAL)  # what matters reaches us as an exception
  app.run(run, flags_parser=_parse_flags)


def _parse_flags(argv):
  try:
    return FLAGS(argv)
  except flags.Error as error:
    _fail(error)


def _fail(error) -> None:
  flag = '--' if getattr(error, 'argument', None) else ''
  print(f'error: {flag}{error}', file=sys.stderr)
  sys.exit(2)

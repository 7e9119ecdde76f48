"""Shared parts of the commands: flags from dataclasses, platform settings, error messages."""

from collections.abc import Callable, Iterable
import dataclasses
import functools
import importlib.util
import os
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import app, flags, logging

from dalign_jax import errors, stopping, valid
from dalign_jax import settings as settings_lib

FLAGS = flags.FLAGS
BUSY = os.EX_TEMPFAIL  # exit code, 75
_REPEATABLE = ('hparam', 'scenario')  # flags whose values may hold commas
_LATE = 'Event loop is closed'
_FIELDS: dict[str, dataclasses.Field] = {}  # of the flags defined so far


def define(fields: Iterable[dataclasses.Field]) -> None:
  """Defines a flag for each field of a dataclass, with the help in its metadata."""
  define_by_type: dict[Any, Callable] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
  }
  for field in fields:
    help_text = field.metadata['help']
    _FIELDS[field.name] = field
    if field.name in _REPEATABLE:
      flags.DEFINE_multi_string(field.name, [], help_text)
    elif field.type == tuple[str, ...]:
      default: Any = field.default
      flags.DEFINE_list(field.name, list(default), help_text)
    else:
      define_by_type[field.type](field.name, field.default, help_text)


def values(fields: Iterable[dataclasses.Field], read: flags.FlagValues = FLAGS) -> dict:
  """The flags' values by name."""
  found = {f.name: getattr(read, f.name) for f in fields}
  return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def given(fields: Iterable[dataclasses.Field]) -> set[str]:
  """Names of the flags that somebody gave, in a flag file too, whatever their values."""
  return {field.name for field in fields if FLAGS[field.name].present}


def start_platform(config: settings_lib.Settings) -> None:
  """Makes the settings that must precede the start of JAX."""
  accelerators = ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin', 'libtpu')
  has_accelerator = any(importlib.util.find_spec(name) for name in accelerators)
  is_cpu = os.environ.get('JAX_PLATFORMS', '' if has_accelerator else 'cpu') == 'cpu'
  import jax

  from dalign_jax import parallel, training

  parallel.use(config.mapping)
  training.keep_data_on_device(config.data_on_device)
  if is_cpu and config.cpu_tuning:
    parallel.tune_cpu()
  if config.compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache_dir))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


def launch(main: Callable[[list[str]], None], folder: str) -> None:
  """Runs a command.

  An `InputError` is one line and exit code 2, or `BUSY` where another process is at work in the
  folder; so is a file that cannot be read or written. Any other error is a bug: it keeps its
  traceback, says where the state so far is, and ends in exit code 1. SIGINT and SIGTERM end it
  after the current step, with exit code 130 or 143.

  Args:
    main: is passed the arguments that are no flags.
    folder: the flag that names the folder in which the command works.
  """

  def run(argv):
    stopping.install()
    _hide_late_answers()
    try:
      main(argv[1:])
      stopping.disarm()
    except stopping.Stopped as stop:
      stopping.disarm()
      print(f'{stop}: the same command resumes from the last finished epoch', file=sys.stderr)
      sys.exit(128 + stop.signal)
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


def _hide_late_answers() -> None:
  """Hides one known noise: a checkpoint cannot be read, and the error was raised already.

  TensorStore goes on to answer the other reads of that checkpoint, asyncio's loop is closed by
  then, and Python prints a traceback for each answer, below the line that says what to do.
  """
  usual = sys.unraisablehook

  def hook(found):
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == _LATE):
      usual(found)

  sys.unraisablehook = hook


def _parse_flags(argv):
  asked = [a for a in argv[1:] if re.fullmatch(r'--?(h|help|helpshort|helpfull)(=.*)?', a)]
  try:
    if asked:
      print(_help(argv[0], asked[0].partition('=')[2]))
      sys.exit(0)
    return FLAGS(argv)
  except (flags.Error, errors.InputError) as error:
    _fail(error)


def _help(program: str, topic: str) -> str:
  """The flags in sections; with a topic, the methods, or the hyper-parameters of one."""
  if topic:
    from dalign_jax import hparams  # imports JAX

    return hparams.help_text(topic)
  path = pathlib.Path(program)
  program = f'python -m experiments.{path.stem}' if path.suffix == '.py' else path.name
  lines = [f'{program} --flag=value ... or --flagfile=FILE', '']
  for section in settings_lib.SECTIONS:
    fields = [f for f in _FIELDS.values() if f.metadata['section'] == section]
    lines += [f'{section}:', *map(_describe, fields), ''] if fields else []
  others = [
    FLAGS[name]
    for module in ('__main__', 'dalign_jax.console')
    for name in {flag.name for flag in FLAGS.flags_by_module_dict().get(module, ())} - {*_FIELDS}
  ]
  lines += ['Other:', *(f'  --{f.name}={f.default!r}: {f.help}' for f in others), ''] * bool(others)
  return '\n'.join([*lines, '--help=methods: the methods. --help=muda: the flags of one.'])


def _describe(field) -> str:
  """A flag as lines: its default, its help, and the values it may have."""
  default = field.default
  if isinstance(default, tuple):
    default = ','.join(default)
  head = f'  --[no]{field.name}' if field.type is bool else f'  --{field.name}={default}'
  notes = [field.metadata['help']]
  if isinstance(field.metadata['valid'], valid.Between | valid.OneOf):
    notes.append(f'Must be {field.metadata["valid"]}.')
  if field.type is bool:
    notes.append(f'Default: {"on" if default else "off"}.')
  wrap = functools.partial(textwrap.wrap, width=96, initial_indent='      ')
  return '\n'.join([head, *wrap(' '.join(notes), subsequent_indent='      ')])


def _fail(error) -> None:
  flag = '--' if getattr(error, 'argument', None) else ''
  print(f'error: {flag}{error}', file=sys.stderr)
  sys.exit(BUSY if isinstance(error, errors.BusyError) else 2)

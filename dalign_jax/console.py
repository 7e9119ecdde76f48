"""The command `dalign-jax`: deletion requests on your own model.

dalign-jax forget --checkpoint=MODEL --data=DATA --ids=request.csv --out=FOLDER
dalign-jax verify FOLDER/record.json
dalign-jax find --image=photo.jpg --data=DATA
"""

from collections.abc import Callable
import dataclasses
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags

from dalign_jax import command, errors
from dalign_jax import settings as settings_lib

FLAGS = command.FLAGS
_REQUEST = dataclasses.fields(settings_lib.Request)
_SETTINGS = dataclasses.fields(settings_lib.Settings)
_SEARCH = dataclasses.fields(settings_lib.Search)
_OF_SEARCH = [f for f in _REQUEST if f.name in ('checkpoint', 'item', 'data', 'held_out')]
_OF_REPLAY = ('data_dir', 'num_devices', 'compilation_cache_dir')


class Command(NamedTuple):
  """A command: what it does, its flags, its main function, and the flag of its folder."""

  summary: str
  define: Callable[[], None]
  main: Callable[[list[str]], None]
  folder: str


def forget(arguments: list[str]) -> None:
  """Reads the flags, starts the platform and carries the request out."""
  if arguments:
    raise errors.InputError(f'unexpected argument {arguments[0]!r}; flags start with --')
  request = settings_lib.Request(**command.values(_REQUEST))
  settings = settings_lib.Settings(**command.values(_SETTINGS))
  command.start_platform(settings)
  from dalign_jax.deletion import carry_out, without_gold  # JAX: after the platform's settings

  record = carry_out.forget(request, settings)
  lines = [*record['summary'], *without_gold.sentences(record['without_gold'])]
  print('\n'.join(f'- {line}' for line in lines))
  print(f'record: {request.out}/record.json, {record["hash"][:16]}')


def verify(arguments: list[str]) -> None:
  """Reads the record, starts the platform as it was, and replays."""
  if len(arguments) != 1:
    raise errors.InputError(f'give one record, as FOLDER/record.json; got {len(arguments)}')
  from dalign_jax.deletion import audit_record

  path = pathlib.Path(arguments[0]).expanduser()
  path = path / 'record.json' if path.is_dir() else path
  record = audit_record.read(path)
  given: dict[str, Any] = {name: FLAGS[name].value for name in _OF_REPLAY if FLAGS[name].present}
  command.start_platform(dataclasses.replace(audit_record.config_of(record), **given))
  from dalign_jax.deletion import replay  # imports JAX: after the platform's settings

  places = {name: FLAGS[name].value for name in ('checkpoint', 'data', 'held_out')}
  replay.verify(path, places=places, settings=given, replay=FLAGS.replay)


def find(arguments: list[str]) -> None:
  """Reads the flags and lists the samples most like a photo."""
  if arguments:
    raise errors.InputError(f'unexpected argument {arguments[0]!r}; flags start with --')
  search = settings_lib.Search(**command.values(_SEARCH))
  request = settings_lib.Request(**command.values(_OF_SEARCH))
  settings = settings_lib.Settings(**command.values(_SETTINGS))
  command.start_platform(settings)
  from dalign_jax.deletion import find as find_lib  # imports JAX: after the platform's settings

  find_lib.find(search, request, settings)


def _define_forget() -> None:
  command.define([*_REQUEST, *_SETTINGS])


def _define_find() -> None:
  command.define([*_SEARCH, *_OF_SEARCH, *_SETTINGS])


def _define_verify() -> None:
  flags.DEFINE_string('checkpoint', '', 'Where the model before the request is now.')
  flags.DEFINE_string('data', '', 'Where the training data are now.')
  flags.DEFINE_string('held_out', '', 'Where the held-out data are now.')
  flags.DEFINE_string('data_dir', '', 'Where TFDS keeps its data.')
  flags.DEFINE_integer('num_devices', 0, 'Devices to use; 0: all.')
  flags.DEFINE_string('compilation_cache_dir', '', 'Where compiled programs are kept.')
  flags.DEFINE_boolean('replay', True, 'Unlearn again; needs the forgotten samples.')


COMMANDS = {
  'forget': Command(
    'Carry a deletion request out: write a new checkpoint and an audit record.',
    _define_forget,
    forget,
    'out',
  ),
  'verify': Command(
    'Check the audit record of a deletion request, and carry the request out again.',
    _define_verify,
    verify,
    'checkpoint',
  ),
  'find': Command(
    'List the samples most like a photo, for a person to check and pass to forget.',
    _define_find,
    find,
    'list_file',
  ),
}


def run(name: str) -> None:
  """Runs a command of `COMMANDS` on the arguments of the process."""
  chosen = COMMANDS[name]
  chosen.define()
  command.launch(chosen.main, chosen.folder)


def main() -> None:
  """`dalign-jax COMMAND ...`; `dalign-jax --help` lists the commands."""
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  sys.path.insert(0, '')  # the user's own network lies in the current folder, as for python -m
  if name in COMMANDS:
    sys.argv[:2] = [f'dalign-jax {name}']
    run(name)
    return
  known = '\n'.join(f'  {key:<8} {found.summary}' for key, found in COMMANDS.items())
  text = f'dalign-jax COMMAND --flag=value ...\n\n{known}\n\ndalign-jax COMMAND --help: its flags.'
  if name not in ('--help', '-h', 'help'):
    print(f'error: unknown command {name!r}\n\n{text}', file=sys.stderr)
    sys.exit(2)
  print(text)

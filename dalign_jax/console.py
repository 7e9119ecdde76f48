"""The command `dalign-jax`: deletion requests on your own model.

dalign-jax forget --checkpoint=MODEL --data=DATA --ids=request.csv --out=FOLDER
dalign-jax forget --checkpoint=MODEL --data=DATA --requests=FOLDER --out=FOLDER
dalign-jax verify FOLDER/record.json --keys=record_keys
dalign-jax receipt FOLDER/record.json --receipt=receipt.json
dalign-jax find --image=photo.jpg --data=DATA
dalign-jax keygen --keys=FOLDER
"""

from collections.abc import Callable
import dataclasses
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags

from dalign_jax import command, errors, valid
from dalign_jax import settings as settings_lib

FLAGS = command.FLAGS
_REQUEST = dataclasses.fields(settings_lib.Request)
_STREAM = dataclasses.fields(settings_lib.Stream)
_SETTINGS = dataclasses.fields(settings_lib.Settings)
_SEARCH = dataclasses.fields(settings_lib.Search)
_OF_SEARCH = [f for f in _REQUEST if f.name in ('checkpoint', 'item', 'data', 'held_out', 'keys')]
_PLACES = ('checkpoint', 'data', 'held_out', 'ids', 'id_column', 'model', 'pretrained', 'keys')
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
  stream = settings_lib.Stream(**command.values(_STREAM))
  settings = settings_lib.Settings(**command.values(_SETTINGS))
  command.start_platform(settings)
  from dalign_jax.deletion import carry_out, verdict  # import JAX: after the platform's settings

  given = command.given(_SETTINGS)
  try:
    if stream.requests:
      _forget_all(stream, request, settings, given)
      return
    record = carry_out.forget(request, settings, given=given)
  except verdict.NotForgottenError as error:
    print(f'error: --{error}', file=sys.stderr)
    sys.exit(error.code)
  print('\n'.join(f'- {line}' for line in record['summary']))
  print(f'record: {request.out}/record.json, {record["hash"][:16]}')


def _forget_all(stream, request, settings, given) -> None:
  """Carries a folder of requests out and says where the report is."""
  from dalign_jax.deletion import stream_report, streams

  rows = streams.run(stream, request, settings, given=given)
  print('\n'.join(stream_report.advice(rows)))
  print(f'report: {request.out}/report.md')


def verify(arguments: list[str]) -> None:
  """Reads the record, starts the platform as it was, and replays."""
  path = _record_path(arguments)
  from dalign_jax.deletion import record_checks, record_files

  record = record_files.read(path)
  given: dict[str, Any] = {name: FLAGS[name].value for name in _OF_REPLAY if FLAGS[name].present}
  settings = dataclasses.replace(record_checks.settings_of(record), **given)
  command.start_platform(settings)
  from dalign_jax.deletion import replay, verification  # import JAX: after the platform's settings

  summary = pathlib.Path(FLAGS.summary).expanduser() if FLAGS.summary else None
  if summary:
    verification.check_summary(summary, FLAGS.signing_key)
  try:
    levels = replay.verify(
      path,
      places={name: FLAGS[name].value for name in _PLACES},
      settings=given,
      replay=FLAGS.replay,
      public_keys=FLAGS.public_key,
      may_differ=FLAGS.may_differ,
      max_minutes=FLAGS.max_minutes,
    )
  except errors.InputError as error:
    if summary and error.argument is None:  # else a flag is wrong, and the record may be right
      verification.write_summary(summary, path.parent, FLAGS.signing_key, [])
    raise
  if summary:
    verification.write_summary(summary, path.parent, FLAGS.signing_key, levels)


def _record_path(arguments: list[str]) -> pathlib.Path:
  if len(arguments) != 1:
    raise errors.InputError(f'give one record, as FOLDER/record.json; got {len(arguments)}')
  path = pathlib.Path(arguments[0]).expanduser()
  return path / 'record.json' if path.is_dir() else path


def receipt(arguments: list[str]) -> None:
  """Checks a receipt against a record, and perhaps its signature and a picture."""
  path = _record_path(arguments)
  import numpy as np

  from dalign_jax.deletion import receipts, untrusted, verification

  chain = verification.chain_of(path)
  record = chain[-1][0]
  print(f'signature: {verification.check_signatures(chain, FLAGS.public_key)}')
  image = None
  if FLAGS.pixels:
    with errors.blame('pixels'):
      image = untrusted.load_array(pathlib.Path(FLAGS.pixels).expanduser())
      image = np.ascontiguousarray(image)
  with errors.blame('receipt'):
    found = receipts.read(pathlib.Path(FLAGS.receipt).expanduser())
    print('\n'.join(receipts.check(found, record, image)))


def keygen(arguments: list[str]) -> None:
  """Makes a pair of keys to sign records with."""
  if arguments:
    raise errors.InputError(f'unexpected argument {arguments[0]!r}; flags start with --')
  from dalign_jax.deletion import signing

  private, public = signing.keygen(pathlib.Path(FLAGS.keys).expanduser())
  print(f'private key: {private} (keep it; --signing_key signs with it)')
  print(f'public key: {public} (give it away; --public_key checks with it)')
  print(f'key id: {signing.keyid(signing.read_public(public))}')


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


def _define_path(name: str, default: str, words: str) -> None:
  """A flag for a file or folder of this machine."""
  flags.DEFINE_string(name, default, words)
  flags.register_validator(
    name, lambda value: value in valid.LOCAL_PATH, f'must be {valid.LOCAL_PATH}'
  )


def _define_forget() -> None:
  command.define([*_REQUEST, *_STREAM, *_SETTINGS])


def _define_find() -> None:
  command.define([*_SEARCH, *_OF_SEARCH, *_SETTINGS])


def _define_verify() -> None:
  _define_path('checkpoint', '', 'Where the model before the request is.')
  flags.DEFINE_string('data', '', 'Where the training data are.')
  flags.DEFINE_string('held_out', '', 'Where the held-out data are.')
  flags.DEFINE_list('ids', [], 'The file of the request, or the files.')
  flags.DEFINE_string('id_column', '', 'Column of the ids in it; empty: id.')
  flags.DEFINE_string('model', '', 'MODULE:FUNCTION of the network, where it is your own.')
  _define_path('pretrained', '', 'Weights that the model was fine-tuned from, if any.')
  _define_path(
    'keys', '', 'Private folder of the record, which also says where things were; or its key alone.'
  )
  flags.DEFINE_list('public_key', [], 'Public keys, one of which must have signed.')
  flags.DEFINE_list(
    'may_differ', [], 'Fields in which a replay may differ: code, environment, read.'
  )
  flags.DEFINE_float('max_minutes', 60.0, 'Minutes after which a replay is given up.')
  _define_path('summary', '', 'File for a signed summary of this verification.')
  _define_path('signing_key', '', 'Private key that signs the summary.')
  _define_path('data_dir', '', 'Where TFDS keeps its data.')
  flags.DEFINE_integer('num_devices', 0, 'Devices to use; 0: all.')
  _define_path('compilation_cache_dir', '', 'Where compiled programs are kept.')
  flags.DEFINE_boolean('replay', True, 'Unlearn again; needs the forgotten samples.')
  flags.register_validator(
    'may_differ',
    lambda names: set(names) <= {'code', 'environment', 'read'},
    'must be some of code, environment, read',
  )


def _define_receipt() -> None:
  _define_path('receipt', '', 'The receipt.')
  flags.DEFINE_list('public_key', [], 'Public keys, one of which must have signed the record.')
  _define_path('pixels', '', 'The decoded picture as .npy, to compare with the sample.')


def _define_keygen() -> None:
  _define_path('keys', 'signing_keys', 'Folder for signing.pem and signing.pub.pem.')


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
  'receipt': Command(
    'Check the receipt of a forgotten sample against the record of its request.',
    _define_receipt,
    receipt,
    'receipt',
  ),
  'keygen': Command(
    'Make a pair of keys, to sign records and summaries with.',
    _define_keygen,
    keygen,
    'keys',
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

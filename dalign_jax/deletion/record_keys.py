"""The private folder beside the records of a chain: its key, receipts, and where things were.

Everything in it may identify people, so files have mode 0600 and folders 0700. It never lies in the
folder of a request. Destroying it makes the commitments of all records noise.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import secrets
import shutil
from typing import Any

from dalign_jax import errors
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import commitments

NAME = 'record_keys'
KEY_FILE = 'record.key'
PLACES_FILE = 'places.json'
WORK_FILE = '.work.json'  # of a request that is not finished
_FORMAT = 'dalign_jax record key 1'


def folder(named: str, out: pathlib.Path | None, earlier: pathlib.Path | None) -> pathlib.Path:
  """The private folder of a request.

  Args:
    named: by `--keys`; empty for the default, `record_keys` beside the earlier request where it is
      there, beside `out` otherwise.
    out: the folder of the request, None where nothing is written.
    earlier: that of the request before, None without one.

  Raises:
    errors.InputError: if it would lie in the folder of a request, or hold it.
  """
  mine = out and out.absolute()
  beside = [p.absolute().parent / NAME for p in (earlier, out) if p is not None]
  found = next((p for p in beside if p.is_dir()), (beside or [pathlib.Path(NAME)])[-1])
  found = (pathlib.Path(named).expanduser() if named else found).absolute()
  inside = [p for p in (found, *found.parents) if p == mine or _is_request(p)]
  if inside:
    raise errors.InputError(
      f'{found} lies in {inside[0]}, which is given away; name a folder outside of it',
      argument='keys',
    )
  if mine and found == mine.parent:
    raise errors.InputError(
      f'{found} holds the folder of the request; name one beside it, such as {found / NAME}',
      argument='keys',
    )
  return found


def _is_request(place: pathlib.Path) -> bool:
  return (place / 'record.json').is_file()


def read(place: pathlib.Path) -> bytes | None:
  """The key in a private folder, or of a key file; None if there is none.

  Raises:
    errors.InputError: if it is no key.
  """
  path = place if place.is_file() else place / KEY_FILE
  if not path.is_file():
    return None
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    key = bytes.fromhex(found['key'])
    if found['format'] != _FORMAT or len(key) != 32:
      raise ValueError('it is of another format')
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is no key of records ({error}); bring back a copy of it', argument='keys'
    ) from None
  return key


def make(place: pathlib.Path) -> bytes:
  """The key in a private folder, made at random where there is none."""
  key = read(place)
  if key is None:
    place.parent.mkdir(parents=True, exist_ok=True)  # not private: the folder of the requests
    key = secrets.token_bytes(32)
    write_private(place / KEY_FILE, {'format': _FORMAT, 'key': key.hex()})
  return key


def check_kept(place: pathlib.Path, folder: pathlib.Path) -> None:
  """Raises if a request was stopped on the way and its key is gone since: a new one is another.

  Args:
    place: the private folder.
    folder: the hidden folder of the request.
  """
  if folder.is_dir() and read(place) is None:
    raise errors.InputError(
      f'the request was stopped on the way, and its key {place / KEY_FILE} is gone; bring back a '
      f'copy, or delete {folder} to begin anew',
      argument='keys',
    )


def check(key: bytes | None, record: dict, place: pathlib.Path | None = None) -> None:
  """Raises unless a key is the one of a record.

  Args:
    key: None where there is none.
    record: of the request.
    place: where it was looked for, None where nobody named a place.
  """
  if key is None:
    where = f'there is no {place / KEY_FILE}: bring back a copy, or ' if place else ''
    raise errors.InputError(
      f'{where}name the folder with the key of the record (record.key); if it was destroyed, the '
      'commitments are noise and nothing can be said of samples (--noreplay checks the rest)',
      argument='keys',
    )
  if commitments.key_check(key) != record['commitments']['key_check']:
    raise errors.InputError('the key there is not the one of the record', argument='keys')


def places(place: pathlib.Path, record: dict) -> dict[str, Any]:
  """Where things were for a record, by its hash; empty if the folder does not say."""
  if not place.is_dir():
    return {}
  for path in sorted(place.glob(f'*/{PLACES_FILE}')):
    try:
      found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
      continue
    if isinstance(found, dict) and found.get('record') == record['hash']:
      return found
  return {}


def own_folder(place: pathlib.Path, out: pathlib.Path, work: str) -> pathlib.Path:
  """The part of a private folder that belongs to one request: by its name, or one with a number.

  It is made here, so that no other request can take it. One that was made for the same work, and
  was not closed, is emptied and used again: the work was stopped, and its record never appeared.

  Args:
    place: the private folder.
    out: the folder that the request will have.
    work: the name of the hidden folder in which it is made.
  """
  mine, number = {'work': work, 'out': str(out.absolute())}, 0
  while True:
    number += 1
    found = place / (out.name if number == 1 else f'{out.name}_{number}')
    try:
      found.mkdir(mode=0o700)
    except FileExistsError:
      if _work_of(found) != mine:
        continue
      shutil.rmtree(found)
      found.mkdir(mode=0o700)
    write_private(found / WORK_FILE, mine)
    return found


def _work_of(found: pathlib.Path) -> Any:
  try:
    return json.loads((found / WORK_FILE).read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError):
    return None


def close(place: pathlib.Path) -> None:
  """Says that the part of a private folder is complete, so that nothing empties it again."""
  (place / WORK_FILE).unlink()


def write_places(
  place: pathlib.Path,
  record: dict,
  request: settings_lib.Request,
  basis: Any,
  paths: Sequence[str],
  left: dict,
) -> None:
  """Writes where things were, which the record does not say.

  Args:
    place: the private folder of the request.
    record: of it.
    request: its flags.
    basis: its `StartingPoint`.
    paths: files of ids that are one request together, if not `request.ids` is.
    left: traces, with their paths.
  """
  found = {
    'record': record['hash'],
    'out': str(pathlib.Path(request.out).expanduser().absolute()),
    'checkpoint': str(basis.taken.found.path),
    'data': basis.config.dataset,
    'held_out': basis.held_out,
    'data_dir': basis.config.data_dir,
    'model': basis.config.model,
    'pretrained': basis.config.pretrained,
    'ids': [str(pathlib.Path(p).expanduser().absolute()) for p in paths or (request.ids,)],
    'id_column': request.id_column,
    'class_names': list(basis.class_names),
    'not_looked_into': left['not_looked_into'],
  }
  write_private(place / PLACES_FILE, found)


def write_private(path: pathlib.Path, value: Any, *, is_new: bool = False) -> None:
  """Writes JSON that nobody else may read, whole or not at all.

  Args:
    path: of the file; folders on the way are made.
    value: what JSON can hold.
    is_new: whether no command can have been killed here before.
  """
  for parent in reversed(path.parents):
    if not parent.exists():
      parent.mkdir(mode=0o700, exist_ok=True)
  for left in () if is_new else path.parent.glob(f'.{path.name}.*'):  # of a command that was killed
    left.unlink()
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, 'w', encoding='utf-8') as file:
      file.write(json.dumps(value, indent=2) + '\n')
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)

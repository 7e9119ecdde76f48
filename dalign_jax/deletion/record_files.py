"""Records and their chains as files: written whole, and read as what somebody else wrote.

Nothing is opened outside of the folder of the request, and nothing is used before its shape is
checked.
"""

from collections.abc import Iterable, Mapping
import datetime
import hashlib
import json
import os
import pathlib
import stat
from typing import Any

from dalign_jax import errors
from dalign_jax.deletion import (
  commitments,
  model_source,
  record_checks,
  record_shape,
  signing,
  statement,
  untrusted,
  verdict,
)
from dalign_jax.store import files, hashing

RECORD, ENVELOPE, HISTORY = 'record.json', 'record.intoto.jsonl', 'history.json'
MEMBERS, IDS, PAGE = 'members.json', 'ids.json', 'record.html'
_LONGEST = 10_000  # records of a history


def read(path: pathlib.Path) -> dict:
  """Reads a record of either format, and checks it in itself.

  Raises:
    errors.InputError: if it is missing, damaged, contradicts itself, or is not as it was written.
  """
  return _check(untrusted.read_json(path), path)


def _check(value, path) -> dict:
  return untrusted.named(path, check, value)


def check(value: Any) -> dict:
  """A record from what a file holds: a statement, or a record of format 1.

  Raises:
    errors.InputError: that says what is wrong.
  """
  if statement.is_statement(value):
    record = statement.to_record(value)
    record_shape.check(record, record_shape.FORMAT_2)
  elif isinstance(value, dict) and value.get('format') == 1:
    record = value
    record_shape.check(record, record_shape.FORMAT_1)
  else:
    raise errors.InputError('it is not a record of format 1 or 2')
  body = {name: found for name, found in record.items() if name != 'hash'}
  if record['hash'] != hashing.of_json(body):
    raise errors.InputError('it was changed: its hash is not that of what it says')
  record_checks.check(record)
  return record


def request_folder(place: pathlib.Path) -> pathlib.Path | None:
  """The `--out` of the request that a checkpoint lies in, None if it lies in none.

  Raises:
    errors.InputError: if it lies in one whose record is gone.
  """
  place = place.resolve()
  for folder in (place, *place.parents):
    if (folder / RECORD).is_file():
      return folder
    if (folder / MEMBERS).is_file():
      raise errors.InputError(
        f'{folder} is of a request, and its {RECORD} is gone; bring back a copy of it',
        argument='checkpoint',
      )
  return None


def read_chain(folder: pathlib.Path) -> list[dict]:
  """The records that led to a checkpoint, oldest first; empty where none did.

  Args:
    folder: the --out of a request, or anything in it.

  Raises:
    errors.InputError: if one was changed, or the chain is broken.
  """
  found = request_folder(folder)
  return [record for record, _ in chain_of(found)] if found else []


def chain_of(folder: pathlib.Path) -> list[tuple[dict, dict | None]]:
  """The records of a folder, oldest first, each with its envelope where it is signed."""
  record = read(folder / RECORD)
  path = folder / HISTORY
  if not path.exists():
    raise errors.InputError(
      f'there is no {path}: the chain of records is broken; {files.BRING_BACK}'
    )
  history = untrusted.read_json(path)
  if not isinstance(history, list) or len(history) > _LONGEST:
    raise errors.InputError(f'{path} is no list of records; {files.BRING_BACK}')
  if record['format'] == 2 and hashing.of_json(history) != record['history']:
    raise errors.InputError(
      f'{path} is not the history of the record: the chain is broken; {files.BRING_BACK}'
    )
  chain = [untrusted.named(path, _entry, value) for value in history]
  chain.append((record, _own_envelope(folder, record)))
  for number, (one, _) in enumerate(chain, start=1):
    untrusted.named(path, _check_link, number, chain[number - 2][0] if number > 1 else None, one)
  untrusted.named(path, _check_once, [one for one, _ in chain])
  return chain


def _check_once(chain):
  """Checks that no sample is forgotten twice."""
  seen: dict[type, set[str]] = {}
  for number, record in enumerate(chain, start=1):
    named = record['request'].get('ids') or record['request']['commitments']
    before = seen.setdefault('ids' in record['request'], set())
    again = before.intersection(named)
    if again:
      raise errors.InputError(
        f'the chain is broken at request {number}: {len(again)} of its samples were forgotten '
        'before'
      )
    if verdict.is_forgotten(record):
      before.update(named)


def _entry(value) -> tuple[dict, dict | None]:
  if isinstance(value, dict) and value.get('redacted'):
    record_shape.check(value, record_shape.ANCESTOR)
    return value, None
  if isinstance(value, dict) and value.get('format') == 1:
    return check(value), None
  record, envelope = statement.of_entry(value, untrusted.load_json)
  return check(statement.of_record(record)), envelope


def _own_envelope(folder, record) -> dict | None:
  """The envelope beside a record, if it is signed: around its very bytes."""
  path = folder / ENVELOPE
  if not path.exists():
    return None
  envelope = untrusted.read_json(path)
  payload = untrusted.named(path, signing.payload_of, envelope)
  if record['format'] != 2 or payload != untrusted.read_bytes(folder / RECORD):
    raise errors.InputError(f'{path} is around another record than the one beside it')
  return envelope


def _check_link(number, before, record):
  """Checks that a record follows from the one before it."""
  links = {
    'number': (number, record['number']),
    'previous': (before['hash'] if before else None, record['previous']),
  }
  if before:
    links['model'] = (before['model']['after'], record['model']['before'])
    links |= _same_format(before, record)
    if _moment(record) < _moment(before):
      raise errors.InputError(
        f'the chain is broken at request {number}: it was created before the request before it'
      )
  if record['format'] < (before['format'] if before else 1):
    raise errors.InputError(f'the chain is broken at request {number}: its format is older')
  for name, (wanted, found) in links.items():
    if wanted != found:
      raise errors.InputError(
        f'the chain is broken at request {number}: {name} is {found}, and {wanted} follows '
        'from the request before'
      )


def _moment(record) -> datetime.datetime:
  return datetime.datetime.fromisoformat(record['created'])


def _same_format(before, record) -> dict:
  """What two records in a row share, where both have it in the same form."""
  if before['format'] != record['format'] or 'samples' not in before:
    return {}
  links = {}
  for role, said in record['samples'].items():
    earlier = before['samples'][role]
    links[f'samples of {role}'] = (earlier['after'], said['before'])
    links[f'number of samples of {role}'] = (earlier['count_after'], said['count_before'])
  if record['format'] == 2:
    links['key'] = (before['commitments'], record['commitments'])
    classes = [found['configuration']['classes'] for found in (before, record)]
    links['classes'] = (classes[0], classes[1])
  return links


def entries(chain: list[tuple[dict, dict | None]], key: bytes) -> list[dict]:
  """The history to write beside the next record: format 1 loses its ids."""
  return [_redacted(r, key) if r['format'] == 1 else statement.entry(r, e) for r, e in chain]


def _redacted(record, key) -> dict:
  if record.get('redacted'):
    return record
  kept = {name: record[name] for name in ('format', 'number', 'previous', 'hash', 'created')}
  named = sorted(commitments.tags(key, record['request']['ids']))
  request = {'count': len(named), 'commitments': named}
  return {**kept, 'redacted': True, 'model': record['model'], 'request': request}


def by_tags(names: Iterable[str], key: bytes | None) -> dict[str, str]:
  """Ids by their tags; empty without a key."""
  names = list(names)
  return {} if key is None else dict(zip(commitments.tags(key, names), names, strict=True))


def named_in(record: dict, names: Iterable[str], by_tag: Mapping[str, str]) -> set[str]:
  """Those of some ids that a record names, or whose tags it has.

  Args:
    record: of a request.
    names: the ids.
    by_tag: the same by `by_tags`, once for many records.
  """
  request = record['request']
  if 'ids' in request:
    return set(names).intersection(request['ids'])
  return {by_tag[tag] for tag in request['commitments'] if tag in by_tag}


def write(folder: pathlib.Path, record: dict, history: list[dict], private_key: Any) -> None:
  """Writes a record and its history, and its envelope where there is a key to sign with."""
  text = statement.text(record)
  files.write_json(folder / HISTORY, history)
  files.write_text(folder / RECORD, text)
  if private_key is not None:
    envelope = json.dumps(signing.sign(text.encode(), private_key))
    files.write_text(folder / ENVELOPE, envelope + '\n')


def model_files(folder: pathlib.Path) -> dict[str, str]:
  """SHA-256 of every file of the model, by its path in the folder of the request.

  Raises:
    errors.InputError: if something there is neither a file nor a folder.
  """
  found = {}
  for name in ('model', *sorted(model_source.WRITTEN.values())):
    top = folder / name
    paths = [top, *top.rglob('*')] if top.is_dir() and not top.is_symlink() else [top]
    for path in sorted(p for p in paths if os.path.lexists(p)):
      mode = path.lstat().st_mode
      if stat.S_ISREG(mode):
        digest = hashlib.sha256()
        with open(path, 'rb') as file:
          while block := file.read(2**20):
            digest.update(block)
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
      elif not stat.S_ISDIR(mode):
        raise errors.InputError(f'{path} is neither a file nor a folder')
  return found

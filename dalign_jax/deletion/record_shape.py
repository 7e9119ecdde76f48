"""The shape of records: which fields they have, and of which kind each is.

A record comes from somebody else. Before anything of it is used, every field of it is compared with
the tables below; one that is missing, unknown or of the wrong kind is refused, in one line.
"""

from collections.abc import Callable
import datetime
import json
import math
import re
from typing import Any, NamedTuple

from dalign_jax import errors


class Kind(NamedTuple):
  """A kind of value: what it is in words, and a test."""

  words: str
  test: Callable[[Any], bool]


class Maybe(NamedTuple):
  """A field that records may lack."""

  shape: Any


class OrNull(NamedTuple):
  """A field that may be null."""

  shape: Any


class Table(NamedTuple):
  """An object with any keys, whose values have one shape."""

  shape: Any


def _is_number(value) -> bool:
  if type(value) is int:
    return abs(value) < 2**63
  return type(value) is float and math.isfinite(value)


def _is_count(value) -> bool:
  return type(value) is int and 0 <= value < 2**53


def _is_text(value) -> bool:
  return isinstance(value, str) and len(value) < 10_000


def is_moment(value: Any) -> bool:
  """Whether a value is a moment with its time zone, as records write it."""
  try:
    found = datetime.datetime.fromisoformat(value)
  except (TypeError, ValueError):
    return False
  return found.tzinfo is not None and found.isoformat(timespec='seconds') == value


HASH = Kind(
  '64 hexadecimal digits',
  lambda v: isinstance(v, str) and re.fullmatch('[0-9a-f]{64}', v) is not None,
)
NO_HASH = Kind('64 hexadecimal digits or null', lambda v: v is None or HASH.test(v))
COUNT = Kind('a whole number of 0 or more', _is_count)
POSITIVE = Kind('a whole number of 1 or more', lambda v: _is_count(v) and v > 0)
NUMBER = Kind('a finite number', _is_number)
NO_NUMBER = Kind('a finite number or null', lambda v: v is None or _is_number(v))
SHARE = Kind('a number from 0 to 1', lambda v: _is_number(v) and 0 <= v <= 1)
SECONDS = Kind('a number of seconds, 0 or more', lambda v: _is_number(v) and v >= 0)
MOMENT = Kind('a moment such as 2026-05-01T12:00:00+00:00', is_moment)
TEXT = Kind('a text', _is_text)
FLAG = Kind('true or false', lambda v: type(v) is bool)
ANY_OBJECT = Kind('an object', lambda v: isinstance(v, dict))
SCALAR = Kind('a number, a text, true, false or null', lambda v: _is_scalar(v))


def _is_scalar(value) -> bool:
  if isinstance(value, list):
    return all(_is_scalar(one) for one in value)
  return value is None or _is_number(value) or _is_text(value) or type(value) is bool


DISTANCE = Kind('a number of 0 or more', lambda v: _is_number(v) and v >= 0)
_SET = {'count_before': COUNT, 'count_after': COUNT, 'before': HASH, 'after': HASH}
_READ: dict[str, Any] = {
  'files': Maybe(POSITIVE),  # of ids that are one request together
  'form': TEXT,
  'lines_read': COUNT,
  'header_lines': COUNT,
  'blank_lines': COUNT,
  'further_lines': COUNT,
  'ids_found': COUNT,
  'ids_repeated': COUNT,
  'ids_asked': COUNT,
  'ids_forgotten': COUNT,
  'ids_requested': Maybe(POSITIVE),
  'notes': [TEXT],
}


_MOMENTS = {'before': Maybe(SHARE), 'after': Maybe(SHARE)}
_PART: dict[str, Any] = {
  'count': POSITIVE,
  'held_out_count': COUNT,
  'accuracy': {'before': SHARE, 'after': SHARE, 'dummy': Maybe(SHARE), 'gold': Maybe(SHARE)},
  'held_out': _MOMENTS,
  'p': _MOMENTS,
  'p_gold': Maybe({'before': SHARE, 'after': SHARE}),
  'allowed': Maybe(SHARE),
}
_MEASURED: dict[str, Any] = {  # by `evidence.measure`
  'mode': Kind('full or quick', lambda v: v in ('full', 'quick')),
  'exact': FLAG,
  'count': POSITIVE,
  'parts': {'samples': Maybe(_PART), 'classes': Maybe(_PART)},
  'attack': OrNull({'before': SHARE, 'after': SHARE, 'floor': SHARE}),
  'moved': {'after': DISTANCE, 'dummy': Maybe(DISTANCE), 'p': Maybe(SHARE)},
  'fell': {'after': SHARE, 'other': SHARE, 'p': SHARE},
  'parameters_moved': {'after': DISTANCE, 'dummy': Maybe(DISTANCE)},
  'kept': Table({'before': SHARE, 'after': SHARE, 'count': POSITIVE}),
  'chance': SHARE,
}


def _copies(name: str, kind: Any) -> dict:
  """The part on copies, in which samples are named by ids or by tags."""
  return {
    'policy': Kind('refuse, include or keep', lambda v: v in ('refuse', 'include', 'keep')),
    'near': FLAG,
    'hash_distance': NO_NUMBER,
    'likeness': NO_NUMBER,
    'included': [kind],
    'kept': [{name: kind, 'of': kind, 'kind': TEXT, 'likeness': SHARE}],
  }


_COMMON: dict[str, Any] = {
  'number': POSITIVE,
  'previous': NO_HASH,
  'hash': HASH,
  'created': MOMENT,
  'samples': {'train': _SET, 'validation': _SET, 'test': _SET},
  'model': {'before': HASH, 'after': HASH},
  'method': {'name': TEXT, 'hparams': Table(SCALAR), 'sees': TEXT},
  'metrics': Table(Table(NUMBER)),
  'summary': [TEXT],
  'code': HASH,
  'environment': {
    'devices': TEXT,
    'processes': POSITIVE,
    'xla_flags': TEXT,
    'versions': Table(TEXT),
    'python': TEXT,
  },
  'seconds': SECONDS,
}
_SEEDS: dict[str, Any] = {'unlearn': COUNT, 'evaluation': COUNT, 'gold': [COUNT], 'split': COUNT}
_TRACES = {'removed': Table(COUNT), 'not_looked_into': [TEXT]}
_CONFIGURATION: dict[str, Any] = {
  'held_out': TEXT,
  'hparam': [TEXT],
  'compare_gold': Kind('0, 1 or 2', lambda v: type(v) is int and v in (0, 1, 2)),
  'settings': Table(SCALAR),
}
_TAKEN: dict[str, Any] = {
  'form': TEXT,
  'step': TEXT,
  'other_steps': COUNT,
  'part': TEXT,
  'written': TEXT,
}

FORMAT_1: dict[str, Any] = {
  **_COMMON,
  'format': Kind('1', lambda v: type(v) is int and v == 1),
  'request': {'ids': [TEXT]},
  'seeds': {**_SEEDS, 'streams': Maybe(POSITIVE)},
  'configuration': {
    **_CONFIGURATION,
    'checkpoint': TEXT,
    'class_names': [TEXT],
    'item': Maybe(TEXT),
    'taken': Maybe({**_TAKEN, 'path': TEXT}),
  },
  'copies': Maybe(_copies('id', TEXT)),
  'read': Maybe(_READ),
  'traces': Maybe(_TRACES),
}
FORMAT_2: dict[str, Any] = {
  **_COMMON,
  'format': Kind('2', lambda v: type(v) is int and v == 2),
  'request': {'count': POSITIVE, 'commitments': [HASH]},
  'commitments': {'scheme': TEXT, 'key_check': HASH},
  'seeds': {**_SEEDS, 'streams': POSITIVE},
  'configuration': {
    **_CONFIGURATION,
    'classes': {'count': POSITIVE, 'commitment': HASH},
    'item': TEXT,
    'accept': [TEXT],
    'taken': _TAKEN,
  },
  'copies': _copies('commitment', HASH),
  'read': _READ,
  'traces': _TRACES,
  'rights': ANY_OBJECT,
  'files': Table(HASH),
  'history': HASH,
  'guarantee': Maybe({'definition': TEXT, 'covers': TEXT, 'does_not_cover': TEXT}),
  'verdict': {
    'word': TEXT,
    'counts_as': TEXT,
    'mode': TEXT,
    'reasons': [TEXT],
    'measured': _MEASURED,
    'rules': [ANY_OBJECT],
  },
}
ANCESTOR = {  # a record of format 1 in the history of one of format 2: without its ids
  'format': Kind('1', lambda v: type(v) is int and v == 1),
  'redacted': Kind('true', lambda v: v is True),
  'number': POSITIVE,
  'previous': NO_HASH,
  'hash': HASH,
  'created': MOMENT,
  'model': {'before': HASH, 'after': HASH},
  'request': {'count': POSITIVE, 'commitments': [HASH]},
}


def check(record: Any, shape: Any, name: str = '') -> None:
  """Compares a value with a shape.

  Args:
    record: of JSON.
    shape: an object of shapes, a list with the shape of its elements, a `Kind`, or one of those in
      `Table` or `OrNull`.
    name: of the value.

  Raises:
    errors.InputError: that names the first field that does not fit.

  Example:
    >>> check({'count': -1}, {'count': COUNT})
    Traceback (most recent call last):
    dalign_jax.errors.InputError: its field count must be a whole number of 0 or more, got -1
  """
  if isinstance(shape, OrNull):
    if record is not None:
      check(record, shape.shape, name)
  elif isinstance(shape, Kind):
    if not shape.test(record):
      raise _wrong(name, shape.words, record)
  elif isinstance(shape, list):
    if not isinstance(record, list):
      raise _wrong(name, 'a list', record)
    for number, one in enumerate(record):
      check(one, shape[0], f'{name}[{number}]')
  elif not isinstance(record, dict):
    raise _wrong(name, 'an object', record)
  elif isinstance(shape, Table):
    for key, value in record.items():
      check(value, shape.shape, _inside(name, key))
  else:
    _check_object(record, shape, name)


def _check_object(record, shape, name):
  for key, inner in shape.items():
    if key in record:
      check(record[key], inner.shape if isinstance(inner, Maybe) else inner, _inside(name, key))
    elif not isinstance(inner, Maybe):
      raise errors.InputError(f'it has no field {_inside(name, key)}')
  unknown = [key for key in record if key not in shape]
  if unknown:
    raise errors.InputError(f'it has a field {_inside(name, unknown[0])!a}, which no record has')


def _inside(name: str, key: str) -> str:
  return f'{name}.{key}' if name else str(key)


def _wrong(name, words, value) -> errors.InputError:
  shown = json.dumps(value)
  shown = shown if len(shown) <= 60 else f'{shown[:57]}...'
  return errors.InputError(f'its field {name} must be {words}, got {shown}')

"""Rows of the training set that a request forgets: those that it names, and their copies."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import copies, record_files, request_file, starting_point, verdict
from dalign_jax.store import progress

_SHOWN = 3


class Wanted(NamedTuple):
  """What a request forgets.

  Attributes:
    rows: of the training set, sorted, copies included.
    read: how its file was read, for the record.
    copies: what was found of copies, for the record.
  """

  rows: np.ndarray
  read: dict[str, Any]
  copies: dict[str, Any]


def read(
  request: settings_lib.Request, basis: starting_point.StartingPoint, paths: tuple[str, ...] = ()
) -> Wanted:
  """Reads a request and finds its rows and their copies.

  Args:
    request: its flags.
    basis: where it starts.
    paths: files that are one request together; empty for the one that `request.ids` names.

  Raises:
    errors.InputError: for ids that are unknown, held out, or forgotten already; for copies that
      would remain, unless the request says what to do with them.
  """
  asked = ids_of(paths or (request.ids,), basis, request.id_column)
  rows = rows_of(asked.ids, basis)
  train = basis.sets['train']
  rows, found = _settle(train, rows, request)
  _check_left(train, rows)
  request_file.check_sum(asked.counts, len(rows), len(found['included']))
  return Wanted(rows, {**asked.counts, 'ids_forgotten': len(rows), 'notes': asked.notes}, found)


def rows_of(wanted: list[str], basis: starting_point.StartingPoint) -> np.ndarray:
  """Rows of the training set.

  Raises:
    errors.InputError: for ids that are repeated or unknown, or all there are.
  """
  train = basis.sets['train']
  with errors.blame('ids'):
    rows = data_lib.id_rows(wanted, train.ids, 'ids')
  _check_left(train, rows)
  return rows


def copies_again(record: dict, train: types.Dataset, rows: np.ndarray) -> dict | None:
  """What the record says of copies, with those that are kept searched anew; None if it says none.

  Args:
    record: that is replayed.
    train: the training set before the request.
    rows: all that the request forgot.
  """
  said = record.get('copies')
  if said is None:
    return None
  return {**said, 'kept': _described(copies.search(train, rows, near=said['near']), train)}


def ids_of(
  paths: Sequence[str], basis: starting_point.StartingPoint, id_column: str
) -> request_file.Asked:
  """The ids that files name together and that can be forgotten.

  Ids that are forgotten already are left out, and said, if there are others.

  Args:
    paths: of the files.
    basis: where the request starts.
    id_column: of the files.

  Raises:
    errors.InputError: for ids that are unknown or held out, or if all are forgotten already.
  """
  known = {name for dataset in basis.sets.values() for name in dataset.ids.tolist()}
  earlier = [record['request'].get('ids', ()) for record in basis.chain]
  with errors.blame('ids'):
    known = known.union(*earlier)
    asked = request_file.joined([request_file.read(path, id_column, known) for path in paths])
  for note in asked.notes:
    progress.say(note)
  by_tag = record_files.by_tags(asked.ids, basis.key)
  for number, record in enumerate(basis.chain, start=1):
    if not verdict.is_forgotten(record):
      continue  # it may be asked for again
    gone = record_files.named_in(record, asked.ids, by_tag)
    why = f'are forgotten already, by request {number} of {record["created"][:10]}'
    if gone and set(asked.ids) <= set(gone):
      _refuse(asked.ids, gone, why)
    if gone:
      asked = asked.without(gone, why)
      progress.say(asked.notes[-1])
  trained = set(basis.sets['train'].ids.tolist())
  for role in ('validation', 'test'):
    held = set(basis.sets[role].ids.tolist()) - trained
    _refuse(asked.ids, held, f'were never trained on ({role} data)')
  return asked


def _refuse(wanted, bad, why):
  found = [name for name in wanted if name in bad]
  if found:
    raise errors.InputError(
      f'{len(found)} of {len(wanted)} ids {why}, such as {found[0]!r}', argument='ids'
    )


def _check_left(train, rows):
  left = np.delete(train.labels, rows, axis=0)
  if len(np.unique(left, axis=0)) < 2:
    raise errors.InputError('the request leaves less than two classes to keep', argument='ids')


def _settle(train, rows, request) -> tuple[np.ndarray, dict]:
  """The rows to forget, by what the request says of copies, and the words of the record."""
  near = request.near_copies
  found = copies.search(train, rows, near=near)
  included: list[str] = []
  while found and request.copies == 'include':  # copies of copies too
    _say(found, train, 'are forgotten too')
    added = np.array([copy.row for copy in found], np.int64)
    included += train.ids[added].tolist()
    rows = np.union1d(rows, added)
    found = copies.search(train, rows, near=near)
  if found and request.copies == 'refuse':
    _say(found, train, 'would remain')
    first = '; '.join(_in_words(copy, train) for copy in found[:_SHOWN])
    raise errors.InputError(
      f'{len(found)} remaining samples are copies of forgotten ones: {first}'
      f'{"; ..." if len(found) > _SHOWN else ""}. --copies=include forgets them too, --copies=keep '
      'keeps them and says so in the record',
      argument='copies',
    )
  if found:
    _say(found, train, 'remain')
  wanted = copies.likeness_wanted(train.images.shape[1:])
  return rows, {
    'policy': request.copies,
    'near': near,
    'hash_distance': copies.HASH_DISTANCE if near else None,
    'likeness': wanted if near else None,
    'included': sorted(included),
    'kept': _described(found, train),
  }


def _described(found, train) -> list[dict[str, Any]]:
  return [
    {
      'id': str(train.ids[c.row]),
      'of': str(train.ids[c.of]),
      'kind': c.kind,
      'likeness': c.likeness,
    }
    for c in found
  ]


def _in_words(copy, train) -> str:
  like = '' if copy.likeness == 1 else f', {copy.likeness:.3f} alike'
  return f'{train.ids[copy.row]!s} of {train.ids[copy.of]!s} ({copy.kind}{like})'


def _say(found, train, what):
  progress.say(f'copies that {what}: {len(found)}')
  for copy in found:
    progress.say(f'  {_in_words(copy, train)}')

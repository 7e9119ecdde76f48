"""The ids of a deletion request: read, matched with the samples, and counted."""

import collections
from collections.abc import Iterable, Set
from typing import NamedTuple
import unicodedata

from dalign_jax import errors, id_file


class Asked(NamedTuple):
  """Who is to be forgotten.

  Attributes:
    ids: of samples, each once, as the data spell them.
    counts: what the lines of the file were, for the record.
    notes: what was matched otherwise than by its spelling: sentences.
  """

  ids: list[str]
  counts: dict[str, int | str]
  notes: list[str]

  def without(self, gone: Set[str], why: str) -> 'Asked':
    """The request without ids that some other request has dealt with.

    Args:
      gone: the ids.
      why: what became of them, in words.
    """
    left = [name for name in self.ids if name not in gone]
    dropped = len(self.ids) - len(left)
    counts = {**self.counts, 'ids_asked': len(left)}
    counts['ids_repeated'] = int(counts['ids_repeated']) + dropped
    note = f'{dropped} of {len(self.ids)} ids {why}: each is one request'
    return Asked(left, counts, [*self.notes, note])


def read(path: str, id_column: str, known: Iterable[str]) -> Asked:
  """Reads a request and matches it with the ids that the data have.

  An id that no sample has as it is spelled is looked for in another Unicode normal form, with the
  other path separator, and without blanks around it; each such match is said.

  Args:
    path: the file; see `id_file.read`.
    id_column: name of the column of ids.
    known: ids of all samples, trained on or not, and of those forgotten before.

  Returns:
    The ids, which may still be of samples that were never trained on.

  Raises:
    errors.InputError: if the file cannot be read for certain, or an id fits several samples.
  """
  found = id_file.read(path, id_column)
  if not found.ids:
    raise errors.InputError(f'{path} names no id; it should be {id_file.FORMS}')
  known = set(known)
  _refuse_header(path, found, known)
  _refuse_swallowed(path, found, known)
  matched, notes = _match(path, found.ids, known)
  ids = list(dict.fromkeys(matched))
  repeated = len(matched) - len(ids)
  if repeated:
    first = next(name for name, count in collections.Counter(matched).items() if count > 1)
    notes.append(
      f'{repeated} of {len(matched)} ids are named more than once, such as {first!r}: each is one '
      'request'
    )
  counts: dict[str, int | str] = {
    'form': found.form,
    'lines_read': found.lines,
    'header_lines': found.header_lines,
    'blank_lines': found.blank_lines,
    'further_lines': found.further_lines,
    'ids_found': len(found.ids),
    'ids_repeated': repeated,
    'ids_asked': len(ids),
  }
  return Asked(ids, counts, notes)


def joined(parts: list[Asked]) -> Asked:
  """Several files as one request: an id that two of them name is one.

  Example:
    >>> counts = {'form': 'lines', 'ids_found': 1, 'ids_repeated': 0, 'ids_asked': 1}
    >>> joined([Asked(['a'], counts, []), Asked(['a'], counts, [])]).counts['ids_repeated']
    1
  """
  if len(parts) == 1:
    return parts[0]
  ids = list(dict.fromkeys(name for part in parts for name in part.ids))
  forms = sorted({str(part.counts['form']) for part in parts})
  counts: dict[str, int | str] = {'files': len(parts), 'form': ', '.join(forms)}
  for key in parts[0].counts:
    if key != 'form':
      counts[key] = sum(int(part.counts[key]) for part in parts)
  counts['ids_repeated'] = int(counts['ids_found']) - len(ids)
  counts['ids_asked'] = len(ids)
  return Asked(ids, counts, [note for part in parts for note in part.notes])


def check_sum(counts: dict, forgotten: int, copies: int) -> None:
  """Raises unless every line of a request is one of the samples that go.

  Args:
    counts: of `Asked`.
    forgotten: number of samples that go.
    copies: number of those that nobody named, but that are copies.
  """
  lines = sum(counts[f'{name}_lines'] for name in ('header', 'blank', 'further'))
  sums = {
    'lines_read': lines + counts['ids_found'],
    'ids_found': counts['ids_repeated'] + counts['ids_asked'],
    'ids_asked': forgotten - copies,
  }
  for name, total in sums.items():
    if counts[name] != total:
      raise errors.InputError(
        f'the request does not add up: {name} is {counts[name]}, and its parts are {total}'
      )


def normal(name: str) -> str:
  r"""One spelling of all that may mean the same id.

  Example:
    >>> normal(' cat\\1.png') == normal('./cat/1.png') == 'cat/1.png'
    True
  """
  name = unicodedata.normalize('NFC', name.strip()).replace('\\', '/')
  return name.removeprefix('./')


def _refuse_header(path, found, known):
  if found.header and found.form == 'a column with a header' and found.header in known:
    raise errors.InputError(
      f'{path} begins with {found.header!r}, which is the name of a column and of a sample; give '
      'the file a header that no sample has, and name it by --id_column'
    )


def _refuse_swallowed(path, found, known):
  """A quote that opens a cell and closes lines later hides the rows between."""
  if not found.inside:
    return
  cells = (cell.strip().strip('"') for line in found.inside for cell in _split(line))
  spellings = {normal(name) for name in known}
  hidden = [cell for cell in cells if normal(cell) in spellings]
  if hidden:
    raise errors.InputError(
      f'{path} has {len(hidden)} ids inside a cell of several lines, such as {hidden[0]!r}: a '
      'quote is open there that should be closed'
    )


def _split(line):
  return (cell for a in line.split(',') for b in a.split(';') for cell in b.split('\t'))


def _match(path, wanted, known) -> tuple[list[str], list[str]]:
  spellings: dict[str, list[str]] = {}
  if not known.issuperset(wanted):
    for name in known:
      spellings.setdefault(normal(name), []).append(name)
  matched: list[str] = []
  notes: list[str] = []
  respelled: dict[str, list[tuple[str, str]]] = {}
  for name in wanted:
    fits = [name] if name in known else spellings.get(normal(name), [name])
    if len(fits) > 1:
      raise errors.InputError(
        f'{path}: {name!r} fits {len(fits)} samples, {fits[0]!r} and {fits[1]!r}; spell it as one'
      )
    if fits[0] != name:
      respelled.setdefault(_why(name, fits[0]), []).append((name, fits[0]))
    matched.append(fits[0])
  for why, pairs in respelled.items():
    asked, there = pairs[0]
    notes.append(f'{len(pairs)} ids are matched by another {why}, such as {asked!a} with {there!a}')
  return matched, notes


def _why(name: str, there: str) -> str:
  if unicodedata.normalize('NFC', name) == unicodedata.normalize('NFC', there):
    return 'Unicode normal form'
  if name.replace('\\', '/') == there.replace('\\', '/'):
    return 'path separator'
  return 'spelling'

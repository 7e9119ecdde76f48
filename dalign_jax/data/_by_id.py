"""Forgetting rows by their ids."""

import collections
from collections.abc import Sequence
import csv
import pathlib

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _request


def id_rows(wanted: Sequence[str], ids: np.ndarray, argument: str = 'ids') -> np.ndarray:
  """Rows that a list of ids names.

  Args:
    wanted: ids.
    ids: `[N]` those of all rows.
    argument: what errors name.

  Returns:
    Sorted row numbers.

  Raises:
    ValueError: for ids that are repeated or unknown.
  """
  repeated = [name for name, count in collections.Counter(wanted).items() if count > 1]
  if repeated:
    raise errors.InputError(
      f'{len(repeated)} ids occur more than once, such as {repeated[0]!r}; name each once',
      argument=argument,
    )
  row_of = {name: row for row, name in enumerate(ids.tolist())}
  unknown = [name for name in wanted if name not in row_of]
  if unknown:
    first = ', '.join(repr(name) for name in unknown[:3])
    raise errors.InputError(
      f'{len(unknown)} of {len(wanted)} ids are not in the training data, such as '
      f'{first}; ids look like {str(ids[0])!r}',
      argument=argument,
    )
  return np.sort(np.array([row_of[name] for name in wanted], np.int64))


def read_ids(path: str | pathlib.Path, argument: str = 'ids') -> list[str]:
  """The ids in a file: one a line, or the column `id` of a CSV file with a header.

  Args:
    path: the file, UTF-8; empty lines and those that begin with # are left out.
    argument: what errors name.

  Raises:
    ValueError: if it cannot be read, or a line has no id.
  """
  try:
    text = pathlib.Path(path).expanduser().read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f'must name a text file in UTF-8 with one id a line: {error}', argument=argument
    ) from error
  numbered = [(k, line.strip()) for k, line in enumerate(text.splitlines(), start=1)]
  lines = [(k, line) for k, line in numbered if line and not line.startswith('#')]
  header = next(csv.reader([lines[0][1]])) if lines else []
  if 'id' not in header:
    return [line for _, line in lines]
  column, found = header.index('id'), []
  for k, line in lines[1:]:
    cells = next(csv.reader([line]))
    if len(cells) <= column or not cells[column]:
      raise errors.InputError(f'line {k} has no id in the column id: {line!r}', argument=argument)
    found.append(cells[column])
  return found


def _rows(request, context):
  return id_rows(read_ids(request.argument, request.name), context.dataset.ids, request.name)


SCENARIO = _request.Scenario(forms=('ids:FILE',), rows=_rows, is_forced=True, needs_classes=False)

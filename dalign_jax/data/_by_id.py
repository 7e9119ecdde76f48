"""Forgetting rows by their ids."""

import collections
from collections.abc import Sequence
import pathlib

import numpy as np

from dalign_jax import errors, id_file
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
  """The ids in a file, without blanks around them; see `id_file.read`.

  Args:
    path: the file.
    argument: what errors name.

  Raises:
    ValueError: if it cannot be read for certain.
  """
  with errors.blame(argument):
    return [name.strip() for name in id_file.read(path).ids]


def _rows(request, context):
  return id_rows(read_ids(request.argument, request.name), context.dataset.ids, request.name)


SCENARIO = _request.Scenario(forms=('ids:FILE',), rows=_rows, is_forced=True, needs_classes=False)

"""What to forget: `class:3`, `classes:3,5`, `random:0.1`, `group:NAME`, `ids:FILE`."""

from collections.abc import Sequence
import csv
import difflib
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import types

FORCED = ('group', 'ids')  # kinds that name rows wherever they lie
_KINDS = ('class', 'classes', 'random', 'official', *FORCED)
_FORMS = (
  'class:NAME, classes:NAME,NAME, random:SHARE, random:COUNT, group:NAME, group:COUNT, ids:FILE '
  'or official'
)


class Forget(NamedTuple):
  """A parsed request: its `kind`, its `argument`, and the `flag` as errors quote it."""

  kind: str
  argument: str
  flag: str


def parse(text: str, flag: str = 'forget') -> Forget:
  """Parses a forget request.

  Args:
    text: one of `class:3` (name or number), `classes:3,5`, `random:0.1` (share of the training
      rows), `random:500` (their number), `group:NAME` (all rows of a person), `group:2` (of so
      many persons, drawn at random; a whole number always means a count), `ids:FILE` (a text or CSV
      file of ids) or `official` (what the benchmark of the data set forgets).
    flag: the flag that errors quote.

  Returns:
    The request; nothing is known yet of the data it refers to.

  Raises:
    ValueError: if it has no such form.

  Example:
    >>> parse('random:0.1')
    Forget(kind='random', argument='0.1', flag='--forget=random:0.1')
  """
  kind, _, argument = text.partition(':')
  request = Forget(kind, argument.strip(), f'--{flag}={text}')
  if kind not in _KINDS or bool(request.argument) == (kind == 'official'):
    raise ValueError(f'{request.flag} must be {_FORMS}')
  if kind == 'random':
    _random_amount(request)
  elif kind == 'group' and argument.strip() == '0':
    raise ValueError(f'{request.flag} must name a group or a number of groups, 1 or more')
  return request


def forced_rows(
  request: Forget,
  dataset: types.Dataset,
  rng: np.random.Generator,
  group_names: Sequence[str] | None,
  candidates: np.ndarray | None = None,
) -> np.ndarray:
  """Rows that are forgotten wherever they lie, so that none of them may be held out.

  Args:
    request: what to forget.
    dataset: all rows.
    rng: draws the groups for `group:COUNT`.
    group_names: names of the groups.
    candidates: groups that may be named or drawn, None for all.

  Returns:
    Sorted row numbers; none for requests that choose among the training rows.
  """
  if request.kind == 'ids':
    return id_rows(read_ids(request.argument, request.flag), dataset.ids, request.flag)
  if request.kind == 'group':
    return _group_rows(request, dataset.group, rng, group_names, candidates)
  return np.empty(0, np.int64)


def chosen_rows(
  request: Forget,
  labels: np.ndarray,
  training: np.ndarray,
  rng: np.random.Generator,
  class_names: Sequence[str] | None,
) -> np.ndarray:
  """The training rows that a `class`, `classes` or `random` request forgets, sorted.

  Args:
    request: what to forget.
    labels: `[N]` labels of all rows.
    training: sorted row numbers.
    rng: draws the rows for `random`.
    class_names: names of the classes, None where they are numbered.
  """
  if request.kind == 'random':
    amount = _random_amount(request)
    count = amount if isinstance(amount, int) else round(amount * len(training))
    return np.sort(rng.permutation(training)[:count])
  if labels.ndim == 2:
    raise ValueError(f'{request.flag}: the labels are several attributes, there are no classes')
  one = request.kind == 'class'
  wanted = [request.argument] if one else [part.strip() for part in request.argument.split(',')]
  classes = [_class_number(request, name, labels, class_names) for name in wanted]
  return training[np.isin(labels[training], classes)]


def _random_amount(request: Forget) -> int | float:
  text = request.argument
  if text.isdecimal() and int(text) >= 1:
    return int(text)
  try:
    share = float(text)
  except ValueError:
    share = -1.0
  if not 0.0 < share < 1.0:
    raise ValueError(
      f'{request.flag} must give a share between 0 and 1 or a whole number of rows, 1 or more'
    )
  return share


def _class_number(request, name, labels, class_names) -> int:
  names = list(class_names or [str(k) for k in range(int(labels.max()) + 1)])
  if name in names:
    return names.index(name)
  names_are_numbers = all(known.lstrip('-').isdecimal() for known in names)
  if name.isdecimal() and int(name) < len(names) and not names_are_numbers:
    return int(name)
  raise ValueError(
    f'{request.flag}: there is no class {name!r}; name one of the {len(names)} classes'
    f'{_suggest(name, names)}'
  )


def _suggest(name: str, names: Sequence[str]) -> str:
  """The names nearest to the unknown one, or the first few."""
  near = difflib.get_close_matches(name, names, n=5) or names[:5]
  return f', such as {", ".join(near)}'


def _group_rows(request, group, rng, group_names, candidates) -> np.ndarray:
  if group is None:
    raise ValueError(
      f'{request.flag}: the data set has no groups; name the feature that holds them with '
      '--group_key (or give an npz file an array group)'
    )
  present = np.unique(group) if candidates is None else candidates
  names = list(group_names or [str(k) for k in range(int(group.max()) + 1)])
  if request.argument.isdecimal():
    count = int(request.argument)
    if count >= len(present):
      raise ValueError(
        f'{request.flag} would forget everything: there are {len(present)} groups, give fewer'
      )
    return np.flatnonzero(np.isin(group, rng.permutation(present)[:count]))
  if request.argument not in names:
    raise ValueError(
      f'{request.flag}: there is no group {request.argument!r}; name one of the {len(present)} '
      f'groups{_suggest(request.argument, names)}, or a number of groups'
    )
  number = names.index(request.argument)
  if candidates is not None and number not in candidates:
    raise ValueError(
      f'{request.flag}: {request.argument} is forgotten already, or has fewer or more images than '
      '--group_sizes'
    )
  return np.flatnonzero(group == number)


def id_rows(wanted: Sequence[str], ids: np.ndarray, flag: str) -> np.ndarray:
  """Rows that a list of ids names.

  Args:
    wanted: ids.
    ids: `[N]` those of all rows.
    flag: the flag that errors quote.

  Returns:
    Sorted row numbers.

  Raises:
    ValueError: for ids that are repeated or unknown.
  """
  if len(set(wanted)) < len(wanted):
    seen = set()
    repeated = [name for name in wanted if name in seen or seen.add(name)]
    raise ValueError(
      f'{flag}: {len(repeated)} ids occur more than once, such as {repeated[0]!r}; name each once'
    )
  row_of = {name: row for row, name in enumerate(ids.tolist())}
  unknown = [name for name in wanted if name not in row_of]
  if unknown:
    first = ', '.join(repr(name) for name in unknown[:3])
    raise ValueError(
      f'{flag}: {len(unknown)} of {len(wanted)} ids are not in the training data, such as '
      f'{first}; ids look like {str(ids[0])!r}'
    )
  return np.sort(np.array([row_of[name] for name in wanted], np.int64))


def read_ids(path: str | pathlib.Path, flag: str) -> list[str]:
  """The ids in a file: one a line, or the column `id` of a CSV file with a header.

  Args:
    path: the file, UTF-8; empty lines and those that begin with # are left out.
    flag: the flag that errors quote.

  Raises:
    ValueError: if it cannot be read, or a line has no id.
  """
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{flag} must name a text file in UTF-8 with one id a line: {error}'
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
      raise ValueError(f'{flag}: line {k} has no id in the column id: {line!r}')
    found.append(cells[column])
  return found

"""What to forget: `class:3`, `class:3:0.1`, `random:0.1`, `group:NAME`, `ids:FILE` and others."""

from collections.abc import Sequence
import difflib
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import errors, id_file, types

FORCED = ('group', 'ids')  # kinds that name rows wherever they lie
SCENARIOS = ('subclass', 'mislabelled', 'backdoor', 'memorised')  # see _scenarios
_KINDS = ('class', 'classes', 'random', 'official', *FORCED, *SCENARIOS)
_FORMS = (
  'class:NAME, class:NAME:SHARE, class:NAME:COUNT, classes:NAME,NAME, random:SHARE, random:COUNT, '
  'group:NAME, group:COUNT, ids:FILE, subclass:NAME, mislabelled:SHARE, backdoor:SHARE, '
  'backdoor:SHARE:CLASS, memorised:SHARE or official'
)


class Forget(NamedTuple):
  """A parsed request: its `kind`, its `argument`, and the `flag` as errors quote it."""

  kind: str
  argument: str
  flag: str


def parse(text: str, flag: str = 'forget') -> Forget:
  """Parses a forget request.

  Args:
    text: one of `class:3` (name or number), `class:3:0.1` (a share of its training rows, at least
      one), `class:3:40` (so many of them), `classes:3,5`, `random:0.1` (share of the training
      rows), `random:500` (their number), `group:NAME` (all rows of a person), `group:2` (of so
      many persons, drawn at random; a whole number always means a count), `ids:FILE` (a text or CSV
      file of ids), `official` (what the benchmark of the data set forgets), `subclass:NAME` (a
      group inside a class), `mislabelled:0.1` (training rows that get a wrong label),
      `backdoor:0.1:CLASS` (that get a trigger and the label CLASS, the first where none is named)
      or `memorised:0.1` (those that training memorises most).
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
    raise errors.InputError(f'{request.flag} must be {_FORMS}')
  if kind == 'random':
    _amount(request, request.argument)
  elif kind in ('mislabelled', 'backdoor', 'memorised'):
    share(request)
  elif kind == 'group' and argument.strip() == '0':
    raise errors.InputError(f'{request.flag} must name a group or a number of groups, 1 or more')
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
    return _part(request, request.argument, training, rng)
  if labels.ndim == 2:
    raise errors.InputError(
      f'{request.flag}: the labels are several attributes, there are no classes'
    )
  one = request.kind == 'class'
  wanted, amount = [part.strip() for part in request.argument.split(',')], ''
  if one:
    name, amount = _class_and_amount(request.argument, class_names)
    wanted = [name]
  classes = [class_number(request, name, labels, class_names) for name in wanted]
  rows = training[np.isin(labels[training], classes)]
  return _part(request, amount, rows, rng) if amount else rows


def _class_and_amount(argument, class_names) -> tuple[str, str]:
  """`3` and `0.1` of `3:0.1`; the amount is empty where the whole class is meant."""
  if ':' not in argument or argument in (class_names or ()):  # a name may hold a colon
    return argument, ''
  name, _, amount = argument.rpartition(':')
  return name.strip(), amount.strip() or '-'


def _part(request, text, rows, rng) -> np.ndarray:
  """The sorted share or number of the rows, drawn so that growing amounts nest."""
  amount = _amount(request, text)
  count = amount if isinstance(amount, int) else round(amount * len(rows))
  count = max(count, int(request.kind == 'class'))
  if request.kind == 'class' and count >= len(rows):
    raise errors.InputError(
      f'{request.flag}: the class has {len(rows)} training rows; give fewer, or the class alone to '
      'forget all of it'
    )
  return np.sort(rng.permutation(rows)[:count])


def share(request: Forget) -> float:
  """The share of the training rows in a request such as `mislabelled:0.1`."""
  try:
    value = float(request.argument.split(':')[0])
  except ValueError:
    value = -1.0
  if not 0.0 < value < 1.0:
    raise errors.InputError(
      f'{request.flag} must give a share of the training rows between 0 and 1'
    )
  return value


def _amount(request: Forget, text: str) -> int | float:
  if text.isdecimal() and int(text) >= 1:
    return int(text)
  try:
    share = float(text)
  except ValueError:
    share = -1.0
  if not 0.0 < share < 1.0:
    raise errors.InputError(
      f'{request.flag} must give a share between 0 and 1 or a whole number of rows, 1 or more'
    )
  return share


def class_number(
  request: Forget, name: str, labels: np.ndarray, class_names: Sequence[str] | None
) -> int:
  """The class of a name or number."""
  names = list(class_names or [str(k) for k in range(int(labels.max()) + 1)])
  if name in names:
    return names.index(name)
  names_are_numbers = all(known.lstrip('-').isdecimal() for known in names)
  if name.isdecimal() and int(name) < len(names) and not names_are_numbers:
    return int(name)
  raise errors.InputError(
    f'{request.flag}: there is no class {name!r}; name one of the {len(names)} classes'
    f'{suggest(name, names)}'
  )


def suggest(name: str, names: Sequence[str]) -> str:
  """The names nearest to the unknown one, or the first few."""
  near = difflib.get_close_matches(name, names, n=5) or names[:5]
  return f', such as {", ".join(near)}'


def _group_rows(request, group, rng, group_names, candidates) -> np.ndarray:
  if group is None:
    raise errors.InputError(
      f'{request.flag}: the data set has no groups; name the feature that holds them with '
      '--group_key (or give an npz file an array group)'
    )
  present = np.unique(group) if candidates is None else candidates
  names = list(group_names or [str(k) for k in range(int(group.max()) + 1)])
  if request.argument.isdecimal():
    count = int(request.argument)
    if count >= len(present):
      raise errors.InputError(
        f'{request.flag} would forget everything: there are {len(present)} groups, give fewer'
      )
    return np.flatnonzero(np.isin(group, rng.permutation(present)[:count]))
  if request.argument not in names:
    raise errors.InputError(
      f'{request.flag}: there is no group {request.argument!r}; name one of the {len(present)} '
      f'groups{suggest(request.argument, names)}, or a number of groups'
    )
  number = names.index(request.argument)
  if candidates is not None and number not in candidates:
    raise errors.InputError(
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
    raise errors.InputError(
      f'{flag}: {len(repeated)} ids occur more than once, such as {repeated[0]!r}; name each once'
    )
  row_of = {name: row for row, name in enumerate(ids.tolist())}
  unknown = [name for name in wanted if name not in row_of]
  if unknown:
    first = ', '.join(repr(name) for name in unknown[:3])
    raise errors.InputError(
      f'{flag}: {len(unknown)} of {len(wanted)} ids are not in the training data, such as '
      f'{first}; ids look like {str(ids[0])!r}'
    )
  return np.sort(np.array([row_of[name] for name in wanted], np.int64))


def read_ids(path: str | pathlib.Path, flag: str) -> list[str]:
  """The ids in a file; see `id_file.read`.

  Args:
    path: the file.
    flag: the flag that errors quote.

  Raises:
    ValueError: if it cannot be read for certain.
  """
  try:
    return [name.strip() for name in id_file.read(path).ids]
  except errors.InputError as error:
    raise errors.InputError(f'{flag}: {error}') from error

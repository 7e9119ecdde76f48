"""Forget requests, the scenarios that answer them, and helpers that scenarios share."""

from collections.abc import Callable, Sequence
import dataclasses
import difflib
from typing import NamedTuple

import numpy as np

from dalign_jax import errors, types


class Forget(NamedTuple):
  """A parsed request.

  Attributes:
    kind: of which scenario, such as `class`.
    argument: what follows the kind.
    text: the request as it was given.
    name: the argument that it was given as; errors name it.
  """

  kind: str
  argument: str
  text: str
  name: str = 'forget'

  def error(self, message: str) -> errors.InputError:
    """The error that this request cannot be followed."""
    return errors.InputError(f'{self.text}: {message}', argument=self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
  """The data in which a scenario finds its rows.

  Attributes:
    dataset: all rows, with true labels.
    training: sorted numbers of the rows that may be trained on; all, for a scenario that names rows
      wherever they lie.
    rng: draws rows or groups; growing amounts nest.
    class_names: names of the classes, None where they are numbered.
    group_names: names of the groups.
    groups: the groups that may be named or drawn, None for all.
    scores: `[N]` scores of the request's kind, such as memorisation.
  """

  dataset: types.Dataset
  training: np.ndarray
  rng: np.random.Generator
  class_names: Sequence[str] | None = None
  group_names: Sequence[str] | None = None
  groups: np.ndarray | None = None
  scores: np.ndarray | None = None


Poison = Callable[[types.Dataset, np.random.Generator], types.Dataset]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
  """A kind of request to forget.

  Attributes:
    forms: how it is written, for messages and documentation.
    rows: finds its sorted rows.
    check: raises where the argument has no such form; the data is not known yet.
    is_forced: whether it names rows wherever they lie, so that none of them may be held out.
    needs_scores: whether it needs scores of all rows.
    needs_classes: whether it has no meaning where labels are several attributes.
    poison: makes the change of rows that are learnt wrongly on purpose, from the request, the
      labels of all rows and the class names; None where rows stay as they are.
    group: the number of the group inside a class that is forgotten, from the request, the groups
      of all rows and their names; None where no such group is.
  """

  forms: tuple[str, ...]
  rows: Callable[[Forget, Context], np.ndarray]
  check: Callable[[Forget], object] = lambda request: None
  is_forced: bool = False
  needs_scores: bool = False
  needs_classes: bool = True
  poison: Callable[[Forget, np.ndarray, Sequence[str] | None], Poison] | None = None
  group: Callable[[Forget, np.ndarray, Sequence[str] | None], int] | None = None


def part(request, text, rows, rng) -> np.ndarray:
  """The sorted share or number of the rows, drawn so that growing amounts nest."""
  wanted = amount(request, text)
  count = wanted if isinstance(wanted, int) else round(wanted * len(rows))
  count = max(count, int(request.kind == 'class'))
  if request.kind == 'class' and count >= len(rows):
    raise request.error(
      f'the class has {len(rows)} training rows; give fewer, or the class alone to forget all of it'
    )
  return np.sort(rng.permutation(rows)[:count])


def share(request: Forget) -> float:
  """The share of the training rows in a request such as `mislabelled:0.1`."""
  try:
    value = float(request.argument.split(':')[0])
  except ValueError:
    value = -1.0
  if not 0.0 < value < 1.0:
    raise request.error('must give a share of the training rows between 0 and 1')
  return value


def amount(request: Forget, text: str) -> int | float:
  """A share of rows, or a whole number of them."""
  if text.isdecimal() and int(text) >= 1:
    return int(text)
  try:
    share = float(text)
  except ValueError:
    share = -1.0
  if not 0.0 < share < 1.0:
    raise request.error('must give a share between 0 and 1 or a whole number of rows, 1 or more')
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
  raise request.error(
    f'there is no class {name!r}; name one of the {len(names)} classes{suggest(name, names)}'
  )


def suggest(name: str, names: Sequence[str]) -> str:
  """The names nearest to the unknown one, or the first few."""
  near = difflib.get_close_matches(name, names, n=5) or names[:5]
  return f', such as {", ".join(near)}'

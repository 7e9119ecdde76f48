"""People: who may be drawn, who is held out whole, and that no one is on both sides."""

from collections.abc import Mapping, Sequence

import numpy as np

from dalign_jax import errors, types
from dalign_jax.data import _by_group, _request, _scenarios


def candidates(dataset: types.Dataset, group_sizes: tuple[int, int] | None) -> np.ndarray | None:
  """The groups with as many rows as asked, None where that was not asked.

  Args:
    dataset: all rows.
    group_sizes: fewest and most rows of a group; None for any.

  Raises:
    ValueError: if there are no groups or no such groups.
  """
  if group_sizes is None:
    return None
  low, high = group_sizes
  groups, counts = np.unique(groups_of(dataset, 'group_sizes'), return_counts=True)
  found = groups[(counts >= low) & (counts <= high)]
  if len(found) < 2:
    raise errors.InputError(
      f'{low},{high} leaves {len(found)} groups; sizes are from {counts.min()} to {counts.max()}',
      argument='group_sizes',
    )
  return found


def unseen_rows(
  text: str,
  dataset: types.Dataset,
  forgotten: np.ndarray,
  rng: np.random.Generator,
  group_names: Sequence[str] | None,
  among: np.ndarray | None,
) -> np.ndarray:
  """Rows of the people that `unseen` names or draws, none of whom is forgotten.

  Args:
    text: `group:NAME` or `people:COUNT`.
    dataset: all rows.
    forgotten: rows that are forgotten already.
    rng: draws people.
    group_names: names of the groups.
    among: groups that may be drawn, None for all.

  Raises:
    ValueError: if the request is of another form or cannot be met.
  """
  request = _scenarios.parse(text, 'unseen')
  if request.kind not in ('group', 'people'):
    raise request.error('must be group:NAME or people:COUNT')
  group = groups_of(dataset, 'unseen')
  among = np.unique(group) if among is None else among
  among = np.setdiff1d(among, group[forgotten])
  every = np.arange(len(dataset))
  context = _request.Context(
    dataset=dataset, training=every, rng=rng, group_names=group_names, groups=among
  )
  return _by_group.rows(request, context)


def halve(
  group: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """The rows of every other person, and of those between; a single person stays with the first."""
  people = rng.permutation(np.unique(group[rows]))
  is_second = np.isin(group[rows], people[1::2])
  return rows[~is_second], rows[is_second]


def whole_people(
  group: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
  """About `count` of the rows, sorted: all of those of people drawn at random."""
  people, sizes = np.unique(group[rows], return_counts=True)
  order = rng.permutation(len(people))
  before = np.cumsum(sizes[order]) - sizes[order]
  return rows[np.isin(group[rows], people[order[before + sizes[order] / 2 <= count]])]


def check_people(group: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
  """Raises if somebody is in two of the parts.

  Args:
    group: `[N]` groups.
    parts: row numbers by name.

  Raises:
    ValueError: that names the parts.
  """
  owner: dict[int, str] = {}
  for name, rows in parts.items():
    for person in np.unique(group[rows]).tolist():
      first = owner.setdefault(person, name)
      if first != name:
        raise errors.InputError(f'group {person} is in both {first} and {name}')


def groups_of(dataset: types.Dataset, argument: str) -> np.ndarray:
  """The rows' groups `[N]`.

  Args:
    dataset: all rows.
    argument: what needs groups; the error names it.

  Raises:
    ValueError: if the rows have no groups.
  """
  if dataset.group is None:
    raise errors.InputError(
      'the data set has no groups; name their feature with group_key', argument=argument
    )
  return dataset.group

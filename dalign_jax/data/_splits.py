"""Disjoint, seeded splits of a data set into retain, forget, validation and test rows."""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from dalign_jax import errors, types
from dalign_jax.data import _people, _request, _scenarios, _split


def split_dataset(
  dataset: types.Dataset,
  *,
  validation_fraction: float,
  test_fraction: float,
  forget: str,
  seed: int,
  class_names: Sequence[str] | None = None,
  group_names: Sequence[str] | None = None,
  max_examples: int | None = None,
  unseen: str | None = None,
  split_by_group: bool = False,
  group_sizes: tuple[int, int] | None = None,
  official: Mapping[str, np.ndarray] | None = None,
  scores: np.ndarray | None = None,
) -> _split.Split:
  """Splits a data set for unlearning.

  Rows that a request names (`ids:`) or that belong to a forgotten person (`group:`) are all in
  `forget`. Validation and test are drawn from the other rows, every class in proportion, and keep
  rows of a forgotten class: the evaluation needs them. With one seed, the held-out rows are the
  same for every `class:`, `classes:` and `random:` request, and `random:`, `class:NAME:SHARE` and
  `people:COUNT` requests of growing size contain each other.

  Args:
    dataset: all rows.
    validation_fraction: share of the rows that may be held out to go to validation, in [0, 1).
    test_fraction: share that goes to test; 0 where the source has a test split of its own.
    forget: the request, in the forms of `parse_forget`.
    seed: 0 or more; equal seeds give equal splits.
    class_names: names of the classes, for `class:NAME`.
    group_names: names of the groups, for `group:NAME`.
    max_examples: use so many rows only, those to forget included, every class in proportion.
    unseen: `group:NAME` or `people:COUNT`: people of whom nothing is trained on. Half of those
      are for the attacks, half for methods to watch.
    split_by_group: hold out whole people for validation and test, who are then in no other part;
      classes come in proportion only by chance.
    group_sizes: use people with that many rows only, fewest and most.
    official: parts `retain`, `forget`, `test`, `unseen` for the request `official`; validation is
      drawn from retain.
    scores: `[N]` scores of all rows, for requests such as `memorised:SHARE`.

  Returns:
    The split; it passes `check_split`.

  Raises:
    ValueError: if the request cannot be met, or leaves less than two classes to keep.

  Example:
    >>> from dalign_jax import data
    >>> split = split_dataset(data.load('digits').dataset, validation_fraction=0.1,
    ...                       test_fraction=0.2, forget='class:3', seed=0)
    >>> {name: len(rows) for name, rows in vars(split).items() if len(rows)}
    {'retain': 1130, 'forget': 128, 'validation': 180, 'test': 359}
  """
  _check_numbers(validation_fraction, test_fraction, seed, max_examples)
  request = _scenarios.parse(forget)
  draw = _Draw(dataset, seed, split_by_group)
  scenario = _scenarios.SCENARIOS.get(request.kind)  # None for the official parts
  people = _people.candidates(dataset, group_sizes)
  ask = functools.partial(
    _request.Context,
    dataset=dataset,
    class_names=class_names,
    group_names=group_names,
    groups=people,
    scores=scores,
  )
  if scenario is None:
    taken, unused = _official_parts(request, len(dataset), official, unseen, max_examples)
    test_fraction = 0.0
  else:
    forced = _split.NO_ROWS
    if scenario.is_forced:
      everywhere = ask(training=np.arange(len(dataset)), rng=draw.rng(3))
      forced = _scenarios.rows(request, everywhere)
    strangers = _split.NO_ROWS
    if unseen:
      strangers = _people.unseen_rows(unseen, dataset, forced, draw.rng(4), group_names, people)
    is_usable = np.ones(len(dataset), bool)
    if people is not None:
      is_usable = np.isin(_people.groups_of(dataset, 'group_sizes'), people)
    free = np.setdiff1d(np.flatnonzero(is_usable), np.union1d(forced, strangers))
    used = _subset(draw, request, free, len(forced), max_examples)
    unused = np.setdiff1d(np.arange(len(dataset)), np.concatenate([used, forced, strangers]))
    taken = {'retain': used, 'forget': forced, 'test': _split.NO_ROWS, 'unseen': strangers}
  num_test = round(test_fraction * len(taken['retain']))
  num_held = num_test + round(validation_fraction * len(taken['retain']))
  open_rows = taken['retain']
  if split_by_group:
    group = _people.groups_of(dataset, 'split_by_group')
    strange = np.isin(group[open_rows], group[taken['forget']])
    open_rows = open_rows[~strange]
  held = draw.rows(open_rows, num_held, 1)
  test = np.union1d(taken['test'], draw.rows(held, num_test, 2))
  kept, rows = np.setdiff1d(taken['retain'], held), taken['forget']
  if scenario is not None and not scenario.is_forced:
    rows = _scenarios.rows(request, ask(training=kept, rng=draw.rng(3)))
  retain = np.setdiff1d(kept, rows)
  _check_request(request, draw.classes, retain, rows)
  strangers, watched = taken['unseen'], _split.NO_ROWS
  if len(strangers) and dataset.group is not None:
    strangers, watched = _people.halve(dataset.group, strangers, draw.rng(5))
  split = _split.Split(retain, rows, np.setdiff1d(held, test), test, unused, strangers, watched)
  _split.check_split(split, len(dataset))
  _check_people(split, dataset.group, request, split_by_group)
  return split


class _Draw:
  """Seeded draws of rows: every class in proportion, or whole people."""

  def __init__(self, dataset, seed, by_group):
    self._seed = seed
    self._group = _people.groups_of(dataset, 'split_by_group') if by_group else None
    self.classes = np.unique(dataset.labels, axis=0, return_inverse=True)[1].ravel()

  def rng(self, purpose: int) -> np.random.Generator:
    return np.random.default_rng([self._seed, purpose])

  def rows(self, rows, count, purpose) -> np.ndarray:
    count = min(count, len(rows))
    if self._group is None:
      return _stratified(self.classes, rows, count, self.rng(purpose))
    return _people.whole_people(self._group, rows, count, self.rng(purpose))


def _subset(draw, request, free, num_forced, max_examples):
  """The rows that `max_examples` leaves of those that are free."""
  if max_examples is None or max_examples >= len(free) + num_forced:
    return free
  if max_examples <= num_forced:
    raise errors.InputError(
      f'{max_examples} leaves nothing to keep: {request.text} names {num_forced} rows; give more',
      argument='max_examples',
    )
  return _stratified(draw.classes, free, max_examples - num_forced, draw.rng(0))


def _official_parts(request, size, official, unseen, max_examples):
  if official is None:
    raise request.error('the data set has no official parts; mufac: and mucac: have')
  if unseen or max_examples is not None:
    raise request.error('says who is unseen and how many: no unseen, max_examples')
  parts = {name: np.sort(rows).astype(np.int64) for name, rows in official.items()}
  return parts, np.setdiff1d(np.arange(size), np.concatenate(list(parts.values())))


def _check_people(split, group, request, split_by_group):
  """Raises if people who must not share a part do."""
  if group is None:
    return
  trained = np.union1d(split.retain, split.forget)
  held = {name: getattr(split, name) for name in ('validation', 'test')}
  strangers = {name: getattr(split, name) for name in ('unseen', 'unseen_validation')}
  if request.kind == 'group':
    _people.check_people(group, {'forget': split.forget, 'retain': split.retain})
    _people.check_people(group, {'forget': split.forget, 'held out': np.union1d(*held.values())})
  known = {'others': np.concatenate([trained, *held.values()])}
  if split_by_group and request.kind != _scenarios.OFFICIAL:
    known = {'training': trained, **held}
  _people.check_people(group, {**known, **strangers})


def _check_numbers(validation_fraction, test_fraction, seed, max_examples):
  for name, share in (
    ('validation_fraction', validation_fraction),
    ('test_fraction', test_fraction),
  ):
    if not 0.0 <= share < 1.0:
      raise errors.InputError(f'must be in [0, 1), got {share}', argument=name)
  if validation_fraction + test_fraction >= 1.0:
    raise errors.InputError(
      f'validation_fraction={validation_fraction} and test_fraction={test_fraction} must '
      'leave rows to train on: their sum must be below 1'
    )
  if seed < 0:
    raise errors.InputError(f'the seed of the split must be 0 or more, got {seed}')
  if max_examples is not None and max_examples < 1:
    raise errors.InputError(f'must be 1 or more, got {max_examples}', argument='max_examples')


def _check_request(request, labels, retain, forget):
  if not len(forget):
    raise request.error('forgets no training row; name rows that are there')
  if not len(retain):
    raise request.error(f'forgets all {len(forget)} training rows; leave some to retain')
  if len(np.unique(labels[retain])) < 2:
    raise request.error(
      'leaves one class only to retain; leave two or more, or there is nothing to classify'
    )


def _stratified(labels, rows, count, rng) -> np.ndarray:
  """`count` of the rows, sorted: every class has its share, rounded up or down."""
  if count == 0:
    return np.empty(0, np.int64)
  _, inverse, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
  quota, remainder = np.divmod(sizes * count, len(rows))
  order = np.lexsort((rng.permutation(len(sizes)), -remainder))  # ties fall at random
  quota[order[: count - quota.sum()]] += 1
  shuffled = rng.permutation(len(rows))
  by_class = shuffled[np.argsort(inverse[shuffled], kind='stable')]
  rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
  return np.sort(rows[by_class[rank < np.repeat(quota, sizes)]])

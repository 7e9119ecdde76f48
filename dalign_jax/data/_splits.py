"""Disjoint, seeded splits of a data set into retain, forget, validation and test rows."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from dalign_jax import types
from dalign_jax.data import _forget


@dataclasses.dataclass(frozen=True)
class Split:
  """Sorted int64 row numbers: disjoint sets that together hold every row.

  Attributes:
    retain: training rows to keep.
    forget: training rows to forget.
    validation: rows held out for choosing hyper-parameters.
    test: rows held out for the final figures; empty where the source has a test split of its own.
    unused: rows left out by `max_examples`.
  """

  retain: np.ndarray
  forget: np.ndarray
  validation: np.ndarray
  test: np.ndarray
  unused: np.ndarray


_NAMES = tuple(field.name for field in dataclasses.fields(Split))


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
) -> Split:
  """Splits a data set for unlearning.

  Rows that a request names (`ids:`) or that belong to a forgotten person (`group:`) are all in
  `forget`. Validation and test are drawn from the other rows, every class in proportion, and keep
  rows of a forgotten class: the evaluation needs them. With one seed, the held-out rows are the
  same for every `class:`, `classes:` and `random:` request, and `random:` and `group:COUNT`
  requests of growing size contain each other.

  Args:
    dataset: all rows.
    validation_fraction: share of the rows that may be held out to go to validation, in [0, 1).
    test_fraction: share that goes to test; 0 where the source has a test split of its own.
    forget: the request, in the forms of `parse_forget`.
    seed: 0 or more; equal seeds give equal splits.
    class_names: names of the classes, for `class:NAME`.
    group_names: names of the groups, for `group:NAME`.
    max_examples: use so many rows only, those to forget included, every class in proportion.

  Returns:
    The split; it passes `check_split`.

  Raises:
    ValueError: if the request cannot be met, or leaves less than two classes to keep.

  Example:
    >>> from dalign_jax import data
    >>> split = split_dataset(data.load('digits').dataset, validation_fraction=0.1,
    ...                       test_fraction=0.2, forget='class:3', seed=0)
    >>> {name: len(rows) for name, rows in vars(split).items()}
    {'retain': 1130, 'forget': 128, 'validation': 180, 'test': 359, 'unused': 0}
  """
  _check_numbers(validation_fraction, test_fraction, seed, max_examples)
  subset_rng, held_rng, test_rng, forget_rng = (np.random.default_rng([seed, k]) for k in range(4))
  request = _forget.parse(forget)
  labels = dataset.labels
  forced = _forget.forced_rows(request, dataset, forget_rng, group_names)
  free = np.setdiff1d(np.arange(len(dataset)), forced)
  unused = np.empty(0, np.int64)
  if max_examples is not None and max_examples < len(dataset):
    if max_examples <= len(forced):
      raise ValueError(
        f'--max_examples={max_examples} leaves nothing to keep: {request.flag} names '
        f'{len(forced)} rows; give more'
      )
    used = _stratified(labels, free, max_examples - len(forced), subset_rng)
    free, unused = used, np.setdiff1d(free, used)
  num_test = round(test_fraction * len(free))
  num_held = min(len(free), num_test + round(validation_fraction * len(free)))
  held = _stratified(labels, free, num_held, held_rng)
  test = _stratified(labels, held, num_test, test_rng)
  kept = np.setdiff1d(free, held)
  rows = forced
  if request.kind not in _forget.FORCED:
    rows = _forget.chosen_rows(request, labels, kept, forget_rng, class_names)
  retain = np.setdiff1d(kept, rows)
  _check_request(request, labels, retain, rows)
  split = Split(retain, rows, np.setdiff1d(held, test), test, unused)
  check_split(split, len(dataset))
  return split


def _check_numbers(validation_fraction, test_fraction, seed, max_examples):
  for name, share in (
    ('validation_fraction', validation_fraction),
    ('test_fraction', test_fraction),
  ):
    if not 0.0 <= share < 1.0:
      raise ValueError(f'--{name}={share} must be in [0, 1)')
  if validation_fraction + test_fraction >= 1.0:
    raise ValueError(
      f'--validation_fraction={validation_fraction} and --test_fraction={test_fraction} must '
      'leave rows to train on: their sum must be below 1'
    )
  if seed < 0:
    raise ValueError(f'the seed of the split must be 0 or more, got {seed}')
  if max_examples is not None and max_examples < 1:
    raise ValueError(f'--max_examples={max_examples} must be 1 or more')


def _check_request(request, labels, retain, forget):
  if not len(forget):
    raise ValueError(f'{request.flag} forgets no training row; name rows that are there')
  if not len(retain):
    raise ValueError(
      f'{request.flag} forgets all {len(forget)} training rows; leave some to retain'
    )
  if len(np.unique(labels[retain])) < 2:
    raise ValueError(
      f'{request.flag} leaves one class only to retain; leave two or more, or there is nothing to '
      'classify'
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


def check_split(split: Split, size: int) -> None:
  """Raises unless the split's parts are sorted, disjoint and hold each of `size` rows.

  Args:
    split: the split.
    size: number of rows of the data set.

  Raises:
    ValueError: that names the part and what is wrong with it.
  """
  owner = np.full(size, -1)
  for number, name in enumerate(_NAMES):
    rows = getattr(split, name)
    if rows.ndim != 1 or rows.dtype != np.int64:
      raise ValueError(f'{name} must be int64 row numbers [N], got {rows.dtype} {rows.shape}')
    if len(rows) and (rows[0] < 0 or rows[-1] >= size or np.any(np.diff(rows) <= 0)):
      raise ValueError(f'{name} must be sorted, without repeats, and in [0, {size})')
    taken = rows[owner[rows] >= 0]
    if len(taken):
      other = _NAMES[owner[taken[0]]]
      raise ValueError(f'{len(taken)} rows are in both {other} and {name}, such as {taken[0]}')
    owner[rows] = number
  if np.any(owner < 0):
    missing = np.flatnonzero(owner < 0)
    raise ValueError(f'{len(missing)} rows are in no part of the split, such as {missing[0]}')
  for name in ('retain', 'forget'):
    if not len(getattr(split, name)):
      raise ValueError(f'{name} must not be empty')


def save_split(path: str | pathlib.Path, split: Split) -> None:
  """Saves a split as an npz file; a killed process leaves the file that was there.

  Args:
    path: the file.
    split: what to save.
  """
  path = pathlib.Path(path)
  handle, temporary = tempfile.mkstemp(prefix=path.name, suffix='.tmp', dir=path.parent)
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, **{name: getattr(split, name) for name in _NAMES})
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def load_split(path: str | pathlib.Path) -> Split:
  """Loads a split that `save_split` wrote.

  Args:
    path: the file.

  Returns:
    The split; `check_split` tells whether it fits a data set.

  Raises:
    ValueError: if the file is missing or damaged.
  """
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      return Split(**{name: arrays[name] for name in _NAMES})
  except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path} is not a saved split ({error})') from error

"""Splits: their rows, their invariants, and their file."""

import dataclasses
import os
import pathlib
import tempfile
import zipfile
import zlib

import numpy as np

from dalign_jax import errors

NO_ROWS = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True)
class Split:
  """Sorted int64 row numbers: disjoint sets that together hold every row.

  Attributes:
    retain: training rows to keep.
    forget: training rows to forget.
    validation: rows held out for choosing hyper-parameters.
    test: rows held out for the final metrics; empty where the source has a test split of its own.
    unused: rows left out by `max_examples` or `group_sizes`.
    unseen: rows of people who are in no other part, for the attacks.
    unseen_validation: rows of further such people, whom methods may watch.
  """

  retain: np.ndarray
  forget: np.ndarray
  validation: np.ndarray
  test: np.ndarray
  unused: np.ndarray
  unseen: np.ndarray = dataclasses.field(default_factory=lambda: NO_ROWS)
  unseen_validation: np.ndarray = dataclasses.field(default_factory=lambda: NO_ROWS)


_NAMES = tuple(field.name for field in dataclasses.fields(Split))


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
      raise errors.InputError(
        f'{name} must be int64 row numbers [N], got {rows.dtype} {rows.shape}'
      )
    if len(rows) and (rows[0] < 0 or rows[-1] >= size or np.any(np.diff(rows) <= 0)):
      raise errors.InputError(f'{name} must be sorted, without repeats, and in [0, {size})')
    taken = rows[owner[rows] >= 0]
    if len(taken):
      other = _NAMES[owner[taken[0]]]
      raise errors.InputError(
        f'{len(taken)} rows are in both {other} and {name}, such as {taken[0]}'
      )
    owner[rows] = number
  if np.any(owner < 0):
    missing = np.flatnonzero(owner < 0)
    raise errors.InputError(
      f'{len(missing)} rows are in no part of the split, such as {missing[0]}'
    )
  for name in ('retain', 'forget'):
    if not len(getattr(split, name)):
      raise errors.InputError(f'{name} must not be empty')


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
      return Split(**{name: arrays[name] for name in _NAMES if name in arrays})
  except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    raise errors.InputError(f'{path} is not a saved split ({error})') from error
  except (zlib.error, MemoryError, NotImplementedError, AttributeError) as error:
    raise errors.InputError(f'{path} is not a saved split ({error})') from error

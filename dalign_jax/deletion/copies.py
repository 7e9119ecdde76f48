"""Copies of forgotten samples among those that remain: the same picture under another id."""

import hashlib

import numpy as np

from dalign_jax import errors, types

POLICIES = ('refuse', 'include', 'keep')
_SHOWN = 5


def equal_rows(dataset: types.Dataset, rows: np.ndarray) -> np.ndarray:
  """Rows beside `rows` whose pixels equal one of them, as they are or mirrored.

  Pictures that were re-encoded, resized or cropped are not found.

  Args:
    dataset: the training samples.
    rows: sorted rows of those to forget.

  Returns:
    Sorted rows.

  Example:
    >>> images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)[[0, 1, 0, 2]]
    >>> ids = np.array(['a', 'b', 'c', 'd'])
    >>> equal_rows(types.Dataset(images, np.zeros(4, np.int32), ids), np.array([0])).tolist()
    [2]
  """
  digest = lambda image: hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
  forgotten = {digest(view) for row in rows for view in _views(dataset.images[row])}
  others = np.setdiff1d(np.arange(len(dataset)), rows)
  is_copy = [digest(dataset.images[row]) in forgotten for row in others]
  return others[np.array(is_copy, bool)]


def _views(image):
  return image, image[:, ::-1]


def apply(policy: str, dataset: types.Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The rows to forget, and the copies of them that were found.

  Args:
    policy: 'refuse', 'include' (forget the copies too) or 'keep'.
    dataset: the training samples.
    rows: sorted rows of those that were named.

  Raises:
    errors.InputError: if there are copies and the policy is to refuse; lists some.
  """
  found = equal_rows(dataset, rows)
  if len(found) and policy == 'refuse':
    shown = ', '.join(repr(str(name)) for name in dataset.ids[found[:_SHOWN]])
    raise errors.InputError(
      f'{len(found)} training samples that nobody named have the same picture as one to forget '
      f'(as it is or mirrored), such as {shown}; include forgets them too, keep keeps them and '
      'says so',
      argument='copies',
    )
  return (np.union1d(rows, found) if policy == 'include' else rows), found

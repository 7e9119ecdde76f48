"""Rows that an attack compares: forget and data never trained on, of the same classes."""

from collections.abc import Mapping

import numpy as np

from dalign_jax import metrics, types

OTHER_SIDES = ('unseen', 'poisoned')  # before test, where a problem has them


def other_side(sets: Mapping[str, types.Dataset]) -> str:
  """The set that attacks tell forget from: unseen people or poisoned images, else test."""
  return next((name for name in OTHER_SIDES if name in sets), 'test')


def matched_rows(
  sets: Mapping[str, types.Dataset], *, seed: int, by_group: bool = False
) -> dict[str, np.ndarray]:
  """Rows of forget and of `other_side` that attacks compare: equally many of each class.

  Where they have no class in common: all rows of both for unseen people and poisoned images, none
  for test images, since an attack would tell classes apart. Every combination of binary attributes
  is a class.

  Args:
    sets: by name.
    seed: of the choice among the larger side.
    by_group: match groups (subclasses) in place of classes.
  """
  sides = {name: sets[name] for name in ('forget', other_side(sets))}
  labels = {
    name: np.asarray(rows.group if by_group else rows.labels) for name, rows in sides.items()
  }
  _, classes = np.unique(np.concatenate([*labels.values()]), axis=0, return_inverse=True)
  forget, other = np.split(classes.ravel(), [len(labels['forget'])])
  if not np.intersect1d(forget, other).size:
    is_test = 'test' in sides
    return {name: np.arange(0 if is_test else len(values)) for name, values in labels.items()}
  pairs = metrics.match_classes(forget, other, seed=seed)
  return dict(zip(labels, pairs, strict=True))

"""Coarse labels made of the classes of a source, which become its subclasses."""

import dataclasses

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _base


def coarsen(source: _base.Source, text: str) -> _base.Source:
  """The source with coarse labels to learn; its classes become groups: subclasses to forget.

  Args:
    source: rows with one label each, and without groups.
    text: coarse names with the classes that each is made of, as `even=0,2,4,6,8;odd=1,3,5,7,9`;
      every class once.

  Returns:
    The source; its `group_names` are the classes.

  Raises:
    ValueError: that names the class which is missing, unknown or named twice.

  Example:
    >>> from dalign_jax import data
    >>> parity = coarsen(data.load('digits'), 'even=0,2,4,6,8;odd=1,3,5,7,9')
    >>> parity.class_names, parity.dataset.labels[:5].tolist(), parity.dataset.group[:5].tolist()
    (('even', 'odd'), [0, 1, 0, 1, 0], [0, 1, 2, 3, 4])
  """
  if source.dataset.is_multi_label or source.dataset.group is not None:
    raise errors.InputError(
      'needs rows with one label each and without group_key', argument='coarse'
    )
  parts = dict(part.partition('=')[::2] for part in text.split(';'))
  coarse_of = {}
  for coarse, classes in parts.items():
    for name in (name.strip() for name in classes.split(',')):
      if name not in source.class_names:
        known = ', '.join(source.class_names[:10])
        raise errors.InputError(f'there is no class {name!r}; known: {known}', argument='coarse')
      if name in coarse_of:
        raise errors.InputError(f'class {name} is named twice', argument='coarse')
      coarse_of[name] = coarse.strip()
  missing = [name for name in source.class_names if name not in coarse_of]
  if missing:
    raise errors.InputError(f'class {missing[0]} is in no coarse class', argument='coarse')
  names = tuple(dict.fromkeys(coarse_of.values()))
  numbers = np.array([names.index(coarse_of[n]) for n in source.class_names], np.int32)
  fine = source.dataset.labels
  dataset = dataclasses.replace(source.dataset, labels=numbers[fine], group=fine)
  return dataclasses.replace(
    source, dataset=dataset, class_names=names, group_names=source.class_names
  )

"""What to forget beside classes, people and random rows: subclasses, poison, memorised rows."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dalign_jax import errors, types
from dalign_jax.data import _forget

_TRIGGER = 8  # the trigger's side is this part of the image's, and two pixels at least


def chosen_rows(
  request: _forget.Forget,
  dataset: types.Dataset,
  training: np.ndarray,
  rng: np.random.Generator,
  *,
  class_names: Sequence[str] | None = None,
  group_names: Sequence[str] | None = None,
  scores: np.ndarray | None = None,
) -> np.ndarray:
  """The training rows that a request of these kinds forgets, sorted.

  Args:
    request: what to forget.
    dataset: all rows, with true labels.
    training: sorted row numbers.
    rng: draws the rows to poison; growing shares nest.
    class_names: names of the classes, None where they are numbered.
    group_names: names of the subclasses.
    scores: `[N]` memorisation scores, of which the highest are forgotten.

  Raises:
    ValueError: if the request does not fit the data.
  """
  if dataset.is_multi_label:
    raise errors.InputError(
      f'{request.flag}: the labels are several attributes, there are no classes'
    )
  if request.kind == 'subclass':
    return _subclass_rows(request, dataset, training, group_names)
  count = max(round(_forget.share(request) * len(training)), 1)
  if request.kind == 'memorised':
    if scores is None:
      raise errors.InputError(f'{request.flag} needs memorisation scores')
    return np.sort(training[np.argsort(-scores[training], kind='stable')[:count]])
  if request.kind == 'backdoor':
    target = backdoor_target(request, dataset.labels, class_names)
    training = training[dataset.labels[training] != target]
    if count > len(training):
      raise errors.InputError(
        f'{request.flag} needs {count} training rows outside class {target}, there are '
        f'{len(training)}; give a smaller share'
      )
  return np.sort(rng.permutation(training)[:count])


def _subclass_rows(request, dataset, training, group_names):
  if dataset.group is None:
    raise errors.InputError(
      f'{request.flag}: there are no subclasses; make them of the classes with --coarse, or name '
      'the feature that holds them with --group_key'
    )
  number = subclass_number(request, dataset.group, group_names)
  rows = training[dataset.group[training] == number]
  inside = np.unique(dataset.labels[rows])
  if not len(np.setdiff1d(training[np.isin(dataset.labels[training], inside)], rows)):
    raise errors.InputError(
      f'{request.flag} is a whole class; a subclass shares its class with others (--coarse)'
    )
  return rows


def subclass_number(
  request: _forget.Forget, group: np.ndarray, group_names: Sequence[str] | None
) -> int:
  """The group that a `subclass` request names."""
  names = list(group_names or [str(k) for k in range(int(group.max()) + 1)])
  if request.argument not in names:
    raise errors.InputError(
      f'{request.flag}: there is no subclass {request.argument!r}; name one of the {len(names)}'
      f'{_forget.suggest(request.argument, names)}'
    )
  return names.index(request.argument)


def backdoor_target(
  request: _forget.Forget, labels: np.ndarray, class_names: Sequence[str] | None
) -> int:
  """The class that a trigger leads to: the one that the request names, else the first."""
  _, _, name = request.argument.partition(':')
  return _forget.class_number(request, name.strip(), labels, class_names) if name else 0


def mislabel(dataset: types.Dataset, num_classes: int, rng: np.random.Generator) -> types.Dataset:
  """The rows with another label each, drawn from the other classes.

  Example:
    >>> images, ids = np.zeros((2, 4, 4, 1), np.uint8), np.array(['a', 'b'])
    >>> rows = types.Dataset(images, np.array([0, 1], np.int32), ids)
    >>> mislabel(rows, 2, np.random.default_rng(0)).labels.tolist()
    [1, 0]
  """
  shift = rng.integers(1, num_classes, len(dataset))
  labels = ((dataset.labels + shift) % num_classes).astype(np.int32)
  return dataclasses.replace(dataset, labels=labels)


def add_trigger(dataset: types.Dataset, target: int) -> types.Dataset:
  """The rows with a white square in the lower right corner, and the label `target`.

  Args:
    dataset: rows; their images are copied.
    target: class that the trigger stands for.

  References:
    Gu, Dolan-Gavitt, Garg: BadNets. https://arxiv.org/abs/1708.06733
  """
  images = np.array(dataset.images)
  side = max(2, round(images.shape[1] / _TRIGGER))
  images[:, -side:, -side:] = 255
  return dataclasses.replace(dataset, images=images, labels=np.full_like(dataset.labels, target))

"""Forgetting rows that were learnt wrongly on purpose: wrong labels, or a trigger."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dalign_jax import types
from dalign_jax.data import _request

_TRIGGER = 8  # the trigger's side is this part of the image's, and two pixels at least


def _rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  training = context.training
  count = max(round(_request.share(request) * len(training)), 1)
  if request.kind == 'backdoor':
    target = backdoor_target(request, context.dataset.labels, context.class_names)
    training = training[context.dataset.labels[training] != target]
    if count > len(training):
      raise request.error(
        f'needs {count} training rows outside class {target}, there are {len(training)}; give a '
        'smaller share'
      )
  return np.sort(context.rng.permutation(training)[:count])


def backdoor_target(
  request: _request.Forget, labels: np.ndarray, class_names: Sequence[str] | None
) -> int:
  """The class that a trigger leads to: the one that the request names, else the first."""
  _, _, name = request.argument.partition(':')
  return _request.class_number(request, name.strip(), labels, class_names) if name else 0


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


def _mislabelled(request, labels, class_names):
  del request
  count = int(labels.max()) + 1 if class_names is None else len(class_names)
  return lambda rows, rng: mislabel(rows, count, rng)


def _stamped(request, labels, class_names):
  target = backdoor_target(request, labels, class_names)
  others = lambda rows: rows.take(np.flatnonzero(rows.labels != target))
  return lambda rows, rng: add_trigger(others(rows), target)


MISLABELLED = _request.Scenario(
  forms=('mislabelled:SHARE',), check=_request.share, rows=_rows, poison=_mislabelled
)
BACKDOOR = _request.Scenario(
  forms=('backdoor:SHARE', 'backdoor:SHARE:CLASS'),
  check=_request.share,
  rows=_rows,
  poison=_stamped,
)

"""The result of every recovery procedure, and the accuracy that it is made of."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors, metrics, parallel, prediction, types


class RecoveryCurve(NamedTuple):
  """Forget accuracy after recovery: `budgets [B]` (0: before it) and `accuracies [B]`."""

  budgets: np.ndarray
  accuracies: np.ndarray


def curve(budgets, accuracies) -> RecoveryCurve:
  """A curve from sequences of numbers."""
  return RecoveryCurve(np.asarray(budgets, np.float64), np.asarray(accuracies, np.float64))


def accuracy(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  devices: parallel.Devices,
) -> float:
  """Accuracy of a model on a set."""
  outputs = prediction.predict(apply_fn, model, dataset.images, devices=devices)
  if not np.isfinite(outputs.logits).all():
    return 0.0  # the procedure destroyed the model: it knows nothing
  return metrics.accuracy(np.asarray(outputs.logits), dataset.labels)


def check_single_label(*datasets: types.Dataset) -> None:
  """Raises unless the sets have class indices as labels."""
  if any(dataset.is_multi_label for dataset in datasets):
    raise errors.InputError('labels must be class indices here, got binary attributes')

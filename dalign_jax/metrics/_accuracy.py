"""Accuracy, overall and for each class."""

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
  """Share of examples whose largest logit is the label's; ties are broken by the first class.

  Of binary attributes: the share of all attributes of all examples whose log-odds have the right
  sign.

  Args:
    logits: `[N, C]`, or log-odds `[N, A]`.
    labels: `[N]` class indices, or `[N, A]` binary attributes.

  Returns:
    The accuracy, in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> accuracy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    0.5
  """
  logits = _checks.as_logits('logits', logits)
  if np.ndim(labels) == 2:
    return float(np.mean((logits > 0) == _checks.as_attributes('labels', labels, logits.shape)))
  labels = _checks.as_labels('labels', labels, *logits.shape)
  return float(np.mean(logits.argmax(1) == labels))


def per_class_accuracy(logits: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Accuracy among the examples of each class.

  Args:
    logits: `[N, num_classes]`.
    labels: `[N]` class indices.
    num_classes: number of classes C.

  Returns:
    `[C]` accuracies in [0, 1], NaN for a class without examples.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> per_class_accuracy(np.array([[2.0, 1, 0], [0.0, 3, 0]]), np.array([0, 0]), 3)
    array([0.5, nan, nan])
  """
  logits = _checks.as_logits('logits', logits)
  if num_classes != logits.shape[1]:
    raise errors.InputError(
      f'num_classes must be {logits.shape[1]} as in logits, got {num_classes}'
    )
  labels = _checks.as_labels('labels', labels, *logits.shape)
  total = np.bincount(labels, minlength=num_classes)
  correct = np.bincount(labels[logits.argmax(1) == labels], minlength=num_classes)
  return np.divide(correct, total, out=np.full(num_classes, np.nan), where=total > 0)

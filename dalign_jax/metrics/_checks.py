"""Argument checks shared by the metrics: each error names the argument and what would be right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dalign_jax import errors


def as_array(name: str, value: Any, shape: Sequence[str]) -> np.ndarray:
  """The value as a non-empty, finite float64 array with the dimensions that `shape` names."""
  try:
    array = np.asarray(value).astype(np.float64)
  except (TypeError, ValueError) as error:
    raise errors.InputError(
      f'{name} must be an array of numbers, got {type(value).__name__}'
    ) from error
  if array.ndim != len(shape):
    raise errors.InputError(f'{name} must have shape [{", ".join(shape)}], got {list(array.shape)}')
  if not array.size:
    raise errors.InputError(f'{name} must not be empty, got shape {list(array.shape)}')
  if not np.isfinite(array).all():
    bad = int(np.sum(~np.isfinite(array)))
    raise errors.InputError(
      f'{name} must be finite, got {bad} NaN or infinite of {array.size} values'
    )
  return array


def as_logits(name: str, value: Any) -> np.ndarray:
  """The value as float64 `[N, C]` with two classes or more."""
  logits = as_array(name, value, ('N', 'C'))
  if logits.shape[1] < 2:
    raise errors.InputError(f'{name} must have two classes or more, got shape {list(logits.shape)}')
  return logits


def as_labels(
  name: str, value: Any, size: int | None = None, num_classes: int | None = None
) -> np.ndarray:
  """The value as int64 `[N]` class indices, with N = `size` and below `num_classes` if given."""
  labels = np.asarray(value)
  if labels.ndim != 1 or (size is not None and len(labels) != size):
    raise errors.InputError(f'{name} must have shape [{size or "N"}], got {list(labels.shape)}')
  if not labels.size:
    raise errors.InputError(f'{name} must not be empty')
  if not np.issubdtype(labels.dtype, np.integer):
    raise errors.InputError(f'{name} must be integers, got {labels.dtype}')
  top = np.inf if num_classes is None else num_classes
  if labels.min() < 0 or labels.max() >= top:
    wanted = 'not negative' if num_classes is None else f'in [0, {num_classes})'
    raise errors.InputError(f'{name} must be {wanted}, got {labels.min()} to {labels.max()}')
  return labels.astype(np.int64)


def as_attributes(name: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
  """The value as int64 `[N, A]` binary attributes of the given shape."""
  labels = np.asarray(value)
  if labels.shape != shape:
    raise errors.InputError(f'{name} must have shape {list(shape)}, got {list(labels.shape)}')
  if not np.isin(labels, (0, 1)).all():
    raise errors.InputError(f'{name} must be 0 or 1, got {labels.min()} to {labels.max()}')
  return labels.astype(np.int64)


def as_mask(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
  """The value as a boolean array of the given shape."""
  mask = np.asarray(value)
  if mask.dtype != np.bool_ or mask.shape != shape:
    raise errors.InputError(
      f'{name} must be bool {list(shape)}, got {mask.dtype} {list(mask.shape)}'
    )
  return mask


def same_shape(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
  """Raises unless both arrays have the same shape."""
  if a.shape != b.shape:
    raise errors.InputError(
      f'{name_b} must have the shape of {name_a} {list(a.shape)}, got {b.shape}'
    )


def same_columns(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
  """Raises unless both arrays have the same last dimension."""
  if a.shape[-1] != b.shape[-1]:
    raise errors.InputError(
      f'{name_b} must have {a.shape[-1]} columns like {name_a}, got {list(b.shape)}'
    )


def fraction(name: str, value: float, *, zero: bool = True) -> float:
  """The value as a float in [0, 1], or in (0, 1] with `zero=False`."""
  number = float(value)
  if not (0.0 <= number <= 1.0) or (number == 0.0 and not zero):
    raise errors.InputError(f'{name} must be in {"[" if zero else "("}0, 1], got {value}')
  return number


def at_least(name: str, value: int, low: int) -> int:
  """The value as an integer that is not below `low`."""
  if int(value) != value or value < low:
    raise errors.InputError(f'{name} must be an integer of {low} or more, got {value}')
  return int(value)

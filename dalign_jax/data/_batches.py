"""Batches as arrays of indices, made on the host; the device gathers the rows."""

import numpy as np

from dalign_jax import errors, types


def epoch_batches(
  num_examples: int,
  batch_size: int,
  rng: np.random.Generator,
  *,
  num_batches: int | None = None,
) -> np.ndarray:
  """Random batches of indices, all of them full, in which every example comes equally often.

  The indices follow one random permutation after another. Where a batch reaches into the next
  permutation, it takes from there first what it does not hold yet: no index comes twice in a batch
  unless the batch is larger than the set.

  Args:
    num_examples: size N of the set.
    batch_size: rows in a batch.
    rng: source of randomness; it is advanced.
    num_batches: how many batches, None for one epoch: N / batch_size, rounded up.

  Returns:
    `[num_batches, batch_size]` int32 indices in [0, N). With `num_batches=None` each index comes
    at least once, in the first N places.

  Raises:
    ValueError: if a number is too small.

  Example:
    >>> batches = epoch_batches(10, 4, np.random.default_rng(0))
    >>> batches.shape, len(np.unique(batches))
    ((3, 4), 10)
  """
  for name, value in (('num_examples', num_examples), ('batch_size', batch_size)):
    if value < 1:
      raise errors.InputError(f'{name} must be 1 or more, got {value}')
  if num_batches is None:
    num_batches = -(-num_examples // batch_size)
  if num_batches < 0:
    raise errors.InputError(f'num_batches must be 0 or more, got {num_batches}')
  total = num_batches * batch_size
  indices = np.empty(-(-total // num_examples) * num_examples, np.int32)
  for start in range(0, len(indices), num_examples):
    batch = indices[start - start % batch_size : start]  # what the batch at hand holds so far
    room = batch_size - len(batch)
    permutation = rng.permutation(num_examples)
    if len(batch):
      uses = np.bincount(batch, minlength=num_examples)[permutation]
      first = np.argsort(uses, kind='stable')[:room]
      permutation = np.concatenate([permutation[first], np.delete(permutation, first)])
    indices[start : start + num_examples] = permutation
  return indices[:total].reshape(num_batches, batch_size)


def stratified_subset(
  dataset: types.Dataset, fraction: float, rng: np.random.Generator
) -> types.Dataset:
  """A random share of each class, at least one row of each, in the order of the set.

  Args:
    dataset: the set.
    fraction: share in (0, 1].
    rng: source of randomness; it is advanced.

  Returns:
    The chosen rows.
  """
  by_class = [np.flatnonzero(dataset.labels == c) for c in np.unique(dataset.labels)]
  chosen = [rng.permutation(rows)[: max(1, round(fraction * len(rows)))] for rows in by_class]
  return dataset.take(np.sort(np.concatenate(chosen)))


def balanced_batches(
  labels: np.ndarray, batch_size: int, rng: np.random.Generator, *, num_batches: int
) -> np.ndarray:
  """Random batches of indices in which every class comes equally often.

  Each class's rows follow one random permutation after another; a remainder of places falls to the
  classes in turn.

  Args:
    labels: `[N]` classes, or `[N, A]` attributes, of which every combination is a class.
    batch_size: rows in a batch.
    rng: source of randomness; it is advanced.
    num_batches: how many batches.

  Returns:
    `[num_batches, batch_size]` int32 indices in [0, N).

  Raises:
    ValueError: if a number is too small.

  Example:
    >>> labels = np.array([0] * 9 + [1])
    >>> batches = balanced_batches(labels, 4, np.random.default_rng(0), num_batches=3)
    >>> np.sum(labels[batches], axis=1).tolist()
    [2, 2, 2]
  """
  _, classes = np.unique(labels, axis=0, return_inverse=True)
  classes = classes.ravel()
  total, count = num_batches * batch_size, int(classes.max(initial=0)) + 1
  turns = np.arange(total) % count
  indices = np.empty(total, np.int32)
  for number in range(count):
    rows, places = np.flatnonzero(classes == number), np.flatnonzero(turns == number)
    chosen = epoch_batches(len(rows), 1, rng, num_batches=len(places))
    indices[places] = rows[chosen[:, 0]]
  return rng.permuted(indices.reshape(num_batches, batch_size), axis=1)

"""Images that occur, to the last bit, in more than one of a problem's sets."""

from collections.abc import Mapping
import hashlib

import numpy as np

from dalign_jax import types

# What is forgotten must be gone from everywhere else, and what is trained on from what is held out.
ORDER = ('forget', 'retain', 'test', 'unseen', 'unseen_validation', 'validation')


def duplicates(sets: Mapping[str, types.Dataset]) -> dict[tuple[str, str], np.ndarray]:
  """Rows whose image is in another set as well, by a hash of the pixels.

  Args:
    sets: data sets by name, of `ORDER`.

  Returns:
    `(first, later) -> rows` of the later set, sorted, whose image is in the first set; sets come in
    the order of `ORDER`, and an image is looked for in the first set that has it.

  Example:
    >>> from dalign_jax import types
    >>> images = np.zeros((2, 1, 1, 1), np.uint8) + np.array([1, 2], np.uint8).reshape(2, 1, 1, 1)
    >>> a = types.Dataset(images, np.zeros(2, np.int32), np.array(['a', 'b']))
    >>> duplicates({'retain': a, 'test': a.take(np.array([1]))})
    {('retain', 'test'): array([0])}
  """
  owner: dict[bytes, str] = {}
  found: dict[tuple[str, str], list[int]] = {}
  for name in sorted(sets, key=ORDER.index):
    for row, image in enumerate(sets[name].images):
      digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
      first = owner.setdefault(digest, name)
      if first != name:
        found.setdefault((first, name), []).append(row)
  return {pair: np.array(rows, np.int64) for pair, rows in found.items()}

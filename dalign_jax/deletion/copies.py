"""Copies of forgotten samples among the remaining ones: equal pixels, and near copies.

A near copy shows the same picture, also mirrored, encoded again or resized. Two pictures are near
copies if their grey thumbnails correlate and their perceptual hashes (`imagehash.phash`, 64 bits)
differ in few bits. `experiments.benchmarks.copies` measures false alarms and recall.
"""

from collections.abc import Iterable
import hashlib
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from dalign_jax import errors, types

HASH_DISTANCE = 14  # bits of 64
LIKENESS = 0.98  # correlation of thumbnails
LIKENESS_SMALL = 0.99  # of images with a side below SMALL: digits of 8x8 pixels are all alike
SMALL = 16
_SIDE, _BLOCK = 16, 4096
PIXELS, PIXELS_MIRRORED = 'equal pixels', 'equal pixels, mirrored'
NEAR, MIRRORED = 'near copy', 'mirrored near copy'


class Copy(NamedTuple):
  """A sample that is a copy of another; rows of the training set."""

  row: int
  of: int
  kind: str
  likeness: float


def search(dataset: types.Dataset, rows: np.ndarray, *, near: bool = True) -> list[Copy]:
  """Copies of some rows among the others, each with the row that it is most like.

  Args:
    dataset: all rows.
    rows: those to forget.
    near: look for near copies too, which needs ImageHash.

  Raises:
    errors.InputError: if ImageHash is wanted and missing.

  Example:
    >>> images = np.zeros((3, 8, 8, 1), np.uint8)
    >>> images[1] += 1
    >>> dataset = types.Dataset(images, np.zeros(3, np.int32), np.array(['a', 'b', 'c']))
    >>> search(dataset, np.array([0]), near=False)
    [Copy(row=2, of=0, kind='equal pixels', likeness=1.0)]
  """
  others = np.setdiff1d(np.arange(len(dataset)), rows)
  found = {copy.row: copy for copy in _equal(dataset.images, rows, others)}
  if near and len(rows) and len(others):
    for copy in _near(dataset.images, rows, others):
      best = found.get(copy.row)
      if best is None or copy.likeness > best.likeness:
        found[copy.row] = copy
  return [found[row] for row in sorted(found)]


def digests(images: Iterable[np.ndarray]) -> list[bytes]:
  """What equal pixels have in common: a digest of each image."""
  return [_digest(image) for image in images]


def likeness_wanted(image_shape: tuple[int, ...]) -> float:
  """The correlation from which on two images of a shape count as near copies."""
  return LIKENESS_SMALL if min(image_shape[:2]) < SMALL else LIKENESS


def thumbnails(images: Iterable[np.ndarray]) -> np.ndarray:
  """Grey thumbnails of zero mean and unit norm, `[N, 256]`; zeros where an image has one shade."""
  found = np.stack([_thumbnail(image) for image in images])
  found -= found.mean(axis=1, keepdims=True)
  norm = np.linalg.norm(found, axis=1, keepdims=True)
  return np.where(norm > 1.0, found / np.maximum(norm, 1.0), 0).astype(np.float32)


def hash_distance(first: np.ndarray, second: np.ndarray) -> int:
  """Number of bits of 64 in which the perceptual hashes of two images differ."""
  phash = _imagehash().phash
  return int(phash(picture(first)) - phash(picture(second)))


def picture(image: np.ndarray) -> PIL.Image.Image:
  """An image of a data set as Pillow has it."""
  return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3])


def _thumbnail(image):
  shrinks = min(image.shape[:2]) > _SIDE
  how = PIL.Image.Resampling.BOX if shrinks else PIL.Image.Resampling.BICUBIC
  return np.asarray(picture(image).convert('L').resize((_SIDE, _SIDE), how), np.float32).ravel()


def _imagehash() -> Any:
  try:
    import imagehash
  except ImportError as error:
    raise errors.InputError(
      "the search for near copies needs ImageHash: pip install 'dalign-jax[deletion]'; "
      '--nonear_copies looks for equal pixels alone',
      argument='near_copies',
    ) from error
  return imagehash


def _digest(image) -> bytes:
  return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def _equal(images, rows, others):
  owner = {_digest(images[row][:, ::-1]): (int(row), PIXELS_MIRRORED) for row in reversed(rows)}
  owner |= {_digest(images[row]): (int(row), PIXELS) for row in reversed(rows)}
  for row in others:
    found = owner.get(_digest(images[row]))
    if found:
      yield Copy(int(row), *found, 1.0)


def _near(images, rows, others):
  _imagehash()  # says that it is missing before any work
  wanted = likeness_wanted(images.shape[1:])
  asked = {
    NEAR: thumbnails(images[row] for row in rows),
    MIRRORED: thumbnails(np.ascontiguousarray(images[row][:, ::-1]) for row in rows),
  }
  for start in range(0, len(others), _BLOCK):
    block = others[start : start + _BLOCK]
    there = thumbnails(images[row] for row in block)
    for kind, thumbs in asked.items():
      likeness = there @ thumbs.T
      for k, j in np.argwhere(likeness >= wanted):
        row, of = int(block[k]), int(rows[j])
        original = images[of][:, ::-1] if kind == MIRRORED else images[of]
        if hash_distance(images[row], np.ascontiguousarray(original)) <= HASH_DISTANCE:
          yield Copy(row, of, kind, round(float(likeness[k, j]), 4))

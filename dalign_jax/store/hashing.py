"""Hashes of what an audit record speaks of: training samples, code, the record itself."""

from collections.abc import Iterable
import hashlib
import importlib
import inspect
import json
import pathlib
from typing import Any

import numpy as np

from dalign_jax import types

_ROOT = pathlib.Path(__file__).parents[2]


def leaf(data: bytes) -> bytes:
  """The hash of a leaf of `tree_root`."""
  return hashlib.sha256(b'\0' + data).digest()


def tree_root(leaves: Iterable[bytes]) -> str:
  """Root of the Merkle tree over hashed leaves, as in RFC 6962: 64 hexadecimal digits.

  Example:
    >>> tree_root([leaf(b'')])[:8]
    '6e340b9c'
  """
  level = list(leaves)
  if not level:
    return hashlib.sha256().hexdigest()
  while len(level) > 1:
    pairs = zip(level[::2], level[1::2], strict=False)
    odd = level[len(level) & ~1 :]  # rises as it is
    level = [hashlib.sha256(b'\1' + left + right).digest() for left, right in pairs] + odd
  return level[0].hex()


def samples_root(dataset: types.Dataset) -> str:
  """Root of the hash tree over a set's samples, ordered by id: rows may come in any order.

  A leaf is the sample's id, label and shape, and the bytes of its decoded image.
  """
  order = np.argsort(dataset.ids, kind='stable')
  return tree_root(_sample(dataset, row) for row in order)


def _sample(dataset, row):
  image, label = dataset.images[row], np.asarray(dataset.labels[row], '<i4')
  head = json.dumps([str(dataset.ids[row]), label.tolist(), list(image.shape)])
  return leaf(head.encode() + b'\n' + np.ascontiguousarray(image).tobytes())


def of_code(module: str | None = None) -> str:
  """SHA-256 of the source of the library, and of a module of the user's own."""
  digest = hashlib.sha256()
  for path in sorted((_ROOT / 'dalign_jax').rglob('*.py')):
    digest.update(f'{path.relative_to(_ROOT).as_posix()}\n'.encode() + path.read_bytes())
  if module:
    digest.update(_source(module))
  return digest.hexdigest()


def of_module(module: str) -> str:
  """SHA-256 of the source file of a module of the user's own, without what it imports."""
  return hashlib.sha256(_source(module)).hexdigest()


def _source(module: str) -> bytes:
  return pathlib.Path(inspect.getfile(importlib.import_module(module))).read_bytes()


def of_json(value: Any) -> str:
  """SHA-256 of a JSON value, however it is laid out."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()

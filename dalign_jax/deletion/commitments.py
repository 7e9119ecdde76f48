"""Keyed commitments to samples: a record speaks of samples and names none.

A sample has a blinding value, HMAC-SHA256 of its id under the chain's key. Under the blinding value
it has a tag (of its id) and a commitment (of its label, shape and pixels). Whoever holds neither
the key nor the blinding value of a sample cannot confirm a guess of its id or its picture; without
the key, tags and commitments are noise. A receipt opens one sample and no other.
"""

import bisect
from collections.abc import Iterable, Sequence
import hashlib
import hmac
import json
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import errors, types
from dalign_jax.store import hash_tree, hashing

SCHEME = 'HMAC-SHA256, RFC 6962 tree over leaves sorted by tag'


def _mac(key: bytes, role: bytes, message: bytes) -> bytes:
  return hmac.digest(key, role + b'\0' + message, hashlib.sha256)


def key_check(key: bytes) -> str:
  """A value by which a key is recognised, and which says nothing of it."""
  return _mac(key, b'key', b'').hex()


def of_json(key: bytes, role: str, value: Any) -> str:
  """The commitment to a JSON value."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'))
  return _mac(key, role.encode(), text.encode()).hex()


def blinding(key: bytes, name: str) -> bytes:
  """The blinding value of a sample, from which its tag and its commitment are made.

  Args:
    key: of the chain.
    name: the id of the sample.
  """
  return _mac(key, b'blinding', _bytes(name))


def tag_of(blinding_value: bytes, name: str) -> str:
  """The tag of a sample, 64 hexadecimal digits, from its blinding value."""
  return _mac(blinding_value, b'tag', _bytes(name)).hex()


def tag(key: bytes, name: str) -> str:
  """The tag of a sample, from the key.

  Example:
    >>> tag(bytes(32), 'a.png') == tag(bytes(32), 'b.png')
    False
  """
  return tag_of(blinding(key, name), name)


def tags(key: bytes, names: Iterable[str]) -> list[str]:
  """The tags of samples, in their order."""
  return [tag(key, str(name)) for name in names]


def content_of(
  blinding_value: bytes, label: int | list[int], shape: Sequence[int], pixels: str
) -> str:
  """The commitment to what a sample is.

  Args:
    blinding_value: of the sample.
    label: a number, or several attributes.
    shape: of the image.
    pixels: SHA-256 of the image's bytes.
  """
  head = json.dumps([label, list(shape), pixels], separators=(',', ':'))
  return _mac(blinding_value, b'content', head.encode()).hex()


def leaf(sample_tag: str, content: str) -> bytes:
  """The hashed leaf of a sample."""
  return hashing.leaf(bytes.fromhex(sample_tag) + bytes.fromhex(content))


class Opened(NamedTuple):
  """What is committed to of one sample."""

  blinding: str
  label: int | list[int]
  shape: list[int]
  pixels: str


def opened(key: bytes, dataset: types.Dataset, row: int) -> Opened:
  """Opens the commitment of one sample."""
  image = np.ascontiguousarray(dataset.images[row])
  label = np.asarray(dataset.labels[row], '<i4').tolist()
  value = blinding(key, str(dataset.ids[row]))
  return Opened(value.hex(), label, list(image.shape), hashlib.sha256(image.tobytes()).hexdigest())


class Tree(NamedTuple):
  """The tree of a set: tags in their order, contents, and the levels of hashes."""

  tags: list[str]
  contents: list[str]
  levels: list[list[bytes]]

  @property
  def root(self) -> str:
    return self.levels[-1][0].hex()

  def proof(self, index: int) -> dict[str, Any]:
    """That a leaf is in the tree."""
    return {
      'index': index,
      'tag': self.tags[index],
      'content': self.contents[index],
      'path': hash_tree.path(self.levels, index),
    }

  def inclusion(self, wanted: str) -> dict[str, Any]:
    """That a sample is in the tree.

    Raises:
      errors.InputError: if it is not.
    """
    index = bisect.bisect_left(self.tags, wanted)
    if index == len(self.tags) or self.tags[index] != wanted:
      raise errors.InputError(f'no sample with the tag {wanted[:16]} is in the tree')
    return self.proof(index)

  def absence(self, wanted: str) -> list[dict[str, Any]]:
    """That a sample is not in the tree: the leaves between which it would be.

    Raises:
      errors.InputError: if it is.
    """
    index = bisect.bisect_left(self.tags, wanted)
    if index < len(self.tags) and self.tags[index] == wanted:
      raise errors.InputError(f'the sample with the tag {wanted[:16]} is in the tree')
    return [self.proof(i) for i in (index - 1, index) if 0 <= i < len(self.tags)]


def tree(key: bytes, dataset: types.Dataset) -> Tree:
  """The tree over the samples of a set, which has at least one.

  Raises:
    errors.InputError: if an id occurs twice.
  """
  found = []
  for row in range(len(dataset)):
    name, one = str(dataset.ids[row]), opened(key, dataset, row)
    value = bytes.fromhex(one.blinding)
    found.append((tag_of(value, name), content_of(value, one.label, one.shape, one.pixels)))
  found.sort()
  names = [sample_tag for sample_tag, _ in found]
  if len(set(names)) < len(names):
    raise errors.InputError('ids must differ: two samples have the same', argument='data')
  leaves = [leaf(*pair) for pair in found]
  return Tree(names, [content for _, content in found], hash_tree.levels(leaves))


def root(dataset: types.Dataset, key: bytes | None) -> str:
  """The root of a set: keyed, or that of records of format 1, which had no key.

  Args:
    dataset: the set.
    key: of the chain; None for format 1.
  """
  if key is None:
    return hashing.samples_root(dataset)
  return tree(key, dataset).root if len(dataset) else hashing.tree_root([])


def _bytes(name: str) -> bytes:
  return str(name).encode('utf-8', 'surrogatepass')

"""Proofs in the hash tree of RFC 6962: a leaf is in it, or none lies between two neighbours."""

from collections.abc import Sequence
import hashlib

from dalign_jax import errors


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
  """All levels of the tree, the hashed leaves first and the root last.

  A last node without a neighbour rises as it is, which gives the tree of RFC 6962.

  Args:
    leaves: hashed, by `hashing.leaf`; at least one.
  """
  found = [list(leaves)]
  while len(found[-1]) > 1:
    level = found[-1]
    pairs = zip(level[::2], level[1::2], strict=False)
    found.append([_node(a, b) for a, b in pairs] + level[len(level) & ~1 :])
  return found


def path(tree: Sequence[Sequence[bytes]], index: int) -> list[str]:
  """The audit path of a leaf: hashes from the leaf's neighbour up, in hexadecimal.

  Args:
    tree: of `levels`.
    index: of the leaf.
  """
  found = []
  for level in tree[:-1]:
    if index ^ 1 < len(level):
      found.append(level[index ^ 1].hex())
    index >>= 1
  return found


def root(leaf: bytes, index: int, size: int, audit_path: Sequence[str]) -> str:
  """The root that an audit path leads to, by RFC 9162, section 2.1.3.2.

  Args:
    leaf: hashed.
    index: of the leaf.
    size: number of leaves of the tree.
    audit_path: of `path`.

  Raises:
    errors.InputError: if the path cannot be of a leaf at that place.

  Example:
    >>> from dalign_jax.store import hashing
    >>> leaves = [hashing.leaf(b'a'), hashing.leaf(b'b'), hashing.leaf(b'c')]
    >>> root(leaves[2], 2, 3, path(levels(leaves), 2)) == hashing.tree_root(leaves)
    True
  """
  if not 0 <= index < size:
    raise errors.InputError(f'there is no leaf {index} in a tree of {size}')
  here, last, found = index, size - 1, leaf
  for other in map(bytes.fromhex, audit_path):
    if last == 0:
      raise errors.InputError('the audit path is too long')
    if here & 1 or here == last:
      found = _node(other, found)
      while here and not here & 1:
        here, last = here >> 1, last >> 1
    else:
      found = _node(found, other)
    here, last = here >> 1, last >> 1
  if last:
    raise errors.InputError('the audit path is too short')
  return found.hex()


def _node(left: bytes, right: bytes) -> bytes:
  return hashlib.sha256(b'\1' + left + right).digest()

"""Digests of what is saved, written beside it and compared on every restore."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from dalign_jax import errors, types

_KEY = 'saved_digests'  # in the metadata of a checkpoint


def of_tree(tree: Any) -> str:
  """SHA-256 of a pytree's paths, dtypes, shapes and bytes.

  Example:
    >>> of_tree({'w': np.zeros(2)}) == of_tree({'w': np.zeros((2, 1))})
    False
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    head = json.dumps([jax.tree_util.keystr(path), str(array.dtype), list(array.shape)])
    digest.update(head.encode() + b'\n' + array.tobytes())
  return digest.hexdigest()


def of_model(model: Any) -> str:
  """SHA-256 of a model's bytes: records and evaluations name models by it."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(model):
    digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()


def of_json(value: Any) -> str:
  """SHA-256 of a JSON value, however it is laid out."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def of_split(split: Any) -> str:
  """SHA-256 of a split's rows, as `problem.json` keeps it.

  Args:
    split: a `data.Split`.
  """
  digest = hashlib.sha256()
  for name, rows in vars(split).items():
    if len(rows) or not name.startswith('unseen'):  # problems without unseen people came first
      digest.update(f'{name} {len(rows)} '.encode() + rows.tobytes())
  return digest.hexdigest()


def seal(tree: Any, metadata: dict) -> dict:
  """The metadata of a checkpoint, with the digests of its arrays and of itself."""
  return {**metadata, _KEY: {'state': of_tree(tree), 'metadata': of_json(metadata)}}


def unseal(tree: Any, metadata: Any, place: pathlib.Path) -> dict:
  """The metadata as they were before `seal`.

  Args:
    tree: the arrays that were restored; None where the metadata alone were.
    metadata: that were restored with them.
    place: of the checkpoint, with the folders `state` and `metadata`.

  Raises:
    errors.InputError: if the arrays or the metadata are not those that were saved.
  """
  saved = metadata.get(_KEY) if isinstance(metadata, dict) else None
  rest = {k: v for k, v in metadata.items() if k != _KEY} if isinstance(metadata, dict) else {}
  is_sealed = saved is not None or any(_is_seal(value) for value in rest.values())
  if rest and not is_sealed:  # of version 0.1.0, which sealed nothing
    is_model = isinstance(tree, dict) and tree.keys() == {'params', 'batch_stats'}
    if not is_model or 'digest' not in rest:
      return rest  # it kept no digest
    state = ('state', of_model(types.ModelState(**tree)), rest['digest'])
    return _compare(place, [state], rest)
  if saved is None or not _is_seal(saved):
    raise errors.InputError(
      f'{place / "metadata"} has no digests of what was saved: it is damaged, or of another '
      'program (checkpoints.restore_foreign reads those unchecked)'
    )
  checks = [('metadata', of_json(rest), saved['metadata'])]
  if tree is not None:
    checks.append(('state', of_tree(tree), saved['state']))
  return _compare(place, checks, rest)


def is_ours(metadata: Any) -> bool:
  """Whether metadata are those of a checkpoint of this library, whole or damaged.

  Args:
    metadata: of an Orbax checkpoint with items of the same names, as JSON was read.
  """
  if not isinstance(metadata, dict):
    return False
  return 'digest' in metadata or _KEY in metadata or any(map(_is_seal, metadata.values()))


def _is_seal(value) -> bool:
  return isinstance(value, dict) and value.keys() == {'state', 'metadata'}


def _compare(place, checks, rest) -> dict:
  for item, now, saved in checks:
    if now != saved:
      raise errors.InputError(
        f'{place / item} was saved with the digest {saved} and has now {now}: it was changed or is '
        'damaged'
      )
  return rest

"""Receipts: what a person who asked gets, and how it is checked with the record alone.

A receipt opens the commitment of one sample and of no other. It shows that the sample was in the
hash tree before the request and is not in the one after, whose roots are in the (signed) record.
That a tree is sorted, and is of the data that the model was trained on, is what `verify` checks
with the key.
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from dalign_jax import errors, types
from dalign_jax.deletion import commitments, record_keys, record_shape, untrusted, verdict
from dalign_jax.store import hash_tree

FORMAT = 'dalign_jax receipt 2'
FOLDER = 'receipts'
_PROOF = {
  'index': record_shape.COUNT,
  'tag': record_shape.HASH,
  'content': record_shape.HASH,
  'path': [record_shape.HASH],
}
_SHAPE = {
  'format': record_shape.TEXT,
  'record': record_shape.HASH,
  'id': record_shape.TEXT,
  'blinding': record_shape.HASH,
  'label': record_shape.SCALAR,
  'shape': [record_shape.COUNT],
  'pixels': record_shape.HASH,
  'counts_as': record_shape.TEXT,
  'before': _PROOF,
  'after': [_PROOF],
}


def write(
  place: pathlib.Path, record: dict, basis: Any, rows: np.ndarray, left: types.Dataset
) -> None:
  """Writes a receipt for each forgotten sample, for its owner alone.

  Args:
    place: the private folder of the request.
    record: of the request.
    basis: its `StartingPoint`, with the key.
    rows: of the training set, those of the request.
    left: the training set after it.
  """
  train = basis.sets['train']
  before, after = (commitments.tree(basis.key, dataset) for dataset in (train, left))
  order = sorted(rows.tolist(), key=lambda row: str(train.ids[row]))
  for number, row in enumerate(order, start=1):
    found = make(record, basis.key, train, row, before, after)
    record_keys.write_private(place / FOLDER / f'{number:05d}.json', found, is_new=True)


def make(
  record: dict,
  key: bytes,
  train: types.Dataset,
  row: int,
  before: commitments.Tree,
  after: commitments.Tree,
) -> dict[str, Any]:
  """The receipt of one sample.

  Args:
    record: of the request.
    key: of its commitments.
    train: the training set before.
    row: of the sample.
    before: the tree of `train`.
    after: the tree of the set after.
  """
  name, one = str(train.ids[row]), commitments.opened(key, train, row)
  tag = commitments.tag_of(bytes.fromhex(one.blinding), name)
  is_gone = verdict.is_forgotten(record)
  return {
    'format': FORMAT,
    'record': record['hash'],
    'id': name,
    **one._asdict(),
    'counts_as': verdict.FORGOTTEN if is_gone else verdict.REQUESTED,
    'before': before.inclusion(tag),
    'after': after.absence(tag) if is_gone else [after.inclusion(tag)],
  }


def check(receipt: Any, record: dict, image: np.ndarray | None = None) -> list[str]:
  """Checks a receipt against a record; no key, model or data are needed.

  Args:
    receipt: as it was read.
    record: as `record_files.read` gives it.
    image: `[H, W, C]` uint8, to compare with the sample; None if it is not at hand.

  Returns:
    What it shows, in sentences.

  Raises:
    errors.InputError: if it does not show it.
  """
  record_shape.check(receipt, _SHAPE)
  if receipt['format'] != FORMAT or record['format'] != 2:
    raise errors.InputError('it is no receipt of format 2')
  if receipt['record'] != record['hash']:
    raise errors.InputError('it is the receipt of another record')
  tag, content = _opened(receipt)
  if tag not in record['request']['commitments']:
    raise errors.InputError('its sample is not among those of the request')
  train = record['samples']['train']
  _check_in(receipt['before'], train['before'], train['count_before'], 'before')
  if (receipt['before']['tag'], receipt['before']['content']) != (tag, content):
    raise errors.InputError('the leaf before the request is of another sample')
  for proof in receipt['after']:
    _check_in(proof, train['after'], train['count_after'], 'after')
  is_gone = verdict.is_forgotten(record)
  if is_gone:
    _check_between(receipt['after'], tag, train['count_after'])
  elif [proof['tag'] for proof in receipt['after']] != [tag]:
    raise errors.InputError('it does not show that the sample still counts as requested')
  if image is not None:
    _check_image(receipt, image)
  return [
    f'The sample {receipt["id"]!r} was among the {train["count_before"]:,} training samples before '
    'the request.',
    f'It is not among the {train["count_after"]:,} after it.'
    if is_gone
    else 'It counts as requested and not as forgotten, and stays in the list of samples.',
    *(['The picture is the one that the receipt speaks of.'] if image is not None else []),
  ]


def _opened(receipt) -> tuple[str, str]:
  value = bytes.fromhex(receipt['blinding'])
  if len(receipt['shape']) != 3:
    raise errors.InputError('its field shape must be height, width and channels')
  content = commitments.content_of(value, receipt['label'], receipt['shape'], receipt['pixels'])
  return commitments.tag_of(value, receipt['id']), content


def _check_in(proof, root, size, when):
  leaf = commitments.leaf(proof['tag'], proof['content'])
  if hash_tree.root(leaf, proof['index'], size, proof['path']) != root:
    raise errors.InputError(f'a leaf of it is not in the tree {when} the request')


def _check_between(proofs, tag, size):
  """Checks that two neighbours, or one at an end, leave no place for a tag."""
  places = [proof['index'] for proof in proofs]
  names = [proof['tag'] for proof in proofs]
  if len(proofs) == 2:
    fits = places[1] == places[0] + 1 and names[0] < tag < names[1]
  elif len(proofs) == 1:
    fits = (places[0] == 0 and tag < names[0]) or (places[0] == size - 1 and names[0] < tag)
  else:
    fits = False
  if not fits:
    raise errors.InputError('it does not show that the sample is gone')


def _check_image(receipt, image):
  pixels = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
  if list(image.shape) != receipt['shape'] or pixels != receipt['pixels']:
    raise errors.InputError('its sample has other pixels than the picture')


def read(path: pathlib.Path) -> Any:
  """Reads a receipt that somebody else wrote."""
  return untrusted.read_json(path)

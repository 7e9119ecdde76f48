"""Receipts, and the proofs in the hash tree that they are made of."""

import copy
import json
import pathlib

import numpy as np
import pytest

from dalign_jax import errors, types
from dalign_jax.deletion import (
  commitments,
  receipts,
  record_keys,
)
from dalign_jax.store import hash_tree, hashing
from tests import deletion_place, hashing_test

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'record_v1'


@pytest.mark.parametrize('size', [1, 2, 3, 7, 8, 13])
def test_every_leaf_has_a_path_to_the_root_and_no_other_leaf_has(size):
  leaves = [hashing.leaf(bytes([number])) for number in range(size)]
  tree = hash_tree.levels(leaves)
  root = hashing.tree_root(leaves)
  for index, leaf in enumerate(leaves):
    audit = hash_tree.path(tree, index)
    assert hash_tree.root(leaf, index, size, audit) == root
    assert hash_tree.root(hashing.leaf(b'other'), index, size, audit) != root
    for wrong in (index + 1, index - 1):
      try:
        assert hash_tree.root(leaf, wrong, size, audit) != root
      except errors.InputError:
        pass  # there is no such asked
    for path in (audit[:-1], [*audit, '0' * 64]):
      if path != audit:
        with pytest.raises(errors.InputError, match='audit path is too'):
          hash_tree.root(leaf, index, size, path)


def test_paths_are_those_of_certificate_transparency():
  """The audit path of leaf 4 of 7 in the example of RFC 6962: [f, j, k] by its letters."""
  leaves = [hashing.leaf(bytes.fromhex(x)) for x in hashing_test.LEAVES[:7]]
  tree = hash_tree.levels(leaves)
  path = hash_tree.path(tree, 4)
  wanted = [leaves[5].hex(), leaves[6].hex(), hashing.tree_root(leaves[:4])]
  assert path == wanted
  assert hash_tree.path(tree, 6) == [hashing.tree_root(leaves[4:6]), hashing.tree_root(leaves[:4])]


def _receipts(asked, name='first'):
  folder = asked / record_keys.NAME / name / receipts.FOLDER
  return [json.loads(p.read_text(encoding='utf-8')) for p in sorted(folder.iterdir())]


def test_receipts_show_that_samples_were_there_and_are_gone(asked, record):
  source = deletion_place.dataset(asked)
  found = _receipts(asked)
  assert [one['id'] for one in found] == sorted(source.ids[:5].tolist())
  for one in found:
    row = source.ids.tolist().index(one['id'])
    lines = ' '.join(receipts.check(one, record, source.images[row]))
    assert repr(one['id']) in lines and '120 training samples before' in lines
    assert ('not among the 115' in lines) == (one['counts_as'] == 'forgotten')
    with pytest.raises(errors.InputError, match='other pixels'):
      receipts.check(one, record, source.images[row] ^ 1)
  with pytest.raises(errors.InputError, match='other pixels'):
    receipts.check(found[0], record, source.images[6])


def test_receipt_of_what_counts_as_forgotten_and_of_what_does_not(asked, tmp_path):
  """`retrain` always counts as forgotten; its receipts show that nothing lies in between."""
  settings = deletion_place.keep(deletion_place.SETTINGS, num_epochs=1)
  exact = deletion_place.forget(
    asked,
    'exact',
    method='retrain',
    hparam=(),
    settings=settings,
    keys=str(tmp_path / 'keys'),
  )
  folder = tmp_path / 'keys' / 'exact' / receipts.FOLDER
  for path in folder.iterdir():
    one = receipts.read(path)
    assert one['counts_as'] == 'forgotten' and len(one['after']) in (1, 2)
    assert 'It is not among the 115 after it.' in receipts.check(one, exact)
    for forge in (
      lambda r: r.update(after=[]),
      lambda r: r.update(after=r['after'][:1] * 2),
      lambda r: r.update(after=[r['before']]),
      lambda r: r.update(after=r['after'][:1]) if len(r['after']) == 2 else r.update(after=[]),
      lambda r: r.update(after=r['after'][::-1]) if len(r['after']) == 2 else r.update(after=[]),
    ):
      wrong = copy.deepcopy(one)
      forge(wrong)
      with pytest.raises(errors.InputError):
        receipts.check(wrong, exact)


FORGED_RECEIPTS = {
  'another id': lambda r: r.update(id='somebody else'),
  'another blinding': lambda r: r.update(blinding='0' * 64),
  'another label': lambda r: r.update(label=7),
  'another picture': lambda r: r.update(pixels='0' * 64),
  'another record': lambda r: r.update(record='0' * 64),
  'another format': lambda r: r.update(format='receipt'),
  'no proof': lambda r: r.pop('before'),
  'another asked': lambda r: r['before'].update(index=r['before']['index'] ^ 1),
  'no asked': lambda r: r['before'].update(index=-1),
  'a asked beyond': lambda r: r['before'].update(index=10**9),
  'a shorter path': lambda r: r['before']['path'].pop(),
  'a path of words': lambda r: r['before'].update(path=['a']),
  'more': lambda r: r.update(note='trust me'),
  'a shape of text': lambda r: r.update(shape='8x8'),
  'no shape': lambda r: r.update(shape=[]),
}


@pytest.mark.parametrize('case', FORGED_RECEIPTS)
def test_forged_receipts_are_refused(case, asked, record):
  one = _receipts(asked)[0]
  FORGED_RECEIPTS[case](one)
  with pytest.raises(errors.InputError) as error:
    receipts.check(one, record)
  assert '\n' not in str(error.value)


def test_proofs_of_absence_at_both_ends_and_in_a_tree_of_one():
  images = np.zeros((3, 2, 2, 1), np.uint8)
  ids = sorted((f'{number}' for number in range(40)), key=lambda n: commitments.tag(bytes(32), n))
  of = lambda *names: types.Dataset(
    images[: len(names)], np.arange(len(names), dtype=np.int32), np.array(names)
  )
  for there, gone, count in (
    ((ids[10], ids[20], ids[30]), ids[0], 1),
    ((ids[10], ids[20], ids[30]), ids[39], 1),
    ((ids[10], ids[20], ids[30]), ids[25], 2),
    ((ids[10],), ids[20], 1),
  ):
    tree = commitments.tree(bytes(32), of(*there))
    proofs = tree.absence(commitments.tag(bytes(32), gone))
    assert len(proofs) == count
    receipts._check_between(proofs, commitments.tag(bytes(32), gone), len(there))
    for other in set(ids) - {gone}:
      tag = commitments.tag(bytes(32), other)
      if other in there:
        with pytest.raises(errors.InputError, match='is in the tree'):
          tree.absence(tag)
        with pytest.raises(errors.InputError, match='does not show'):
          receipts._check_between(proofs, tag, len(there))

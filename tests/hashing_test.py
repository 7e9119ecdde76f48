"""The hash tree and the record's hash."""

import numpy as np
import pytest

from dalign_jax import types
from dalign_jax.store import hashing

# Leaves and roots of RFC 6962's reference implementation (certificate-transparency, merkle tests).
LEAVES = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657']
LEAVES += ['606162636465666768696a6b6c6d6e6f']
ROOTS = {
  0: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  1: '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  2: 'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  3: 'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  5: '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  7: 'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  8: '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
}


@pytest.mark.parametrize('count', ROOTS)
def test_roots_are_those_of_certificate_transparency(count):
  leaves = [hashing.leaf(bytes.fromhex(x)) for x in LEAVES[:count]]
  assert hashing.tree_root(leaves) == ROOTS[count]


def _samples():
  images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)
  return types.Dataset(images, np.arange(5, dtype=np.int32), np.array(list('edcba')))


def test_order_of_rows_does_not_matter_and_everything_else_does():
  samples = _samples()
  root = hashing.samples_root(samples)
  assert hashing.samples_root(samples.take(np.array([3, 1, 0, 2, 4]))) == root
  others = [samples.take(np.arange(4))]
  for field, row, value in (('images', (0, 1, 1, 0), 200), ('labels', 2, 7), ('ids', 0, 'x')):
    changed = samples.take(np.arange(5))
    getattr(changed, field)[row] = value
    others.append(changed)
  wide = types.Dataset(samples.images.reshape(5, 1, 4, 1), samples.labels, samples.ids)
  roots = {hashing.samples_root(d) for d in (*others, wide)}
  assert len(roots) == 5 and root not in roots
  wider_items = types.Dataset(samples.images, samples.labels, samples.ids.astype('U40'))
  assert hashing.samples_root(wider_items) == root


def test_json_is_hashed_by_meaning():
  assert hashing.of_json({'a': 1, 'b': [0.5]}) == hashing.of_json({'b': [0.5], 'a': 1})
  assert hashing.of_json({'a': 1}) != hashing.of_json({'a': 2})
  with pytest.raises(ValueError):
    hashing.of_json(float('nan'))


def test_code_hash_covers_a_module_of_ones_own():
  assert len({hashing.of_code(), hashing.of_code('tests.tiny')}) == 2
  assert hashing.of_code() == hashing.of_code()

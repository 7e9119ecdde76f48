"""Independent keys for every seed, role and number."""

import itertools
import pathlib
import re

import jax
import numpy as np
import pytest

from dalign_jax import seeds

ROOT = pathlib.Path(__file__).parents[1]
NUMBERS = {'unlearn': (*range(8), *range(10_000, 10_016)), 'request': tuple(range(8))}


def _bits(key):
  return np.asarray(jax.random.key_data(key)).tobytes()


def test_no_two_streams_and_no_splits_of_them_are_equal():
  """As commands use them: seeds from 0, golds from 100, tuning from 1000; each key is split."""
  found = {}
  for seed, role in itertools.product((0, 1, 2, 100, 101, 1000), seeds.ROLES):
    for number in NUMBERS.get(role, (0,)):
      key = seeds.stream(seed, role, number)
      children = jax.random.split(key, 4)
      for name, bits in [('', _bits(key)), *enumerate(map(_bits, children))]:
        assert bits not in found, f'{(seed, role, number, name)} is {found[bits]}'
        found[bits] = (seed, role, number, name)
  assert len(found) == 6 * 5 * (len(seeds.ROLES) - 2 + 24 + 8)


def test_a_request_starts_from_weights_that_no_original_had():
  assert _bits(seeds.stream(0, 'request')) != _bits(seeds.stream(0, 'original'))


def test_the_streams_of_earlier_versions_are_unchanged():
  """Number 0 of the first five roles is what every run so far was made with."""
  for index, role in enumerate(('original', 'gold', 'unlearn', 'shadow', 'memorisation')):
    expected = jax.random.fold_in(jax.random.key(3), index)
    assert _bits(seeds.stream(3, role)) == _bits(expected)


@pytest.mark.parametrize('number', [-1, 2**16])
def test_numbers_out_of_range_are_refused(number):
  with pytest.raises(ValueError, match=r'number must be in \[0, 65536\)'):
    seeds.stream(0, 'unlearn', number)


def test_commands_make_keys_in_one_place_only():
  """Replays of old records are the one exception."""
  allowed = {'seeds.py', 'carry_out.py'}
  makers = re.compile(r'random\.(key|PRNGKey|fold_in)\(')
  folders = [ROOT / 'experiments', ROOT / 'dalign_jax' / 'deletion', ROOT / 'dalign_jax' / 'store']
  for path in [p for folder in folders for p in folder.rglob('*.py')]:
    if path.name not in allowed and 'benchmarks' not in path.parts:
      assert not makers.search(path.read_text(encoding='utf-8')), path

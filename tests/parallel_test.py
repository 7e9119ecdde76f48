"""Platform settings, and members of an ensemble over devices."""

import os

import jax
import numpy as np
import pytest

from dalign_jax import parallel


def test_tune_cpu_adds_its_flags_once_and_keeps_others(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/nowhere')
  monkeypatch.setattr(parallel, '_keep_freed_memory', lambda: None)
  for _ in range(2):
    parallel.tune_cpu()
  assert os.environ['XLA_FLAGS'].split() == ['--xla_dump_to=/nowhere', *parallel.CPU_FLAGS]


def test_tune_cpu_leaves_unknown_versions_alone(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '')
  monkeypatch.setattr(parallel, '_keep_freed_memory', lambda: None)
  monkeypatch.setattr(jax, '__version_info__', (0, 99, 0))
  parallel.tune_cpu()
  assert os.environ['XLA_FLAGS'] == ''


@pytest.mark.parametrize(('count', 'rows'), [(4, [[0], [1], [2], [3]]), (5, None), (2, None)])
def test_members_are_padded_to_equal_parts(count, rows):
  sharded = parallel.shard_members(np.arange(count), tuple(jax.devices()))
  assert sharded.shape == (4, -(-count // 4))
  assert sharded.ravel()[:count].tolist() == list(range(count))
  assert set(sharded.ravel()[count:].tolist()) <= {count - 1}
  if rows:
    assert sharded.tolist() == rows

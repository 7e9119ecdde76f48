"""Platform settings, and members of an ensemble over devices."""

import os

import jax
import numpy as np
import pytest

from dalign_jax import errors, parallel, prediction, training, types


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


@pytest.fixture
def shard_map():
  parallel.use('shard_map')
  yield
  parallel.use('pmap')


def _trained(problem):
  return training.fit(
    problem.apply_fn,
    problem.original,
    problem.retain,
    types.Recipe(num_epochs=1, batch_size=32, augmentation='crop'),
    jax.random.key(0),
    devices=tuple(jax.devices()),
  )


def test_shard_map_gives_the_model_and_the_outputs_of_pmap(tiny_problem, request):
  """The same program on the same four devices, through the other route: equal bits."""
  outputs = []
  for fixture in (None, 'shard_map'):
    if fixture:
      request.getfixturevalue(fixture)
    model = _trained(tiny_problem)
    images = tiny_problem.forget.images
    found = prediction.predict(tiny_problem.apply_fn, model, images, devices=tuple(jax.devices()))
    outputs.append((model, found))
  for one, other in zip(*map(jax.tree.leaves, outputs), strict=True):
    np.testing.assert_array_equal(one, other)


def test_unknown_mappings_are_refused():
  with pytest.raises(errors.InputError, match="must be one of pmap, shard_map, got 'xmap'"):
    parallel.use('xmap')
  assert parallel.mapping() == 'pmap'


def test_replicate_copies_to_each_device_and_fetch_brings_it_back():
  tree = {'a': np.arange(6.0).reshape(2, 3), 'b': np.int32(7)}
  placed = parallel.replicate(tree, tuple(jax.devices()[:3]))
  assert placed['a'].shape == (3, 2, 3) and placed['b'].shape == (3,)
  assert [s.device for s in placed['a'].addressable_shards] == jax.devices()[:3]
  np.testing.assert_array_equal(parallel.fetch(placed)['a'], tree['a'])

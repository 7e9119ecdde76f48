"""An ensemble is what its members would be alone."""

import jax
import numpy as np
import pytest

from dalign_jax import models, parallel, training, types
from tests import tiny, training_test

DEVICES = {1: training_test.ONE, 4: training_test.FOUR}


def _setup(network='tiny', num_members=3, **recipe):
  problem = tiny.problem()
  dataset = types.concatenate(problem.retain, problem.forget)
  apply_fn, init_fn = problem.apply_fn, problem.init_fn
  if network != 'tiny':
    apply_fn, init_fn = models.build(
      network, num_classes=10, image_shape=(8, 8, 1), width_multiplier=0.25, axis_name=parallel.AXIS
    )
  recipe = types.Recipe(**{'num_epochs': 2, 'batch_size': 64, 'learning_rate': 0.02, **recipe})
  keys = [jax.random.key(i) for i in range(num_members)]
  return apply_fn, [init_fn(key) for key in keys], dataset, recipe, keys


def _close(a, b, tolerance=2e-4):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=1e-3), a, b)


@pytest.mark.parametrize('mapping', training.MAPPINGS)
@pytest.mark.parametrize('count', DEVICES)
def test_members_equal_models_trained_alone(mapping, count):
  _check_members('tiny', mapping, count)


@pytest.mark.usefixtures('exact_sums')
def test_members_with_batch_norm_equal_models_trained_alone():
  _check_members('cnn', 'scan', 1)


def _check_members(network, mapping, count):
  apply_fn, starts, dataset, recipe, keys = _setup(network, augmentation='crop_flip')
  rng = np.random.default_rng(0)
  subsets = np.stack([rng.permutation(len(dataset))[: len(dataset) // 2] for _ in keys])
  members = training.fit_ensemble(
    apply_fn,
    starts,
    dataset,
    recipe,
    keys,
    subsets=subsets,
    devices=DEVICES[count],
    mapping=mapping,
  )
  assert len(members) == len(keys)
  for member, start, subset, key in zip(members, starts, subsets, keys, strict=True):
    alone = training.fit(
      apply_fn, start, dataset.take(subset), recipe, key, devices=training_test.ONE
    )
    _close(member, alone)
    assert not np.allclose(member.params['head']['kernel'], start.params['head']['kernel'])


def test_interrupted_and_resumed_equals_uninterrupted():
  args = _setup()
  run = lambda monitor: training.fit_ensemble(*args, devices=DEVICES[4], monitor=monitor)
  whole = run(training_test.Recorder())
  stopped = training_test.Recorder(stop_after=1)
  with pytest.raises(KeyboardInterrupt):
    run(stopped)
  stopped.stop_after = None
  for a, b in zip(run(stopped), whole, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_members_are_divided_over_devices_and_come_back_in_order():
  values = {'a': np.arange(6.0), 'b': np.arange(12).reshape(6, 2)}
  placed = parallel.place_members(values, DEVICES[4])
  assert placed['b'].shape == (4, 2, 2)
  back = parallel.fetch_members(placed, num_members=6)
  jax.tree.map(np.testing.assert_array_equal, back, values)


def test_nan_of_one_member_stops_the_run():
  apply_fn, starts, dataset, recipe, keys = _setup()
  spoiled = jax.tree.map(lambda x: x * np.nan, starts[1])
  with pytest.raises(training.NonFiniteLossError, match='epoch 1 of 2'):
    training.fit_ensemble(apply_fn, [starts[0], spoiled, starts[2]], dataset, recipe, keys)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'mapping': 'loop'}, "mapping must be one of scan, vmap or None, got 'loop'"),
    ({'subsets': np.zeros((2, 5), int)}, r'subsets must be \[3, N\], got shape \[2, 5\]'),
  ],
)
def test_bad_arguments_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    training.fit_ensemble(*_setup(), **change)
  apply_fn, starts, dataset, recipe, keys = _setup()
  with pytest.raises(ValueError, match='keys must be as many as the 3 models, got 1'):
    training.fit_ensemble(apply_fn, starts, dataset, recipe, keys[:1])

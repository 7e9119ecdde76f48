"""Networks that draw: dropout in training of every kind, none in evaluation."""

import dataclasses
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import methods, optim, parallel, prediction, trainable, training, types
from tests import methods_compile_test, tiny, training_test

KEY = jax.random.key(7)
RATE = 0.3
# They change weights in closed form or by gradients of the network in evaluation mode.
WITHOUT_STEPS = {
  *('cmf', 'esc', 'esc_t', 'fisher', 'head_only', 'influence', 'pour_p', 'ssd', 'svd_projection'),
  'jit',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Dropout:
  """A network whose features drop out; it notes, as it is traced, in which mode it was called."""

  apply_fn: types.ApplyFn
  modes: list = dataclasses.field(default_factory=list)

  def __call__(self, state, images, *, train, key=None):
    self.modes.append(train)
    assert train == (key is not None)
    outputs, batch_stats = self.apply_fn(state, images, train=train)
    if train:
      is_kept = jax.random.bernoulli(key, 1 - RATE, outputs.features.shape)
      features = jnp.where(is_kept, outputs.features / (1 - RATE), 0.0)
      head = state.params['head']
      outputs = types.Outputs(features @ head['kernel'] + head['bias'][None], features)
    return outputs, batch_stats


NETWORKS = {'batch_norm': tiny.apply_fn, 'no_norm': tiny.apply_without_batch_norm}


def _problem(tiny_problem, network, count=1):
  """The tiny problem with a network that draws, on so many devices."""
  original = tiny_problem.original
  if network == 'no_norm':
    original = original._replace(batch_stats={})
  devices = tuple(jax.devices()[:count])
  apply_fn = Dropout(NETWORKS[network])
  return dataclasses.replace(tiny_problem, original=original, apply_fn=apply_fn, devices=devices)


def _quick(name):
  parameters = inspect.signature(methods.METHODS[name].make).parameters
  quick = methods_compile_test.QUICK
  return methods.METHODS[name].make(**{p: quick[p] for p in quick if p in parameters})


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_drops_out_in_its_steps_and_repeats_its_bits(name, tiny_problem):
  problem = _problem(tiny_problem, 'no_norm', count=2)
  problem = dataclasses.replace(problem, init_fn=lambda k: tiny.init_fn(k)._replace(batch_stats={}))
  first = _quick(name)(problem, KEY)
  assert (True in problem.apply_fn.modes) == (name not in WITHOUT_STEPS)
  chex.assert_tree_all_finite(first)
  chex.assert_trees_all_equal(_quick(name)(problem, KEY), first)


def _features(problem, model):
  images = problem.forget.images
  return prediction.predict(problem.apply_fn, model, images, devices=problem.devices).features


def _differs(first, second):
  same = jax.tree.map(np.array_equal, first.params, second.params)
  return not any(jax.tree.leaves(same))


@dataclasses.dataclass(frozen=True)
class _Masks:
  """A loss whose batch statistics are the masks that its two passes draw."""

  apply_fn: types.ApplyFn

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants, batch_stats
    model = types.ModelState(params, {})
    images = jnp.ones_like(batch['train']['images'])
    outputs, _ = training.forward(self.apply_fn, model, images, key)
    mask = outputs.features == 0
    number = jax.lax.axis_index(parallel.AXIS)
    count = jax.lax.axis_size(parallel.AXIS)
    masks = jnp.zeros((count, *mask.shape)).at[number].set(mask) * count  # the step takes means
    return jnp.mean(outputs.logits**2), masks


def _masks(problem, num_steps=2):
  """Masks of each step `[steps, devices, B / devices, D]`."""
  devices, dataset = problem.devices, problem.retain
  step = training.make_step(_Masks(problem.apply_fn), optim.sgd(0.0), devices=devices)
  data = training.put_data({'train': dataset}, devices)
  shape = (len(devices), 16 // len(devices), tiny.HIDDEN)
  model = problem.original._replace(batch_stats=np.zeros(shape, np.float32))
  state = parallel.replicate(training.init_state(model, optim.sgd(0.0)), devices)
  found = []
  for _ in range(num_steps):
    rows = {'train': np.arange(16, dtype=np.int32)[None]}
    state, _ = training.run_steps(step, state, data, rows, KEY)
    found.append(parallel.fetch(state).batch_stats)
  return np.stack(found)


def test_devices_and_steps_draw_masks_of_their_own(tiny_problem):
  masks = _masks(_problem(tiny_problem, 'no_norm', count=2))
  assert set(np.unique(masks)) == {0, 1}
  assert abs(masks.mean() - RATE) < 0.05
  of_draws = masks.reshape(4, -1)  # two steps on two devices
  for i in range(4):
    for j in range(i):
      assert 0.3 < np.mean(of_draws[i] != of_draws[j]) < 0.55  # 2 * .3 * .7 where independent
  np.testing.assert_array_equal(masks, _masks(_problem(tiny_problem, 'no_norm', count=2)))


@pytest.mark.parametrize('mapping', parallel.MAPPINGS)
def test_original_trains_with_dropout_and_is_evaluated_without(mapping, tiny_problem):
  problem = _problem(tiny_problem, 'batch_norm', count=2)
  fit = lambda apply_fn, key=KEY: training.fit(
    apply_fn, problem.original, problem.retain, problem.recipe, key, devices=problem.devices
  )
  chosen = parallel.mapping()
  try:
    parallel.use(mapping)
    first = fit(problem.apply_fn)
    assert set(problem.apply_fn.modes) == {True, False}  # the labels are checked by a pass
    chex.assert_trees_all_equal(fit(problem.apply_fn), first)
    assert _differs(fit(tiny.apply_fn), first)
    del problem.apply_fn.modes[:]
    features = _features(problem, first)
    assert set(problem.apply_fn.modes) == {False}
    np.testing.assert_array_equal(features, _features(problem, first))
  finally:
    parallel.use(chosen)


@pytest.mark.parametrize('mapping', training.MAPPINGS)
def test_members_of_an_ensemble_draw_as_alone(mapping, tiny_problem):
  problem = _problem(tiny_problem, 'batch_norm')
  keys = [jax.random.key(1), jax.random.key(2), jax.random.key(1)]
  recipe = dataclasses.replace(problem.recipe, num_epochs=1, learning_rate=0.02)
  args = problem.apply_fn, [problem.original] * 3, problem.retain, recipe, keys
  members = training.fit_ensemble(*args, devices=jax.devices()[:2], mapping=mapping)
  again = training.fit_ensemble(*args, devices=jax.devices()[:2], mapping=mapping)
  chex.assert_trees_all_equal(again, members)
  chex.assert_trees_all_close(members[2], members[0], atol=1e-6)
  assert _differs(members[1], members[0])
  alone = training.fit(
    problem.apply_fn, problem.original, problem.retain, recipe, keys[0], devices=problem.devices
  )
  chex.assert_trees_all_close(members[0], alone, rtol=1e-3, atol=2e-4)


def test_an_interrupted_run_goes_on_with_its_masks(tiny_problem):
  problem = _problem(tiny_problem, 'batch_norm', count=2)
  run = lambda monitor: methods.finetune(num_epochs=3)(
    dataclasses.replace(problem, monitor=monitor), KEY
  )
  whole = run(types.Monitor())
  recorder = training_test.Recorder(stop_after=1)
  with pytest.raises(KeyboardInterrupt):
    run(recorder)
  recorder.stop_after = None
  chex.assert_trees_all_equal(run(recorder), whole)


def test_running_statistics_mean_evaluation_where_there_are_any(tiny_problem):
  for network, modes in (('batch_norm', {False}), ('no_norm', {True, False})):
    problem = _problem(tiny_problem, network)
    methods.gradient_ascent(num_epochs=1)(problem, KEY)
    assert set(problem.apply_fn.modes) <= modes and modes - {False} <= set(problem.apply_fn.modes)


@pytest.mark.parametrize('options', [{'trainable': ['^head/']}, {'lora_rank': 2}])
def test_a_restricted_network_draws_too(options, tiny_problem):
  problem = _problem(tiny_problem, 'batch_norm', count=2)
  unlearn = trainable.restricted(methods.finetune(num_epochs=1), **options)
  found = unlearn(problem, KEY)
  assert True in problem.apply_fn.modes
  plain = unlearn(dataclasses.replace(problem, apply_fn=tiny.apply_fn), KEY)
  assert np.any(found.params['head']['kernel'] != plain.params['head']['kernel'])

"""Networks of one's own through every stage: Linen, NNX and a plain function."""

import dataclasses

import chex
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  adapters,
  checkpoints,
  errors,
  evaluation,
  methods,
  parallel,
  prediction,
  training,
  types,
)
from tests import tiny


class Linen(nn.Module):
  @nn.compact
  def __call__(self, images, train):
    x = nn.Dense(24, name='hidden')(images.reshape(len(images), -1))
    x = nn.BatchNorm(not train, axis_name=parallel.AXIS if train else None, name='norm')(x)
    return nn.Dense(10, name='head')(nn.relu(x))


class NNX(nnx.Module):
  def __init__(self, rngs):
    self.hidden = nnx.List([nnx.Linear(64, 24, rngs=rngs)])
    self.norm = nnx.BatchNorm(24, rngs=rngs, axis_name=parallel.AXIS, momentum=0.99)
    self.head = nnx.Linear(24, 10, rngs=rngs)

  def __call__(self, images):
    x = self.norm(self.hidden[0](images.reshape(len(images), -1)))
    return self.head(nnx.relu(x))


def _linen():
  module = Linen()
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
  state = types.ModelState(variables['params'], variables['batch_stats'])
  return adapters.from_linen(module), state


def _nnx():
  return adapters.from_nnx(NNX(nnx.Rngs(0)))


NETWORKS = {
  'linen': _linen,
  'nnx': _nnx,
  'function': lambda: (tiny.apply_without_batch_norm, tiny.init_fn(jax.random.key(0))),
}


@pytest.mark.parametrize('kind', NETWORKS)
def test_network_is_trained_unlearned_and_kept(kind, tmp_path):
  apply_fn, state = NETWORKS[kind]()
  problem = tiny.problem(state, apply_fn=apply_fn, devices=tuple(jax.devices()[:2]))
  train = types.concatenate(problem.retain, problem.forget)
  recipe = types.Recipe(num_epochs=6, batch_size=64, learning_rate=0.2)
  trained = [
    training.fit(apply_fn, state, train, recipe, jax.random.key(1), devices=devices)
    for devices in (problem.devices, jax.devices()[:1])
  ]
  chex.assert_trees_all_close(*trained, rtol=1e-2, atol=5e-3)
  problem = dataclasses.replace(problem, original=trained[0])
  unlearned = methods.muda(rounds=2, batch_size=64)(problem, jax.random.key(2))
  figures = evaluation.compare(problem, unlearned, problem.validation)
  assert (
    figures['original']['forget_accuracy'] > 0.9 and figures['unlearned']['retain_accuracy'] > 0.8
  )
  assert figures['unlearned']['forget_accuracy'] < figures['original']['forget_accuracy'] - 0.2
  checkpoints.save(tmp_path, unlearned, {})
  chex.assert_trees_all_equal(checkpoints.restore(tmp_path, state)[0], unlearned)


def test_adapters_give_the_modules_own_outputs():
  images = jnp.asarray(tiny.dataset().images[:32], jnp.float32) / 255
  model = NNX(nnx.Rngs(0))
  apply_fn, state = adapters.from_nnx(model)
  outputs, _ = apply_fn(state, images, train=False)
  model.eval()
  chex.assert_trees_all_close(outputs.logits, model(images), rtol=1e-5)
  kernel, bias = model.head.kernel.get_value(), model.head.bias.get_value()
  chex.assert_trees_all_close(outputs.features @ kernel + bias[None], outputs.logits, atol=1e-5)
  changed = jax.tree.map(lambda x: x + 0.1, state)
  adapters.update_nnx(model, changed)
  chex.assert_trees_all_close(apply_fn(changed, images, train=False)[0].logits, model(images))
  apply_fn, state = _linen()
  outputs, _ = apply_fn(state, images, train=False)
  own = Linen().apply(state._asdict(), images, train=False)
  chex.assert_trees_all_close(outputs.logits, own, rtol=1e-6)
  assert outputs.features.shape == (32, 24) and bool(jnp.all(outputs.features >= 0))


def test_batch_statistics_are_updated_in_training_alone():
  problem = tiny.problem()
  for make in (_linen, _nnx):
    apply_fn, state = make()
    prediction.predict(apply_fn, state, problem.forget.images)
    recipe = types.Recipe(num_epochs=1, batch_size=64)
    trained = training.fit(apply_fn, state, problem.retain, recipe, jax.random.key(0))
    before, after = (jax.tree.leaves(s.batch_stats) for s in (state, trained))
    assert all(np.any(a != b) for a, b in zip(after, before, strict=True))


def test_comparison_has_gold_as_its_reference(tiny_problem):
  gold = tiny.init_fn(jax.random.key(5))
  second = tiny.init_fn(jax.random.key(6))
  test = tiny_problem.validation
  figures = evaluation.compare(tiny_problem, gold, test, golds=(gold, second))
  assert list(figures) == ['original', 'unlearned', 'gold', 'second gold']
  assert (
    figures['unlearned']['activation_distance'] == 0
    and 'activation_distance' not in figures['gold']
  )
  assert figures['unlearned']['forget_accuracy'] == figures['gold']['forget_accuracy']
  assert figures['original']['moved'] == 0 < figures['unlearned']['moved']
  assert figures['second gold']['activation_distance'] > 0
  outputs = prediction.predict(tiny_problem.apply_fn, gold, test.images)
  kept = test.labels != 3
  right = outputs.logits.argmax(1) == test.labels
  assert figures['gold']['test_accuracy'] == pytest.approx(right[kept].mean())
  assert figures['gold']['test_forget_accuracy'] == pytest.approx(right[~kept].mean())
  assert 0 < figures['gold']['attack_floor'] < 0.3
  table = evaluation.markdown(figures).splitlines()
  assert len(table) == 6 and len({len(line) for line in table}) == 1


def test_undefined_figures_are_left_out_and_destroyed_models_are_named(tiny_problem):
  no_threes = tiny_problem.validation.take(np.flatnonzero(tiny_problem.validation.labels != 3))
  figures = evaluation.compare(tiny_problem, tiny_problem.original, no_threes)
  assert {'attack', 'test_forget_accuracy', 'activation_distance'}.isdisjoint(figures['unlearned'])
  broken = jax.tree.map(lambda x: x * np.nan, tiny_problem.original)
  with pytest.raises(ValueError, match='the outputs of unlearned are not finite'):
    evaluation.compare(tiny_problem, broken, no_threes)
  with pytest.raises(ValueError, match='two at most, got 3'):
    evaluation.compare(tiny_problem, broken, no_threes, golds=[broken] * 3)
  fewer = dataclasses.replace(tiny_problem, num_classes=9)
  with pytest.raises(errors.InputError, match='num_classes is 9, and the network has 10 outputs'):
    evaluation.compare(fewer, tiny_problem.original, no_threes)
  other = dataclasses.replace(no_threes, labels=no_threes.labels + 5)
  with pytest.raises(errors.InputError, match='outputs'):
    evaluation.compare(tiny_problem, tiny_problem.original, other)

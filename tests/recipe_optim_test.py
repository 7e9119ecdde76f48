"""The optimizer of a recipe against NumPy, step by step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dalign_jax import errors, optim, recipe_optim, training, types

PARAMS = {
  'BatchNorm_0': {'bias': np.float32([0.5, -1.0])},
  'whitening': {'bias': np.float32([1.0, 2.0])},
  'Conv_0': {'kernel': np.float32([[1.0, -2.0], [0.5, 3.0]])},
}
RECIPE = types.Recipe(
  num_epochs=3,
  batch_size=5,
  learning_rate=0.1,
  momentum=0.8,
  weight_decay=0.01,
  warmup_epochs=1.5,
  schedule='triangular',
  norm_learning_rate=8.0,
  whitening_epochs=1,
  lookahead_steps=2,
  lookahead_decay=0.9,
)
EXAMPLES, PER_EPOCH, TOTAL = 13, 3, 9  # the last batch of an epoch is filled up


def _gradient(step):
  return jax.tree.map(lambda p: np.cos(p + step).astype(np.float32), PARAMS)


def _run(tx, num_steps):
  params, state = jax.tree.map(jnp.asarray, (PARAMS, tx.init(PARAMS)))
  update = jax.jit(tx.update)
  history = []
  for step in range(num_steps):
    updates, state = update(_gradient(step), state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history, state


def _by_hand(name, num_steps):
  """The weights of one layer after each step, in float64."""
  (leaf,) = PARAMS[name].values()
  p = leaf.astype(np.float64)
  slow, velocity, history = p.copy(), np.zeros_like(p), []
  factor = 8.0 if name == 'BatchNorm_0' else 1.0
  warmup = round(1.5 * PER_EPOCH)
  for step in range(num_steps):
    rate = (
      0.2 + 0.8 * step / warmup if step < warmup else 1 - 0.93 * (step - warmup) / (TOTAL - warmup)
    )
    (g,) = _gradient(step)[name].values()
    g = g.astype(np.float64) + 0.01 / factor * p
    if name == 'whitening' and step >= PER_EPOCH:
      g = np.zeros_like(g)
    velocity = 0.8 * velocity + g
    p = p - 0.1 * factor * rate * (g + 0.8 * velocity)
    if (step + 1) % 2 == 0 or step + 1 == TOTAL:
      weight = 0.9**2 * ((step + 1) / TOTAL) ** 3
      slow = weight * slow + (1 - weight) * p
      p = slow.copy()
    history.append(p)
  return history


@pytest.mark.parametrize('name', PARAMS)
def test_steps_equal_numpy(name):
  history, state = _run(recipe_optim.optimizer(RECIPE, EXAMPLES), TOTAL)
  for got, want in zip(history, _by_hand(name, TOTAL), strict=True):
    np.testing.assert_allclose(*got[name].values(), want, rtol=2e-5)
  chex.assert_trees_all_close(state.slow, history[-1], rtol=1e-5)


def test_default_recipe_trains_as_before():
  recipe = types.Recipe(num_epochs=3, batch_size=5)
  want = optim.sgd(
    optim.warmup_cosine(recipe, EXAMPLES), momentum=0.9, weight_decay=5e-4, nesterov=True
  )
  got, state = _run(training.recipe_optimizer(recipe, EXAMPLES), 4)
  expected, expected_state = _run(want, 4)
  chex.assert_trees_all_equal(got, expected)
  chex.assert_trees_all_equal(state, expected_state)


def test_groups_without_effect_are_sgd_to_rounding():
  recipe = types.Recipe(num_epochs=3, batch_size=5, weight_decay=0.1)
  grouped = types.Recipe(num_epochs=3, batch_size=5, weight_decay=0.1, whitening_epochs=3)
  got, want = (_run(recipe_optim.optimizer(r, EXAMPLES), TOTAL)[0] for r in (grouped, recipe))
  chex.assert_trees_all_close(got, want, rtol=1e-5)


def test_decay_is_the_same_in_every_group():
  recipe = types.Recipe(
    weight_decay=0.1, learning_rate=0.5, norm_learning_rate=64.0, warmup_epochs=0.0
  )
  tx = recipe_optim.optimizer(recipe, EXAMPLES)
  updates, _ = tx.update(jax.tree.map(np.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
  shrinkage = jax.tree.map(lambda u, p: -0.5 * 0.1 * 1.9 * p, updates, PARAMS)
  chex.assert_trees_all_close(updates, shrinkage, rtol=1e-5)


def test_lookahead_leaves_the_inner_state_alone():
  tx = optax.sgd(0.1, momentum=0.9)
  _, plain = _run(tx, 3)
  _, averaged = _run(recipe_optim.lookahead(tx, every=2, decay=0.9, num_steps=9), 3)
  chex.assert_trees_all_close(averaged.inner, plain)  # these gradients do not see the weights


@pytest.mark.parametrize('options', [{'every': 0}, {'num_steps': 0}, {'decay': 1.5}])
def test_lookahead_rejects(options):
  with pytest.raises(ValueError, match=next(iter(options))):
    recipe_optim.lookahead(optax.sgd(1.0), **{'every': 1, 'decay': 0.5, 'num_steps': 1, **options})


def test_unknown_schedule_is_named():
  with pytest.raises(
    ValueError, match="schedule must be one of cosine, triangular, constant, got 'square'"
  ):
    recipe_optim.schedule(types.Recipe(schedule='square'), 10)


KERNELS = {
  'Conv_0': {'kernel': np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)},
  'head': {'kernel': np.ones((8, 2), np.float32), 'bias': np.zeros(2, np.float32)},
}


def _first_update(recipe):
  tx = recipe_optim.optimizer(recipe, EXAMPLES)
  gradient = jax.tree.map(lambda p: np.sin(np.arange(p.size)).reshape(p.shape) + 0.1, KERNELS)
  gradient = jax.tree.map(np.float32, gradient)
  return tx.update(gradient, tx.init(KERNELS), jax.tree.map(jnp.asarray, KERNELS))[0], gradient


def _recipe(**changes):
  return types.Recipe(
    schedule='constant', warmup_epochs=0.0, learning_rate=0.1, weight_decay=0.5, **changes
  )


def test_adamw_steps_by_the_sign_at_first_and_decays_apart_from_it():
  updates, gradient = _first_update(_recipe(optimizer='adamw'))
  wanted = jax.tree.map(lambda g, p: -0.1 * (np.sign(g) + 0.5 * p), gradient, KERNELS)
  chex.assert_trees_all_close(updates, wanted, rtol=1e-4, atol=1e-5)


def test_muon_makes_updates_of_hidden_kernels_nearly_orthogonal():
  updates, gradient = _first_update(_recipe(optimizer='muon'))
  matrix = -np.asarray(updates['Conv_0']['kernel'] + 0.05 * KERNELS['Conv_0']['kernel'])
  singular = np.linalg.svd(matrix.reshape(36, 8), compute_uv=False)
  assert singular.max() / singular[singular > 1e-3 * singular.max()].min() < 2.5
  np.testing.assert_allclose(np.sqrt(np.mean(matrix**2)), 0.1 * 0.2, rtol=0.8)
  first = 1 + 0.9 * 0.1 / (1 - 0.9**2)  # of Adam in Nesterov form
  head = -0.1 * (first * np.sign(gradient['head']['kernel']) + 0.5 * KERNELS['head']['kernel'])
  np.testing.assert_allclose(updates['head']['kernel'], head, rtol=1e-3)


def test_muon_takes_kernels_alone_and_nothing_for_the_head_but_the_head():
  shapes = {
    'Dense_0': {'kernel': (6, 4), 'bias': (4,)},
    'MultiHeadAttention_0': {'kernel': (4, 6), 'query': {'kernel': (4, 2, 2)}},
    'position_embedding': (1, 5, 4),
    'class_token': (1, 4),
    'head': {'kernel': (4, 3)},
  }
  is_shape = lambda x: isinstance(x, tuple)
  ones = jax.tree.map(lambda shape: np.ones(shape, np.float32), shapes, is_leaf=is_shape)
  state = optim.muon(0.1).init(ones)
  momenta = optax.tree.get(state.inner_states['muon'], 'mu')
  there = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(momenta)
  }
  assert there == {'Dense_0/kernel', 'MultiHeadAttention_0/kernel'}


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_what_an_optimizer_cannot_do_is_refused(name):
  with pytest.raises(errors.InputError, match=f'norm_learning_rate is for sgd; {name} takes 1'):
    recipe_optim.optimizer(types.Recipe(optimizer=name, norm_learning_rate=2.0), EXAMPLES)
  with pytest.raises(errors.InputError, match=r'must be one of sgd, adamw, muon, got .lion.'):
    recipe_optim.optimizer(types.Recipe(optimizer='lion'), EXAMPLES)

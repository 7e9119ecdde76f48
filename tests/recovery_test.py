"""What comes back: recovery procedures on models that know, hide or never knew a class."""

import jax
import numpy as np
import pytest

from dalign_jax import errors, metrics, recovery, training, types
from tests import tiny


@pytest.fixture(scope='module')
def gold(tiny_problem):
  recipe = types.Recipe(num_epochs=8, batch_size=64)
  p = tiny_problem
  model = tiny.init_fn(jax.random.key(5))
  return training.fit(p.apply_fn, model, p.retain, recipe, jax.random.key(5), devices=p.devices)


@pytest.fixture(scope='module')
def hidden(tiny_problem):
  """The original with class 3 suppressed by the head's bias alone."""
  params = jax.tree.map(np.array, tiny_problem.original.params)
  params['head']['bias'][3] -= 50
  return tiny_problem.original._replace(params=params)


def test_retain_only_starts_at_the_model_and_leaves_gold_ignorant(tiny_problem, gold):
  p = tiny_problem
  run = lambda model, epochs: recovery.retain_only(
    p, model, jax.random.key(2), num_epochs=epochs, learning_rate=0.01
  )
  curve = run(p.original, 2)
  assert curve.budgets.tolist() == [0, 1, 2] and curve.accuracies.shape == (3,)
  assert curve.accuracies[0] > 0.9
  assert run(gold, 2).accuracies.max() < 0.1
  np.testing.assert_array_equal(run(p.original, 1).accuracies, curve.accuracies[:2])
  with pytest.raises(errors.InputError, match='num_epochs must be 1 or more, got 0'):
    run(gold, 0)


def test_few_shots_bring_a_hidden_class_back(tiny_problem, hidden, gold):
  p = tiny_problem
  options = {'seed': 0, 'devices': p.devices}
  prototypes = lambda m: recovery.prototype_shots(
    p.apply_fn, m, p.retain, p.forget, num_classes=10, **options
  )
  original, back = prototypes(p.original), prototypes(hidden)
  np.testing.assert_array_equal(back.accuracies, original.accuracies)  # features are the same
  assert back.budgets.tolist() == [1, 5, 20] and back.accuracies[-1] > 0.85
  heads = lambda m: recovery.head_shots(p.apply_fn, m, p.retain, p.forget, **options)
  assert heads(hidden).accuracies[-1] > 0.9
  curves = [c(m).accuracies for c in (prototypes, heads) for m in (hidden, gold)]
  assert curves[0].sum() > curves[1].sum() and curves[2].sum() > curves[3].sum()


def test_shots_name_bad_input(tiny_problem):
  p = tiny_problem
  run = lambda **o: recovery.head_shots(p.apply_fn, p.original, p.retain, p.forget, seed=0, **o)
  with pytest.raises(errors.InputError, match='shots must ascend from 1'):
    run(shots=(5, 1))
  with pytest.raises(errors.InputError, match='shots must leave forget images'):
    run(shots=(10_000,))


def test_residual_knowledge_grows_with_the_ball(tiny_problem, gold):
  p = tiny_problem
  run = lambda m, **o: recovery.residual_knowledge(p.apply_fn, m, p.forget, devices=p.devices, **o)
  curve = run(gold, radii=(0.0, 8 / 255, 0.5))
  assert curve.accuracies[0] < 0.1 and np.all(np.diff(curve.accuracies) >= 0)
  assert run(p.original).accuracies.min() > 0.9
  with pytest.raises(errors.InputError, match='radii must not be empty or negative'):
    run(gold, radii=(-1.0,))


def test_rounding_and_pruning(tiny_problem):
  p = tiny_problem
  one = p.devices
  eight, four = recovery.rounding(p.apply_fn, p.original, p.forget, devices=one).accuracies
  assert eight > 0.9 and eight >= four
  shares = (0.0, 0.3, 1.0)
  got = recovery.pruning(p.apply_fn, p.original, p.forget, shares=shares, devices=one).accuracies
  assert got[0] > 0.9 and got[2] < 0.1
  kernels = lambda m: np.concatenate([m.params[k]['kernel'].ravel() for k in ('hidden', 'head')])
  before = kernels(p.original)
  after = kernels(recovery.pruned(p.original, 0.3))
  assert np.sum(after == 0) == round(0.3 * len(before))
  assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()
  for bits in (8, 4):
    for layer in ('hidden', 'head'):
      weights = p.original.params[layer]['kernel']
      rounded = recovery.quantized(p.original, bits).params[layer]['kernel']
      step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
      assert np.abs(rounded - weights).max() <= step / 2 * 1.001
      assert len(np.unique(rounded)) <= 2**bits - 1
  with pytest.raises(errors.InputError, match=r'bits must be in \[2, 16\], got 1'):
    recovery.quantized(p.original, 1)
  with pytest.raises(errors.InputError, match=r'share must be in \[0, 1\], got 2'):
    recovery.pruned(p.original, 2)


def test_recovery_gap():
  gold, second = np.array([0.0, 0.1, 0.2]), np.array([0.1, 0.1, 0.1])
  assert metrics.recovery_gap(second, gold, second) == 1
  assert metrics.recovery_gap(gold, gold, second) == 0
  assert metrics.recovery_gap(gold + 0.5, gold, second) == pytest.approx(7.5)
  assert metrics.recovery_gap(gold + 0.5, gold, gold) == np.inf
  assert metrics.recovery_gap(gold, gold, gold) == 0
  assert metrics.recovery_gap(gold + 0.5, gold, gold, resolution=0.01) == pytest.approx(50)
  assert metrics.recovery_gap(gold + 0.5, gold, second, resolution=0.01) == pytest.approx(7.5)
  assert metrics.recovery_area(gold + 0.5, gold) == pytest.approx(0.5)
  with pytest.raises(errors.InputError, match=r'accuracies must be in \[0, 1\]'):
    metrics.recovery_gap(gold + 1, gold, second)
  with pytest.raises(errors.InputError, match='second_gold must have the shape of gold'):
    metrics.recovery_gap(gold, gold, second[:2])


def test_nearest_prototype_equals_a_loop_and_ignores_a_shift():
  rng = np.random.default_rng(0)
  features, prototypes = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
  expected = [np.argmin([np.linalg.norm(f - w) for w in prototypes]) for f in features]
  np.testing.assert_array_equal(metrics.nearest_prototype(features, prototypes), expected)
  np.testing.assert_array_equal(metrics.nearest_prototype(features + 9, prototypes + 9), expected)
  means = metrics.class_means(features, np.arange(30) % 3, 4)
  np.testing.assert_allclose(means[1], features[1::3].mean(0))
  assert np.isnan(means[3]).all()
  with pytest.raises(errors.InputError, match='prototypes must have a finite row'):
    metrics.nearest_prototype(features, prototypes * np.nan)


def test_a_destroyed_model_knows_nothing_under_any_procedure(tiny_problem):
  lost = jax.tree.map(lambda x: np.full_like(x, np.nan), tiny_problem.original)
  problem, forget = tiny_problem, tiny_problem.forget
  apply_fn, retain = problem.apply_fn, problem.retain
  curves = {
    'retain': recovery.retain_only(
      problem, lost, jax.random.key(2), num_epochs=2, learning_rate=0.1
    ),
    'prototypes': recovery.prototype_shots(apply_fn, lost, retain, forget, num_classes=10, seed=0),
    'head': recovery.head_shots(apply_fn, lost, retain, forget, seed=0),
    'residual': recovery.residual_knowledge(apply_fn, lost, forget, num_steps=1),
    'rounding': recovery.rounding(apply_fn, lost, forget),
    'pruning': recovery.pruning(apply_fn, lost, forget),
  }
  for name, curve in curves.items():
    assert len(curve.accuracies) == len(curve.budgets) and not curve.accuracies.any(), name


def test_a_recovery_that_diverges_ends_in_nothing(tiny_problem):
  curve = recovery.retain_only(
    tiny_problem, tiny_problem.original, jax.random.key(2), num_epochs=3, learning_rate=1e30
  )
  assert curve.accuracies[0] > 0.9 and list(curve.accuracies[1:]) == [0.0, 0.0, 0.0]

"""Difficulty features: independent computations, bounds, and one rule for any set."""

import jax
import numpy as np
import pytest
from scipy import special

from dalign_jax import difficulty, prediction
from tests import tiny


def _outputs(problem, dataset):
  return prediction.predict(
    problem.apply_fn, problem.original, dataset.images, devices=problem.devices
  )


def test_neighbour_distance_is_that_of_a_double_loop():
  rng = np.random.default_rng(0)
  features, kept = rng.normal(size=(12, 5)), rng.normal(size=(30, 5))
  labels, kept_labels = rng.integers(0, 3, 12), rng.integers(0, 3, 30)
  expected = []
  for x, label in zip(features, labels, strict=True):
    others = [z for z, other in zip(kept, kept_labels, strict=True) if other == label]
    cosines = [x @ z / np.sqrt(x @ x) / np.sqrt(z @ z) for z in others]
    expected.append(np.mean(sorted(np.sqrt(2 - 2 * c) for c in cosines)[:5]))
  found = difficulty.neighbour_distance(features, labels, kept, kept_labels)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  scaled = difficulty.neighbour_distance(7 * features, labels, kept / 3, kept_labels)
  np.testing.assert_allclose(scaled, found, rtol=1e-6)


def test_neighbour_distance_with_few_or_no_kept_examples():
  kept = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
  found = difficulty.neighbour_distance(
    np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), np.array([0, 7, 1]), kept, np.array([0, 0, 1])
  )
  np.testing.assert_allclose(found, [np.sqrt(2) / 2, 2.0, 0.0], atol=1e-7)


@pytest.fixture(scope='module')
def some(tiny_problem):
  return tiny_problem.forget.take(np.arange(20))


def test_adversarial_loss_without_a_step_is_the_entropy(tiny_problem, some):
  p = special.softmax(_outputs(tiny_problem, some).logits.astype(np.float64), axis=1)
  entropy = special.entr(p).sum(axis=1)
  call = lambda **options: difficulty.adversarial_loss(
    tiny_problem.apply_fn,
    tiny_problem.original,
    some.images,
    **{'devices': tiny_problem.devices, **options},
  )
  np.testing.assert_allclose(call(epsilon=0.0), entropy, atol=1e-4)
  near, far = call(epsilon=2 / 255), call(epsilon=16 / 255)
  assert np.all(near >= entropy - 1e-4)  # Gibbs: no distribution has a lower cross-entropy
  assert far.mean() > near.mean() > entropy.mean()
  np.testing.assert_array_equal(call(), call())
  np.testing.assert_allclose(call(devices=tuple(jax.devices())), call(), rtol=1e-3, atol=1e-5)


def test_instability_without_augmentation_is_the_loss(tiny_problem, some):
  call = lambda **options: difficulty.instability(
    tiny_problem.apply_fn,
    tiny_problem.original,
    some.images,
    some.labels,
    devices=tiny_problem.devices,
    **options,
  )
  log_p = special.log_softmax(_outputs(tiny_problem, some).logits.astype(np.float64), axis=1)
  loss = -log_p[np.arange(len(some)), some.labels]
  np.testing.assert_allclose(call(kind='none', num_draws=2), loss, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(call(), call())
  assert call().mean() > loss.mean()


def _measure(problem, examples, names=difficulty.FEATURES):
  curriculum = tiny.init_fn(jax.random.key(9))
  return difficulty.measure(
    problem.apply_fn,
    problem.original,
    curriculum,
    examples,
    problem.retain,
    names=names,
    devices=problem.devices,
  )


def test_columns_are_the_named_features(tiny_problem, some):
  logits = _outputs(tiny_problem, some).logits
  best_other = [max(v for k, v in enumerate(row) if k != 3) for row in logits]
  found = _measure(tiny_problem, some, ('margin', 'distance'))
  np.testing.assert_allclose(found[:, 0], best_other - logits[:, 3], rtol=1e-5)
  np.testing.assert_array_equal(found[:, 1], 2.0)  # the whole class is to be forgotten
  everything = _measure(tiny_problem, some)
  assert everything.shape == (20, 5) and np.all(np.isfinite(everything))
  np.testing.assert_array_equal(everything[:, [3, 0]], found)


def test_a_feature_does_not_depend_on_the_rest_of_the_set(tiny_problem):
  """Random starts and crops go with an example's number; the others have no part in it."""
  whole = _measure(tiny_problem, tiny_problem.validation)
  part = _measure(tiny_problem, tiny_problem.validation.take(np.arange(7)))
  np.testing.assert_allclose(part, whole[:7], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('names', [(), ('margins',), ('margin', 'margin')])
def test_unknown_features_are_named(names, tiny_problem, some):
  with pytest.raises(ValueError, match='features must be some of distance, adversarial'):
    _measure(tiny_problem, some, names)

"""FGSM and PGD: closed forms, the ball, the pixel range, and single examples."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import adversarial

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 4, 5, 2)), jnp.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 5, 2)), jnp.float32)


def linear(images):
  return jnp.sum(WEIGHTS * images, axis=(1, 2, 3))


def quadratic(images):
  return jnp.sum((images - 0.3) ** 2 * WEIGHTS, axis=(1, 2, 3))


def lengths(x):
  return np.sqrt(np.sum(np.square(x), axis=(1, 2, 3)))


def test_fgsm_of_a_linear_loss_is_the_sign_step():
  expected = np.clip(np.asarray(IMAGES) + 0.1 * np.sign(WEIGHTS), 0, 1)
  result = adversarial.fgsm(linear, IMAGES, epsilon=0.1)
  np.testing.assert_allclose(result, expected, atol=1e-6)
  descended = adversarial.fgsm(linear, IMAGES, epsilon=0.1, targeted=True)
  assert np.all(linear(descended) < linear(IMAGES)) and np.all(linear(result) > linear(IMAGES))


def test_l2_steps_add_up_along_a_constant_slope():
  inside = 0.5 + 0.0 * IMAGES
  result = adversarial.pgd(linear, inside, epsilon=1.0, step_size=0.1, num_steps=5, norm='l2')
  expected = 0.5 * np.asarray(WEIGHTS / jnp.linalg.norm(WEIGHTS)) * np.ones_like(inside)
  np.testing.assert_allclose(result - inside, expected, atol=1e-6)


def test_l2_projection_is_the_nearest_point_of_the_ball():
  inside = 0.5 + 0.0 * IMAGES
  result = adversarial.pgd(linear, inside, epsilon=0.2, step_size=0.15, num_steps=4, norm='l2')
  np.testing.assert_allclose(lengths(result - inside), 0.2, rtol=1e-5)


@pytest.mark.parametrize('norm', adversarial.NORMS)
@pytest.mark.parametrize('start', ['centre', 'random'])
def test_result_stays_in_the_ball_and_in_the_pixel_range(norm, start):
  keys = None if start == 'centre' else jax.random.split(jax.random.key(0), len(IMAGES))
  for epsilon, num_steps in ((0.3, 0), (0.3, 7), (0.0, 3), (9.0, 3)):
    result = adversarial.pgd(
      quadratic, IMAGES, epsilon=epsilon, step_size=0.2, num_steps=num_steps, norm=norm, keys=keys
    )
    assert result.min() >= 0 and result.max() <= 1
    offset = np.asarray(result - IMAGES)
    size = np.abs(offset).max(axis=(1, 2, 3)) if norm == 'linf' else lengths(offset)
    assert np.all(size <= epsilon + 1e-5)


@pytest.mark.parametrize('norm', adversarial.NORMS)
def test_random_starts_fill_the_ball(norm):
  images = jnp.full((400, 2, 1, 1), 0.5)
  keys = jax.random.split(jax.random.key(0), len(images))
  options = {'epsilon': 0.4, 'step_size': 0.1, 'num_steps': 0, 'norm': norm}
  offset = np.asarray(adversarial.pgd(quadratic_free, images, keys=keys, **options) - 0.5)
  size = np.abs(offset).max(axis=(1, 2, 3)) if norm == 'linf' else lengths(offset)
  # In two dimensions the size of a uniform point is epsilon sqrt(u): its square has mean 1/2.
  np.testing.assert_allclose(np.mean((size / 0.4) ** 2), 0.5, atol=0.05)
  np.testing.assert_allclose(offset.mean(0), 0, atol=0.05)


def quadratic_free(images):
  return jnp.sum(images**2, axis=(1, 2, 3))


def test_examples_do_not_depend_on_their_batch():
  keys = jax.random.split(jax.random.key(0), len(IMAGES))
  run = lambda x, k: adversarial.pgd(
    quadratic, x, epsilon=0.5, step_size=0.1, num_steps=3, norm='l2', keys=k
  )
  alone = jnp.concatenate([run(IMAGES[i : i + 1], keys[i : i + 1]) for i in range(len(IMAGES))])
  chex.assert_trees_all_close(run(IMAGES, keys), alone, atol=1e-6)


def test_flat_loss_moves_nothing():
  for norm in adversarial.NORMS:
    result = adversarial.pgd(
      lambda x: 0.0 * linear(x), IMAGES, epsilon=1.0, step_size=0.1, num_steps=3, norm=norm
    )
    chex.assert_trees_all_close(result, IMAGES)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'norm': 'l1'}, 'norm must be one of linf, l2'),
    ({'epsilon': -1.0}, 'epsilon must not be negative, got -1'),
    ({'step_size': float('nan')}, 'step_size must not be negative, got nan'),
    ({'num_steps': -1}, 'num_steps must not be negative'),
  ],
)
def test_bad_arguments_are_named(options, message):
  good = {'epsilon': 1.0, 'step_size': 0.1, 'num_steps': 1}
  with pytest.raises(ValueError, match=message):
    adversarial.pgd(linear, IMAGES, **{**good, **options})


def test_rows_stay_once_the_stop_rule_holds_and_start_where_they_are_told():
  images = jnp.zeros((3, 1, 1, 1))
  options = {'epsilon': 1.0, 'step_size': 0.25, 'num_steps': 9}
  stop_fn = lambda x: x.ravel() >= jnp.array([0.5, 2.0, 0.0])
  loss_fn = lambda x: x.sum((1, 2, 3))
  moved = adversarial.pgd(loss_fn, images, **options, stop_fn=stop_fn)
  assert moved.ravel().tolist() == [0.5, 1.0, 0.0]
  starts = jnp.full((3, 1, 1, 1), 0.75)
  moved = adversarial.pgd(loss_fn, images, **options, starts=starts, stop_fn=stop_fn)
  assert moved.ravel().tolist() == [0.75, 1.0, 0.75]

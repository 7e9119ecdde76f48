"""Gradients of single examples: equal to a plain loop, whatever the batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import importance, losses, models, types
from tests import tiny

SIZE = 23


@pytest.fixture(scope='module')
def dataset():
  return tiny.dataset().take(np.arange(SIZE))


def _example_gradients(apply_fn, model, dataset, loss_fn=losses.cross_entropy):
  """One gradient after another, in evaluation mode."""
  for image, label in zip(dataset.images, dataset.labels, strict=True):

    def loss(params, image=image, label=label):
      images = jnp.asarray(image, jnp.float32)[None] / 255
      outputs, _ = apply_fn(model._replace(params=params), images, train=False)
      return loss_fn(jnp.asarray(label)[None], outputs.logits)[0]

    yield jax.grad(loss)(model.params)


def _loop(statistic, *args, **options):
  gradients = list(_example_gradients(*args, **options))
  return jax.tree.map(lambda *g: sum(statistic(np.asarray(x)) for x in g) / len(g), *gradients)


@pytest.mark.parametrize(
  ('statistic', 'function'),
  [(np.square, importance.squared_gradients), (np.abs, importance.absolute_gradients)],
)
def test_equal_a_plain_loop(tiny_problem, dataset, statistic, function):
  args = (tiny.apply_fn, tiny_problem.original, dataset)
  expected = _loop(statistic, *args)
  for devices in (tiny_problem.devices, None):
    for batch_size, microbatch_size in ((256, 32), (4, 3), (1, 1)):
      found = function(
        *args, batch_size=batch_size, microbatch_size=microbatch_size, devices=devices
      )
      chex.assert_trees_all_close(found, expected, rtol=2e-4, atol=1e-9)


def test_convolutions_equal_a_plain_loop(dataset):
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=(8, 8, 1))
  args = (apply_fn, init_fn(jax.random.key(0)), dataset.take(np.arange(5)))
  expected = _loop(np.square, *args)
  found = importance.squared_gradients(*args, microbatch_size=2)
  chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-9)


def test_logistic_regression_in_closed_form():
  """The gradient of -log p_y for the weights of class c is x (p_c - [c = y])."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (7, 3, 1, 1), np.uint8)
  labels = rng.integers(0, 2, 7).astype(np.int32)
  data = types.Dataset(images, labels, np.array([str(i) for i in range(7)]))
  weights = rng.normal(size=(3, 2)).astype(np.float32)

  def apply_fn(state, images, *, train):
    del train
    x = images.reshape(len(images), -1)
    return types.Outputs(x @ state.params, x), {}

  x = images.reshape(7, 3) / 255
  p = np.exp(x @ weights) / np.exp(x @ weights).sum(axis=1, keepdims=True)
  gradients = x[:, :, None] * (p - np.eye(2)[labels])[:, None, :]
  model = types.ModelState(weights, {})
  found = importance.squared_gradients(apply_fn, model, data)
  np.testing.assert_allclose(found, (gradients**2).mean(0), rtol=1e-4)
  found = importance.mean_gradient(apply_fn, model, data, batch_size=2)
  np.testing.assert_allclose(found, gradients.mean(0), rtol=1e-4, atol=1e-6)


def test_fisher_product_equals_the_sum_over_gradients(tiny_problem, dataset):
  args = (tiny.apply_fn, tiny_problem.original, dataset)
  rng = np.random.default_rng(0)
  vector = jax.tree.map(
    lambda p: rng.normal(size=p.shape).astype(np.float32), tiny_problem.original.params
  )
  flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
  gradients = np.stack([flat(g) for g in _example_gradients(*args)])
  expected = gradients.T @ (gradients @ flat(vector)) / SIZE
  for devices in (tiny_problem.devices, None):
    found = importance.fisher_product(*args, batch_size=5, devices=devices)(vector)
    chex.assert_trees_all_close(flat(found), expected, rtol=1e-3, atol=1e-6)


def test_other_losses(tiny_problem, dataset):
  args = (tiny.apply_fn, tiny_problem.original, dataset)
  length = lambda labels, logits: jnp.linalg.norm(logits, axis=1)
  expected = _loop(np.abs, *args, loss_fn=length)
  found = importance.absolute_gradients(*args, loss_fn=length)
  chex.assert_trees_all_close(found, expected, rtol=2e-4, atol=1e-8)


def test_bad_sizes_are_named(tiny_problem, dataset):
  for name in ('batch_size', 'microbatch_size'):
    with pytest.raises(ValueError, match=f'{name} must be 1 or more, got 0'):
      importance.squared_gradients(tiny.apply_fn, tiny_problem.original, dataset, **{name: 0})

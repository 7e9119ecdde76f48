"""Methods that see the forget data alone: what they read, where they stop, what they teach."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import losses, methods, objectives, optim, prediction, training
from dalign_jax.methods import _boundary_shrink, _l2ul
from tests import tiny

KEY = jax.random.key(3)
FORGET_ONLY = [
  name for name, m in methods.METHODS.items() if m.sees <= {methods.FORGET, methods.FORGET_IMAGES}
]


def _logits(problem, model, images):
  return prediction.predict(problem.apply_fn, model, images, devices=problem.devices).logits


def _quick(name):
  return methods.METHODS[name].make(**({'num_copies': 2, 'num_steps': 5} if name == 'l2ul' else {}))


@pytest.mark.parametrize('name', FORGET_ONLY)
def test_retain_and_validation_images_do_not_matter(tiny_problem, name):
  blank = lambda d: dataclasses.replace(d, images=d.images * 0)
  other = dataclasses.replace(
    tiny_problem, retain=blank(tiny_problem.retain), validation=blank(tiny_problem.validation)
  )
  chex.assert_trees_all_equal(_quick(name)(tiny_problem, KEY), _quick(name)(other, KEY))


@pytest.mark.parametrize('name', [n for n in FORGET_ONLY if n != 'head_only'])
def test_batch_statistics_stay(tiny_problem, name):
  result = _quick(name)(tiny_problem, KEY)
  chex.assert_trees_all_equal(result.batch_stats, tiny_problem.original.batch_stats)


def test_jit_reads_no_labels(tiny_problem):
  labels = np.random.default_rng(0).permutation(np.arange(len(tiny_problem.forget)) % 10)
  forget = dataclasses.replace(tiny_problem.forget, labels=labels.astype(np.int32))
  other = dataclasses.replace(tiny_problem, forget=forget)
  chex.assert_trees_all_equal(methods.jit()(tiny_problem, KEY), methods.jit()(other, KEY))


def test_jit_descends_its_loss(tiny_problem):
  """One step over the whole set is the gradient of the mean loss, here from other noise."""
  forget, original = tiny_problem.forget, tiny_problem.original
  images = jnp.asarray(forget.images, jnp.float32) / 255
  rng = np.random.default_rng(0)

  def loss(params):
    total = 0.0
    for noise in noises:
      noisy = jnp.clip(images + noise, 0, 1)
      logits = [
        tiny.apply_fn(original._replace(params=p), x, train=False)[0].logits
        for p, x in ((params, images), (original.params, noisy))
      ]
      change = jnp.linalg.norm((noisy - images).reshape(len(images), -1), axis=1)
      total += jnp.mean(jnp.linalg.norm(logits[0] - logits[1], axis=1) / change)
    return total / len(noises)

  noises = rng.normal(0, 0.3, (100, *images.shape)).astype(np.float32)
  expected = jax.grad(loss)(original.params)
  step = methods.jit(
    num_epochs=1, learning_rate=1.0, batch_size=len(forget), noise=0.3, num_noises=100
  )(tiny_problem, KEY)
  for e, before, after in zip(
    *(jax.tree.leaves(t) for t in (expected, original.params, step.params)), strict=True
  ):
    gap = np.linalg.norm(np.asarray(before - after - e))
    assert gap < 0.1 * np.linalg.norm(e)


def test_jit_leaves_a_constant_network_alone(tiny_problem):
  params = jax.tree.map(np.zeros_like, tiny_problem.original.params)
  other = dataclasses.replace(tiny_problem, original=tiny_problem.original._replace(params=params))
  chex.assert_trees_all_equal(methods.jit()(other, KEY), other.original)


def test_delete_weighs_a_forget_set_below_a_batch_by_its_share(tiny_problem):
  """A batch of 64 copies of one image, once as one image and once as 64."""
  unlearn = methods.delete(num_epochs=1, learning_rate=0.1, momentum=0.0)
  moved = []
  for rows in ([0], [0] * 64):
    problem = dataclasses.replace(tiny_problem, forget=tiny_problem.forget.take(rows))
    result = unlearn(problem, KEY)
    moved.append(jax.tree.map(lambda a, b: np.asarray(a) - b, result, problem.original))
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved[1])) > 1e-3
  scaled = jax.tree.map(lambda leaf: leaf / 64, moved[1])
  chex.assert_trees_all_close(moved[0], scaled, rtol=0.02, atol=1e-6)


def test_delete_teacher_has_no_mass_on_the_true_class(tiny_problem):
  """At its optimum the network is the original without the true class."""
  result = methods.delete(num_epochs=60, learning_rate=0.03)(tiny_problem, KEY)
  forget = tiny_problem.forget
  teacher = np.array(_logits(tiny_problem, tiny_problem.original, forget.images))
  teacher[np.arange(len(forget)), forget.labels] = -np.inf
  student = jax.nn.softmax(_logits(tiny_problem, result, forget.images))
  masked = jax.nn.softmax(teacher)
  rows = np.arange(len(forget))
  assert np.all(np.asarray(masked)[rows, forget.labels] == 0)
  assert float(jnp.mean(student[rows, forget.labels])) < 0.02
  assert np.mean(student.argmax(axis=1) == masked.argmax(axis=1)) > 0.9


def test_boundary_shrink_labels_are_other_classes_near_the_boundary(tiny_problem):
  forget = tiny_problem.forget
  labels = _boundary_shrink._neighbour_labels(tiny_problem, 0.1)
  assert np.all(labels != forget.labels) and labels.min() >= 0 and labels.max() < tiny.CLASSES
  images = jnp.asarray(forget.images, jnp.float32) / 255
  logits_of = lambda x: tiny.apply_fn(tiny_problem.original, x, train=False)[0].logits
  loss = lambda x: losses.cross_entropy(forget.labels, logits_of(x)).sum()
  neighbours = jnp.clip(images + 0.1 * jnp.sign(jax.grad(loss)(images)), 0, 1)
  logits = np.array(logits_of(neighbours))
  logits[np.arange(len(forget)), forget.labels] = -np.inf
  np.testing.assert_array_equal(labels, logits.argmax(axis=1))
  result = methods.boundary_shrink(num_epochs=20, learning_rate=0.01)(tiny_problem, KEY)
  predicted = _logits(tiny_problem, result, forget.images).argmax(axis=1)
  assert np.mean(predicted == labels) > 0.8


def test_l2ul_copies_reach_their_target_inside_the_ball(tiny_problem):
  attack = {'epsilon': 2.5, 'step_size': 0.1, 'num_steps': 60}
  copies = _l2ul._adversarial_copies(tiny_problem, KEY, 3, attack)
  forget = tiny_problem.forget
  centres = np.repeat(forget.images, 3, axis=0).astype(float) / 255
  assert len(copies) == 3 * len(forget) == len(np.unique(copies.ids))
  offset = (copies.images / 255 - centres).reshape(len(copies), -1)
  assert np.linalg.norm(offset, axis=1).max() <= 2.5 + 1e-6
  assert copies.images.dtype == np.uint8
  assert np.all(copies.labels != np.repeat(forget.labels, 3))
  assert len(np.unique(copies.labels)) == tiny.CLASSES - 1
  predicted = _logits(tiny_problem, tiny_problem.original, copies.images).argmax(axis=1)
  assert np.mean(predicted == copies.labels) > 0.95


def test_l2ul_holds_on_to_insensitive_weights(tiny_problem):
  """Per array, the least sensitive weight is held with weight 1, the most sensitive with 0."""
  sensitivity = _l2ul._sensitivity(tiny_problem)
  unit = jax.tree.map(_l2ul._to_unit, sensitivity)
  for leaf in jax.tree.leaves(unit):
    assert leaf.min() == 0 and leaf.max() == 1
  assert _l2ul._to_unit(np.full(3, 2.0, np.float32)).tolist() == [0, 0, 0]
  quick = {'num_copies': 2, 'num_steps': 5, 'num_epochs': 3, 'stop_accuracy': -1.0}
  quick |= {'learning_rate': 1e-3}
  way = [
    sum(
      np.sum((a - b) ** 2)
      for a, b in zip(
        jax.tree.leaves(methods.l2ul(regularization=r, **quick)(tiny_problem, KEY).params),
        jax.tree.leaves(tiny_problem.original.params),
        strict=True,
      )
    )
    for r in (0.0, 300.0)
  ]
  assert way[1] < 0.5 * way[0]


@pytest.mark.parametrize('name', ['l2ul', 'pbu'])
def test_ascent_stops_when_all_is_forgotten(tiny_problem, name):
  options = {'learning_rate': 0.01, 'stop_accuracy': 0.0}
  free = {
    'l2ul': {'num_copies': 1, 'num_steps': 5},
    'pbu': {'fisher_weight': 0.0, 'distance_weight': 0.0},
  }
  options |= free[name]
  make = lambda **more: methods.METHODS[name].make(**{**options, **more})
  long = make(num_epochs=12)(tiny_problem, KEY)
  assert objectives.accuracy_on(tiny_problem, long, tiny_problem.forget) == 0
  chex.assert_trees_all_equal(long, make(num_epochs=25)(tiny_problem, KEY))
  further = make(num_epochs=12, stop_accuracy=-1.0)(tiny_problem, KEY)
  assert np.any(further.params['head']['bias'] != long.params['head']['bias'])


def test_stop_rule_is_asked_before_each_epoch_until_it_stops(tiny_problem):
  asked = []

  def stop_fn(model):
    asked.append(model)
    return len(asked) > 2

  loss_fn = objectives.MeanLoss(tiny.apply_fn, 'forget', objectives.cross_entropy)
  result = training.minimize(
    tiny_problem,
    loss_fn,
    optim.sgd(0.1),
    {'forget': tiny_problem.forget},
    KEY,
    num_epochs=5,
    batch_size=64,
    stop_fn=stop_fn,
  )
  assert len(asked) == 3
  chex.assert_trees_all_equal(asked[0], tiny_problem.original)
  chex.assert_trees_all_equal(result, asked[2])


def test_pbu_weights_hold_the_network(tiny_problem):
  base = {'num_epochs': 3, 'stop_accuracy': -1.0, 'learning_rate': 3e-3}
  way = lambda **weights: sum(
    np.sum((a - b) ** 2)
    for a, b in zip(
      jax.tree.leaves(methods.pbu(**base, **weights)(tiny_problem, KEY).params),
      jax.tree.leaves(tiny_problem.original.params),
      strict=True,
    )
  )
  free = way(fisher_weight=0.0, distance_weight=0.0)
  assert way(fisher_weight=0.0, distance_weight=10.0) < 0.7 * free
  assert way(fisher_weight=1000.0, distance_weight=0.0) < 0.95 * free
  assert way(forget_weight=0.0) < 1e-12

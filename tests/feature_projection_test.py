"""Heads, layer inputs, class means, task vectors, and what the methods on them promise."""

import dataclasses
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  class_means,
  errors,
  layer_inputs,
  linear_head,
  methods,
  models,
  objectives,
  prediction,
  refined,
  task_vectors,
  types,
)
from dalign_jax.methods import _duck, _lotus, _masked_small_gradients
from tests import tiny

KEY = jax.random.key(3)
HEAD_EDITS = ('cmf', 'esc', 'esc_t', 'head_only', 'pour_p')


def _outputs(problem, model, dataset):
  return prediction.predict(problem.apply_fn, model, dataset.images, devices=problem.devices)


@pytest.mark.parametrize('name', HEAD_EDITS)
def test_head_edits_forget_a_class_and_keep_the_features(tiny_problem, name):
  result = methods.METHODS[name].make()(tiny_problem, KEY)
  accuracy = lambda dataset: objectives.accuracy_on(tiny_problem, result, dataset)
  assert accuracy(tiny_problem.forget) < 0.35
  assert accuracy(tiny_problem.retain) > 0.85
  before, after = (
    _outputs(tiny_problem, model, tiny_problem.forget) for model in (tiny_problem.original, result)
  )
  np.testing.assert_array_equal(before.features, after.features)


def test_a_projection_removes_the_first_direction_and_no_other(tiny_problem):
  features = _outputs(tiny_problem, tiny_problem.original, tiny_problem.forget).features
  _, _, directions = np.linalg.svd(np.asarray(features, np.float64), full_matrices=False)
  result = methods.esc(forget_share=1e-6)(tiny_problem, KEY)
  before = np.asarray(tiny_problem.original.params['head']['kernel'], np.float64)
  after = result.params['head']['kernel']
  np.testing.assert_allclose(directions[:1] @ after, 0, atol=1e-4)
  np.testing.assert_allclose(directions[1:] @ after, directions[1:] @ before, atol=1e-4)


def test_pour_p_leaves_a_simplex_a_simplex(tiny_problem):
  """Ten classes' columns at equal angles: without one of them, nine at equal angles."""
  simplex = np.eye(tiny.HIDDEN)[:, : tiny.CLASSES]
  simplex = simplex - simplex.mean(axis=1, keepdims=True)
  other = linear_head.replaced(tiny_problem, kernel=simplex)
  result = methods.pour_p()(dataclasses.replace(tiny_problem, original=other), KEY)
  kernel = np.asarray(result.params['head']['kernel'], np.float64)
  np.testing.assert_allclose(kernel[:, 3], 0, atol=1e-6)
  rest = np.delete(kernel, 3, axis=1)
  products = rest.T @ rest
  np.testing.assert_allclose(np.diag(products), products[0, 0], rtol=1e-5)
  cosines = products[~np.eye(9, dtype=bool)] / products[0, 0]
  np.testing.assert_allclose(cosines, -1 / 8, atol=1e-5)


def test_a_head_that_is_not_linear_in_the_features_is_refused(tiny_problem):
  def squared(state, images, *, train):
    outputs, stats = tiny.apply_fn(state, images, train=train)
    return outputs._replace(logits=outputs.logits**2), stats

  with pytest.raises(errors.InputError, match='they differ by up to'):
    methods.esc()(dataclasses.replace(tiny_problem, apply_fn=squared), KEY)
  with pytest.raises(errors.InputError, match="no 'top'"):
    methods.pour_p()(dataclasses.replace(tiny_problem, head_path=('top',)), KEY)


@pytest.mark.parametrize('name', ['cnn', 'vit_tiny'])
def test_layer_inputs_give_every_kernels_moment(name):
  """Checked by what a layer computes: moments of the inputs give those of its outputs."""
  options = {'width_multiplier': 0.1} if name == 'cnn' else {}
  apply_fn, init_fn = models.build(name, num_classes=3, image_shape=(8, 8, 1), **options)
  model = init_fn(KEY)
  data = tiny.dataset().take(np.arange(20))
  moments = layer_inputs.second_moments(
    apply_fn, model, data, batch_size=16, devices=tuple(jax.devices()[:1])
  )
  leaves = jax.tree.leaves(model.params)
  for leaf, moment in zip(leaves, moments, strict=True):
    if np.ndim(leaf) >= 2 and moment is not None:
      assert moment.shape[0] == moment.shape[1] and leaf.size % len(moment) == 0
      np.testing.assert_allclose(moment, moment.T, rtol=1e-4, atol=1e-4)
    elif np.ndim(leaf) < 2:
      assert moment is None
  known = [m is not None for leaf, m in zip(leaves, moments, strict=True) if np.ndim(leaf) >= 2]
  assert np.mean(known) == 1 if name == 'cnn' else np.mean(known) > 0.8
  outputs = prediction.predict(apply_fn, model, data.images)
  features = np.asarray(outputs.features, np.float64)
  paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(model.params)]
  head = next(i for i, path in enumerate(paths) if 'head' in path and 'kernel' in path)
  np.testing.assert_allclose(moments[head], features.T @ features, rtol=1e-3, atol=1e-3)


def test_layer_inputs_of_a_strided_convolution_match_its_outputs():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
  params = {'conv': kernel, 'head': rng.normal(size=(4, 3)).astype(np.float32)}

  def convolved(params, images):
    images = jnp.concatenate([images, images**2], axis=-1)
    layout = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      images, params['conv'], (2, 2), 'SAME', dimension_numbers=layout
    )

  def apply_fn(state, images, *, train):
    del train
    features = jax.nn.relu(convolved(state.params, images)).mean((1, 2))
    return objectives.types.Outputs(features @ state.params['head'], features), {}

  model = objectives.types.ModelState(params, {})
  data = tiny.dataset().take(np.arange(10))
  moment, _ = layer_inputs.second_moments(apply_fn, model, data, devices=jax.devices()[:1])
  outputs = np.asarray(convolved(params, data.images / np.float32(255)), np.float64)
  outputs = outputs.reshape(-1, 4)
  flat = kernel.reshape(18, 4).astype(np.float64)
  np.testing.assert_allclose(flat.T @ moment @ flat, outputs.T @ outputs, rtol=1e-3)


def test_class_means(tiny_problem):
  means = class_means.measure(tiny_problem, tiny_problem.retain)
  outputs = _outputs(tiny_problem, tiny_problem.original, tiny_problem.retain)
  features = np.asarray(outputs.features, np.float64)
  rows = tiny_problem.retain.labels == 5
  assert means.counts[3] == 0 and means.counts[5] == rows.sum()
  np.testing.assert_allclose(means.features[5], features[rows].mean(0), rtol=1e-4, atol=1e-5)
  assert means.length == pytest.approx(np.linalg.norm(features, axis=1).mean(), rel=1e-5)


def test_negation_keeps_the_control_accuracy_and_takes_the_least_forget_accuracy(tiny_problem):
  vector = task_vectors.tuned(
    tiny_problem,
    tiny_problem.forget,
    methods._finetune.optim.sgd(0.1),
    KEY,
    num_epochs=3,
    batch_size=64,
  )
  kept = tiny_problem.validation.labels != 3
  control = tiny_problem.validation.take(np.flatnonzero(kept))
  accuracy = lambda model, dataset: objectives.accuracy_on(tiny_problem, model, dataset)
  floor = accuracy(tiny_problem.original, control)
  for share in (0.9, 0.98):
    model = task_vectors.negated(tiny_problem, vector, control_share=share)
    assert accuracy(model, control) >= share * floor
    assert accuracy(model, tiny_problem.forget) < accuracy(
      tiny_problem.original, tiny_problem.forget
    )
  none_keeps_it = task_vectors.negated(
    tiny_problem, vector, control_share=0.98, coefficients=(1000.0,)
  )
  assert none_keeps_it is tiny_problem.original


def test_duck_moves_forget_features_to_other_classes(tiny_problem):
  means = class_means.measure(tiny_problem, tiny_problem.retain)
  centroids = means.features[means.counts > 0]
  centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)

  def nearness(model):
    features = _outputs(tiny_problem, model, tiny_problem.forget).features
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return (unit @ centroids.T).max(axis=1).mean()

  result = methods.duck()(tiny_problem, KEY)
  assert nearness(result) > nearness(tiny_problem.original) + 0.05
  assert objectives.accuracy_on(tiny_problem, result, tiny_problem.forget) < 0.5


def test_msg_takes_kernels_before_the_head_in_any_containers(tiny_problem):
  layer = lambda: {'kernel': np.ones((2, 2), np.float32), 'bias': np.ones(2, np.float32)}
  params = {'layers': [layer(), layer()], 'head': layer()}
  problem = dataclasses.replace(tiny_problem, original=types.ModelState(params, {}))
  taking = {'kernel': True, 'bias': False}
  none = {'kernel': False, 'bias': False}
  found = _masked_small_gradients._taking_part(problem)
  assert found == {'layers': [taking, taking], 'head': none}


def test_msg_redraws_a_share_and_keeps_biases(tiny_problem):
  result = methods.msg(num_epochs=0, reset_share=0.25)(tiny_problem, KEY)
  before, after = tiny_problem.original.params, result.params
  moved = np.mean(before['hidden']['kernel'] != after['hidden']['kernel'])
  assert moved == pytest.approx(0.25, abs=0.01)
  chex.assert_trees_all_equal(before['head'], after['head'])
  np.testing.assert_array_equal(before['hidden']['bias'], after['hidden']['bias'])


def test_sfron_is_not_blind_where_losses_are_rounded_to_0(tiny_problem):
  """Rows without a gradient must not take all of the weight."""
  sharp = jax.tree.map(np.array, tiny_problem.original)
  sharp.params['head']['kernel'] *= 8  # most losses are 0 in float32
  problem = dataclasses.replace(tiny_problem, original=sharp)
  result = methods.sfron(forget_every=1, num_epochs=3)(problem, KEY)
  assert objectives.accuracy_on(problem, result, problem.forget) < 0.5


class TestStrata:
  def test_strata_come_in_the_order_of_the_score(self, tiny_problem):
    seen = []

    def record(problem, key):
      seen.append(problem.forget.ids.tolist())
      return problem.original

    scores = np.random.default_rng(0).permutation(len(tiny_problem.forget))
    result = refined.by_strata(scores, [record, None, record])(tiny_problem, KEY)
    assert result is tiny_problem.original
    order = tiny_problem.forget.ids[np.argsort(scores)]
    third = -(-len(order) // 3)
    assert seen[0] == sorted(order[:third]) and set(seen[1]) <= set(order[2 * third - 2 :])

  def test_each_method_starts_where_the_last_one_ended(self, tiny_problem):
    scores = np.arange(len(tiny_problem.forget))
    ascent = methods.gradient_ascent(num_epochs=1)
    once = refined.by_strata(scores, [ascent, None])(tiny_problem, KEY)
    twice = refined.by_strata(scores, [ascent, ascent])(tiny_problem, KEY)
    assert np.any(once.params['head']['bias'] != twice.params['head']['bias'])

  def test_wrong_scores_are_named(self, tiny_problem):
    with pytest.raises(errors.InputError, match='scores must have shape'):
      refined.by_strata(np.zeros(3), [None])(tiny_problem, KEY)
    with pytest.raises(errors.InputError, match='one method or more'):
      refined.by_strata(np.zeros(3), [])


def test_every_method_has_a_section_in_the_docs():
  pages = (pathlib.Path(__file__).parents[1] / 'docs').glob('methods*.md')
  lines = [line for page in pages for line in page.read_text(encoding='utf-8').splitlines()]
  headings = ' '.join(line[3:] for line in lines if line.startswith('## ')).split()
  assert not methods.METHODS.keys() - {*headings} - {'planted_leak'}


@pytest.mark.parametrize('module', [_duck, _lotus])
def test_the_aim_of_a_mixed_request_is_that_of_its_rows(module, tiny_problem):
  """Whole classes beside single images: each row counts with what gold would get right of it."""
  single = np.flatnonzero(tiny_problem.retain.labels == 5)[: len(tiny_problem.forget)]
  others = tiny_problem.retain.take(single)
  rest = np.delete(np.arange(len(tiny_problem.retain)), single)
  of = lambda forget: dataclasses.replace(
    tiny_problem, forget=forget, retain=tiny_problem.retain.take(rest)
  )
  whole, alone = module._aim(of(tiny_problem.forget)), module._aim(of(others))
  mixed = module._aim(of(types.concatenate(tiny_problem.forget, others)))
  assert whole <= 0.01 < 0.5 < alone
  share = len(others) / (len(others) + len(tiny_problem.forget))
  assert mixed == pytest.approx(share * alone + (1 - share) * whole)


def test_duck_stops_at_a_whole_number_of_images_and_needs_held_out_ones(tiny_problem):
  rows = np.flatnonzero(tiny_problem.retain.labels == 5)[:3]
  forget, rest = (
    tiny_problem.retain.take(r)
    for r in (rows, np.delete(np.arange(len(tiny_problem.retain)), rows))
  )
  few = dataclasses.replace(tiny_problem, forget=forget, retain=rest)
  assert _duck._reachable(few, 0.97) == 1.0 and _duck._reachable(few, 2 / 3) == pytest.approx(2 / 3)
  assert _duck._reachable(tiny_problem, 0.01) == 0.01  # a whole class
  others = few.validation.take(np.flatnonzero(few.validation.labels != 5))
  with pytest.raises(types.DataError, match='validation images of the classes that stay'):
    methods.duck(num_epochs=1)(dataclasses.replace(few, validation=others), KEY)


def test_duck_needs_another_class_to_pull_to(tiny_problem):
  rows = np.flatnonzero(tiny_problem.retain.labels == 0)
  one = dataclasses.replace(
    tiny_problem,
    retain=tiny_problem.retain.take(rows[5:]),
    forget=types.concatenate(tiny_problem.forget, tiny_problem.retain.take(rows[:5])),
  )
  with pytest.raises(types.DataError, match='duck pulls images to another class'):
    methods.duck(num_epochs=1)(one, KEY)

"""Methods that choose among weights: what they must leave alone stays as it was, to the bit."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from dalign_jax import importance, methods, models, objectives, types
from dalign_jax.methods import _convolution_transpose, _ssd
from tests import tiny

KEY = jax.random.key(3)


@pytest.fixture(scope='module')
def cnn_problem(tiny_problem):
  """A convolutional network with batch norm, not trained."""
  apply_fn, init_fn = models.build(
    'cnn', num_classes=10, image_shape=(8, 8, 1), width_multiplier=0.25
  )
  return dataclasses.replace(
    tiny_problem, apply_fn=apply_fn, init_fn=init_fn, original=init_fn(KEY)
  )


def _changed(before, after):
  """For each leaf the share of numbers that differ."""
  return jax.tree.map(lambda a, b: float(np.mean(np.asarray(a) != np.asarray(b))), before, after)


def test_salun_moves_only_the_salient_half_under_momentum_and_decay(tiny_problem):
  options = {'momentum': 0.9, 'weight_decay': 0.1, 'saliency': 0.3}
  result = methods.salun(num_epochs=2, **options)(tiny_problem, KEY)
  flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
  before, after = flat(tiny_problem.original.params), flat(result.params)
  gradient = importance.mean_gradient(tiny.apply_fn, tiny_problem.original, tiny_problem.forget)
  order = np.argsort(-np.abs(flat(gradient)), kind='stable')
  count = round(0.3 * before.size)
  chosen, others = order[:count], order[count:]
  assert np.array_equal(before[others].view(np.uint32), after[others].view(np.uint32))
  assert np.mean(before[chosen] != after[chosen]) > 0.99


def test_salun_of_all_weights_is_random_label(tiny_problem):
  options = {'num_epochs': 2, 'learning_rate': 0.02}
  chex.assert_trees_all_close(
    methods.salun(saliency=1.0, **options)(tiny_problem, KEY),
    methods.random_label(**options)(tiny_problem, KEY),
    rtol=1e-4,
    atol=1e-6,
  )


@pytest.mark.parametrize('num_layers', [0, 1, 2])
def test_cf_k_freezes_all_but_the_last_layers(cnn_problem, num_layers):
  cf_k = methods.cf_k(num_layers=num_layers, num_epochs=1, weight_decay=0.1)
  changed = _changed(cnn_problem.original, cf_k(cnn_problem, KEY))
  trained = ['head', 'hidden', 'Conv_1', 'Conv_0'][: num_layers + 1]
  for name, leaves in changed.params.items():
    is_trained = name.replace('BatchNorm', 'Conv') in trained
    shares = np.array(list(leaves.values()))
    assert np.all(shares > 0.5) if is_trained else np.all(shares == 0), name
  for name, leaves in changed.batch_stats.items():
    is_trained = name.replace('BatchNorm', 'Conv') in trained
    assert all((share > 0) == is_trained for share in leaves.values()), name


def test_eu_k_draws_the_last_layers_anew_and_nothing_else(cnn_problem):
  original = cnn_problem.original
  result = methods.eu_k(num_layers=1, num_epochs=0)(cnn_problem, KEY)
  fresh = cnn_problem.init_fn(jax.random.split(KEY)[0])
  for name in ('head', 'hidden'):
    chex.assert_trees_all_equal(result.params[name], fresh.params[name])
    assert np.mean(result.params[name]['kernel'] == original.params[name]['kernel']) == 0
  for name in ('Conv_0', 'Conv_1', 'BatchNorm_0', 'BatchNorm_1'):
    chex.assert_trees_all_equal(result.params[name], original.params[name])
  chex.assert_trees_all_equal(result.batch_stats, original.batch_stats)
  trained = methods.eu_k(num_layers=1, num_epochs=1)(cnn_problem, KEY)
  chex.assert_trees_all_equal(trained.params['Conv_1'], original.params['Conv_1'])
  assert min(_changed(result.params['hidden'], trained.params['hidden']).values()) > 0


def test_all_layers_of_eu_k_are_a_new_network(tiny_problem):
  result = methods.eu_k(num_layers=1, num_epochs=0)(tiny_problem, KEY)
  chex.assert_trees_all_equal(result, tiny.init_fn(jax.random.split(KEY)[0]))


@pytest.mark.parametrize('name', ['cf_k', 'eu_k'])
def test_more_layers_than_there_are_is_an_error(tiny_problem, name):
  with pytest.raises(ValueError, match='num_layers must be 0 to 1'):
    methods.METHODS[name].make(num_layers=2)(tiny_problem, KEY)


def test_ssd_without_a_selection_changes_nothing(tiny_problem):
  result = methods.ssd(selection_weight=float('inf'))(tiny_problem, KEY)
  chex.assert_trees_all_equal(result, tiny_problem.original)


def test_ssd_is_its_formula(tiny_problem):
  everything = types.concatenate(tiny_problem.retain, tiny_problem.forget)
  original = tiny_problem.original
  of = lambda data: importance.squared_gradients(tiny.apply_fn, original, data)
  overall, forget = of(everything), of(tiny_problem.forget)
  result = methods.ssd(selection_weight=2.0, dampening=0.5)(tiny_problem, KEY)

  def expected(weight, overall, forget):
    ratio = overall / np.maximum(forget, 1e-30)
    is_selected = (forget > 2.0 * overall) & (forget > 0)
    return np.where(is_selected, np.minimum(0.5 * ratio, 1), 1) * weight

  expected = jax.tree.map(expected, original.params, overall, forget)
  chex.assert_trees_all_close(result.params, expected, rtol=1e-3, atol=1e-6)
  assert 0.01 < _changed(original.params, result.params)['hidden']['kernel'] < 0.99


def test_the_default_of_ssd_keeps_the_retain_accuracy(tiny_problem, monkeypatch):
  monkeypatch.setattr(_ssd, '_FIRST', 0.25)
  accuracy = lambda model: objectives.accuracy_on(tiny_problem, model, tiny_problem.retain)
  first, result = (methods.ssd(selection_weight=w)(tiny_problem, KEY) for w in (0.25, None))
  least = 0.99 * accuracy(tiny_problem.original)
  assert accuracy(first) < least <= accuracy(result)
  tried = [0.25 * 2 ** (number / 2) for number in range(20)]
  models = [methods.ssd(selection_weight=weight)(tiny_problem, KEY) for weight in tried]
  chosen = next(model for model in models if accuracy(model) >= least)
  chex.assert_trees_all_equal(result, chosen)


def test_influence_solves_its_system(tiny_problem):
  """Against the dense matrix, on a network of a few weights."""
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(64, 10)).astype(np.float32) / 8

  def apply_fn(state, images, *, train):
    del train
    x = images.reshape(len(images), -1)
    return types.Outputs(x @ state.params, x), {}

  problem = dataclasses.replace(
    tiny_problem,
    apply_fn=apply_fn,
    original=types.ModelState(weights, {}),
    retain=tiny_problem.retain.take(np.arange(60)),
  )
  options = {'scale': 2.0, 'damping': 0.1, 'retain_fraction': 1.0}
  result = methods.influence(num_iterations=100, **options)(problem, KEY)

  def gradients(data):
    x = data.images.reshape(len(data), -1) / 255
    p = np.exp(x @ weights) / np.exp(x @ weights).sum(axis=1, keepdims=True)
    return (x[:, :, None] * (p - np.eye(10)[data.labels])[:, None, :]).reshape(len(data), -1)

  retain, forget = gradients(problem.retain), gradients(problem.forget)
  matrix = retain.T @ retain / 60 + 0.1 * np.eye(640)
  expected = 2.0 * len(forget) / 60 * np.linalg.solve(matrix, forget.mean(0))
  change = (result.params - weights).ravel()
  assert np.linalg.norm(change - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(('name', 'axes'), [('kernel', (0, 1)), ('w', (0, 1)), ('weight', (2, 3))])
def test_ct_transposes_height_and_width_wherever_they_are(name, axes):
  """OIHW kernels of as many input as output channels have a square of channels too."""
  kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
  found = jax.tree_util.tree_map_with_path(
    _convolution_transpose._transposed, {'conv': {name: kernel, 'bias': np.zeros(3)}}
  )
  np.testing.assert_array_equal(found['conv'][name], np.swapaxes(kernel, *axes))
  oblong = {'conv': {name: np.zeros((3, 4, 5, 6))}}
  found = jax.tree_util.tree_map_with_path(_convolution_transpose._transposed, oblong)
  assert found['conv'][name].shape == (3, 4, 5, 6)


@pytest.mark.parametrize('name', ['lotus', 'task_vector', 'negmerge'])
def test_validation_images_must_be_there_where_they_decide(name, tiny_problem):
  empty = dataclasses.replace(
    tiny_problem,
    validation=tiny_problem.validation.take(np.arange(0)),
    retain=types.concatenate(tiny_problem.retain, tiny_problem.forget),  # no class goes whole
  )
  with pytest.raises(types.DataError, match='validation is empty'):
    methods.METHODS[name].make(num_epochs=1)(empty, KEY)


def test_influence_of_scale_zero_is_the_original(tiny_problem):
  chex.assert_trees_all_equal(
    methods.influence(scale=0.0, num_iterations=2)(tiny_problem, KEY), tiny_problem.original
  )


def test_fisher_without_noise_is_the_original(tiny_problem):
  chex.assert_trees_all_equal(methods.fisher(noise=0.0)(tiny_problem, KEY), tiny_problem.original)


def test_fisher_noise_has_the_variance_of_its_formula(tiny_problem):
  original = tiny_problem.original
  information = importance.squared_gradients(tiny.apply_fn, original, tiny_problem.retain)
  options = {'noise': 1e-6, 'max_variance': 0.01}
  drawn = []
  for seed in range(8):
    result = methods.fisher(**options)(tiny_problem, jax.random.key(seed))
    drawn.append(result.params['head']['kernel'] - original.params['head']['kernel'])
  expected = np.minimum(1e-6 / (information['head']['kernel'] + 1e-12), 0.01)
  ratio = np.var(drawn, axis=0) / expected
  assert abs(ratio.mean() - 1) < 0.1 and ratio.max() < 6
  assert abs(np.mean(drawn / np.sqrt(expected))) < 0.05


def test_l1_sparse_without_penalty_is_finetune(tiny_problem):
  chex.assert_trees_all_close(
    methods.l1_sparse(l1_weight=0.0, num_epochs=2)(tiny_problem, KEY),
    methods.finetune(num_epochs=2)(tiny_problem, KEY),
    rtol=1e-5,
    atol=1e-7,
  )


def test_l1_sparse_shrinks_weights_and_ends_without_penalty(tiny_problem):
  """One epoch has the full weight; of two, the second has half of it."""
  size = lambda model: sum(np.abs(x).sum() for x in jax.tree.leaves(model.params))
  sizes = [
    size(methods.l1_sparse(l1_weight=w, num_epochs=3)(tiny_problem, KEY)) for w in (0.0, 1e-3, 1e-2)
  ]
  assert sizes[0] > sizes[1] > sizes[2]
  result = methods.l1_sparse(l1_weight=1e-3, num_epochs=3)(tiny_problem, KEY)
  assert objectives.accuracy_on(tiny_problem, result, tiny_problem.retain) > 0.95


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: methods.salun(saliency=0.0), r'saliency must be in \(0, 1\], got 0.0'),
    (lambda: methods.fisher(noise=-1.0), 'noise must not be negative, got -1.0'),
    (lambda: methods.influence(damping=0.0), 'damping must be positive, got 0.0'),
    (lambda: methods.ssd(dampening=float('nan')), 'dampening must not be negative, got nan'),
  ],
)
def test_bad_hyper_parameters_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()

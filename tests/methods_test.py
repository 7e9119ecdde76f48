"""Each method's own invariants, and the meaning of MUDA's switches."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import errors, methods, metrics, prediction, types
from tests import tiny

KEY = jax.random.key(3)


def _outputs(problem, model):
  return {
    name: prediction.predict(
      problem.apply_fn, model, getattr(problem, name).images, devices=problem.devices
    )
    for name in ('retain', 'forget', 'validation')
  }


def _accuracy(problem, model, name):
  dataset = getattr(problem, name)
  return metrics.accuracy(_outputs(problem, model)[name].logits, dataset.labels)


def _alignment(problem, model):
  outputs = _outputs(problem, model)
  return metrics.dimensional_alignment(
    outputs['forget'].features, outputs['retain'].features, energy=0.9
  ).value


def test_retrain_draws_all_weights_anew(tiny_problem):
  no_epochs = dataclasses.replace(tiny_problem, recipe=types.Recipe(num_epochs=0, batch_size=64))
  fresh = methods.retrain()(no_epochs, KEY)
  initial = jax.tree.leaves(tiny.init_fn(jax.random.split(KEY)[0]).params)
  for kernel, start in zip(jax.tree.leaves(fresh.params), initial, strict=True):
    chex.assert_trees_all_equal(kernel, start)
  for name in ('hidden', 'head'):
    kernel = fresh.params[name]['kernel']
    assert np.mean(kernel == tiny_problem.original.params[name]['kernel']) == 0


def test_retrain_reads_no_forget_data(tiny_problem):
  blank = dataclasses.replace(tiny_problem.forget, images=np.zeros_like(tiny_problem.forget.images))
  other = dataclasses.replace(tiny_problem, forget=blank)
  chex.assert_trees_all_equal(methods.retrain()(tiny_problem, KEY), methods.retrain()(other, KEY))


def test_retrain_never_recognises_the_class(tiny_problem):
  gold = methods.retrain()(tiny_problem, KEY)
  assert _accuracy(tiny_problem, gold, 'forget') == 0
  assert _accuracy(tiny_problem, gold, 'retain') > 0.95


def test_head_only_changes_the_output_and_nothing_else(tiny_problem):
  result = methods.head_only()(tiny_problem, KEY)
  before, after = _outputs(tiny_problem, tiny_problem.original), _outputs(tiny_problem, result)
  assert _accuracy(tiny_problem, result, 'forget') == 0
  for name in before:
    chex.assert_trees_all_equal(before[name].features, after[name].features)
  assert _alignment(tiny_problem, result) == _alignment(tiny_problem, tiny_problem.original)
  changed = result.params['head']['bias'] != tiny_problem.original.params['head']['bias']
  assert np.flatnonzero(changed).tolist() == [3]


def test_head_only_needs_a_whole_class(tiny_problem):
  mixed = dataclasses.replace(tiny_problem, forget=tiny_problem.retain.take(np.arange(20)))
  with pytest.raises(ValueError, match='whole classes'):
    methods.head_only()(mixed, KEY)


def test_gradient_ascent_raises_the_forget_loss_and_keeps_statistics(tiny_problem):
  result = methods.gradient_ascent(learning_rate=1e-3)(tiny_problem, KEY)
  labels = tiny_problem.forget.labels
  losses = [
    metrics.cross_entropy_scores(_outputs(tiny_problem, m)['forget'].logits, labels).mean()
    for m in (tiny_problem.original, result)
  ]
  assert losses[1] > losses[0]
  chex.assert_trees_all_equal(result.batch_stats, tiny_problem.original.batch_stats)


def test_random_label_never_draws_the_true_label(tiny_problem):
  """With only forget data and two classes, the other label is always the one trained on."""
  forget = tiny_problem.forget
  original = tiny_problem.original
  head = {name: array[..., :2] for name, array in original.params['head'].items()}
  two = dataclasses.replace(
    tiny_problem,
    original=original._replace(params={**original.params, 'head': head}),
    num_classes=2,
    forget=dataclasses.replace(forget, labels=np.ones_like(forget.labels)),
    retain=dataclasses.replace(forget, labels=np.ones_like(forget.labels)).take(np.arange(1)),
  )
  result = methods.random_label(num_epochs=20, learning_rate=0.05)(two, KEY)
  predicted = _outputs(two, result)['forget'].logits.argmax(axis=1)
  assert np.mean(predicted == 0) > 0.9


def test_muda_forgets_and_recovers(tiny_problem):
  result = methods.muda(rounds=8, learning_rate=0.05, retain_fraction=0.3)(tiny_problem, KEY)
  assert _accuracy(tiny_problem, result, 'forget') < 0.2
  assert _accuracy(tiny_problem, result, 'retain') > 0.95


def test_da_weight_raises_alignment(tiny_problem):
  values = [
    _alignment(
      tiny_problem, methods.muda(da_weight=w, learning_rate=0.03, rounds=4)(tiny_problem, KEY)
    )
    for w in (0.0, 20.0)
  ]
  original = _alignment(tiny_problem, tiny_problem.original)
  assert values[1] > values[0] + 0.05
  assert values[1] > original


SWITCHES = {
  'teacher current': {'teacher': 'current'},
  'teacher unmasked': {'teacher': 'unmasked'},
  'temperature': {'temperature': 3.0},
  'basis of the original': {'basis_source': 'original', 'rounds': 3},
  'basis of the batch': {'basis_source': 'batch'},
  'gradient through the basis': {'basis_source': 'batch', 'differentiate_basis': True},
  'frozen statistics': {'normalization': 'frozen'},
  'forget-only statistics': {'normalization': 'forget_only'},
  'momenta kept': {'reset_on_switch': False},
  'recover rate': {'recover_learning_rate': 0.001},
  'longer phases': {'forget_steps': 12, 'recover_epochs': 2},
  'part of the retain set': {'retain_fraction': 0.5},
}


def test_every_switch_of_muda_changes_the_result(tiny_problem):
  base = {'rounds': 2, 'learning_rate': 0.02}
  results = {
    name: methods.muda(**{**base, **switch})(tiny_problem, KEY)
    for name, switch in {'default': {}, 'default, 3 rounds': {'rounds': 3}, **SWITCHES}.items()
  }
  chex.assert_tree_all_finite(results)
  kernels = {n: np.asarray(m.params['hidden']['kernel']) for n, m in results.items()}
  names = list(kernels)
  for i, first in enumerate(names):
    for second in names[:i]:
      assert not np.array_equal(kernels[first], kernels[second]), (first, second)


def _forgetting(problem, rows):
  forget = problem.retain.take(rows)
  rest = np.setdiff1d(np.arange(len(problem.retain)), rows)
  return dataclasses.replace(problem, forget=forget, retain=problem.retain.take(rest))


def test_images_of_classes_that_stay_are_forgotten_as_far_as_unseen_ones(tiny_problem):
  problem = _forgetting(tiny_problem, np.arange(0, len(tiny_problem.retain), 8))
  unseen = _accuracy(problem, problem.original, 'validation')
  hard = {'rounds': 50, 'da_weight': 0, 'recover_epochs': 0, 'momentum': 0}
  forgotten, ruined = (
    _accuracy(problem, methods.muda(**hard, stop_at=stop)(problem, KEY), 'forget')
    for stop in ('validation', 'never')
  )
  assert unseen - 0.05 < forgotten < unseen + 0.02
  assert ruined < unseen - 0.3


def test_whole_classes_are_forgotten_whatever_unseen_images_do(tiny_problem):
  results = [methods.muda(rounds=1, stop_at=s)(tiny_problem, KEY) for s in ('validation', 'never')]
  chex.assert_trees_all_equal(*results)
  none_left = dataclasses.replace(tiny_problem, validation=tiny_problem.validation.take([]))
  chex.assert_trees_all_equal(methods.muda(rounds=1)(none_left, KEY), results[0])
  some = _forgetting(none_left, np.arange(5))
  with pytest.raises(errors.InputError, match="stop_at='validation' needs validation images"):
    methods.muda(rounds=1)(some, KEY)


def test_a_forget_set_below_a_batch_weighs_its_share_of_one(tiny_problem):
  """A batch of 64 copies of one image, once as one image and once as 64."""
  one = dataclasses.replace(tiny_problem, forget=tiny_problem.forget.take([0]))
  many = dataclasses.replace(tiny_problem, forget=tiny_problem.forget.take([0] * 64))
  step = {'rounds': 1, 'forget_steps': 1, 'recover_epochs': 0, 'weight_decay': 0, 'momentum': 0}
  unlearn = methods.muda(**step, normalization='forget_only', stop_at='never')
  moved = [
    jax.tree.map(lambda a, b: np.asarray(a) - b, unlearn(p, KEY).params, p.original.params)
    for p in (one, many)
  ]
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved[1])) > 1e-3
  scaled = jax.tree.map(lambda leaf: leaf / 64, moved[1])
  chex.assert_trees_all_close(moved[0], scaled, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize('share, is_reached', [(0.95, True), (0.5, False)])
def test_alignment_loss_ends_at_the_alignment_of_the_retain_set(share, is_reached):
  """The first direction holds .9 of the retain features, and `share` of the forget features."""
  retain = np.zeros((40, 1, 2, 1), np.uint8)
  retain[:36, 0, 0], retain[36:, 0, 1] = 255, 255
  forget = np.zeros((40, 1, 2, 1), np.uint8)
  forget[:, 0, 0], forget[:, 0, 1] = round(255 * share**0.5), round(255 * (1 - share) ** 0.5)
  sets = [
    types.Dataset(images, (np.arange(40) % 2).astype(np.int32), np.arange(40).astype(str))
    for images in (retain, forget)
  ]

  def apply_fn(state, images, *, train):
    del train
    features = images.reshape(len(images), 2) @ state.params['kernel']
    return types.Outputs(features, features), {}

  def init_fn(key):
    del key
    return types.ModelState({'kernel': np.eye(2, dtype=np.float32)}, {})

  problem = types.Problem(
    apply_fn=apply_fn,
    init_fn=init_fn,
    original=init_fn(KEY),
    retain=sets[0],
    forget=sets[1],
    validation=sets[0],
    num_classes=2,
    devices=tuple(jax.devices()[:1]),
  )

  def kernel(weight, target):
    settings = {'energy': 0.85, 'da_weight': weight, 'da_target': target}
    one = methods.muda(rounds=1, recover_epochs=0, retain_fraction=1.0, **settings)
    return np.asarray(one(problem, KEY).params['kernel'])

  assert np.array_equal(kernel(10.0, 'retain'), kernel(0.0, 'retain')) == is_reached
  assert not np.array_equal(kernel(10.0, 'highest'), kernel(0.0, 'highest'))


@pytest.mark.parametrize(
  ('settings', 'steps'),
  [
    ({'recover_epochs': 0.01, 'forget_steps': 3}, {'forget': 3, 'recover': 12}),
    ({'recover_epochs': 2, 'forget_steps': 1}, {'forget': 1, 'recover': 6}),
    ({'recover_epochs': 0, 'forget_steps': 3}, {'forget': 3}),
  ],
)
def test_muda_recovers_for_at_least_four_steps_for_each_of_forgetting(
  tiny_problem, settings, steps
):
  """However small the retain set is; and not at all where that is asked for."""
  seen = {}

  class Seen(types.Monitor):
    def on_step(self, phase, done, total):
      seen[phase] = total

  size = math.ceil(len(tiny_problem.retain) / 3)  # three batches a pass
  problem = dataclasses.replace(tiny_problem, monitor=Seen())
  methods.muda(rounds=1, batch_size=size, retain_fraction=1.0, **settings)(problem, KEY)
  assert seen == steps


def test_muda_serves_networks_without_batch_norm(tiny_problem):
  start = tiny.init_fn(KEY)
  plain = tiny.problem(types.ModelState(start.params, {}), apply_fn=tiny.apply_without_batch_norm)
  result = methods.muda(rounds=2)(plain, KEY)
  chex.assert_tree_all_finite(result)
  assert result.batch_stats == {}


@pytest.mark.parametrize(
  ('hparams', 'message'),
  [
    ({'teacher': 'gold'}, 'teacher must be one of'),
    ({'da_target': 'gold'}, 'da_target must be one of'),
    ({'basis_source': 'gold'}, 'basis_source must be one of'),
    ({'normalization': 'layer'}, 'normalization must be one of'),
    ({'energy': 0.0}, 'energy must be in'),
    ({'retain_fraction': 2.0}, 'retain_fraction must be in'),
    ({'differentiate_basis': True}, "needs basis_source='batch'"),
  ],
)
def test_bad_hyper_parameters_are_named(hparams, message):
  with pytest.raises(ValueError, match=message):
    methods.muda(**hparams)


def test_gold_is_what_class_forgetting_ends_at_in_closed_form():
  """One linear layer on orthogonal one-hot images: unlearning leaves the other classes alone."""
  images = np.zeros((40, 4, 1, 1), np.uint8)
  labels = (np.arange(40) % 4).astype(np.int32)
  images[np.arange(40), labels] = 255
  data = types.Dataset(images, labels, np.array([str(i) for i in range(40)]))

  def apply_fn(state, images, *, train):
    del train
    features = images.reshape(len(images), -1)
    return types.Outputs(features @ state.params['head'], features), {}

  def init_fn(key):
    del key
    return types.ModelState({'head': np.eye(4, dtype=np.float32) * 5}, {})

  problem = types.Problem(
    apply_fn=apply_fn,
    init_fn=init_fn,
    original=init_fn(KEY),
    retain=data.take(np.flatnonzero(labels != 3)),
    forget=data.take(np.flatnonzero(labels == 3)),
    validation=data,
    num_classes=4,
    devices=tuple(jax.devices()[:1]),
  )
  result = methods.muda(
    rounds=30, learning_rate=0.5, weight_decay=0.0, batch_size=30, retain_fraction=1.0
  )(problem, KEY)
  head = jnp.asarray(result.params['head'])
  # Rows of the retained classes see retain data alone; the forgotten row tends to the teacher's
  # distribution over the other classes: uniform.
  probabilities = jax.nn.softmax(head[3])
  chex.assert_trees_all_close(probabilities[:3], jnp.full(3, 1 / 3), atol=0.03)
  assert head[:3, :3].argmax(axis=1).tolist() == [0, 1, 2]

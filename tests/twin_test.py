"""The twin problem: signal and no signal, what it may see, and what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn import metrics

from dalign_jax import objectives, twin, types
from tests import noisy

KEY = jax.random.key(5)


@pytest.fixture(scope='module')
def mislabelled():
  return noisy.problem()


@pytest.fixture(scope='module')
def found(mislabelled):
  return twin.predict(mislabelled[0], KEY)


def test_the_problem_is_what_it_should_be(mislabelled):
  problem, has_own_label = mislabelled
  assert objectives.accuracy_on(problem, problem.original, problem.forget) > 0.95
  gold = noisy.fit(problem, problem.retain)
  right = objectives.logits_of(problem, gold, problem.forget).argmax(1) == problem.forget.labels
  assert right[has_own_label].mean() > 0.6 and right[~has_own_label].mean() < 0.2


def test_prediction_tells_what_gold_will_know(mislabelled, found):
  problem, has_own_label = mislabelled
  assert metrics.roc_auc_score(has_own_label, found.chance) > 0.8
  assert metrics.roc_auc_score(found.held_out_easy, found.held_out_chance) > 0.7
  assert found.easy[has_own_label].mean() > found.easy[~has_own_label].mean() + 0.3
  right = objectives.original_logits(problem, problem.validation).argmax(1)
  np.testing.assert_array_equal(found.held_out_easy, right == problem.validation.labels)


def test_as_many_held_out_examples_are_called_easy_as_the_original_gets_right(found):
  called = found.held_out_chance > found.threshold
  assert abs(int(called.sum()) - int(found.held_out_easy.sum())) <= 1
  np.testing.assert_array_equal(found.easy, found.chance > found.threshold)
  assert found.features.shape == (120, 3) and found.held_out_features.shape == (280, 3)
  assert all(isinstance(value, np.ndarray | np.generic) for value in found)


def test_all_are_easy_where_the_original_is_always_right_but_for_classes_that_went(
  mislabelled, monkeypatch
):
  problem, _ = mislabelled
  labels = problem.retain.labels
  gone = np.unique(problem.forget.labels)[0]
  rows = np.flatnonzero(labels != gone)
  problem = dataclasses.replace(problem, retain=problem.retain.take(rows))
  right = np.eye(10)[problem.validation.labels]
  monkeypatch.setattr(objectives, 'original_logits', lambda *_: right)
  monkeypatch.setattr(twin, '_check_counts', lambda _: None)
  monkeypatch.setattr(twin, '_twin', lambda problem, *_: problem.original)
  monkeypatch.setattr(twin, '_curriculum', lambda problem, *_: problem.original)
  monkeypatch.setattr(twin, '_measure', lambda *_: (np.zeros((280, 5)), np.zeros((120, 5))))
  monkeypatch.setattr(twin, 'learn', lambda *_: (np.full(120, 0.1), np.linspace(0.2, 0.9, 280)))
  found = twin.predict(problem, KEY)
  np.testing.assert_array_equal(found.easy, problem.forget.labels != gone)


def test_the_twin_has_learned_the_held_out_data(mislabelled):
  problem, _ = mislabelled
  trained = types.concatenate(problem.retain, problem.forget)
  made = twin._twin(problem, trained, KEY, 20, 0.05)
  before = objectives.accuracy_on(problem, problem.original, problem.validation)
  after = objectives.accuracy_on(problem, made, problem.validation)
  assert after > before + 0.15
  assert objectives.accuracy_on(problem, made, trained) > 0.9


@pytest.mark.parametrize(
  ('recipe', 'rate', 'rows'),
  [
    ({'learning_rate': 0.05}, 0.01, 16),
    ({'learning_rate': 0.75}, 0.05, 16),  # no fifth: it would ruin a network that is trained
    ({'optimizer': 'adamw', 'learning_rate': 0.001}, 0.01, 16),
    ({'learning_rate': 0.05, 'batch_size': 31}, 0.01, 31),  # it has no half
  ],
)
def test_the_twin_s_rate_and_batch_follow_the_recipe(recipe, rate, rows, mislabelled, monkeypatch):
  problem, _ = mislabelled
  problem = dataclasses.replace(problem, recipe=dataclasses.replace(problem.recipe, **recipe))
  rates, sizes = [], []
  monkeypatch.setattr(twin.optim, 'sgd', lambda rate, **more: rates.append(rate))
  monkeypatch.setattr(
    twin.training, 'minimize', lambda *arguments, **more: sizes.append(more['batch_size'])
  )
  monkeypatch.setattr(twin.parallel, 'num_devices', lambda devices: 1)
  twin._twin(problem, problem.retain, KEY, 1, None)
  assert (rates, sizes) == ([pytest.approx(rate)], [rows])


def test_the_twin_stops_short_of_the_last_images(mislabelled, monkeypatch):
  problem, _ = mislabelled
  shown = {'start': 0.8, 'short': 0.969, 'there': 0.971}  # forget 0.99: nine tenths are 0.971

  def accuracy(_, model, dataset):
    if dataset.ids[0] in problem.forget.ids:
      return 0.99
    return shown['start' if model is problem.original else model]

  monkeypatch.setattr(objectives, 'accuracy_on', accuracy)
  kept = {}
  monkeypatch.setattr(twin.training, 'minimize', lambda *_, **options: kept.update(options))
  twin._twin(problem, problem.retain, KEY, 20, 0.05)
  assert [kept['stop_fn'](model) for model in ('short', 'there')] == [False, True]


def test_no_twin_is_made_for_the_network_from_scratch_alone(mislabelled, monkeypatch):
  problem, has_own_label = mislabelled
  monkeypatch.setattr(twin, '_twin', lambda *_: pytest.fail('a twin was made'))
  found = twin.predict(problem, KEY, features=('curriculum',))
  assert metrics.roc_auc_score(has_own_label, found.chance) > 0.7


def test_the_network_from_scratch_makes_twice_the_steps(mislabelled, monkeypatch):
  problem, _ = mislabelled
  recipes = []
  monkeypatch.setattr(
    twin.training, 'fit', lambda apply_fn, model, data, recipe, *_, **more: recipes.append(recipe)
  )
  monkeypatch.setattr(twin.parallel, 'num_devices', lambda devices: 1)
  for size in (32, 31):
    changed = dataclasses.replace(problem.recipe, batch_size=size, learning_rate=0.2)
    twin._curriculum(dataclasses.replace(problem, recipe=changed), problem.retain, KEY, 3)
  assert [(r.batch_size, r.learning_rate, r.num_epochs) for r in recipes] == [
    (16, 0.1, 3),
    (31, 0.2, 3),  # it has no halves
  ]


def test_equal_keys_give_equal_predictions_and_gold_is_never_seen(mislabelled, found):
  problem, has_own_label = mislabelled
  told = noisy.told(problem, ~has_own_label)
  for mine, other in zip(twin.predict(told, KEY), found, strict=True):
    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize('predictor', twin.PREDICTORS)
def test_predictor_finds_a_signal_and_none_in_noise(predictor):
  rng = np.random.default_rng(0)
  is_easy, target_is_easy = rng.random(400) < 0.6, rng.random(300) < 0.6
  shown = lambda easy: rng.normal(size=(len(easy), 3)) - 1.5 * easy[:, None] * np.array([[1, 0, 0]])
  features, target = shown(is_easy), shown(target_is_easy)
  chance, own = twin.learn(predictor, features, is_easy, target)
  assert chance.min() >= 0 and chance.max() <= 1
  assert metrics.roc_auc_score(target_is_easy, chance) > 0.8
  assert metrics.roc_auc_score(is_easy, own) > 0.8
  assert abs(chance.mean() - 0.6) < 0.08  # calibrated
  noise = rng.permutation(is_easy)
  chance, own = twin.learn(predictor, features, noise, target)
  assert abs(metrics.roc_auc_score(noise, own) - 0.5) < 0.09  # three standard deviations
  assert abs(metrics.roc_auc_score(target_is_easy, chance) - 0.5) < 0.5


def test_features_are_standardised_by_their_own_side():
  rng = np.random.default_rng(1)
  features, reference = rng.normal(size=(50, 3)), rng.normal(size=(80, 3))
  features[:, 2] = reference[:, 2] = 4.0
  found = twin._standardize(1000 * features - 7, 1000 * reference - 7)
  np.testing.assert_allclose(found, twin._standardize(features, reference), atol=1e-9)
  np.testing.assert_array_equal(found[:, 2], 0.0)
  own = twin._standardize(reference, reference)[:, :2]
  np.testing.assert_allclose([own.mean(axis=0), own.std(axis=0)], [[0, 0], [1, 1]], atol=1e-9)


def test_reference_examples_are_left_out_of_the_neighbours(tiny_problem):
  retain = tiny_problem.retain
  for size in (30, 10_000):
    reference, kept = twin._draw(retain, size, KEY)
    assert len(reference) == min(size, len(retain) // 2)
    assert {*reference.ids, *kept.ids} == {*retain.ids}
    assert not {*reference.ids} & {*kept.ids}


def test_as_many_forget_examples_are_called_easy_as_held_out_ones(mislabelled):
  """Both are drawn alike, and the twin knows V less deeply: that shift must not count."""
  problem, _ = mislabelled
  for features in (('margin',), ('distance', 'curriculum')):
    found = twin.predict(problem, KEY, features=features)
    assert abs(found.easy.mean() - found.held_out_easy.mean()) < 0.15


def test_classes_that_leave_whole_are_never_easy(tiny_problem):
  found = twin.predict(tiny_problem, KEY, twin_epochs=1, features=('margin',))
  assert not found.easy.any() and not found.chance.any()
  assert found.names.tolist() == ['margin']


def _easy_to_spoil(problem, right, wrong):
  """Validation data of which the original gets so many right and so many wrong."""
  is_right = objectives.original_logits(problem, problem.validation).argmax(1)
  is_right = is_right == problem.validation.labels
  rows = np.concatenate([np.flatnonzero(is_right)[:right], np.flatnonzero(~is_right)[:wrong]])
  return problem.validation.take(rows)


def test_held_out_data_that_do_not_do_are_named(mislabelled):
  problem, _ = mislabelled
  validation = problem.validation
  lacking = validation.take(np.flatnonzero(~np.isin(validation.labels, (2, 5))))
  for held_out, message in (
    (validation.take(np.arange(0)), 'validation is empty'),
    (lacking, r'validation must hold the classes to forget, it lacks \[2, 5\]'),
    (_easy_to_spoil(problem, 150, 4), r'at least 5 .* got 150 and 4; hold out more'),
    (_easy_to_spoil(problem, 0, 80), r'at least 5 .* got 0 and 80'),
  ):
    with pytest.raises(types.DataError, match=message):
      twin.predict(dataclasses.replace(problem, validation=held_out), KEY)


def test_unknown_choices_are_named(mislabelled):
  problem, _ = mislabelled
  with pytest.raises(ValueError, match="predictor must be one of logistic, mlp, got 'tree'"):
    twin.predict(problem, KEY, predictor='tree')
  with pytest.raises(ValueError, match='features must be some of distance'):
    twin.predict(problem, KEY, features=('depth',))

"""Datamodels: known weights are found, what cannot be known is refused; matching moves there."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from dalign_jax import datamodels, errors, methods, objectives, types
from dalign_jax.methods import _matching

KEY = jax.random.key(0)


def _subsets(num_models, num_examples, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((num_models, num_examples)) < 2 / 3


def test_weights_of_a_linear_model_are_found():
  """Many models, few examples: outputs that are linear in the subset are predicted exactly."""
  rng = np.random.default_rng(1)
  is_trained = _subsets(400, 12)
  weights = rng.normal(size=(12, 15, 3))  # of 12 training and 3 held-out examples, 3 outputs
  outputs = 5.0 + np.einsum('kn,nmc->kmc', is_trained, weights)
  own = np.where(np.arange(15) < 12, np.arange(15), -1)
  removed = np.arange(12) >= 9
  found = datamodels.effect(outputs, is_trained, removed, own)
  np.testing.assert_allclose(found, weights[removed].sum(axis=0), atol=0.15)


def test_own_weight_is_found_with_fewer_models_than_examples():
  """What memorisation adds is not spread over all examples, as by ridge alone."""
  rng = np.random.default_rng(2)
  is_trained = _subsets(48, 300)
  outputs = 4.0 * is_trained[:, :, None] + rng.normal(size=(48, 300, 1))
  removed = np.arange(300) < 30
  found = datamodels.effect(outputs, is_trained, removed, np.arange(300))[:, 0]
  assert abs(found[:30].mean() - 4.0) < 0.3 and abs(found[30:].mean()) < 0.3


def test_noise_predicts_next_to_nothing():
  rng = np.random.default_rng(3)
  is_trained, outputs = _subsets(60, 200), rng.normal(size=(60, 50, 2))
  removed, held_out = np.arange(200) < 100, np.full(50, -1)
  found = datamodels.effect(outputs, is_trained, removed, held_out)
  assert np.median(np.abs(found)) < 0.5  # least squares of minimal norm gives more
  assert np.std(found) < 1.5


def test_halves_of_the_forget_set_say_nothing_of_the_whole():
  rng = np.random.default_rng(0)
  halves = np.stack([rng.permutation(20) < 10 for _ in range(16)])
  with pytest.raises(errors.InputError, match='equally many of the removed examples'):
    datamodels.effect(np.ones((16, 20, 2)), halves, np.ones(20, bool), np.arange(20))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'outputs': np.ones((5, 4, 2))}, 'outputs must be'),
    ({'removed': np.zeros(6, bool)}, 'removed must name some of 6 examples'),
    ({'is_trained': np.ones((8, 6), bool)}, 'in some training sets and not in others'),
  ],
)
def test_bad_arrays_are_refused(change, message):
  given = {
    'outputs': np.ones((8, 4, 2)),
    'is_trained': _subsets(8, 6),
    'removed': np.arange(6) < 1,
    'own': np.arange(4),
  }
  with pytest.raises(errors.InputError, match=message):
    datamodels.effect(**{**given, **change})


def test_agreement_tells_a_prediction_from_no_change():
  rng = np.random.default_rng(0)
  original, change = rng.normal(5, 1, 200), rng.exponential(2, 200)
  gold = original - change
  half = datamodels.agreement(original - change / 2, original, gold)
  assert half.changes == pytest.approx(1) and half.slope == pytest.approx(2)
  assert half.margins > half.before
  none = datamodels.agreement(original, original, gold)
  assert none.margins == pytest.approx(none.before) and np.isnan(none.slope)


def test_matching_arrives_at_its_targets(tiny_problem):
  """Both matchings move the outputs towards their targets, on forget and on retain examples."""
  gold = jax.tree.map(lambda x: 0.5 * x, tiny_problem.original.params)
  gold = types.ModelState(gold, tiny_problem.original.batch_stats)
  sets = {name: getattr(tiny_problem, name) for name in ('retain', 'forget')}
  logits = {n: objectives.logits_of(tiny_problem, gold, data) for n, data in sets.items()}
  problem = dataclasses.replace(tiny_problem, gold_logits=logits)
  model = methods.oracle_matching(num_epochs=5)(problem, KEY)
  for name, dataset in sets.items():
    target = _matching._centred(logits[name])
    distance = lambda m, d=dataset, t=target: np.mean(
      (_matching._centred(objectives.logits_of(problem, m, d)) - t) ** 2
    )
    assert distance(model) < 0.3 * distance(problem.original), name


def test_predictions_are_those_of_the_datamodel(tiny_problem):
  """A datamodel that says forget images lose all of their class's logit lowers it in training."""
  sizes = [len(getattr(tiny_problem, n)) for n in ('retain', 'forget', 'validation')]
  is_trained = _subsets(60, sum(sizes[:2]))
  effects = np.zeros((60, sum(sizes), 10))
  forget = slice(sizes[0], sum(sizes[:2]))
  effects[:, forget, 3] = 10.0 * is_trained[:, forget]
  problem = dataclasses.replace(
    tiny_problem, subset_outputs=types.SubsetOutputs(is_trained, effects)
  )
  found = _matching.predicted_logits(problem, problem.subset_outputs)
  before = _matching._centred(objectives.original_logits(problem, problem.forget))
  np.testing.assert_allclose(found['forget'][:, 3], before[:, 3] - 9.0, atol=0.5)
  model = methods.datamodel_matching(num_epochs=5)(problem, KEY)
  assert objectives.accuracy_on(problem, model, problem.forget) < 0.2
  assert objectives.accuracy_on(problem, model, problem.retain) > 0.9


def test_matching_needs_no_validation_images(tiny_problem):
  sizes = [len(getattr(tiny_problem, name)) for name in ('retain', 'forget')]
  outputs = types.SubsetOutputs(_subsets(60, sum(sizes)), np.zeros((60, sum(sizes), 10)))
  problem = dataclasses.replace(
    tiny_problem, validation=tiny_problem.validation.take([]), subset_outputs=outputs
  )
  assert _matching.predicted_logits(problem, outputs).keys() == {'retain', 'forget'}
  assert not _matching.predicted_logits(problem, outputs, ('validation',))
  methods.datamodel_matching(num_epochs=1)(problem, KEY)


def test_matching_without_its_models_is_refused(tiny_problem):
  bare = dataclasses.replace(tiny_problem, gold_logits=None, subset_outputs=None)
  with pytest.raises(types.DataError, match=r'problem\.subset_outputs'):
    methods.datamodel_matching()(bare, KEY)
  with pytest.raises(errors.InputError, match='a control of benchmarks'):
    methods.oracle_matching()(bare, KEY)
  other = tiny_problem.subset_outputs._replace(logits=np.zeros((12, 5, 10), np.float32))
  with pytest.raises(errors.InputError, match='subset_outputs must be of'):
    methods.datamodel_matching()(dataclasses.replace(bare, subset_outputs=other), KEY)


def test_matching_sees_gold_only_as_a_control(tiny_problem):
  method = methods.datamodel_matching(num_epochs=1)
  untold = dataclasses.replace(tiny_problem, gold_logits=None)
  chex.assert_trees_all_equal(method(tiny_problem, KEY), method(untold, KEY))
  assert methods.GOLD in methods.METHODS['oracle_matching'].sees
  assert methods.GOLD not in methods.METHODS['datamodel_matching'].sees

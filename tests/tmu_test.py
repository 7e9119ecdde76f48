"""TMU: the division is what is forgotten by, gold is not seen, and controls are controls."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from dalign_jax import methods, objectives, twin, types
from dalign_jax.methods import _tmu
from tests import noisy

KEY = jax.random.key(6)
QUICK = {'features': 'margin+distance', 'batch_size': 32}


class Recorder(types.Monitor):
  """Keeps what a method tells."""

  def __init__(self):
    self.arrays, self.metrics = {}, []

  def on_arrays(self, name, get_arrays):
    self.arrays[name] = get_arrays()

  def on_epoch(self, epoch, get_state, metrics):
    self.metrics.append(metrics)


@pytest.fixture(scope='module')
def mislabelled():
  return noisy.problem()


def _right(problem, model):
  return objectives.logits_of(problem, model, problem.forget).argmax(1) == problem.forget.labels


def test_gold_is_seen_by_the_oracle_alone(mislabelled):
  problem, has_own_label = mislabelled
  told = noisy.told(problem, has_own_label)
  for easy in ('predicted', 'random', 'none'):
    method = methods.tmu(easy=easy, num_epochs=1, **QUICK)
    chex.assert_trees_all_equal(method(told, KEY), method(problem, KEY))
  oracle = methods.tmu(easy='oracle', num_epochs=1, **QUICK)
  other = noisy.told(problem, ~has_own_label)
  a, b = (model.params['head']['kernel'] for model in (oracle(told, KEY), oracle(other, KEY)))
  assert np.abs(a - b).max() > 1e-3
  with pytest.raises(ValueError, match=r"easy='oracle' needs problem\.gold_logits"):
    oracle(problem, KEY)


@pytest.mark.parametrize('teacher', _tmu.TEACHERS)
def test_hard_examples_lose_accuracy_and_easy_ones_keep_it(teacher, mislabelled):
  problem, _ = mislabelled
  is_easy = np.arange(len(problem.forget)) % 2 == 0
  told = noisy.told(problem, is_easy)
  assert _right(problem, problem.original).mean() > 0.95
  method = methods.tmu(easy='oracle', teacher=teacher, hard_weight=3.0, num_epochs=15)
  model = method(told, KEY)
  right = _right(problem, model)
  assert right[is_easy].mean() > right[~is_easy].mean() + 0.3
  assert objectives.accuracy_on(problem, model, problem.retain) > 0.8


def test_the_masked_teacher_leaves_hard_examples_what_they_resemble(mislabelled):
  """Where the papers' teacher pulls them to no class at all."""
  problem, _ = mislabelled
  told = noisy.told(problem, np.zeros(len(problem.forget), bool))
  logits = objectives.original_logits(problem, problem.forget).copy()
  logits[np.arange(len(logits)), problem.forget.labels] = -np.inf
  share = {}
  for teacher in ('masked', 'uninformed'):
    method = methods.tmu(easy='oracle', teacher=teacher, num_epochs=10, batch_size=32)
    found = objectives.logits_of(problem, method(told, KEY), problem.forget).argmax(1)
    is_wrong = found != problem.forget.labels
    share[teacher] = np.mean(is_wrong & (found == logits.argmax(1)))
  assert share['masked'] > share['uninformed'] + 0.2


def test_prediction_is_followed_and_told(mislabelled):
  problem, has_own_label = mislabelled
  recorder = Recorder()
  watched = dataclasses.replace(problem, monitor=recorder)
  model = methods.tmu(num_epochs=15, hard_weight=3.0, batch_size=32)(watched, KEY)
  found = recorder.arrays['prediction']
  right = _right(problem, model)
  assert right[found['easy']].mean() > right[~found['easy']].mean() + 0.2
  assert right[has_own_label].mean() > right[~has_own_label].mean() + 0.1
  assert all(np.asarray(values).dtype != object for values in found.values())


def test_controls_share_the_predicted_share(mislabelled):
  problem, _ = mislabelled
  keys = tuple(jax.random.split(KEY))
  predict = functools.partial(twin.predict, features=('margin',))
  divide = lambda easy: _tmu._division(problem, easy, predict, keys)
  (predicted, share), (drawn, drawn_share), (none, none_share) = map(
    divide, ('predicted', 'random', 'none')
  )
  assert share == drawn_share == none_share == predicted.mean()
  assert drawn.sum() == predicted.sum() and 0 < np.mean(drawn != predicted) < 1
  assert not none.any()


def test_it_stops_at_the_easy_share(mislabelled):
  problem, _ = mislabelled
  told = lambda known: noisy.told(problem, np.full(120, known))
  method = methods.tmu(easy='oracle', num_epochs=3)
  chex.assert_trees_all_equal(method(told(True), KEY), problem.original)  # 1 is the target
  recorder = Recorder()
  watched = dataclasses.replace(problem, monitor=recorder)
  method = methods.tmu(easy='none', num_epochs=30, hard_weight=3.0, **QUICK)
  model = method(watched, KEY)
  share = np.mean(recorder.arrays['prediction']['easy'])
  trained = [bool(metrics) for metrics in recorder.metrics]
  assert trained == sorted(trained, reverse=True) and not trained[-1]
  assert _right(problem, model).mean() <= share


@pytest.mark.parametrize(
  ('forget', 'retain', 'stops'),
  [
    (0.62, 0.98, False),  # not there yet
    (0.6, 0.98, True),
    (0.585, 0.965, True),
    (0.5, 0.98, False),  # the easy ones can come back
    (0.59, 0.9, False),  # on its way up from below, not repaired
  ],
)
def test_it_goes_on_below_the_easy_share_and_while_damaged(
  forget, retain, stops, mislabelled, monkeypatch
):
  model = {'forget': forget, 'retain': retain}
  problem = dataclasses.replace(mislabelled[0], original={'forget': 1.0, 'retain': 0.98})
  accuracy = lambda problem, model, data: model['forget' if data is problem.forget else 'retain']
  monkeypatch.setattr(objectives, 'accuracy_on', accuracy)
  assert _tmu._has_arrived(problem, 0.6, True)(model) == stops
  assert _tmu._has_arrived(problem, 0.6, False)(model) == (forget <= 0.6)  # a control
  whole_class = _tmu._has_arrived(problem, 0.0, False)  # repairs as well
  assert whole_class({**model, 'forget': 0.0}) == (retain > 0.9)


def test_damage_is_seen_however_few_are_forgotten(mislabelled, monkeypatch):
  """With one image to forget, one retain image cannot tell that the others are lost."""
  one = dataclasses.replace(mislabelled[0], forget=mislabelled[0].forget.take([0]))
  seen = []

  def accuracy(problem, model, dataset):
    if dataset is problem.forget:
      return 0.0
    seen.append(len(dataset))
    return 1.0 if model is problem.original else 0.97

  monkeypatch.setattr(objectives, 'accuracy_on', accuracy)
  assert not _tmu._has_arrived(one, 0.0, False)('another model')
  assert set(seen) == {min(1000, len(one.retain))}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'easy': 'some'}, "easy must be one of predicted, random, none, oracle, got 'some'"),
    ({'teacher': 'good'}, "teacher must be one of uninformed, random_label, masked, got 'good'"),
    ({'predictor': 'tree'}, "predictor must be one of logistic, mlp, got 'tree'"),
    ({'features': 'margin+depth'}, r"features must be some of .*, got \['margin', 'depth'\]"),
    ({'features': ''}, 'features must be some of'),
  ],
)
def test_bad_choices_are_refused_before_any_work(changes, message):
  with pytest.raises(ValueError, match=message):
    methods.tmu(**changes)

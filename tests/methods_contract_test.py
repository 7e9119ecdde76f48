"""What every method promises, whatever it does."""

import dataclasses
import inspect

import chex
import jax
import numpy as np
import pytest

from dalign_jax import methods, prediction, training, types

KEY = jax.random.key(7)
QUICK = {'num_epochs': 2, 'rounds': 2, 'impair_epochs': 1, 'repair_epochs': 1}
REDRAWS = (
  'eu_k',
  'msg',
  'noisy_finetune',
)  # start from a model that is partly new, before their first epoch


class Keeping(types.Monitor):
  """Keeps the newest state, as `store.progress.RunMonitor` does on disk."""

  kept = None

  def restore(self, template):
    del template
    return self.kept

  def on_epoch(self, epoch, get_state, metrics):
    self.kept = epoch + 1, get_state()


def _lengths(name):
  parameters = inspect.signature(methods.METHODS[name].make).parameters
  return [p for p in QUICK if p in parameters]


def _make(name, **changes):
  hparams = {p: QUICK[p] for p in _lengths(name)}
  return methods.METHODS[name].make(**{**hparams, **changes})


def _forget_logits(problem, model):
  return prediction.predict(
    problem.apply_fn, model, problem.forget.images, devices=problem.devices
  ).logits


@pytest.fixture(scope='module')
def results(tiny_problem):
  """Each method's result on one device, computed once."""
  cache = {}

  def result(name) -> types.ModelState:
    if name not in cache:
      cache[name] = _make(name)(tiny_problem, KEY)
    return cache[name]

  return result


@pytest.mark.parametrize('name', methods.METHODS)
class TestContract:
  def test_result_is_a_finite_model_of_the_same_kind(self, name, results, tiny_problem):
    result = results(name)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, tiny_problem.original)
    chex.assert_tree_all_finite(result)

  def test_result_differs_from_the_original_on_the_forget_set(self, name, results, tiny_problem):
    before = _forget_logits(tiny_problem, tiny_problem.original)
    after = _forget_logits(tiny_problem, results(name))
    assert np.abs(after - before).max() > 1e-3

  def test_same_key_gives_the_same_bits_and_leaves_the_original(self, name, results, tiny_problem):
    """Also under a monitor that keeps states.

    A method of several trainings must not go on in the second where the first ended.
    """
    kept = jax.tree.map(np.array, tiny_problem.original)
    watched = dataclasses.replace(tiny_problem, monitor=Keeping())
    chex.assert_trees_all_equal(_make(name)(watched, KEY), results(name))
    chex.assert_trees_all_equal(tiny_problem.original, kept)

  def test_four_devices_equal_one(self, name, results, tiny_problem):
    several = dataclasses.replace(tiny_problem, devices=tuple(jax.devices()))
    # The functions are compared: a bias before batch normalisation has no gradient but rounding,
    # which Adam scales up, and no effect.
    images = tiny_problem.validation.images
    outputs = [
      prediction.predict(tiny_problem.apply_fn, model, images, devices=tiny_problem.devices)
      for model in (_make(name)(several, KEY), results(name))
    ]
    chex.assert_trees_all_close(*outputs, rtol=2e-3, atol=2e-3)

  def test_zero_epochs_return_the_original(self, name, tiny_problem):
    if not _lengths(name) or name in REDRAWS:
      pytest.skip('has no epochs of its own, or starts from new weights')
    zero = _make(name, **{p: 0 for p in _lengths(name)})(tiny_problem, KEY)
    chex.assert_trees_all_equal(zero, tiny_problem.original)

  def test_a_phase_of_no_epochs_is_left_out(self, name, tiny_problem):
    parameters = inspect.signature(methods.METHODS[name].make).parameters
    phases = [p for p in parameters if p.endswith('_epochs') and p != 'num_epochs']
    if not phases:
      pytest.skip('has no phases')
    for phase in phases:
      chex.assert_tree_all_finite(_make(name, **{phase: 0})(tiny_problem, KEY))

  def test_more_epochs_compile_nothing_more(self, name, tiny_problem):
    if not _lengths(name):
      pytest.skip('has no epochs of its own')

    def traces(epochs):
      count = 0

      def apply_fn(state, images, *, train):
        nonlocal count
        count += 1
        return tiny_problem.apply_fn(state, images, train=train)

      problem = dataclasses.replace(tiny_problem, apply_fn=apply_fn)
      _make(name, **{p: epochs for p in _lengths(name)})(problem, KEY)
      return count

    assert 0 < traces(1) == traces(3)

  def test_hyper_parameters_are_keyword_only_with_defaults(self, name, tiny_problem):
    del tiny_problem
    for parameter in inspect.signature(methods.METHODS[name].make).parameters.values():
      assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
      assert parameter.default is not inspect.Parameter.empty


def test_typo_in_a_hyper_parameter_fails():
  with pytest.raises(TypeError, match='da_wieght'):
    methods.muda(da_wieght=1.0)


@pytest.mark.parametrize(
  ('name', 'changes', 'has_unseen', 'seen'),
  [
    ('muda', {'retain_fraction': 0.1, 'stop_at': 'never'}, True, 'forget, part of retain'),
    ('muda', {}, True, 'all retain, forget, validation'),
    ('bad_teacher', {'retain_fraction': 1.0}, False, 'all retain, forget images'),
    ('scrub', {'rewind': True}, False, 'all retain, forget, validation'),
    ('dlfd', {}, True, 'all retain, forget, validation, unseen people'),
    ('dlfd', {}, False, 'all retain, forget, validation'),
  ],
)
def test_what_a_method_sees_follows_its_hyper_parameters(name, changes, has_unseen, seen):
  parameters = inspect.signature(methods.METHODS[name].make).parameters
  hparams = {key: parameter.default for key, parameter in parameters.items()} | changes
  assert methods.in_words(methods.sees(name, hparams, has_unseen=has_unseen)) == seen


def test_planted_leak_anneals_over_its_own_epochs(tiny_problem, monkeypatch):
  """The schedule ends with the training, whatever the recipe's length."""
  lengths = []
  make = training.recipe_optimizer

  def recipe_optimizer(recipe, num_examples):
    lengths.append(recipe.num_epochs)
    return make(recipe, num_examples)

  monkeypatch.setattr(training, 'recipe_optimizer', recipe_optimizer)
  methods.planted_leak(num_epochs=1)(tiny_problem, KEY)
  methods.planted_leak()(tiny_problem, KEY)
  assert lengths == [1, tiny_problem.recipe.num_epochs] and lengths[0] != lengths[1]

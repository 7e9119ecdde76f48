"""Methods compile few programs, once for all models, and keep no data."""

import dataclasses
import gc
import inspect
import weakref

import jax
import numpy as np
import pytest

from dalign_jax import (
  difficulty,
  importance,
  methods,
  optim,
  parallel,
  prediction,
  training,
  types,
)
from dalign_jax.training import _steps
from tests import tiny

KEY = jax.random.key(7)
QUICK = {
  **dict.fromkeys(('num_epochs', 'rounds', 'impair_epochs', 'repair_epochs'), 1),
  **{'num_copies': 1, 'num_noises': 2, 'noise_steps': 1},
}
MOST = 6  # programs of a first run
# More where a method is made of more: tmu of the trainings of a twin and of two networks from
# scratch, and of its difficulty features; muda of a moment over several batches, which are added.
MORE = {'tmu': 11, 'muda': 7}


def quick(name):
  """A method at its shortest."""
  parameters = inspect.signature(methods.METHODS[name].make).parameters
  return methods.METHODS[name].make(**{p: QUICK[p] for p in QUICK if p in parameters})


def _run(name):
  unlearn = quick(name)
  return lambda problem: unlearn(problem, KEY)


def _ensemble(problem):
  starts, keys = [problem.original, problem.init_fn(KEY)], [KEY, jax.random.key(9)]
  return training.fit_ensemble(
    problem.apply_fn, starts, problem.retain, problem.recipe, keys, devices=problem.devices
  )


def _on_forget(fn):
  return lambda p: fn(p.apply_fn, p.original, p.forget, devices=p.devices)


BLOCKS = {
  'absolute_gradients': _on_forget(importance.absolute_gradients),
  'mean_gradient': _on_forget(importance.mean_gradient),
  'squared_gradients': _on_forget(importance.squared_gradients),
  'fisher_product': lambda p: _on_forget(importance.fisher_product)(p)(p.original.params),
  'difficulty': lambda p: difficulty.measure(
    p.apply_fn, p.original, p.original, p.forget, p.retain, devices=p.devices
  ),
  'fit': lambda p: training.fit(p.apply_fn, p.original, p.retain, p.recipe, KEY, devices=p.devices),
  'fit_ensemble': _ensemble,
  'second_moment': lambda p: prediction.second_moment(
    p.apply_fn, p.original, p.retain.images, devices=p.devices
  ),
}
RUNS = {**{name: _run(name) for name in methods.METHODS}, **BLOCKS}


@pytest.fixture(scope='module')
def compiled():
  """A list that gets an entry with each program that the backend compiles."""
  programs = []

  def listen(event, duration, **names):
    del duration
    if event == '/jax/core/compile/backend_compile_duration':
      programs.append(names.get('fun_name'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield programs
  jax.monitoring.unregister_event_duration_listener(listen)


def _other(problem) -> types.Problem:
  """Other weights, and other data in sets of equal size."""
  rng = np.random.default_rng(3)
  sets = {name: getattr(problem, name) for name in ('retain', 'forget', 'validation')}
  shuffled = {name: d.take(rng.permutation(len(d))) for name, d in sets.items()}
  original = jax.tree.map(lambda x: np.asarray(x) * np.float32(0.99), problem.original)
  return dataclasses.replace(problem, original=original, **shuffled)


@pytest.mark.parametrize('name', RUNS)
def test_a_second_model_compiles_nothing(name, tiny_problem, compiled):
  other = _other(tiny_problem)
  jax.clear_caches()
  compiled.clear()
  RUNS[name](tiny_problem)
  assert 0 < len(compiled) <= MORE.get(name, MOST), compiled
  compiled.clear()
  RUNS[name](other)
  assert not compiled


@pytest.mark.parametrize('name', RUNS)
def test_data_and_weights_are_freed_with_the_problem(name, tiny_problem):
  problem = _other(tiny_problem)
  held = [problem, problem.forget, problem.forget.images, problem.retain.images]
  held += [problem.validation.images, problem.original.params['head']['kernel']]
  references = [weakref.ref(thing) for thing in held]
  del held
  RUNS[name](problem)
  del problem
  gc.collect()
  assert not [reference() for reference in references if reference() is not None]


def test_equal_settings_give_the_same_step():
  problem = tiny.problem()
  step = lambda: training.make_step(
    training.ClassificationLoss(problem.apply_fn, 'retain', 'none'), optim.sgd(0.1)
  )
  assert step() == step()


def test_programs_go_with_their_step_under_shard_map(tiny_problem):
  """So a search, which has a program for every setting, stays as small as the caches."""
  living = lambda: len(jax.devices()[0].client.live_executables())

  def run():
    for rate in (0.011, 0.012, 0.013):
      make = methods.METHODS['finetune'].make
      make(learning_rate=rate, num_epochs=1)(tiny_problem, KEY)
    return living()

  chosen = parallel.mapping()
  try:
    parallel.use('shard_map')
    before = living()
    assert run() >= before + 3
    _steps._compiled_step.cache_clear()
    gc.collect()
    assert living() <= before + 2  # the forward pass and the state of SGD
  finally:
    parallel.use(chosen)

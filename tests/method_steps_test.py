"""Optimizers and schedules of methods: SGD as in the papers, or another in its place by name."""

import dataclasses
import functools
import inspect

import chex
import jax
import numpy as np
import optax
import pytest

from dalign_jax import (
  checkpoints,
  errors,
  from_settings,
  hparams,
  methods,
  optim,
  settings,
  valid,
)
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders

KEY = jax.random.key(3)
STEPPING = sorted(set(methods.METHODS) - set(methods.OWN_STEPS))
PHASES = {  # one of each way in which methods use a rule
  'finetune': {'num_epochs': 2},
  'cf_k': {'num_epochs': 2},
  'dlfd': {'num_epochs': 1, 'num_steps': 1},
  'muda': {'rounds': 1, 'recover_epochs': 1},
  'salun': {'num_epochs': 2},
  'scrub': {'num_epochs': 2},
  'task_vector': {'num_epochs': 2},
  'unsir': {},
}


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_method_has_a_rule_or_a_reason(name):
  code = inspect.getsource(inspect.getmodule(methods.METHODS[name].make))
  assert ('optim.Rule(' in code) == (name in STEPPING)
  assert 'optim.sgd(' not in code or name in methods.OWN_STEPS


def test_names_are_those_of_the_flags():
  fields = {field.name: field.metadata['valid'] for field in dataclasses.fields(settings.Settings)}
  assert fields['method_optimizer'] == valid.OneOf(tuple(optim.OPTIMIZERS))
  assert fields['method_schedule'] == valid.OneOf(tuple(optim.SCHEDULES))


def _run(problem, name, optimizer, schedule):
  problem = dataclasses.replace(problem, optimizer=optimizer, schedule=schedule)
  return methods.METHODS[name].make(**PHASES[name])(problem, KEY)


@pytest.mark.parametrize('name', PHASES)
def test_optimizer_and_schedule_reach_the_steps(name, tiny_problem):
  usual = _run(tiny_problem, name, 'sgd', 'constant').params
  last = 'adamw' if name != 'cf_k' else 'muon'
  for optimizer, schedule in ((last, 'constant'), ('sgd', 'linear')):
    other = _run(tiny_problem, name, optimizer, schedule).params
    chex.assert_tree_all_finite(other)
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(other, usual, atol=1e-7)


def test_the_usual_rule_is_sgd_itself(tiny_problem):
  rule = optim.Rule(0.01, momentum=0.8, weight_decay=1e-4)
  assert rule.of(tiny_problem, 5) is optim.sgd(0.01, momentum=0.8, weight_decay=1e-4)
  assert rule.of(tiny_problem, 5) is rule.of(tiny_problem, 7)  # one program for all sizes


def _moves(problem, num_steps, **rule):
  """Updates of one parameter under gradients of 1."""
  tx = optim.Rule(0.1, **rule).of(problem, num_steps)
  params, found = {'head': np.ones((2, 2), np.float32)}, []
  state = tx.init(params)
  for _ in range(num_steps + 1):
    updates, state = tx.update({'head': np.ones((2, 2), np.float32)}, state, params)
    found.append(float(updates['head'][0, 0]))
  return found


def test_rules_are_what_optax_computes(tiny_problem):
  of = lambda **names: dataclasses.replace(tiny_problem, **names)
  linear = _moves(of(schedule='linear'), 4, momentum=0.0)
  np.testing.assert_allclose(linear, [-0.1, -0.075, -0.05, -0.025, 0.0], atol=1e-7)
  cosine = _moves(of(schedule='cosine'), 2, momentum=0.0)
  np.testing.assert_allclose(cosine, [-0.1, -0.05, 0.0], atol=1e-7)
  adamw = _moves(of(optimizer='adamw'), 3, momentum=0.7, weight_decay=0.5)
  tx = optax.adamw(0.1, b1=0.7, weight_decay=0.5, eps=1e-6)
  state, params = tx.init(np.ones(1, np.float32)), np.ones(1, np.float32)
  for move in adamw:
    updates, state = tx.update(np.ones(1, np.float32), state, params)
    assert move == pytest.approx(float(updates[0]), rel=1e-5)


def test_a_single_image_takes_its_share_of_a_step_whatever_the_optimizer(tiny_problem):
  one = dataclasses.replace(tiny_problem, forget=tiny_problem.forget.take([0]))
  moved = lambda problem, before: float(
    np.linalg.norm(problem.params['head']['kernel'] - before.params['head']['kernel'])
  )
  for make in (methods.delete, functools.partial(methods.muda, rounds=1, recover_epochs=0)):
    steps = {}
    for size in (1, 64):  # a batch is a whole one, or a sixty-fourth of it
      for optimizer in ('sgd', 'adamw'):
        problem = dataclasses.replace(one, optimizer=optimizer)
        result = make(learning_rate=1e-4, batch_size=size)(problem, KEY)
        steps[optimizer, size] = moved(result, one.original)
    for optimizer in ('sgd', 'adamw'):
      assert 0 < steps[optimizer, 64] < 0.05 * steps[optimizer, 1], (make, optimizer)


@pytest.mark.parametrize('field', ['optimizer', 'schedule'])
def test_unknown_names_are_refused(field, tiny_problem):
  problem = dataclasses.replace(tiny_problem, **{field: 'best'})
  with pytest.raises(errors.InputError, match=f"{field}: must be one of .*, got 'best'"):
    methods.finetune(num_epochs=1)(problem, KEY)


@pytest.mark.parametrize('name', methods.OWN_STEPS)
def test_methods_with_steps_of_their_own_refuse(name):
  chosen = settings.Settings(method_schedule='cosine')
  with pytest.raises(errors.InputError, match=f'method_schedule: {name} ') as raised:
    from_settings.method(chosen, name, {})
  assert methods.OWN_STEPS[name] in str(raised.value)
  assert from_settings.method(settings.Settings(), name, {})


def test_a_run_steps_as_told_and_says_so(tmp_path):
  config = config_lib.Config(
    dataset='digits',
    workdir=str(tmp_path),
    width_multiplier=0.125,
    num_epochs=1,
    batch_size=64,
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
    methods=('finetune',),
    hparam=('finetune.num_epochs=1', 'finetune.learning_rate=0.001'),
    method_optimizer='adamw',
    stages=('prepare', 'train_original', 'unlearn'),
  )
  stages.run(config)
  stages.run(dataclasses.replace(config, method_optimizer='sgd'))
  label = 'finetune,num_epochs=1,learning_rate=0.001'
  read = lambda run: checkpoints.read_record(
    folders.problem_folder(config) / 'runs' / run / 'seed_0' / 'unlearned'
  )
  adamw, sgd = read(f'{label},method_optimizer=adamw'), read(label)
  assert adamw['method_optimizer'] == 'adamw' and 'method_optimizer' not in sgd
  assert adamw['digest'] != sgd['digest'] and adamw['original'] == sgd['original']


def test_controls_of_an_evaluation_step_as_ever(tmp_path):
  config = config_lib.Config(
    dataset='digits', cache_dir='', method_optimizer='adamw', evaluation='recovery'
  )
  job = stages.prepare(config, tmp_path)
  label = lambda name: stages.Run.of(job, name, hparams.defaults(name)).label
  assert [label(name) for name in config.controls] == ['planted_leak', 'head_only']
  assert label('muda') == 'muda,method_optimizer=adamw'

"""Methods restricted to a part of the network."""

import dataclasses
import re

import chex
from flax.traverse_util import flatten_dict
import jax
import numpy as np
import pytest

from dalign_jax import (
  checkpoints,
  errors,
  fresh,
  from_settings,
  hparams,
  methods,
  objectives,
  trainable,
)
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders
from tests import tiny
from tests.methods_compile_test import quick

KEY = jax.random.key(7)


def test_a_guarantee_for_all_parameters_does_not_go_with_a_part(tiny_problem):
  part = trainable.restricted(methods.noisy_finetune(), trainable=['^head/'])
  with pytest.raises(errors.InputError, match='a guarantee for all parameters together'):
    part(tiny_problem, KEY)


@pytest.mark.parametrize('name', sorted(methods.METHODS.keys() - {'noisy_finetune'}))
def test_what_is_not_named_keeps_its_bits_whatever_the_method(name, tiny_problem):
  make = quick(name)
  if name in ('cf_k', 'eu_k'):  # which count the layers that may change: there is the head alone
    make = methods.METHODS[name].make(num_layers=0, num_epochs=1)
  unlearned = trainable.restricted(make, trainable=['^head/'])(tiny_problem, KEY)
  chex.assert_trees_all_equal_shapes_and_dtypes(unlearned, tiny_problem.original)
  chex.assert_trees_all_equal(unlearned.params['hidden'], tiny_problem.original.params['hidden'])


def test_what_is_named_changes_as_without_the_rest(tiny_problem):
  find = trainable.restricted(quick('finetune'), trainable=['head', 'hidden'])
  chex.assert_trees_all_close(
    find(tiny_problem, KEY), quick('finetune')(tiny_problem, KEY), rtol=1e-6
  )


@pytest.mark.parametrize('name', ['finetune', 'muda', 'ssd'])
def test_adapters_change_kernels_by_low_rank_alone(name, tiny_problem):
  unlearned = trainable.restricted(quick(name), lora_rank=2)(tiny_problem, KEY)
  original = tiny_problem.original.params
  for layer, rank in (('hidden', 2), ('head', 2)):
    change = unlearned.params[layer]['kernel'] - original[layer]['kernel']
    assert np.linalg.matrix_rank(change, tol=1e-5) <= rank
    np.testing.assert_array_equal(unlearned.params[layer]['bias'], original[layer]['bias'])
  if name != 'ssd':  # B is 0, so that nothing is important yet, and nothing dampened
    assert np.abs(unlearned.params['head']['kernel'] - original['head']['kernel']).max() > 1e-4


@pytest.mark.parametrize('name', methods.WHOLE_WEIGHTS)
def test_adapters_are_refused_where_weights_are_edited(name):
  settings = config_lib.Config(lora_rank=2)
  with pytest.raises(errors.InputError, match=f'lora_rank: {name} .*; leave it out') as raised:
    from_settings.method(settings, name, hparams.defaults(name))
  assert raised.value.argument == 'lora_rank'


@pytest.mark.parametrize(
  ('kind', 'message'),
  [({'trainable': ['^hidden/']}, 'may not change'), ({'lora_rank': 2}, 'may change by an adapter')],
)
def test_a_head_that_may_not_change_as_a_whole_is_named(kind, message, tiny_problem):
  with pytest.raises(errors.InputError, match=f'the head {message}.*; let head change') as raised:
    trainable.restricted(methods.esc(), **kind)(tiny_problem, KEY)
  assert raised.value.argument == next(iter(kind))


@pytest.mark.parametrize('named', [(), ('token', 'dense')])
def test_tokens_and_embeddings_are_no_kernels_unless_they_are_named(named, tiny_problem):
  params = {
    'class_token': np.zeros((1, 1, 6), np.float32),
    'position_embedding': np.zeros((1, 4, 6), np.float32),
    'dense': {'kernel': np.zeros((6, 4), np.float32), 'bias': np.zeros(4, np.float32)},
  }
  original = tiny_problem.original._replace(params=params)

  def add_one(problem, key):
    del key
    return problem.original._replace(params=jax.tree.map(lambda x: x + 1, problem.original.params))

  problem = dataclasses.replace(tiny_problem, original=original)
  found = trainable.restricted(add_one, trainable=named, lora_rank=2)(problem, KEY).params
  moved = {path: np.any(x) for path, x in flatten_dict(found, sep='/').items()}
  assert moved == {
    'class_token': bool(named),
    'position_embedding': False,
    'dense/kernel': True,
    'dense/bias': False,
  }


def test_kernels_with_their_outputs_first_have_no_adapter(tiny_problem):
  params = {'conv': {'weight': np.zeros((8, 4, 3, 3), np.float32)}, 'head': {'w': np.eye(4)}}
  problem = dataclasses.replace(
    tiny_problem, original=tiny_problem.original._replace(params=params)
  )
  with pytest.raises(errors.InputError, match=r'lora_rank: conv/weight \[8, 4, 3, 3\] has its out'):
    trainable.restricted(lambda problem, key: problem.original, lora_rank=4)(problem, KEY)


def test_what_cannot_be_meant_is_refused(tiny_problem):
  with pytest.raises(errors.InputError, match=re.escape("'(' is no regular expression")):
    trainable.restricted(quick('finetune'), trainable=['('])
  with pytest.raises(errors.InputError, match='lora_rank must be 0 or more, got -1'):
    trainable.restricted(quick('finetune'), lora_rank=-1)
  with pytest.raises(errors.InputError, match='no parameter matches Conv; there are head/bias, '):
    trainable.restricted(quick('finetune'), trainable=['Conv'])(tiny_problem, KEY)
  with pytest.raises(errors.InputError, match='no parameter kernel matches bias'):
    trainable.restricted(quick('finetune'), trainable=['bias'], lora_rank=1)(tiny_problem, KEY)


def test_a_run_is_restricted_and_says_so(tmp_path):
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
    hparam=('finetune.num_epochs=1',),
    trainable=('^head/',),
    lora_rank=1,
    stages=('prepare', 'train_original', 'unlearn'),
  )
  stages.run(config)
  folder = folders.problem_folder(config)
  (run,) = (folder / 'runs').iterdir()
  assert run.name == 'finetune,num_epochs=1,trainable=_head_,lora_rank=1'
  record = checkpoints.read_record(run / 'seed_0' / 'unlearned')
  assert (record['trainable'], record['lora_rank']) == (['^head/'], 1)
  original = checkpoints.restore(folder / 'original' / 'seed_0' / 'model')[0]
  found = checkpoints.restore(run / 'seed_0' / 'unlearned')[0]
  change = np.asarray(found.params['head']['kernel']) - original.params['head']['kernel']
  assert np.linalg.matrix_rank(change, tol=1e-6) == 1
  chex.assert_trees_all_equal(found.params['Conv_0'], original.params['Conv_0'])
  with pytest.raises(errors.InputError, match='retrain is exact because') as raised:
    stages.run(dataclasses.replace(config, methods=('retrain',), hparam=()))
  assert raised.value.argument == 'trainable'


def test_a_fresh_network_below_adapters_is_not_the_original(tiny_problem):
  """The teacher that knows nothing must know nothing."""
  problem = dataclasses.replace(tiny_problem, apply_fn=tiny.apply_without_batch_norm)
  seen = {}

  def unlearn(restricted, key):
    seen['fresh'] = objectives.logits_of(
      restricted, fresh.model(restricted.init_fn, key, restricted.retain), restricted.forget
    )
    return restricted.original

  trainable.restricted(unlearn, lora_rank=2)(problem, KEY)
  whole = fresh.model(problem.init_fn, KEY, problem.retain)
  wanted = objectives.logits_of(problem, whole, problem.forget)
  np.testing.assert_allclose(seen['fresh'], wanted, rtol=1e-5, atol=1e-5)


def test_what_stays_keeps_its_bits_on_three_devices(tiny_problem):
  """A mean over three devices of equal values has other bits than the values."""
  several = dataclasses.replace(tiny_problem, devices=tuple(jax.devices()[:3]))
  finetune = methods.finetune(num_epochs=1, batch_size=63)
  unlearned = trainable.restricted(finetune, trainable=['^head/'])(several, KEY)
  chex.assert_trees_all_equal(unlearned.params['hidden'], tiny_problem.original.params['hidden'])


def test_controls_are_not_restricted(tmp_path):
  """Nobody asked for them, and head_only has no use for adapters."""
  config = config_lib.Config(
    workdir=str(tmp_path), evaluation='recovery', methods=('finetune',), lora_rank=4, cache_dir=''
  )
  assert config.controls == ('planted_leak', 'head_only')
  config = dataclasses.replace(config, dataset='digits')
  job = stages.prepare(config, folders.problem_folder(config))
  runs = [stages.Run.of(job, name, hparams.defaults(name)) for name in config.all_methods]
  assert [run.label for run in runs] == ['finetune,lora_rank=4', 'planted_leak', 'head_only']
  assert [bool(run.restriction) for run in runs] == [True, False, False]

"""Originals that one problem takes from another with the same training data."""

import json

import chex
import pytest

from dalign_jax import checkpoints, errors
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders

TINY = {
  'dataset': 'digits',
  'width_multiplier': 0.125,
  'num_epochs': 1,
  'batch_size': 64,
  'num_devices': 1,
  'cache_dir': '',
  'compilation_cache_dir': '',
  'methods': (),
  'stages': ('prepare', 'train_original'),
}


def _run(workdir, **changes):
  config = config_lib.Config(**{**TINY, 'workdir': str(workdir), **changes})
  stages.run(config)
  return folders.problem_folder(config) / 'original' / 'seed_0' / 'model'


@pytest.fixture(scope='module')
def first(tmp_path_factory):
  """A workdir with the originals of one problem."""
  workdir = tmp_path_factory.mktemp('originals')
  return workdir, _run(workdir, problem='first')


def test_an_original_is_taken_bit_by_bit_with_its_record(first, capsys):
  workdir, model = first
  taken = _run(workdir, forget='random:0.1', problem='second', originals_of='first')
  assert 'original (seed 0): taken from first' in capsys.readouterr().out
  assert checkpoints.read_record(taken) == checkpoints.read_record(model)
  chex.assert_trees_all_equal(checkpoints.restore(taken), checkpoints.restore(model))
  _run(workdir, forget='random:0.1', problem='second', originals_of='first')
  assert 'taken from' not in capsys.readouterr().out  # it is there


def test_a_problem_of_an_earlier_version_lacks_settings_of_today(first, capsys):
  workdir, _ = first
  path = workdir / 'first' / 'problem.json'
  before = path.read_text(encoding='utf-8')
  known = json.loads(before)
  del known['identity']['compute_dtype'], known['identity']['pretrained']
  path.write_text(json.dumps(known), encoding='utf-8')
  _run(workdir, forget='random:0.2', problem='third', originals_of='first')
  assert 'original (seed 0): taken from first' in capsys.readouterr().out
  changes = {'forget': 'random:0.2', 'problem': 'fourth', 'compute_dtype': 'bfloat16'}
  with pytest.raises(errors.InputError, match="compute_dtype: 'float32' there, 'bfloat16' here"):
    _run(workdir, originals_of='first', **changes)
  path.write_text(before, encoding='utf-8')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'originals_of': 'nothing'}, 'there is no problem in'),
    ({'num_epochs': 2}, r'num_epochs: 1 there, 2 here'),
    ({'split_seed': 5}, r'split_seed: 0 there, 5 here'),
    ({'original_seed': 0, 'num_seeds': 2}, r'no model in .*seed_1; run train_original there'),
  ],
)
def test_what_is_another_training_is_refused(first, changes, message):
  workdir, _ = first
  changes = {'problem': 'other', 'forget': 'classes:3,5', 'originals_of': 'first', **changes}
  with pytest.raises(errors.InputError, match=message) as raised:
    _run(workdir, **changes)
  assert raised.value.argument == 'originals_of'


@pytest.mark.parametrize('poison', ['mislabelled:0.1', 'backdoor:0.1:3'])
def test_an_original_of_poisoned_data_is_of_other_data(first, poison):
  workdir, _ = first
  name = poison.partition(':')[0]
  message = 'is trained on other labels or images than those of the data'
  with pytest.raises(errors.InputError, match=message):
    _run(workdir, forget=poison, problem=f'{name}_of_clean', originals_of='first')
  _run(workdir, forget=poison, problem=name)
  with pytest.raises(errors.InputError, match=message):
    _run(workdir, forget='random:0.1', problem=f'clean_of_{name}', originals_of=name)

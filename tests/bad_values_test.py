"""Every flag and every hyper-parameter refuses what it cannot mean, before any work."""

import dataclasses
import inspect
import pathlib
import re
import subprocess
import sys
from typing import get_args

import pytest

from dalign_jax import augmentation as augmentation_lib
from dalign_jax import command, errors, hparams, methods, precision, pretrained, valid
from dalign_jax.models import _layers, _resnet
from experiments import config, run
from experiments.benchmarks import bad_values

ROOT = pathlib.Path(__file__).parents[1]
ROOT = pathlib.Path(__file__).parents[1]
FIELDS, FREE = bad_values.FIELDS, bad_values.TABLES


@pytest.mark.parametrize(
  ('cases', 'least'), [(bad_values.of_flags, 350), (bad_values.of_hyper_parameters, 1000)]
)
def test_what_cannot_be_meant_is_refused_in_one_line_that_names_it(cases, least):
  found = list(cases())
  assert not [case for case in found if case.found == 'wrong'] and len(found) > least
  assert bad_values.table(found).endswith(' 0 |')


def test_what_is_taken_or_not_named_is_wrong(monkeypatch):
  case = bad_values._refused('flags', 'seed', 'x', errors.InputError('no\nmore'), True)
  assert case.found == 'wrong' and bad_values.table([case]).endswith('| 1 | 0 | 0 | 1 |')
  assert bad_values._refused('flags', 'seed', 'x', errors.InputError('no'), False).found == 'wrong'
  monkeypatch.setattr(hparams, 'resolve', lambda *arguments: None)
  assert {bad_values._of_hyper_parameter('muda.rounds', t, True).found for t in ('None', '-1')} == {
    'meaningful',
    'wrong',
  }


def test_defaults_are_valid_and_numbers_have_a_range():
  for method, entry in methods.METHODS.items():
    for name, parameter in inspect.signature(entry.make).parameters.items():
      kinds = get_args(parameter.annotation) or (parameter.annotation,)
      if {int, float} & {*kinds}:
        assert name in methods.VALID, f'{method}.{name}'
        assert parameter.default is None or parameter.default in methods.VALID[name]
  for _, (_, field) in FIELDS.items():
    assert (
      field.metadata['valid'] is not None
      or field.type in (bool, tuple[str, ...])
      or (field.name in FREE)
    ), field.name


@pytest.mark.parametrize(
  ('name', 'table'),
  [
    ('augmentation', augmentation_lib.AUGMENTATIONS),
    ('norm', _layers.NORMS),
    ('stem', _resnet.STEMS),
    ('input_statistics', pretrained.STATISTICS),
    ('compute_dtype', precision.DTYPES),
  ],
)
def test_choices_are_those_of_the_library(name, table):
  assert FIELDS[name][1].metadata['valid'] == valid.OneOf(tuple(table))


def test_all_that_is_wrong_is_said_at_once():
  with pytest.raises(
    errors.InputError, match=r'num_epochs: .*got -1; batch_size: .*got 0'
  ) as error:
    config.Config(num_epochs=-1, batch_size=0, learning_rate=0.1)
  assert '\n' not in str(error.value)


BAD_TOGETHER = {
  'no address': ({'num_processes': 2}, 'num_processes: 2 processes need'),
  'no processes': ({'coordinator_address': 'localhost:1234'}, 'needs --num_processes'),
  'no port': ({'coordinator_address': 'localhost', 'num_processes': 2}, 'must be HOST:PORT'),
  'which process': (
    {'coordinator_address': 'h:1', 'num_processes': 2, 'process_id': 2},
    'process_id: must be less than',
  ),
  'found and named': ({'distributed': 'auto', 'num_processes': 2}, 'auto finds the processes'),
  'leaves the workdir': ({'problem': '../../x'}, 'problem: must be the name of one folder'),
  'the workdir itself': ({'problem': '..'}, 'problem: must be the name of one folder'),
  'an address': ({'workdir': 'gs://bucket/runs'}, 'workdir: must be a path of this machine'),
  'twice': ({'stages': ('prepare', 'prepare')}, 'none twice'),
}


@pytest.mark.parametrize('case', BAD_TOGETHER)
def test_flags_that_do_not_go_together_are_refused(case):
  changes, message = BAD_TOGETHER[case]
  with pytest.raises(errors.InputError, match=message):
    config.Config(**changes)


def test_help_lists_every_flag_and_every_method(capsys):
  text = command._help('run.py', '')
  assert text.startswith('python -m experiments.run ')
  for field in dataclasses.fields(config.Config):
    assert f'--{field.name}=' in text or f'--[no]{field.name}' in text
  assert 'in [1, 1000000]' in text and run.FLAGS['batch_size'].default == 128
  assert all(name in command._help('run.py', 'methods') for name in methods.METHODS)
  muda = command._help('run.py', 'muda')
  assert (
    '--hparam=muda.energy=0.9  (in (0, 1])' in muda and 'all retain, forget, validation' in muda
  )
  with pytest.raises(errors.InputError, match=r"help: must be methods or one of.*got 'mudda'"):
    command._help('run.py', 'mudda')
  del capsys


@pytest.mark.parametrize(
  ('module', 'flags', 'message'),
  [
    ('run', ['--methods=mudda'], '--methods: unknown method'),
    ('run', ['--hparam=muda.rounds=-1', '--methods=muda'], '--hparam: .*rounds must be in'),
    ('tune', ['--forget=foo:1'], '--forget: foo:1: must be class:NAME'),
    ('sweep', ['--dataset=folder:/nowhere'], '--dataset: folder:/nowhere: there is no'),
  ],
)
def test_unknown_names_are_refused_before_the_slow_imports(module, flags, message, tmp_path):
  arguments = [*flags, f'--workdir={tmp_path / "w"}']
  # whatever follows the check imports all of these
  code = (
    'import atexit, runpy, sys\n'
    'slow = ("experiments.stages", "matplotlib", "orbax", "sklearn")\n'
    'atexit.register(lambda: print([name for name in slow if name in sys.modules]))\n'
    f'sys.argv[1:] = {arguments!r}\n'
    f'runpy.run_module("experiments.{module}", run_name="__main__", alter_sys=True)'
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
  assert found.returncode == 2 and re.search(message, found.stderr), found.stderr
  assert found.stderr.count('\n') == 1 and found.stdout.strip().endswith('[]'), found.stdout
  assert not list(tmp_path.iterdir())

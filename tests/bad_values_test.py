"""Every flag and every hyper-parameter refuses what it cannot mean, before any work."""

import dataclasses
import inspect
from typing import get_args

from absl import flags as absl_flags
import pytest

from dalign_jax import augmentation as augmentation_lib
from dalign_jax import command, errors, hparams, methods, settings, valid
from dalign_jax.models import _layers, _resnet
from experiments import config, run

NUMBERS = {
  int: ('', ' ', 'ten', '1.5', 'nan', 'inf', '1e3', '-2', '1000000000000', '0x', '[1]', 'None'),
  float: ('', ' ', 'x', 'nan', 'inf', '-inf', '1e999', '-1e999', '-0.1', '1e30', '[0.1]', 'None'),
  bool: ('maybe', '2', '-1', 'None', '0.5', '[]'),
}
TEXTS = ('a\nb', 'a\x00b', '\x1b[31m', 'a\tb')
CLASSES = (config.Config, config.Tuning, config.Sweep, settings.Request)
FIELDS = {f.name: (cls, f) for cls in CLASSES for f in dataclasses.fields(cls)}
FREE = {'methods', 'hparam', 'stages', 'scenario', 'method'}  # checked against their own tables


def _parse(cls, name, text):
  values = absl_flags.FlagValues()
  kind = {f.name: f for f in dataclasses.fields(cls)}[name].type
  define = {
    int: 'DEFINE_integer',
    float: 'DEFINE_float',
    bool: 'DEFINE_boolean',
    str: 'DEFINE_string',
  }
  getattr(absl_flags, define[kind])(name, None, 'help', flag_values=values)
  values(['command', f'--{name}={text}'])
  return cls(**{name: values[name].value})


def _flag_cases():
  for name, (cls, field) in FIELDS.items():
    for text in TEXTS if field.type is str else NUMBERS.get(field.type, ()):
      if name not in FREE:
        yield cls, name, text


def test_flags_refuse_what_they_cannot_mean():
  count, wrong = 0, []
  for cls, name, text in _flag_cases():
    count += 1
    try:
      _parse(cls, name, text)
    except errors.InputError as error:
      if error.argument != name and f'{name}: ' not in str(error):
        wrong.append((name, text, str(error)))
    except absl_flags.Error as error:
      if name not in str(error):
        wrong.append((name, text, str(error)))
    else:
      wrong.append((name, text, 'taken'))
  assert not wrong and count > 350


def _hparam_cases():
  for method, entry in methods.METHODS.items():
    for name, parameter in inspect.signature(entry.make).parameters.items():
      kinds = get_args(parameter.annotation) or (parameter.annotation,)
      for kind in set(kinds) & NUMBERS.keys():
        for text in NUMBERS[kind]:
          if not (text == 'None' and type(None) in kinds):
            yield method, name, text


def test_hyper_parameters_refuse_what_they_cannot_mean():
  count, wrong = 0, []
  for method, name, text in _hparam_cases():
    count += 1
    try:
      hparams.resolve((method,), (f'{method}.{name}={text}',))
    except errors.InputError as error:
      if name not in str(error) or error.argument != 'hparam':
        wrong.append((method, name, text, str(error)))
    else:
      wrong.append((method, name, text, 'taken'))
  assert not wrong and count > 1000


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
  assert '--hparam=muda.energy=0.9  (in (0, 1])' in muda and 'part of retain' in muda
  with pytest.raises(errors.InputError, match=r"help: must be methods or one of.*got 'mudda'"):
    command._help('run.py', 'mudda')
  del capsys

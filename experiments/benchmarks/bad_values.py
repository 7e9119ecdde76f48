"""Bad values: every flag and every hyper-parameter with values that it cannot mean.

python -m experiments.benchmarks.bad_values

A value must be refused in one line that names its flag, or be listed in `MEANINGFUL`. The table
counts what was tried, and lists what was wrong.
"""

import collections
from collections.abc import Iterator
import dataclasses
import inspect
import sys
from typing import NamedTuple, get_args

from absl import app, flags

from dalign_jax import errors, hparams, methods, settings
from experiments import config

NUMBERS = {
  int: ('', ' ', 'ten', '1.5', 'nan', 'inf', '1e3', '-2', '1000000000000', '0x', '[1]', 'None'),
  float: ('', ' ', 'x', 'nan', 'inf', '-inf', '1e999', '-1e999', '-0.1', '1e30', '[0.1]', 'None'),
  bool: ('maybe', '2', '-1', 'None', '0.5', '[]'),
}
TEXTS = ('a\nb', 'a\x00b', '\x1b[31m', 'a\tb')
CLASSES = (
  *(config.Config, config.Tuning, config.Sweep, config.Comparison),
  *(settings.Request, settings.Search),
)
FIELDS = {f.name: (cls, f) for cls in CLASSES for f in dataclasses.fields(cls)}
TABLES = {'methods', 'hparam', 'stages', 'scenario', 'method'}  # checked against their own tables
_DEFINE = {
  int: 'DEFINE_integer',
  float: 'DEFINE_float',
  bool: 'DEFINE_boolean',
  str: 'DEFINE_string',
}


class Case(NamedTuple):
  """A value, and what came of it: refused, meaningful or wrong."""

  where: str  # 'flags' or 'hyper-parameters'
  name: str
  text: str
  found: str
  message: str


def _parse(cls, name, text):
  values = flags.FlagValues()
  kind = {f.name: f for f in dataclasses.fields(cls)}[name].type
  getattr(flags, _DEFINE[kind])(name, None, 'help', flag_values=values)
  values(['command', f'--{name}={text}'])
  return cls(**{name: values[name].value})


def of_flags() -> Iterator[Case]:
  """Every flag with every bad value of its type."""
  for name, (cls, field) in FIELDS.items():
    for text in TEXTS if field.type is str else NUMBERS.get(field.type, ()):
      if name in TABLES:
        continue
      try:
        _parse(cls, name, text)
      except errors.InputError as error:
        is_named = error.argument == name or f'{name}: ' in str(error)
        yield _refused('flags', name, text, error, is_named)
      except flags.Error as error:
        yield _refused('flags', name, text, error, name in str(error))
      else:
        yield Case('flags', name, text, 'wrong', 'taken')


def of_hyper_parameters() -> Iterator[Case]:
  """Every hyper-parameter of every method with every bad value of its types."""
  for method, entry in methods.METHODS.items():
    for name, parameter in inspect.signature(entry.make).parameters.items():
      kinds = {*(get_args(parameter.annotation) or (parameter.annotation,))}
      kinds -= {int} if float in kinds else set()  # what is bad for a number, where both are taken
      for text in [text for kind in kinds & NUMBERS.keys() for text in NUMBERS[kind]]:
        yield _of_hyper_parameter(f'{method}.{name}', text, type(None) in kinds)


def _of_hyper_parameter(name, text, is_optional):
  where = 'hyper-parameters'
  try:
    hparams.resolve((name.partition('.')[0],), (f'{name}={text}',))
  except errors.InputError as error:
    is_named = name.partition('.')[2] in str(error) and error.argument == 'hparam'
    return _refused(where, name, text, error, is_named)
  is_meant = text == 'None' and is_optional
  return Case(where, name, text, 'meaningful' if is_meant else 'wrong', 'taken')


def _refused(where, name, text, error, is_named):
  message = str(error)
  found = 'refused' if is_named and '\n' not in message else 'wrong'
  return Case(where, name, text, found, message)


def table(cases: list[Case]) -> str:
  """Tried, refused, meaningful and wrong."""
  lines = ['| | tried | refused | meaningful | wrong |', '|---|---|---|---|---|']
  counts = {
    where: collections.Counter(c.found for c in cases if c.where == where)
    for where in dict.fromkeys(c.where for c in cases)
  }
  for where, of in {**counts, 'all': sum(counts.values(), collections.Counter())}.items():
    numbers = (of.total(), of['refused'], of['meaningful'], of['wrong'])
    lines.append(f'| {where} | ' + ' | '.join(map(str, numbers)) + ' |')
  return '\n'.join(lines)


def main(argv) -> None:
  """Tries all values and prints the table."""
  del argv
  cases = [*of_flags(), *of_hyper_parameters()]
  wrong = [case for case in cases if case.found == 'wrong']
  for case in wrong:
    print('wrong:', *map(repr, case))
  print(table(cases))
  if wrong:
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)

"""Methods and their hyper-parameters from the command line: `--hparam=muda.da_weight=5`.

A method can be in one table several times: `--methods=tmu,tmu:random` are the method and a variant
of it, which `--hparam=tmu:random.easy=random` sets apart. A variant starts with what is set for its
method.
"""

import ast
import inspect
import re
from typing import get_args

from dalign_jax import errors, methods


def resolve(
  names: tuple[str, ...], settings: tuple[str, ...], argument: str = 'methods'
) -> dict[str, dict]:
  """The full hyper-parameters of each method and variant, defaults included.

  Args:
    names: methods of this run, `method` or `method:variant`.
    settings: `name.hyper_parameter=value` strings; those of others are checked and left out.
    argument: what named the methods, for errors.

  Raises:
    errors.InputError: for an unknown method or hyper-parameter, a variant's name that cannot be a
      folder's, or a value of the wrong type.
  """
  for name in names:
    _check_name(argument, name)
  resolved = {name: defaults(method_of(name)) for name in names}
  parsed = [_parse(setting) for setting in settings]
  parsed.sort(key=lambda item: ':' in item[0])  # what is set for a variant comes last
  for target, hyper_parameter, value in parsed:
    for name in names:  # a flag file may set those of methods that this run leaves out
      if target in (name, method_of(name)):
        resolved[name][hyper_parameter] = value
  return resolved


def recorded(method: str, values: dict, settings: tuple[str, ...]) -> dict:
  """The hyper-parameters of a record, checked: its defaults may be those of another version.

  Args:
    method: its name.
    values: all hyper-parameters that the record says.
    settings: the `name.hyper_parameter=value` strings that the record says, which set some of them.

  Raises:
    errors.InputError: if the method has others, a value is of the wrong type, or a setting is not
      among the values.
  """
  check_own(method, settings)
  usual = defaults(method)
  if set(values) != set(usual):
    raise errors.InputError(
      f'{method} has the hyper-parameters {", ".join(usual) or "none"} here and '
      f'{", ".join(values) or "none"} in the record: what made it was another version',
      argument='method.hparams',
    )
  said = tuple(f'{method}.{name}={value}' for name, value in values.items())
  found = resolve((method,), said)[method]
  if resolve((method,), (*said, *settings))[method] != found:
    raise errors.InputError(
      f'{values} are not those of hparam={", ".join(settings)}', argument='method.hparams'
    )
  return found


def check_own(method: str, settings: tuple[str, ...]) -> None:
  """Checks that settings are of one method, where there is only that one.

  Raises:
    errors.InputError: if one is of another.
  """
  for setting in settings:
    if _parse(setting)[0] != method:
      raise errors.InputError(f'{setting!r} is not of the method {method}', argument='hparam')


def method_of(name: str) -> str:
  """The method of a name or a label: `tmu` of `tmu:random`, `muda` of `muda,rounds=1`."""
  return name.split(',')[0].split(':')[0]


def given(name: str, settings: tuple[str, ...]) -> set[str]:
  """The hyper-parameters of a method or variant that settings give a value."""
  targets = [setting.partition('=')[0].partition('.') for setting in settings]
  return {key for target, _, key in targets if target in (name, method_of(name))}


def defaults(method: str) -> dict:
  """A method's hyper-parameters at their defaults."""
  parameters = inspect.signature(methods.METHODS[method].make).parameters
  return {name: p.default for name, p in parameters.items()}


def label(name: str, hparams: dict) -> str:
  """The name of a run in tables and folders.

  Args:
    name: a variant's name stands for its hyper-parameters; a method's is followed by those that are
      not at their defaults.
    hparams: all hyper-parameters.
  """
  if ':' in name:
    return name
  usual = defaults(name)
  changed = [f'{key}={value}' for key, value in hparams.items() if value != usual[key]]
  return ','.join([name, *changed])


def short(name: str) -> str:
  """The name of a run without its hyper-parameters."""
  return name.partition(',')[0]


def _check_name(argument, name):
  method, colon, variant = name.partition(':')
  if method not in methods.METHODS:
    known = ', '.join(sorted(methods.METHODS))
    raise errors.InputError(f'unknown method {method!r}; known: {known}', argument=argument)
  if colon and not re.fullmatch(r'[\w+-]+', variant, re.ASCII):
    raise errors.InputError(
      f'a variant is named by letters, digits, _, + and -, as {method}:mine, got {name!r}',
      argument=argument,
    )


def _parse(setting):
  """Name, hyper-parameter and value of `name.hyper_parameter=value`."""
  target, equals, text = setting.partition('=')
  target, dot, name = target.partition('.')
  if not equals or not dot:
    raise errors.InputError(f'{setting!r} is not of the form method.name=value', argument='hparam')
  _check_name('hparam', target)
  parameters = inspect.signature(methods.METHODS[method_of(target)].make).parameters
  if name not in parameters:
    known = ', '.join(parameters) or 'none'
    raise errors.InputError(
      f'{method_of(target)} has no {name!r}; it has: {known}', argument='hparam'
    )
  return target, name, _value(setting, name, text, parameters[name].annotation)


def _value(setting, name, text, annotation):
  allowed = get_args(annotation) or (annotation,)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, RecursionError, MemoryError):
    value = text
  if str in allowed and not isinstance(value, str) and value is not None:
    value = text
  if float in allowed and int not in allowed and type(value) is int:
    value = float(value)
  if type(value) not in allowed:
    names = ' or '.join(t.__name__.replace('NoneType', 'None') for t in allowed)
    raise errors.InputError(f'{setting!r}: {name} must be {names}, got {text!r}', argument='hparam')
  allowed_values = methods.VALID.get(name)
  if allowed_values is not None and value is not None and value not in allowed_values:
    raise errors.InputError(
      f'{setting!r}: {name} must be {allowed_values}, got {text}', argument='hparam'
    )
  return value


def help_text(topic: str) -> str:
  """Text of `--help=topic`: the methods, or the hyper-parameters of one.

  Raises:
    errors.InputError: if the topic is neither `methods` nor a method.
  """
  if topic == 'methods':
    width = max(map(len, methods.METHODS))
    return '\n'.join(f'{name:<{width}}  {_first_line(name)}' for name in sorted(methods.METHODS))
  if topic not in methods.METHODS:
    known = ', '.join(sorted(methods.METHODS))
    raise errors.InputError(f'must be methods or one of {known}, got {topic!r}', argument='help')
  values = defaults(topic)
  seen = methods.in_words(methods.sees(topic, values, has_unseen=True))
  lines = [f'{topic}: {_first_line(topic)}', f'It sees: {seen}.', '']
  for name, value in values.items():
    allowed = f'  ({methods.VALID[name]})' if name in methods.VALID else ''
    lines.append(f'  --hparam={topic}.{name}={value}{allowed}')
  return '\n'.join(lines)


def _first_line(name) -> str:
  return (inspect.getdoc(methods.METHODS[name].make) or '').partition('\n')[0]

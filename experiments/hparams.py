"""Hyper-parameters from the command line: `--hparam=muda.da_weight=5`."""

import ast
import inspect
from typing import get_args

from dalign_jax import methods
from experiments import errors


def resolve(
  names: tuple[str, ...], settings: tuple[str, ...], flag: str = '--methods'
) -> dict[str, dict]:
  """The full hyper-parameters of each method, defaults included.

  Args:
    names: methods of this run.
    settings: `method.name=value` strings; those of other methods are checked and left out.
    flag: that named the methods, for errors.

  Raises:
    errors.UserError: for an unknown method or hyper-parameter, or a value of the wrong type.
  """
  for name in names:
    _check_method(flag, name)
  resolved = {name: defaults(name) for name in names}
  for setting in settings:
    target, equals, text = setting.partition('=')
    method, dot, name = target.partition('.')
    if not equals or not dot:
      raise errors.UserError(f'--hparam: {setting!r} is not of the form method.name=value')
    _check_method('--hparam', method)
    known = defaults(method)
    if name not in known:
      raise errors.UserError(
        f'--hparam: {method} has no {name!r}; it has: {", ".join(known) or "none"}'
      )
    value = _parse(setting, method, name, text)
    if method in resolved:  # a flag file may set those of methods that this run leaves out
      resolved[method][name] = value
  return resolved


def defaults(method: str) -> dict:
  """A method's hyper-parameters at their defaults."""
  parameters = inspect.signature(methods.METHODS[method].make).parameters
  return {name: p.default for name, p in parameters.items()}


def label(method: str, hparams: dict) -> str:
  """A run's name: the method, and the hyper-parameters that are not at their defaults."""
  usual = defaults(method)
  changed = [f'{name}={value}' for name, value in hparams.items() if value != usual[name]]
  return ','.join([method, *changed])


def _check_method(flag, name):
  if name not in methods.METHODS:
    known = ', '.join(sorted(methods.METHODS))
    raise errors.UserError(f'{flag}: unknown method {name!r}; known: {known}')


def _parse(setting, method, name, text):
  annotation = inspect.signature(methods.METHODS[method].make).parameters[name].annotation
  allowed = get_args(annotation) or (annotation,)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = text
  if str in allowed and not isinstance(value, str) and value is not None:
    value = text
  if float in allowed and type(value) is int:
    value = float(value)
  if type(value) not in allowed:
    names = ' or '.join(t.__name__.replace('NoneType', 'None') for t in allowed)
    raise errors.UserError(f'--hparam: {setting!r}: {name} must be {names}, got {text!r}')
  if type(value) is int and value < 0:
    raise errors.UserError(f'--hparam: {setting!r}: {name} must not be negative')
  return value

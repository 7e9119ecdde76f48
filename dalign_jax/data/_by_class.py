"""Forgetting a class, a part of it, or several classes."""

import numpy as np

from dalign_jax.data import _request


def _rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  labels, class_names, training = context.dataset.labels, context.class_names, context.training
  wanted, amount = [part.strip() for part in request.argument.split(',')], ''
  if request.kind == 'class':
    name, amount = _class_and_amount(request.argument, class_names)
    wanted = [name]
  classes = [_request.class_number(request, name, labels, class_names) for name in wanted]
  rows = training[np.isin(labels[training], classes)]
  return _request.part(request, amount, rows, context.rng) if amount else rows


def _class_and_amount(argument, class_names) -> tuple[str, str]:
  """`3` and `0.1` of `3:0.1`; the amount is empty where the whole class is meant."""
  if ':' not in argument or argument in (class_names or ()):  # a name may hold a colon
    return argument, ''
  name, _, amount = argument.rpartition(':')
  return name.strip(), amount.strip() or '-'


ONE = _request.Scenario(forms=('class:NAME', 'class:NAME:SHARE', 'class:NAME:COUNT'), rows=_rows)
SEVERAL = _request.Scenario(forms=('classes:NAME,NAME',), rows=_rows)

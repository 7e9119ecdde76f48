"""Forgetting people: one by name, or a number of them."""

import numpy as np

from dalign_jax.data import _request


def rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  """All rows of the person, or of so many persons, wherever they lie."""
  return (_of_name if request.kind == 'group' else _of_count)(request, context)


def _of_name(request, context):
  group, (present, names) = context.dataset.group, _people(request, context)
  if request.argument not in names:
    hint = _request.suggest(request.argument, names)
    if request.argument.isdecimal():
      hint = f', or write people:{request.argument} for so many persons, drawn at random'
    raise request.error(
      f'there is no group {request.argument!r}; name one of the {len(present)} groups{hint}'
    )
  number = names.index(request.argument)
  if context.groups is not None and number not in context.groups:
    raise request.error(
      f'{request.argument} is forgotten already, or has fewer or more images than group_sizes'
    )
  return np.flatnonzero(group == number)


def _of_count(request, context):
  present, _ = _people(request, context)
  count = int(request.argument)
  if count >= len(present):
    raise request.error(f'would forget everything: there are {len(present)} groups, give fewer')
  chosen = context.rng.permutation(present)[:count]
  return np.flatnonzero(np.isin(context.dataset.group, chosen))


def _people(request, context) -> tuple[np.ndarray, list[str]]:
  """The groups that may be forgotten, and the names of all."""
  group = context.dataset.group
  if group is None:
    raise request.error(
      'the data set has no groups; name the feature that holds them with '
      'group_key (or give an npz file an array group)'
    )
  present = np.unique(group) if context.groups is None else context.groups
  return present, list(context.group_names or [str(k) for k in range(int(group.max()) + 1)])


def _check_count(request):
  if not request.argument.isdecimal() or int(request.argument) < 1:
    raise request.error('must be a number of persons, 1 or more')


NAME = _request.Scenario(forms=('group:NAME',), rows=rows, is_forced=True, needs_classes=False)
COUNT = _request.Scenario(
  forms=('people:COUNT',), check=_check_count, rows=rows, is_forced=True, needs_classes=False
)

"""Forgetting people."""

import numpy as np

from dalign_jax.data import _request


def rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  """All rows of the person, or of so many persons, wherever they lie."""
  group, candidates = context.dataset.group, context.groups
  if group is None:
    raise request.error(
      'the data set has no groups; name the feature that holds them with '
      'group_key (or give an npz file an array group)'
    )
  present = np.unique(group) if candidates is None else candidates
  names = list(context.group_names or [str(k) for k in range(int(group.max()) + 1)])
  if request.argument.isdecimal():
    count = int(request.argument)
    if count >= len(present):
      raise request.error(f'would forget everything: there are {len(present)} groups, give fewer')
    return np.flatnonzero(np.isin(group, context.rng.permutation(present)[:count]))
  if request.argument not in names:
    raise request.error(
      f'there is no group {request.argument!r}; name one of the {len(present)} '
      f'groups{_request.suggest(request.argument, names)}, or a number of groups'
    )
  number = names.index(request.argument)
  if candidates is not None and number not in candidates:
    raise request.error(
      f'{request.argument} is forgotten already, or has fewer or more images than group_sizes'
    )
  return np.flatnonzero(group == number)


def _check(request):
  if request.argument == '0':
    raise request.error('must name a group or a number of groups, 1 or more')


SCENARIO = _request.Scenario(
  forms=('group:NAME', 'group:COUNT'),
  check=_check,
  rows=rows,
  is_forced=True,
  needs_classes=False,
)

"""Forgetting a group inside a class."""

from collections.abc import Sequence

import numpy as np

from dalign_jax.data import _request


def _rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  dataset, training = context.dataset, context.training
  if dataset.group is None:
    raise request.error(
      'there are no subclasses; make them of the classes with coarse, or name '
      'the feature that holds them with group_key'
    )
  number = subclass_number(request, dataset.group, context.group_names)
  rows = training[dataset.group[training] == number]
  inside = np.unique(dataset.labels[rows])
  if not len(np.setdiff1d(training[np.isin(dataset.labels[training], inside)], rows)):
    raise request.error('is a whole class; a subclass shares its class with others (coarse)')
  return rows


def subclass_number(
  request: _request.Forget, group: np.ndarray, group_names: Sequence[str] | None
) -> int:
  """The group that a `subclass` request names."""
  names = list(group_names or [str(k) for k in range(int(group.max()) + 1)])
  if request.argument not in names:
    raise request.error(
      f'there is no subclass {request.argument!r}; name one of the {len(names)}'
      f'{_request.suggest(request.argument, names)}'
    )
  return names.index(request.argument)


SCENARIO = _request.Scenario(forms=('subclass:NAME',), rows=_rows, group=subclass_number)

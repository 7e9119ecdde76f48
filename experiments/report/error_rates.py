"""Error rates of columns: the band that golds lie in, and how often it rejects held-out golds."""

from typing import Any

import numpy as np

from dalign_jax import metrics
from experiments.measure import columns as columns_lib
from experiments.measure import rows as rows_lib

MOST_ALARMS = 0.2  # a column that rejects more held-out golds says nothing
WORDS = (
  'Golds: mean and standard deviation over the gold models. False alarms: share of held-out golds, '
  'as many as a method has models, that lie outside the 95 % band of the others, as a method would '
  'be called. "=" marks a value inside the band of all golds, or no further '
  'from their mean than one unit of the last digit shown. Columns above '
  f'{100 * MOST_ALARMS:.0f} % are grey: with these numbers of models they reject retrained models.'
)
_STEPS = {'da_rank': 1.0}  # of whole numbers
_LEAST_VALUES, _LEAST_DISTANCES = 4, 3  # golds behind a band


def band(column: columns_lib.Column, rows: rows_lib.Results) -> np.ndarray | None:
  """Values of a column of all golds, or distances of second golds; None for too few.

  Columns of a group as a whole have one value, and no band.
  """
  golds = rows.second_golds if column.is_distance else [rows.gold, *rows.second_golds]
  if any(column.key in row.group for row in golds):
    return None
  values = [x for row in golds for x in row.of_seeds(column.key)]
  least = _LEAST_DISTANCES if column.is_distance else _LEAST_VALUES
  return np.array(values) if len(values) >= least else None


def is_inside(column: columns_lib.Column, row: rows_lib.Row, rows: rows_lib.Results) -> bool | None:
  """Whether a row's mean is one that golds could have; None where there is no band."""
  golds, values = band(column, rows), row.of_seeds(column.key)
  if golds is None or not values:
    return None
  return not metrics.outside_golds(np.array(values), golds, **_options(column))


def false_alarms(column: columns_lib.Column, rows: rows_lib.Results) -> float | None:
  """Share of held-out golds outside the band of the others; None where too few are left."""
  golds = band(column, rows)
  if golds is None:
    return None
  held_out = min(len(rows.original.seeds), len(golds) - 2)
  return metrics.held_out_alarms(golds, held_out, **_options(column))


def _options(column) -> dict[str, Any]:
  """How golds are compared: a gap below the last digit that the table shows is none."""
  step = max(10.0**-column.digits / column.scale, _STEPS.get(column.key, 0.0))
  return {'is_distance': column.is_distance, 'resolution': step}


def grey(shown: list[columns_lib.Column], rows: rows_lib.Results) -> set[str]:
  """Keys of the columns that reject too many held-out golds."""
  alarms = {column.key: false_alarms(column, rows) for column in shown}
  return {key for key, share in alarms.items() if share is not None and share > MOST_ALARMS}


def table(shown: list[columns_lib.Column], rows: rows_lib.Results) -> list[list[str]]:
  """Golds and false alarms of every column with a band, head line first; empty without any."""
  body = []
  for column in shown:
    golds, share = band(column, rows), false_alarms(column, rows)
    if golds is None or share is None:
      continue
    form = lambda x, c=column: f'{x * c.scale:.{c.digits}f}'
    mark = ' (grey)' if share > MOST_ALARMS else ''
    spread = f'{form(golds.mean())} ± {form(golds.std(ddof=1))}'
    body.append([column.head, spread, str(len(golds)), f'{100 * share:.0f} %{mark}'])
  return [['column', 'golds', 'number', 'false alarms'], *body] if body else []

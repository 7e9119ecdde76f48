"""What the panel that compares any two models needs, as data for its script."""

from typing import Any

import numpy as np

from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from experiments.report import looks

_MOST_MARGINS = 1000  # of one side


def data(job: preparation.Job, rows: rows_lib.Results) -> dict[str, Any]:
  """Of each model its look, class accuracies, predicted classes, projected features and margins."""
  of = looks.of_rows(rows)
  picked = lambda values: np.asarray(values)[:_MOST_MARGINS]
  models = []
  for row in rows:
    arrays, look = row.arrays, of[row.name]
    predicted = {n: arrays.get(f'predicted_{n}', np.zeros(0, int)) for n in ('test', 'forget')}
    models.append(
      {
        'name': row.name,
        'kind': row.kind,
        'label': look.label,
        'color': look.color,
        'classes': _rounded(100 * np.nan_to_num(arrays['class_accuracy']), 1),
        'predicted': {name: values.tolist() for name, values in predicted.items()},
        'points': [_rounded(arrays['projection'][:, k], 3) for k in (0, 1)],
        'margins': {n: _rounded(picked(arrays[f'margin_{n}']), 2) for n in ('forget', 'unseen')},
      }
    )
  first = rows[0].arrays
  return {
    'models': models,
    'class_names': list(job.class_names),
    'forgotten': list(job.forgets_classes),
    'labels': np.asarray(first['projection_labels'], int).tolist(),
    'is_forget': np.asarray(first['projection_is_forget'], int).tolist(),
    'class_colors': list(looks.CLASSES),
  }


def _rounded(values, digits):
  return np.round(np.nan_to_num(np.asarray(values, np.float64)).ravel(), digits).tolist()

"""Predictions: what a method expected gold to know, against what gold knows.

A method that predicts gold's answers leaves `prediction.npz` next to its model. The evaluation,
which alone sees gold, writes `reliability.npz` next to it; the report reads that.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from dalign_jax import metrics
from dalign_jax.store import files

WORDS = (
  'What a method expected gold to know. Right on held out: share of the held-out images that the '
  'original, the gold of the twin problem, gets right. Easy: share of the forget images that the '
  'method expects gold to get right; known to gold: the true share. AUC: how well the predicted '
  'chance ranks images by the truth (0.5 is blind), on held-out images by a predictor that has not '
  'seen them, and on forget images against gold, with a 95 % bootstrap interval over images. Last: '
  'share of what gold knows that was called easy, and of what it does not know that was called '
  'hard. Means over seeds; the method itself never sees gold.'
)
FILE = 'reliability.npz'
_ARRAYS = ('names', 'easy', 'chance', 'held_out_easy', 'held_out_chance')
_MOST_CLASSES = 20  # columns of single classes
_HEADS = (
  'prediction',
  'features',
  'right on held out',
  'easy',
  'known to gold',
  'AUC held out',
  'AUC gold',
  '95 %',
  'easy found',
  'hard found',
)


def reliability(
  folder: pathlib.Path, gold_logits: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
  """The prediction in a model's folder, and what gold knows of the forget set; empty without one.

  Raises:
    files.DamagedError: if the prediction is not of these images.
  """
  path = folder / 'prediction.npz'
  if not path.exists():
    return {}
  remedy = f'delete {folder} to have it made again'
  found = files.read_arrays(path, keys=_ARRAYS, remedy=remedy)
  known = gold_logits.argmax(axis=1) == labels
  if any(found[name].shape != known.shape for name in ('easy', 'chance')):
    raise files.DamagedError(path, f'it is not of {len(known)} images', remedy)
  return {**found, 'known_to_gold': known}


def read(folders: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
  """The members' predictions and the truth, stacked; empty where there are none."""
  paths = [folder / FILE for folder in folders]
  if not paths or not all(path.exists() for path in paths):
    return {}
  members = [files.read_arrays(path) for path in paths]
  return {name: np.stack([member[name] for member in members]) for name in members[0]}


def predictions(rows) -> dict[str, dict[str, np.ndarray]]:
  """Row name -> its predictions; one of several rows that made the same."""
  found = {}
  for row in rows:
    arrays = read(row.folders)
    is_new = lambda other, arrays=arrays: not np.array_equal(other['chance'], arrays['chance'])
    if arrays and all(is_new(other) for other in found.values()):
      found[row.name] = arrays
  return found


def prediction_table(rows, seed: int) -> list[list[str]]:
  """The predictions against the truth, head line first; empty where nothing was predicted."""
  found = predictions(rows)
  body = [_prediction_line(name, arrays, seed) for name, arrays in found.items()]
  return [list(_HEADS), *body] if body else []


def _prediction_line(name, arrays, seed):
  known, easy = arrays['known_to_gold'], arrays['easy']
  percent = lambda values: f'{100 * np.mean(values):.1f}' if np.size(values) else '-'
  held_out = _auc(arrays['held_out_chance'], arrays['held_out_easy'], seed)
  against_gold = _auc(arrays['chance'], known, seed)
  return [
    name,
    '+'.join(arrays['names'][0]),
    percent(arrays['held_out_easy']),
    percent(easy),
    percent(known),
    *held_out[:1],
    *against_gold,
    percent(easy[known]),
    percent(~easy[~known]),
  ]


def _auc(chances, outcomes, seed):
  """AUC and its interval as text."""
  if np.any(outcomes.all(axis=1) | ~outcomes.any(axis=1)):
    return ['-', '-']
  auc, (low, high) = metrics.prediction_auc(chances, outcomes, seed=seed)
  return [f'{auc:.3f}', f'{low:.3f} to {high:.3f}']


def class_table(rows, class_names: Sequence[str]) -> list[list[str]]:
  """Accuracies inside and outside the classes that lose images; empty where all or none do.

  Head line first; the columns of single classes are of test images. Of many classes those stand
  there in which a model is furthest from gold.
  """
  if 'test_accuracy_same' not in rows.original.values:
    return []
  columns = {
    'forget_accuracy': 'forget',
    'retain_accuracy_same': 'retain, same class',
    'test_accuracy_same': 'test, same class',
    'test_accuracy_other': 'test, other classes',
    **{f'test_accuracy_{k}': f'test {class_names[k]}' for k in _most_changed(rows, class_names)},
  }
  columns = {key: head for key, head in columns.items() if key in rows.original.values}
  body = [[row.name, *(_cell(row, key) for key in columns)] for row in rows]
  return [['model', *columns.values()], *body]


def _most_changed(rows, class_names) -> list[int]:
  gold, others = rows.gold.values, [row.values for row in rows]
  change = {}
  for k in range(len(class_names)):
    key = f'test_accuracy_{k}'
    if key in gold:
      change[k] = max(abs(values.get(key, gold[key]) - gold[key]) for values in others)
  return sorted(sorted(change, key=lambda k: -change[k])[:_MOST_CLASSES])


def _cell(row, key):
  value, interval = row.values[key], row.interval(key)
  return f'{100 * value:.1f}' + ('' if interval is None else f' ± {100 * interval:.1f}')

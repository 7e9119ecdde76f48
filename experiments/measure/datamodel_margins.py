"""Margins of gold as datamodels predict them, against the true ones.

A method that matches datamodels leaves `datamodel.npz` next to its model. The evaluation, which
alone sees gold, writes `gold_margins.npz` next to it; the report reads that.
"""

from collections.abc import Mapping
import pathlib

import numpy as np

from dalign_jax import datamodels, evaluation, metrics, types
from dalign_jax.store import files

FILE = 'gold_margins.npz'
WORDS = (
  "Gold's margins (log odds of the true label) as datamodels predict them. r margins: correlation "
  "with the margins of the gold of the same number; r original: that of the original's, which is "
  'what predicting no change gives; r change and slope: true change of the margin on the predicted '
  'one. Two golds differ too, so that no r is 1. Trainings: cost of the models of subsets in '
  'trainings of gold, for a single request and for each of a hundred that share them. Means over '
  'seeds.'
)
_SETS = ('forget', 'retain', 'validation')
_KINDS = ('predicted', 'original', 'gold')
_HEADS = ('datamodel', 'set', 'r margins', 'r original', 'r change', 'slope')
_SHARING = 100  # requests


def margins(
  folder: pathlib.Path,
  gold: evaluation.Outputs,
  original: evaluation.Outputs,
  sets: Mapping[str, types.Dataset],
) -> dict[str, np.ndarray]:
  """Predicted, original and true margins by set, `forget_predicted` and so on; empty without any.

  Raises:
    files.DamagedError: if the prediction is not of these images.
  """
  path = folder / 'datamodel.npz'
  if not path.exists():
    return {}
  remedy = f'delete {folder} to have it made again'
  predicted = files.read_arrays(path, keys=_SETS, remedy=remedy)
  found = {}
  for name in _SETS:
    labels = sets[name].labels
    if predicted[name].shape != gold[name].logits.shape:
      raise files.DamagedError(path, f'it is not of {len(labels)} {name} images', remedy)
    logits = (predicted[name], original[name].logits, gold[name].logits)
    for kind, of_kind in zip(_KINDS, logits, strict=True):
      found[f'{name}_{kind}'] = metrics.logit_scaled_confidence(of_kind, labels)
  return found


def agreements(folder: pathlib.Path) -> dict[str, datamodels.Agreement]:
  """How well the margins of each set were predicted; empty without `gold_margins.npz`."""
  if not (folder / FILE).exists():
    return {}
  found = files.read_arrays(folder / FILE)
  return {n: datamodels.agreement(*(found[f'{n}_{k}'] for k in _KINDS)) for n in _SETS}


def table(rows, num_models: int, num_retain: int, num_forget: int) -> list[list[str]]:
  """Predicted against true margins, head line first; empty where nothing was predicted.

  Args:
    rows: of the report.
    num_models: models of subsets.
    num_retain: retain examples, on which gold was trained.
    num_forget: forget examples.
  """
  trainings = num_models * 2 / 3 * (num_retain + num_forget) / num_retain
  costs = [f'{trainings:.1f}', f'{trainings / _SHARING:.2f}']
  body = []
  for row in rows:
    members = [found for folder in row.folders if (found := agreements(folder))]
    for name in _SETS if members else ():
      means = np.mean([found[name] for found in members], axis=0)
      body.append([row.name, name, *(f'{value:.3f}' for value in means), *costs])
  return [[*_HEADS, 'trainings', f'shared by {_SHARING}'], *body] if body else []

"""Evaluates original, gold and unlearned models, each beside gold.

Every row of a table is one `Measured`: scalars for the table and arrays for the plots, both kept in
the model's own folder.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import checkpoints, prediction, types
from experiments import errors, files, measures, problems, progress

FORMAT = 1  # to be raised when a measure changes, so that old evaluations are made again


class Row(NamedTuple):
  """One line of the table: a model, what was measured of it, and where it is."""

  name: str
  kind: str  # original, gold, second gold, unlearned
  values: dict[str, float]
  record: dict
  arrays: dict[str, np.ndarray]
  folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class _Model:
  name: str
  kind: str
  folder: pathlib.Path
  checkpoint: pathlib.Path


def evaluate(job: problems.Job, runs: dict[str, pathlib.Path]) -> None:
  """Measures every model of this run that has not been measured with the same settings yet.

  Args:
    job: the problem.
    runs: label -> folder of the unlearned models.

  Raises:
    errors.UserError: if a model is missing.
  """
  standing = _standing(job)
  todo = standing + [_Model(n, 'unlearned', f, f / 'unlearned') for n, f in runs.items()]
  for model in todo:
    if not checkpoints.exists(model.checkpoint):
      raise errors.UserError(f'--stages: no model in {model.checkpoint}; run its stage first')
  stale = [m for m in todo if _read_settings(m.folder) != _settings(job, m)]
  if not stale:
    progress.say('evaluate: done before')
    return
  gold = _outputs(job, standing[1])
  original = _outputs(job, standing[0])
  with progress.bar('evaluate') as shown:
    for i, model in enumerate(stale):
      shown.update(i, len(stale), model.name)
      outputs = {'gold': gold, 'original': original}.get(model.kind) or _outputs(job, model)
      values = measures.scalars(job, outputs, gold, original, is_gold=model.kind == 'gold')
      files.write_arrays(model.folder / 'plots.npz', measures.arrays(job, outputs))
      files.write_json(
        model.folder / 'evaluation.json',
        {
          'name': model.name,
          'kind': model.kind,
          'settings': _settings(job, model),
          'values': values,
        },
      )
  progress.say(f'evaluate: {len(stale)} models')


def read_rows(job: problems.Job) -> list[Row]:
  """The evaluated models of the problem: original, golds, then every run, by name.

  Runs whose evaluation is of other models or settings are left out, and said to be.
  """
  rows = []
  for model in [*_standing(job), *_runs(job)]:
    if _read_settings(model.folder) != _settings(job, model):
      progress.say(f'{model.folder}: evaluated with other settings, left out; run evaluate for it')
      continue
    _, record = checkpoints.restore(model.checkpoint)
    found = files.read_json(model.folder / 'evaluation.json')
    arrays = files.read_arrays(model.folder / 'plots.npz')
    rows.append(Row(model.name, model.kind, found['values'], record, arrays, model.folder))
  if [r.kind for r in rows[:2]] != ['original', 'gold']:
    raise errors.UserError('--stages: nothing evaluated yet; run evaluate first')
  return rows


def _runs(job) -> list[_Model]:
  """Every evaluated run, named by its label, and by its seed where there are several."""
  folders = sorted(path.parent for path in (job.folder / 'runs').glob('*/*/evaluation.json'))
  labels = [folder.parent.name for folder in folders]
  models = []
  for folder, label in zip(folders, labels, strict=True):
    name = label if labels.count(label) == 1 else f'{label} ({folder.name.replace("_", " ")})'
    models.append(_Model(name, 'unlearned', folder, folder / 'unlearned'))
  return models


def _standing(job) -> list[_Model]:
  original = _Model('original', 'original', job.original_folder, job.original_folder / 'model')
  golds = []
  for i, seed in enumerate(job.gold_seeds):
    folder = job.gold_folder(seed)
    name = 'gold' if i == 0 else 'second gold' if i == 1 else f'gold {i + 1}'
    golds.append(_Model(name, 'second gold' if i else 'gold', folder, folder / 'model'))
  return [original, *golds]


def _settings(job, model) -> dict:
  """What an evaluation depends on."""
  return {
    'format': FORMAT,
    'da_energy': job.config.da_energy,
    'evaluation_seed': job.config.evaluation_seed,
    'model': _digest(model.checkpoint),
    'original': _digest(job.original_folder / 'model'),
    'gold': _digest(job.gold_folder(job.gold_seeds[0]) / 'model'),
  }


def _digest(checkpoint) -> str | None:
  """The digest in a model's record; None where there is no model."""
  return checkpoints.restore(checkpoint)[1]['digest'] if checkpoints.exists(checkpoint) else None


def _read_settings(folder):
  path = folder / 'evaluation.json'
  return files.read_json(path)['settings'] if path.exists() else None


def _outputs(job, model) -> dict[str, types.Outputs]:
  state, _ = checkpoints.restore(model.checkpoint, job.template)
  return {
    name: prediction.predict(job.apply_fn, state, dataset.images, devices=job.devices)
    for name, dataset in job.sets.items()
  }

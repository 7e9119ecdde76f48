"""Evaluates original, gold and unlearned models, each beside gold.

Every row of a table is one `Measured`: scalars for the table and arrays for the plots, both kept in
the model's own folder.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from sklearn import decomposition

from dalign_jax import checkpoints, metrics, prediction, types
from experiments import errors, files, problems, progress

ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
_PROJECTED = 400


class Row(NamedTuple):
  """One line of the table: a model and what was measured of it."""

  name: str
  kind: str  # original, gold, second gold, unlearned
  values: dict[str, float]
  record: dict
  arrays: dict[str, np.ndarray]


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
  settings = _settings(job)
  stale = [m for m in todo if _read_settings(m.folder) != settings]
  if not stale:
    progress.say('evaluate: done before')
    return
  gold = _outputs(job, standing[1])
  original = _outputs(job, standing[0])
  with progress.bar('evaluate') as shown:
    for i, model in enumerate(stale):
      shown.update(i, len(stale), model.name)
      outputs = {'gold': gold, 'original': original}.get(model.kind) or _outputs(job, model)
      values = _measure(job, outputs, gold, original, is_gold=model.kind == 'gold')
      files.write_arrays(model.folder / 'plots.npz', _arrays(job, outputs))
      files.write_json(
        model.folder / 'evaluation.json',
        {'name': model.name, 'kind': model.kind, 'settings': settings, 'values': values},
      )
  progress.say(f'evaluate: {len(stale)} models')


def read_rows(job: problems.Job) -> list[Row]:
  """All evaluated models of the problem: original, golds, then every run, by name."""
  settings = _settings(job)
  runs = sorted((job.folder / 'runs').glob('*/*/evaluation.json'))
  todo = _standing(job)
  todo += [
    _Model(p.parent.parent.name, 'unlearned', p.parent, p.parent / 'unlearned') for p in runs
  ]
  rows = []
  for model in todo:
    if _read_settings(model.folder) != settings:
      continue
    _, record = checkpoints.restore(model.checkpoint)
    found = files.read_json(model.folder / 'evaluation.json')
    arrays = files.read_arrays(model.folder / 'plots.npz')
    rows.append(Row(model.name, model.kind, found['values'], record, arrays))
  if [r.kind for r in rows[:2]] != ['original', 'gold']:
    raise errors.UserError('--stages: nothing evaluated yet; run evaluate first')
  return rows


def _standing(job) -> list[_Model]:
  original = _Model('original', 'original', job.original_folder, job.original_folder / 'model')
  golds = []
  for i, seed in enumerate(job.gold_seeds):
    folder = job.gold_folder(seed)
    name = 'gold' if i == 0 else 'second gold' if i == 1 else f'gold {i + 1}'
    golds.append(_Model(name, 'second gold' if i else 'gold', folder, folder / 'model'))
  return [original, *golds]


def _settings(job) -> dict:
  config = job.config
  return {
    'da_energy': config.da_energy,
    'evaluation_seed': config.evaluation_seed,
    'original_seed': config.original_seed,
    'gold_seed': config.gold_seed,
  }


def _read_settings(folder):
  path = folder / 'evaluation.json'
  return files.read_json(path)['settings'] if path.exists() else None


def _outputs(job, model) -> dict[str, types.Outputs]:
  with errors.blame('workdir'):
    state, _ = checkpoints.restore(model.checkpoint, job.template)
  return {
    name: prediction.predict(job.apply_fn, state, dataset.images, devices=job.devices)
    for name, dataset in job.sets.items()
  }


def _measure(job, outputs, gold, original, *, is_gold) -> dict[str, float | None]:
  """The scalars of a row. Distances to gold are None for gold itself."""
  seed, energy = job.config.evaluation_seed, job.config.da_energy
  labels = {name: d.labels for name, d in job.sets.items()}
  forgotten = np.isin(labels['test'], job.forgets_classes)
  logits = {name: o.logits for name, o in outputs.items()}
  values = {
    'forget_accuracy': metrics.accuracy(logits['forget'], labels['forget']),
    'retain_accuracy': metrics.accuracy(logits['retain'], labels['retain']),
    'test_accuracy': metrics.accuracy(logits['test'][~forgotten], labels['test'][~forgotten]),
    'validation_accuracy': _accuracy_without(job, logits, labels, 'validation'),
  }
  if job.forgets_classes:
    values['test_forget_accuracy'] = metrics.accuracy(
      logits['test'][forgotten], labels['test'][forgotten]
    )
  forget_rows, unseen_rows = metrics.match_classes(labels['forget'], labels['test'], seed=seed)
  scores = {n: metrics.cross_entropy_scores(logits[n], labels[n]) for n in ('forget', 'test')}
  values['mia'] = metrics.one_feature_attack(
    scores['forget'][forget_rows], scores['test'][unseen_rows], seed=seed
  )
  values['mia_floor'] = metrics.attack_null_spread(
    len(forget_rows), len(unseen_rows), seed=seed
  ).p95
  features = {name: o.features for name, o in outputs.items()}
  if _is_alive(outputs):
    alignment = metrics.dimensional_alignment(features['forget'], features['retain'], energy=energy)
    values['dimensional_alignment'], values['da_rank'] = alignment.value, alignment.rank
  probe = metrics.linear_probe(
    np.concatenate([features['retain'], features['forget']]),
    np.concatenate([labels['retain'], labels['forget']]),
    features['test'],
    labels['test'],
    forget_classes=job.forgets_classes or None,
  )
  values['linear_probe'] = probe.accuracy
  if job.forgets_classes:
    values['linear_probe_forget'] = probe.forget_accuracy
  clusters = metrics.clustering_scores(features['test'], labels['test'], seed=seed)
  values['nmi'], values['f1'] = clusters.nmi, clusters.f1
  if not is_gold:
    values |= {
      'activation_distance': metrics.activation_distance(logits['forget'], gold['forget'].logits),
      'js_divergence': metrics.js_divergence(logits['forget'], gold['forget'].logits),
      'agreement': metrics.agreement(logits['forget'], gold['forget'].logits),
    }
  values['changed'] = float(np.max(np.abs(logits['forget'] - original['forget'].logits)) > 1e-6)
  return {name: float(value) for name, value in values.items()}


def _is_alive(outputs) -> bool:
  """Whether features are not all 0, as they are in a network that was destroyed."""
  return all(np.any(outputs[name].features) for name in ('forget', 'retain'))


def _accuracy_without(job, logits, labels, name):
  kept = ~np.isin(labels[name], job.forgets_classes)
  return metrics.accuracy(logits[name][kept], labels[name][kept])


def _arrays(job, outputs) -> dict[str, np.ndarray]:
  """What the plots need: spectrum, DA by energy, accuracy by class, a projection of features."""
  rng = np.random.default_rng(job.config.evaluation_seed)
  forget, retain = outputs['forget'].features, outputs['retain'].features
  alignment, spectrum = np.full(len(ENERGIES), np.nan), np.zeros(1)
  if _is_alive(outputs):
    alignment = metrics.alignment_curve(forget, retain, ENERGIES).values
    spectrum = metrics.spectrum(retain)
  rows_f = rng.permutation(len(forget))[: _PROJECTED // 4]
  rows_r = rng.permutation(len(retain))[:_PROJECTED]
  points = np.concatenate([forget[rows_f], retain[rows_r]])
  labels = np.concatenate([job.sets['forget'].labels[rows_f], job.sets['retain'].labels[rows_r]])
  return {
    'spectrum': spectrum,
    'energies': np.array(ENERGIES),
    'alignment': alignment,
    'class_accuracy': metrics.per_class_accuracy(
      outputs['test'].logits, job.sets['test'].labels, job.num_classes
    ),
    'projection': decomposition.PCA(2, random_state=0).fit_transform(points),
    'projection_labels': labels,
    'projection_is_forget': np.arange(len(points)) < len(rows_f),
  }

"""Measurements of one model: scalars for the table, arrays for the plots.

A scalar that is not defined for a model or a problem (DA of a network whose features are all zero,
test accuracy on classes that the test set lacks) is left out.
"""

from collections.abc import Collection

import numpy as np
from sklearn import decomposition

from dalign_jax import evaluation, metrics
from experiments.measure import models
from experiments.problem import preparation

ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
_PROJECTED, _LISTED = 400, 2000  # examples of the projection, and of each list of predictions


def scalars(
  job: preparation.Job,
  outputs: evaluation.Outputs,
  gold: evaluation.Outputs,
  original: evaluation.Outputs,
  *,
  is_gold: bool,
  keys: Collection[str] | None = None,
) -> dict[str, float]:
  """The scalars of a model by `evaluation.MEASURES`, and test accuracy in each class.

  Args:
    job: the problem.
    outputs: of the model.
    gold: of the gold that it is compared with.
    original: of the original that it comes from.
    is_gold: whether the model is the reference itself; distances to gold are left out.
    keys: which to measure, None for all.
  """
  case = models.case(job, outputs, original, None if is_gold else gold)
  values = evaluation.measure(case, keys=keys)
  if keys is None and case.inside_classes:
    labels = job.sets['test'].labels
    accuracies = {k: case.accuracy('test', labels == k) for k in range(job.num_classes)}
    values |= {f'test_accuracy_{k}': v for k, v in accuracies.items() if v is not None}
  return values


def matched_rows(job: preparation.Job) -> dict[str, np.ndarray]:
  """Rows of forget and of the other side that attacks compare: equally many of each class."""
  by_group = job.forgets_subclass is not None
  return evaluation.matched_rows(job.sets, seed=job.config.evaluation_seed, by_group=by_group)


def _margins(job, logits, labels):
  """Log odds of the true label; of several attributes, of all of them together."""
  if job.is_multi_label:
    loss = metrics.cross_entropy_scores(logits, labels)
    return -loss - np.log(-np.expm1(-np.maximum(loss, 1e-7)))
  return metrics.logit_scaled_confidence(logits, labels)


def _project(points):
  """First two principal components; zeros where all points are the same."""
  if not np.any(points.std(axis=0) > 0):
    return np.zeros((len(points), 2))
  return decomposition.PCA(2, random_state=0).fit_transform(points)


def _predictions(job, outputs) -> dict[str, np.ndarray]:
  """Predicted classes of some test and forget rows, and which rows; nothing for attributes."""
  found: dict[str, np.ndarray] = {}
  if job.is_multi_label:
    return found
  for name in ('test', 'forget'):
    every = np.random.default_rng(0).permutation(len(job.sets[name]))
    rows = np.sort(every[:_LISTED])
    found[f'predicted_{name}'] = outputs[name].logits[rows].argmax(axis=1).astype(np.int32)
    found[f'predicted_{name}_rows'] = rows
  return found


def arrays(job: preparation.Job, outputs: evaluation.Outputs) -> dict[str, np.ndarray]:
  """Arrays for plots: spectrum, DA by energy, accuracy by class, projection, predicted classes."""
  rng = np.random.default_rng(job.config.evaluation_seed)
  outputs = evaluation.finite(outputs)
  forget, retain = outputs['forget'].features, outputs['retain'].features
  alignment, spectrum = np.full(len(ENERGIES), np.nan), np.full(1, np.nan)
  if all(np.any(outputs[name].features) for name in ('forget', 'retain', 'test')):
    alignment = metrics.alignment_curve(forget, retain, ENERGIES).values
    spectrum = metrics.spectrum(retain)
  rows_f = rng.permutation(len(forget))[: _PROJECTED // 4]
  rows_r = rng.permutation(len(retain))[:_PROJECTED]
  points = np.concatenate([forget[rows_f], retain[rows_r]])
  labels = np.concatenate([job.sets['forget'].labels[rows_f], job.sets['retain'].labels[rows_r]])
  test = outputs['test'].logits, job.sets['test'].labels
  if job.is_multi_label:
    labels = labels @ (2 ** np.arange(labels.shape[1]))
    class_accuracy = np.mean((test[0] > 0) == test[1], axis=0)
  else:
    class_accuracy = metrics.per_class_accuracy(*test, job.num_classes)
  margins = {
    name: _margins(job, outputs[name].logits, job.sets[name].labels)[picked]
    for name, picked in matched_rows(job).items()
  }
  return {
    **_predictions(job, outputs),
    'margin_forget': margins['forget'],
    'margin_unseen': margins[evaluation.other_side(job.sets)],
    'spectrum': spectrum,
    'energies': np.array(ENERGIES),
    'alignment': alignment,
    'class_accuracy': class_accuracy,
    'projection': _project(points),
    'projection_labels': labels,
    'projection_is_forget': np.arange(len(points)) < len(rows_f),
  }

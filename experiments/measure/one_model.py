"""What is measured of one model: scalars for the table, arrays for the plots.

A scalar that is not defined for a model or a problem (DA of a network whose features are all zero,
test accuracy on classes that the test set lacks) is left out.
"""

import functools

import numpy as np
from sklearn import decomposition

from dalign_jax import metrics, types
from experiments.problem import preparation

ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
_PROJECTED = 400
_PROBED = 10_000  # examples that a linear probe is trained on, at most
_LEAST_PAIRS = 5  # an attack on fewer images says nothing

Outputs = dict[str, types.Outputs]  # by set


def scalars(
  job: preparation.Job,
  outputs: Outputs,
  gold: Outputs,
  original: Outputs,
  *,
  is_gold: bool,
  with_features: bool = True,
) -> dict[str, float]:
  """The scalars of a model; distances to gold are left out for gold itself.

  Alignment, probe and clusters of the features, which take longest, are left out on demand.

  Outputs that are not finite, those of a network that was destroyed, are replaced by large numbers,
  and `finite` is 0.
  """
  is_finite = all(np.all(np.isfinite(x)) for o in outputs.values() for x in o)
  outputs, original = replace_non_finite(outputs), replace_non_finite(original)
  logits = {name: o.logits for name, o in outputs.items()}
  values = {**_accuracies(job, logits), **_classes(job, logits), **_attack(job, logits)}
  if with_features:
    values |= _features(job, outputs)
  as_classes = _two_classes if job.is_multi_label else np.asarray
  own = as_classes(logits['forget'])
  values['moved'] = metrics.activation_distance(own, as_classes(original['forget'].logits))
  if not is_gold:
    reference = as_classes(gold['forget'].logits)
    values |= {
      'activation_distance': metrics.activation_distance(own, reference),
      'js_divergence': metrics.js_divergence(own, reference),
      'agreement': metrics.agreement(own, reference),
      **_alignment(job, values, logits, gold),
    }
  values['finite'] = is_finite
  values['changed'] = np.max(np.abs(logits['forget'] - original['forget'].logits)) > 1e-6
  return {name: float(value) for name, value in values.items()}


def _two_classes(log_odds):
  """Each attribute of `[N, A]` as a classification of its own: `[N A, 2]` logits."""
  return np.stack([np.zeros(log_odds.size), log_odds.ravel()], axis=1)


def replace_non_finite(outputs: Outputs) -> Outputs:
  """Large numbers for what is not finite, so that a destroyed network can be measured."""
  limit = lambda x: np.nan_to_num(x, nan=0.0, posinf=1e6, neginf=-1e6)
  return {name: types.Outputs(*map(limit, o)) for name, o in outputs.items()}


def _accuracies(job, logits):
  """Accuracy on each set; on held-out sets apart for retained and forgotten classes."""
  values = {}
  for name, dataset in job.sets.items():
    forgotten = np.zeros(len(dataset), bool)
    if job.forgets_classes:
      forgotten = np.isin(dataset.labels, job.forgets_classes)
    elif job.forgets_subclass is not None:
      forgotten = dataset.group == job.forgets_subclass
    parts = {f'{name}_accuracy': ~forgotten, f'{name}_forget_accuracy': forgotten}
    if name in ('retain', 'forget'):
      parts = {f'{name}_accuracy': np.ones(len(dataset), bool)}
    for key, rows in parts.items():
      if np.any(rows):
        values[key] = metrics.accuracy(logits[name][rows], dataset.labels[rows])
  return values


def _alignment(job, values, logits, gold):
  """Of single images: gap to gold's accuracy on forget, and whether it is gold that is right.

  Gold knows nothing of a class that was forgotten whole.
  """
  if job.is_multi_label or job.forgets_classes:
    return {}
  labels, reference = job.sets['forget'].labels, gold['forget'].logits
  accuracy = metrics.accuracy(reference, labels)
  found = {'forget_gap': abs(values['forget_accuracy'] - accuracy)}
  if 0 < accuracy < 1:
    found['balanced_agreement'] = metrics.balanced_agreement(logits['forget'], reference, labels)
  return found


def _classes(job, logits):
  """Accuracy in each class, and beside the forgotten images in their classes, if not in all."""
  inside = inside_classes(job)
  if not inside:
    return {}
  values = {}
  for name in ('retain', 'test'):
    labels = job.sets[name].labels
    parts = {'same': np.isin(labels, inside)}
    if name == 'test':
      parts |= {'other': ~parts['same']} | {k: labels == k for k in range(job.num_classes)}
    for part, rows in parts.items():
      if np.any(rows):
        values[f'{name}_accuracy_{part}'] = metrics.accuracy(logits[name][rows], labels[rows])
  return values


def inside_classes(job: preparation.Job) -> tuple[int, ...]:
  """The classes to forget from, where that is a part of some classes, and of none the whole."""
  if job.is_multi_label or job.forgets_classes:
    return ()
  classes = np.unique(job.sets['forget'].labels)
  return tuple(classes.tolist()) if len(classes) < job.num_classes else ()


def _attack(job, logits):
  """Membership attack: forget against images never trained on, of the same classes if it can be.

  Those are the unseen people's where there are any, else the test images. With unseen people, the
  benchmark's own score as well: all of both sides, cut to equal size.
  """
  seed = job.config.evaluation_seed
  rows = matched_rows(job)
  other = other_side(job)
  scores = {n: metrics.cross_entropy_scores(logits[n], job.sets[n].labels) for n in rows}
  sizes = [len(picked) for picked in rows.values()]
  if min(sizes) < _LEAST_PAIRS:
    return {}
  values = {
    'mia': metrics.one_feature_attack(*(scores[n][rows[n]] for n in rows), seed=seed),
    'mia_floor': _null_spread(*sizes, seed),
  }
  if other == 'unseen':
    accuracy = metrics.one_feature_attack(*scores.values(), seed=seed)
    utility = metrics.accuracy(logits['test'], job.sets['test'].labels)
    values |= {
      'forgetting_score': metrics.forgetting_score(accuracy),
      'forgetting_score_floor': _null_spread(*map(len, scores.values()), seed),
      'nomus': metrics.nomus(utility, accuracy),
    }
  return values


def other_side(job: preparation.Job) -> str:
  """The set that attacks tell forget from: unseen people or poisoned images, else test."""
  return next((name for name in ('unseen', 'poisoned') if name in job.sets), 'test')


def matched_rows(job: preparation.Job) -> dict[str, np.ndarray]:
  """Rows of forget and of `other_side` that attacks compare: equally many of each class.

  Where they have no class in common, all rows of both. Every combination of binary attributes is a
  class.
  """
  sides = {name: job.sets[name] for name in ('forget', other_side(job))}
  is_fine = job.forgets_subclass is not None
  labels = {name: rows.group if is_fine else rows.labels for name, rows in sides.items()}
  _, classes = np.unique(np.concatenate([*labels.values()]), axis=0, return_inverse=True)
  sides = np.split(classes.ravel(), [len(labels['forget'])])
  if not np.intersect1d(*sides).size:
    return {name: np.arange(len(values)) for name, values in labels.items()}
  pairs = metrics.match_classes(*sides, seed=job.config.evaluation_seed)
  return dict(zip(labels, pairs, strict=True))


def _margins(job, logits, labels):
  """Log odds of the true label; of several attributes, of all of them together."""
  if job.is_multi_label:
    loss = metrics.cross_entropy_scores(logits, labels)
    return -loss - np.log(-np.expm1(-np.maximum(loss, 1e-7)))
  return metrics.logit_scaled_confidence(logits, labels)


@functools.lru_cache
def _null_spread(num_forget, num_unseen, seed):
  return metrics.attack_null_spread(num_forget, num_unseen, seed=seed).p95


def _features(job, outputs):
  """Alignment, probe and clusters of the penultimate features."""
  if not _is_alive(outputs):
    return {}
  features = {name: o.features for name, o in outputs.items()}
  labels = {name: d.labels for name, d in job.sets.items()}
  alignment = metrics.dimensional_alignment(
    features['forget'], features['retain'], energy=job.config.da_energy
  )
  values = {'dimensional_alignment': alignment.value, 'da_rank': alignment.rank}
  if job.is_multi_label:
    return values
  tested_classes = sorted(set(job.forgets_classes) & set(labels['test'].tolist()))
  trained_features = np.concatenate([features['retain'], features['forget']])
  trained_labels = np.concatenate([labels['retain'], labels['forget']])
  rng = np.random.default_rng(job.config.evaluation_seed)
  rows = rng.permutation(len(trained_labels))[:_PROBED]
  probe = metrics.linear_probe(
    trained_features[rows],
    trained_labels[rows],
    features['test'],
    labels['test'],
    forget_classes=tested_classes or None,
  )
  values['linear_probe'] = probe.accuracy
  if tested_classes:
    values['linear_probe_forget'] = probe.forget_accuracy
  if 1 < len(np.unique(labels['test'])) < len(labels['test']):
    clusters = metrics.clustering_scores(
      features['test'], labels['test'], seed=job.config.evaluation_seed
    )
    values |= {'nmi': clusters.nmi, 'f1': clusters.f1}
  return values


def _is_alive(outputs) -> bool:
  """Whether no set's features are all zero, as they are in a network that was destroyed."""
  return all(np.any(outputs[name].features) for name in ('forget', 'retain', 'test'))


def _project(points):
  """First two principal components; zeros where all points are the same."""
  if not np.any(points.std(axis=0) > 0):
    return np.zeros((len(points), 2))
  return decomposition.PCA(2, random_state=0).fit_transform(points)


def arrays(job: preparation.Job, outputs: Outputs) -> dict[str, np.ndarray]:
  """What the plots need: spectrum, DA by energy, accuracy by class, a projection of features."""
  rng = np.random.default_rng(job.config.evaluation_seed)
  outputs = replace_non_finite(outputs)
  forget, retain = outputs['forget'].features, outputs['retain'].features
  alignment, spectrum = np.full(len(ENERGIES), np.nan), np.full(1, np.nan)
  if _is_alive(outputs):
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
    'margin_forget': margins['forget'],
    'margin_unseen': margins[other_side(job)],
    'spectrum': spectrum,
    'energies': np.array(ENERGIES),
    'alignment': alignment,
    'class_accuracy': class_accuracy,
    'projection': _project(points),
    'projection_labels': labels,
    'projection_is_forget': np.arange(len(points)) < len(rows_f),
  }

"""What the verdict of a request is judged by: numbers of the models before and after it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy import stats

from dalign_jax import prediction, types

MODELS = ('before', 'after', 'dummy', 'gold')
_FLIPS, _BLOCK = 10_000, 100  # random flips, and how many at a time
_DIGITS = 6  # of numbers in the record


def measure(
  problem: types.Problem,
  models: Mapping[str, types.ModelState],
  test: types.Dataset,
  metrics: Mapping[str, Mapping[str, float]],
  *,
  exact: bool,
  seed: int,
  counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
  """The numbers that `judgement.judge` compares with its rules.

  Args:
    problem: of the request.
    models: `before`, `after`, and as far as they were made `dummy` (the same method, asked to
      forget as many retained samples) and `gold` (retrained).
    test: held-out data that no method has seen.
    metrics: of `evaluation.compare`.
    exact: whether the method trains anew without the samples.
    seed: of the permutation tests.
    counts: of samples kept (`retain_accuracy`) and held out (`test_accuracy`), as the record says
      them: at least those that are measured, which may lack classes that went and samples that wait
      for another request. None for those of `problem` and `test`.

  Returns:
    Numbers by name, as JSON has them. `parts` are the samples whose classes are kept and those
    whose classes go whole: accuracy on them and on held-out ones of the same classes, with Fisher's
    exact test between the two.
  """
  outputs = {name: _predict(problem, model, problem.forget) for name, model in models.items()}
  held_out = {name: _predict(problem, models[name], test) for name in MODELS[:2]}
  right = {name: _right(found, problem.forget) for name, found in outputs.items()}
  held_right = {name: _right(found, test) for name, found in held_out.items()}
  moved = {
    name: _distances(outputs[name], outputs['before'], problem.forget)
    for name in ('after', 'dummy')
    if name in outputs
  }
  counts = counts or {'retain_accuracy': len(problem.retain), 'test_accuracy': len(test)}
  is_dummy = 'dummy' in models
  other = 'dummy' if is_dummy else 'before'
  found = {
    'mode': 'full' if is_dummy or exact else 'quick',
    'exact': exact,
    'count': len(problem.forget),
    'parts': _parts(problem, test, right, held_right),
    **from_metrics(metrics, counts),
    'moved': _movement(moved, seed),
    'fell': {
      'after': float(np.mean(right['after'])),
      'other': float(np.mean(right[other])),
      'p': flip_p(right[other].astype(float) - right['after'], seed=seed),
    },
    'parameters_moved': {name: parameters_moved(models['before'], models[name]) for name in moved},
    'chance': chance(problem.retain.labels),
  }
  return _rounded(found)


def from_metrics(
  metrics: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]
) -> dict[str, Any]:
  """The part of `measure` that follows from a record's metrics and counts: `attack` and `kept`."""
  return _rounded({'attack': _attack(metrics), 'kept': _kept(metrics, counts)})


def fisher_p(right: int, count: int, held_right: int, held_count: int) -> float:
  """P-value of Fisher's exact test between two shares of right answers."""
  table = [[right, count - right], [held_right, held_count - held_right]]
  return round(float(stats.fisher_exact(table).pvalue), _DIGITS)


def _movement(moved, seed) -> dict[str, float]:
  """Mean distances, and whether that of the request is larger."""
  found = {name: float(np.mean(distances)) for name, distances in moved.items()}
  if 'dummy' in moved:
    found['p'] = flip_p(moved['after'] - moved['dummy'], seed=seed)
  return found


def chance(labels: np.ndarray) -> float:
  """The accuracy of always naming the commonest label; the mean over attributes.

  Example:
    >>> chance(np.array([0, 0, 1, 2]))
    0.5
  """
  columns = labels[:, None] if labels.ndim == 1 else labels
  return float(np.mean([np.unique(c, return_counts=True)[1].max() / len(c) for c in columns.T]))


def flip_p(differences: np.ndarray, *, seed: int) -> float:
  """One-sided sign-flip test that paired differences have a mean above 0; its p-value.

  Exact up to 12 differences that are not 0, else with random flips.

  Args:
    differences: `[N]`.
    seed: of the flips.

  Example:
    >>> flip_p(np.array([1.0, 2.0, 1.0, 3.0, 1.0]), seed=0)
    0.03125
  """
  values = differences[differences != 0]
  if not len(values):
    return 1.0
  if len(values) <= 12:
    bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
    sums = np.where(bits, -values, values).sum(axis=1)
    return float(np.mean(sums >= values.sum() - 1e-9))
  rng, reached = np.random.default_rng(seed), 0
  for _ in range(_FLIPS // _BLOCK):
    signs = 2 * rng.integers(0, 2, (_BLOCK, len(values)), np.int8) - 1
    reached += int(np.sum(signs @ values >= values.sum() - 1e-9))
  return (1 + reached) / (1 + _FLIPS)


def parameters_moved(before: types.ModelState, after: types.ModelState) -> float:
  """The distance of two models' parameters over the norm of the first."""
  pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
  squares = [
    (np.sum(np.square(a - b, dtype=np.float64)), np.sum(np.square(a, dtype=np.float64)))
    for a, b in ((np.asarray(a), np.asarray(b)) for a, b in pairs)
  ]
  difference, norm = np.sqrt(np.sum(squares, axis=0))
  return float(difference / max(norm, 1e-12))


def is_finite(problem: types.Problem, model: types.ModelState) -> bool:
  """Whether a model's arrays and its logits on the samples are finite."""
  arrays = [*jax.tree.leaves(model), _predict(problem, model, problem.forget)]
  return all(bool(np.all(np.isfinite(x))) for x in arrays)


def knowledge(problem: types.Problem, *, most: int = 2048) -> tuple[float, float, float]:
  """What the model before knows of its training samples.

  Args:
    problem: of the request.
    most: number of samples to look at, evenly spread.

  Returns:
    Accuracy, the accuracy of naming the commonest label, and its standard error.
  """
  kept, total = len(problem.retain), len(problem.retain) + len(problem.forget)
  rows = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
  retain, forget = rows[rows < kept], rows[rows >= kept] - kept
  seen = types.concatenate(problem.retain.take(retain), problem.forget.take(forget))
  logits = _predict(problem, problem.original, seen)
  accuracy = float(np.mean(_hits(logits, seen)))
  guess = chance(seen.labels)
  return accuracy, guess, float(np.sqrt(max(guess * (1 - guess), 1e-12) / len(rows)))


def _predict(problem, model, dataset) -> np.ndarray:
  found = prediction.predict(problem.apply_fn, model, dataset.images, devices=problem.devices)
  return np.asarray(found.logits)


def _hits(logits, dataset) -> np.ndarray:
  """Whether each prediction is right: `[N]`, or `[N, A]` of attributes."""
  if dataset.is_multi_label:
    return np.asarray((logits > 0) == dataset.labels)
  return np.asarray(np.argmax(logits, axis=1) == dataset.labels)


def _right(logits, dataset) -> np.ndarray:
  """Whether each sample is recognised, in all of its attributes: `[N]`."""
  hits = _hits(logits, dataset)
  return np.asarray(hits.all(axis=1)) if hits.ndim == 2 else hits


def _distances(logits, other, dataset) -> np.ndarray:
  """L2 distance of the probabilities of each sample: `[N]`; the mean over attributes."""
  if dataset.is_multi_label:
    p, q = (1 / (1 + np.exp(-x)) for x in (logits, other))
    return np.sqrt(2) * np.mean(np.abs(p - q), axis=1)
  p, q = (_softmax(x) for x in (logits, other))
  return np.linalg.norm(p - q, axis=1)


def _softmax(logits) -> np.ndarray:
  shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
  return shifted / shifted.sum(axis=1, keepdims=True)


def _parts(problem, test, right, held_right) -> dict[str, Any]:
  forget = problem.forget
  everything = {'samples': (np.ones(len(forget), bool), np.ones(len(test), bool))}
  if forget.is_multi_label:
    return {k: _part(*rows, right, held_right) for k, rows in everything.items()}
  whole = np.setdiff1d(forget.labels, problem.retain.labels)
  found = {}
  for name, classes in (
    ('samples', np.setdiff1d(forget.labels, whole)),
    ('classes', whole),
  ):
    if len(classes):
      rows = (np.isin(forget.labels, classes), np.isin(test.labels, classes))
      found[name] = _part(*rows, right, held_right)
  if 'classes' in found:
    found['classes']['allowed'] = 1 / problem.num_classes
  return found


def _part(rows, held_rows, right, held_right) -> dict[str, Any]:
  found: dict[str, Any] = {
    'count': int(rows.sum()),
    'held_out_count': int(held_rows.sum()),
    'accuracy': {name: float(np.mean(hits[rows])) for name, hits in right.items()},
    'held_out': {},
    'p': {},
  }
  for moment, hits in held_right.items():
    if held_rows.any():
      a, b = right[moment][rows], hits[held_rows]
      found['held_out'][moment] = float(np.mean(b))
      found['p'][moment] = fisher_p(int(a.sum()), len(a), int(b.sum()), len(b))
  if 'gold' in right:
    above = lambda m: right[m][rows].astype(float) - right['gold'][rows]
    found['p_gold'] = {m: flip_p(above(m), seed=0) for m in MODELS[:2]}
  return found


def _attack(metrics) -> dict[str, float] | None:
  before, after = metrics['original'], metrics['unlearned']
  if 'attack' not in after or 'attack' not in before:
    return None
  return {'before': before['attack'], 'after': after['attack'], 'floor': after['attack_floor']}


def _kept(metrics, counts) -> dict[str, dict[str, float]]:
  before, after = metrics['original'], metrics['unlearned']
  names = {
    'the samples kept': 'retain_accuracy',
    'held-out samples of the classes kept': 'test_accuracy',
  }
  return {
    name: {'before': before[key], 'after': after[key], 'count': counts[key]}
    for name, key in names.items()
    if key in before and key in after
  }


def _rounded(value):
  """Numbers to so many digits as do not depend on the order of a sum."""
  if isinstance(value, dict):
    return {name: _rounded(inner) for name, inner in value.items()}
  return round(value, _DIGITS) if isinstance(value, float) else value

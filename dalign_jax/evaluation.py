"""Evaluation for a model and data of one's own: a model's figures, beside gold's if there is one.

The benchmark's evaluation, with seeds, plots and strong attacks, is `experiments.run`; this is the
short one, of `dalign_jax.metrics`, for a program of one's own.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dalign_jax import errors, metrics, prediction, types

_LEAST_PAIRS = 5  # an attack on fewer images says nothing
_ROWS = ('original', 'unlearned', 'gold', 'second gold')


def compare(
  problem: types.Problem,
  unlearned: types.ModelState,
  test: types.Dataset,
  *,
  golds: Sequence[types.ModelState] = (),
  energy: float = 0.9,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Figures of original, unlearned and gold models, side by side.

  Read each beside gold's; a gap no larger than that of the second gold is luck. Without gold, only
  this can be said: whether retain and test accuracy were kept, how far the forget accuracy still is
  from `test_same_classes` (that on test images of the same classes: where single examples are
  forgotten and not whole classes, gold treats both alike), whether the attack is within its null
  floor, and whether anything moved. Not, whether the model is what retraining would have given.

  Args:
    problem: its original, retain and forget data are used.
    unlearned: what a method returned.
    test: data that neither the original nor the method has seen.
    golds: up to two models retrained without the forget data.
    energy: share of the retain features' second moment that DA keeps, in (0, 1].
    seed: of the attack.

  Returns:
    `{'original': figures, 'unlearned': ..., 'gold': ..., 'second gold': ...}`, the last two as far
    as given. Accuracies in [0, 1]: `forget`, `retain`, `test` (without the forgotten classes) and
    `test_same_classes`; `attack`, the accuracy of `metrics.one_feature_attack`, .5 is chance, and
    `attack_floor`, what 95 % of equal laws stay within of .5; `alignment`, dimensional alignment;
    `moved`, activation distance from the original on forget; `to_gold`, that from gold. A figure
    that is not defined is left out.

  Raises:
    ValueError: for more than two golds, or outputs that are not finite.
  """
  if len(golds) > 2:
    raise errors.InputError(f'golds must be two at most, got {len(golds)}')
  models = dict(zip(_ROWS, (problem.original, unlearned, *golds), strict=False))
  sets = {'forget': problem.forget, 'retain': problem.retain, 'test': test}
  outputs = {name: _outputs(problem, name, model, sets) for name, model in models.items()}
  forgotten = np.setdiff1d(problem.forget.labels, problem.retain.labels)
  if problem.forget.is_multi_label:
    forgotten = ()
  found = {}
  for name, of_model in outputs.items():
    found[name] = {
      **_accuracies(of_model, sets, forgotten),
      **_attack(of_model, sets, seed),
      **_alignment(of_model, energy),
      'moved': _distance(of_model, outputs['original'], problem),
    }
    if golds and name != 'gold':
      found[name]['to_gold'] = _distance(of_model, outputs['gold'], problem)
  return found


def markdown(figures: Mapping[str, Mapping[str, float]]) -> str:
  """The result of `compare` as a table in Markdown.

  Example:
    >>> print(markdown({'original': {'forget': 1.0, 'moved': 0.0}, 'gold': {'forget': 0.25}}))
    | model    | forget | moved |
    | -------- | -----: | ----: |
    | original |  1.000 | 0.000 |
    | gold     |  0.250 |     - |
  """
  heads = list(dict.fromkeys(key for of_model in figures.values() for key in of_model))
  show = lambda value: '-' if value is None else f'{value:.3f}'
  lines = [[name, *(show(of_model.get(h)) for h in heads)] for name, of_model in figures.items()]
  widths = [max(map(len, column)) for column in zip(['model', *heads], *lines, strict=True)]
  widths = [max(3, width) for width in widths]
  rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  aligned = [
    [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
    for line in (['model', *heads], *lines)
  ]
  return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (aligned[0], rule, *aligned[1:]))


def _outputs(problem, name, model, sets):
  found = {
    key: prediction.predict(problem.apply_fn, model, d.images, devices=problem.devices)
    for key, d in sets.items()
  }
  if not all(np.all(np.isfinite(x)) for o in found.values() for x in o):
    raise errors.InputError(f'the outputs of {name} are not finite: it was destroyed')
  return found


def _accuracies(outputs, sets, forgotten):
  figures = {k: metrics.accuracy(outputs[k].logits, sets[k].labels) for k in ('forget', 'retain')}
  labels, logits = sets['test'].labels, outputs['test'].logits
  parts = {
    'test': ~_is_in(labels, forgotten),
    'test_same_classes': _is_in(labels, sets['forget'].labels),
  }
  for key, rows in parts.items():
    if np.any(rows):
      figures[key] = metrics.accuracy(logits[rows], labels[rows])
  return figures


def _is_in(labels, others):
  """Which labels (or combinations of attributes) are among others."""
  if labels.ndim == 1:
    return np.isin(labels, others)
  known = set(map(bytes, np.ascontiguousarray(others)))
  return np.array([bytes(row) in known for row in np.ascontiguousarray(labels)], bool)


def _attack(outputs, sets, seed):
  """Forget against test images by their loss, equally many of each class."""
  labels = [sets[k].labels for k in ('forget', 'test')]
  classes = np.unique(np.concatenate(labels), axis=0, return_inverse=True)[1].ravel()
  sides = np.split(classes, [len(labels[0])])
  if not np.intersect1d(*sides).size:
    return {}
  rows = metrics.match_classes(*sides, seed=seed)
  if len(rows[0]) < _LEAST_PAIRS:
    return {}
  losses = [
    metrics.cross_entropy_scores(outputs[k].logits[r], sets[k].labels[r])
    for k, r in zip(('forget', 'test'), rows, strict=True)
  ]
  floor = metrics.attack_null_spread(*map(len, losses), seed=seed).p95
  return {'attack': metrics.one_feature_attack(*losses, seed=seed), 'attack_floor': floor}


def _alignment(outputs, energy):
  features = [outputs[k].features for k in ('forget', 'retain')]
  if not all(map(np.any, features)):
    return {}
  return {'alignment': metrics.dimensional_alignment(*features, energy=energy).value}


def _distance(outputs, others, problem):
  pair = [o['forget'].logits for o in (outputs, others)]
  if problem.forget.is_multi_label:
    pair = [np.stack([np.zeros(x.size), x.ravel()], axis=1) for x in pair]
  return metrics.activation_distance(*pair)

"""The table of measures: key, heading, meaning, computation and direction of each, in one entry.

To add a column to tables, CSV, records and docs, add one entry here.
"""

from collections.abc import Callable, Collection
import functools
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import metrics
from dalign_jax.evaluation import _case, _matching

_LEAST_PAIRS = 5  # an attack on fewer images says nothing
_UNEVEN = 2  # classes of such different sizes have a balanced accuracy


class Measure(NamedTuple):
  """A scalar of a model.

  Attributes:
    key: its name everywhere: in JSON, CSV, records and docs.
    head: of its column; empty for a scalar that tables do not show.
    meaning: what it says, in a sentence.
    compute: from a `Case`, or for measures of many models at once from what holds those; None
      where it is not defined.
    scale: what tables multiply it by.
    digits: after the decimal point.
    is_distance: whether it is already a distance to gold; else nearer to gold's value is better.
    part: the table it stands in: main or full.
    group: heading over it and its neighbours; empty for none.
  """

  key: str
  head: str
  meaning: str
  compute: Callable[[Any], float | None]
  scale: float = 1.0
  digits: int = 3
  is_distance: bool = False
  part: str = 'main'
  group: str = ''


def measure(case: _case.Case, *, keys: Collection[str] | None = None) -> dict[str, float]:
  """Scalars of a model by key, without those that are not defined.

  Outputs that are not finite, those of a network that was destroyed, count as large numbers, and
  `finite` is 0.

  Args:
    case: the model and what it is measured on.
    keys: which to measure, None for all.
  """
  found = {}
  for entry in MEASURES:
    if keys is None or entry.key in keys:
      found[entry.key] = entry.compute(case)
  return {key: float(value) for key, value in found.items() if value is not None}


def _accuracy(name: str) -> Callable[[_case.Case], float | None]:
  """Accuracy on a set; on held-out ones without forgotten classes."""

  def compute(case):
    if name in ('retain', 'forget'):
      return case.accuracy(name)
    return case.accuracy(name, ~case.is_forgotten(name)) if name in case.sets else None

  return compute


def _accuracy_on_forgotten(name: str) -> Callable[[_case.Case], float | None]:
  return lambda case: case.accuracy(name, case.is_forgotten(name)) if name in case.sets else None


def _balanced_accuracy(case):
  """Defined where one class has over twice as many test images as another, on two or more."""
  if case.is_multi_label or 'test' not in case.sets:
    return None
  rows = ~case.is_forgotten('test')
  labels = case.sets['test'].labels[rows]
  sizes = np.unique(labels, return_counts=True)[1]
  if len(sizes) < 2 or sizes.max() <= _UNEVEN * sizes.min():
    return None
  return metrics.group_accuracy(case.logits('test')[rows], labels, labels).values.mean()


def _accuracy_inside(name: str, *, inside: bool) -> Callable[[_case.Case], float | None]:
  def compute(case):
    if not case.inside_classes:
      return None
    return case.accuracy(name, np.isin(case.sets[name].labels, case.inside_classes) == inside)

  return compute


def _forget_gap(case):
  """Gold knows nothing of a class that was forgotten whole."""
  if case.gold is None or case.is_multi_label or case.forgotten_classes:
    return None
  labels = case.sets['forget'].labels
  return abs(case.accuracy('forget') - metrics.accuracy(case.gold['forget'].logits, labels))


def _balanced_agreement(case):
  if case.gold is None or case.is_multi_label or case.forgotten_classes:
    return None
  labels, gold = case.sets['forget'].labels, case.gold['forget'].logits
  if not 0 < metrics.accuracy(gold, labels) < 1:
    return None
  return metrics.balanced_agreement(case.own['forget'].logits, gold, labels)


def _to_gold(metric: Callable) -> Callable[[_case.Case], float | None]:
  """A distance of the outputs on forget to gold's."""

  def compute(case):
    if case.gold is None:
      return None
    return metric(case.as_classes(case.own, 'forget'), case.as_classes(case.gold, 'forget'))

  return compute


def _cka_distance(case):
  if case.gold is None or not case.has_features:
    return None
  own, gold = case.features('forget'), np.asarray(_case.finite(case.gold)['forget'].features)
  if not all(np.any(features.std(axis=0) > 0) for features in (own, gold)):
    return None
  return 1 - metrics.linear_cka(own, gold)


def _moved(case):
  own, original = (case.as_classes(o, 'forget') for o in (case.own, _case.finite(case.original)))
  return metrics.activation_distance(own, original)


def _changed(case):
  original = _case.finite(case.original)['forget'].logits
  return np.max(np.abs(case.own['forget'].logits - original)) > 1e-6


def _pairs(case) -> list[np.ndarray] | None:
  """Losses of the matched rows of both sides; None for too few."""
  sides = [case.losses[name][rows] for name, rows in case.matched_rows.items()]
  return sides if min(map(len, sides)) >= _LEAST_PAIRS else None


def _attack(case):
  pairs = _pairs(case)
  return None if pairs is None else metrics.one_feature_attack(*pairs, seed=case.seed)


def _attack_floor(case):
  pairs = _pairs(case)
  return None if pairs is None else _null_spread(*map(len, pairs), case.seed)


@functools.lru_cache
def _null_spread(num_forget, num_other, seed):
  return metrics.attack_null_spread(num_forget, num_other, seed=seed).p95


def _face_attack(case) -> float | None:
  """The attack of the face benchmarks: all of both sides, cut to equal size."""
  if _matching.other_side(case.sets) != 'unseen' or _pairs(case) is None:
    return None
  return metrics.one_feature_attack(*case.losses.values(), seed=case.seed)


def _forgetting_score(case):
  accuracy = _face_attack(case)
  return None if accuracy is None else metrics.forgetting_score(accuracy)


def _forgetting_score_floor(case):
  if _face_attack(case) is None:
    return None
  return _null_spread(*map(len, case.losses.values()), case.seed)


def _nomus(case):
  accuracy = _face_attack(case)
  if accuracy is None:
    return None
  utility = metrics.accuracy(case.own['test'].logits, case.sets['test'].labels)
  return metrics.nomus(utility, accuracy)


def _of_features(name: str, field: str) -> Callable[[_case.Case], float | None]:
  """A field of something that the case computes of the features once."""

  def compute(case):
    result = getattr(case, name)
    value = None if result is None else getattr(result, field)
    return None if value is None or np.isnan(value) else value

  return compute


_percent = functools.partial(Measure, scale=100.0, digits=1)

MEASURES: tuple[Measure, ...] = (
  _percent(
    'forget_accuracy',
    'forget',
    'Accuracy on the forget set, %.',
    _accuracy('forget'),
    group='accuracy (%)',
  ),
  _percent(
    'forget_gap',
    'forget gap',
    "Distance of that accuracy from gold's, points: the aim is gold's accuracy, not 0.",
    _forget_gap,
    is_distance=True,
    group='accuracy (%)',
  ),
  _percent(
    'retain_accuracy',
    'retain',
    'Accuracy on the retain set, %.',
    _accuracy('retain'),
    group='accuracy (%)',
  ),
  _percent('validation_accuracy', '', 'The same on validation images.', _accuracy('validation')),
  _percent(
    'test_accuracy',
    'test',
    'Accuracy on test images of the retained classes (and subclasses), %.',
    _accuracy('test'),
    group='accuracy (%)',
  ),
  _percent(
    'test_accuracy_balanced',
    'test balanced',
    'Mean over the classes of that accuracy, %; where the largest class has over twice as many '
    'test images as the smallest.',
    _balanced_accuracy,
    group='accuracy (%)',
  ),
  _percent(
    'test_forget_accuracy',
    'test forgotten',
    'Accuracy on test images of forgotten classes or of the forgotten subclass, %.',
    _accuracy_on_forgotten('test'),
    group='accuracy (%)',
  ),
  _percent('unseen_accuracy', '', 'Accuracy on unseen people, %.', _accuracy('unseen')),
  _percent(
    'poisoned_accuracy',
    'ASR',
    'Attack success rate: share of poisoned test images (other classes with the trigger, or with '
    'wrong labels) that get the wrong label, %.',
    _accuracy('poisoned'),
    group='accuracy (%)',
  ),
  _percent(
    'retain_accuracy_same',
    '',
    'Accuracy on retain images of the classes that lose some, %.',
    _accuracy_inside('retain', inside=True),
  ),
  _percent(
    'test_accuracy_same',
    '',
    'Accuracy on test images of the classes that lose some, %.',
    _accuracy_inside('test', inside=True),
  ),
  _percent(
    'test_accuracy_other',
    '',
    'Accuracy on test images of all other classes, %.',
    _accuracy_inside('test', inside=False),
  ),
  Measure(
    'attack',
    'attack',
    'One-feature membership attack on the loss: mean accuracy of separating forget from test '
    "images (unseen people's or poisoned ones if any) of the same classes. 0.5 is chance. "
    'Its null floor at these sizes is given below.',
    _attack,
    group='membership',
  ),
  Measure(
    'attack_floor',
    '',
    'Null floor: 95 % of attacks on identical distributions of these sizes are this near to 0.5.',
    _attack_floor,
  ),
  Measure(
    'forgetting_score',
    'FS',
    "Forgetting score of the face benchmarks: |M - 0.5|, M the attack's accuracy on all of forget "
    'against all of the unseen people, cut to equal size; its null floor is given below.',
    _forgetting_score,
    group='membership',
  ),
  Measure('forgetting_score_floor', '', 'Its null floor.', _forgetting_score_floor),
  Measure(
    'nomus',
    'NoMUS',
    'Half the test accuracy plus half of 1 - 2 FS. Not calibrated on gold: an untouched or a '
    'constant network can beat it.',
    _nomus,
    group='membership',
  ),
  Measure(
    'dimensional_alignment',
    'DA',
    "Share of the forget features inside the retain features' principal eigenspace.",
    _of_features('alignment', 'value'),
    group='features',
  ),
  Measure(
    'da_rank',
    'k',
    "Rank of that eigenspace. DA rises when it shrinks: a DA at another rank than gold's has no "
    'verdict.',
    _of_features('alignment', 'rank'),
    digits=1,
    part='features',
  ),
  Measure(
    'subspace_overlap',
    'overlap',
    'Alignment of both eigenspaces: share of the principal forget directions inside the principal '
    'retain directions, each at the energy of DA.',
    lambda case: case.overlap,
    part='features',
  ),
  Measure(
    'cka_distance',
    '1 - CKA',
    "1 minus the linear centred kernel alignment of the forget features with gold's: 0 is equal "
    'up to rotation and scale.',
    _cka_distance,
    is_distance=True,
    part='features',
  ),
  Measure(
    'linear_probe',
    'LP',
    'Linear probe: a fresh head on frozen features, test %.',
    _of_features('probe', 'accuracy'),
    scale=100.0,
    digits=1,
    group='features',
  ),
  Measure(
    'linear_probe_forget',
    'LP forgotten',
    'The same on forgotten classes, test %.',
    _of_features('probe', 'forget_accuracy'),
    scale=100.0,
    digits=1,
    group='features',
  ),
  Measure(
    'nmi',
    'NMI',
    'k-means clusters of test features against labels.',
    _of_features('clusters', 'nmi'),
    group='features',
  ),
  Measure(
    'f1',
    'F1',
    'Pairwise F1 of the same clusters.',
    _of_features('clusters', 'f1'),
    group='features',
  ),
  Measure(
    'moved',
    '',
    "Activation distance from the original's outputs on forget: what the method did.",
    _moved,
  ),
  Measure(
    'activation_distance',
    'AD',
    "Activation distance: mean L2 distance between the softmax outputs and gold's on forget.",
    _to_gold(metrics.activation_distance),
    is_distance=True,
    group='outputs against gold',
  ),
  Measure(
    'agreement',
    '',
    'Share of forget images on which the prediction is that of gold.',
    _to_gold(metrics.agreement),
  ),
  _percent(
    'balanced_agreement',
    'as gold',
    'On forget, right where gold is right and wrong where gold is wrong: mean of the two shares, '
    '%. 50 says nothing, 100 is gold; a second gold shows what can be reached.',
    _balanced_agreement,
    group='outputs against gold',
  ),
  Measure(
    'js_divergence',
    'JS',
    "Jensen-Shannon divergence to gold's outputs, nats.",
    _to_gold(metrics.js_divergence),
    is_distance=True,
    group='outputs against gold',
  ),
  Measure('finite', '', 'Whether all outputs are finite.', lambda case: case.is_finite),
  Measure('changed', '', "Whether any output on forget is not the original's.", _changed),
)

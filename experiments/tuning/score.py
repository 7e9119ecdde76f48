"""Judges models for a search: as tables do, with validation images in place of test images.

The rule: the setting with the lowest score wins. The score is the mean gap to gold, in noise
floors, over forget, retain and validation accuracy, the membership attack, activation distance and
dimensional alignment. A floor is the mean difference between two of the tuning golds, so that
another gold scores about 1; it is at least a point of an accuracy or of the attack, since two golds
can agree to an image, and doing nothing would then win over any loss. Alignment counts with its
rank: its gap is the larger of both, in floors, so that a collapsed retain space does not win.
Outputs and features both count: a model with the outputs of gold and the features of the original
does not win. A trial that fails, or whose outputs are not finite, loses to every other. Over
several originals the score is the mean of theirs.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

import numpy as np

from dalign_jax import checkpoints, evaluation, prediction, types
from experiments.measure import one_model
from experiments.problem import preparation

METRICS = {  # in the log -> as measured, where validation images are in place of test images
  'forget_accuracy': 'forget_accuracy',
  'retain_accuracy': 'retain_accuracy',
  'validation_accuracy': 'test_accuracy',
  'attack': 'attack',
  'activation_distance': 'activation_distance',
  'js_divergence': 'js_divergence',
  'dimensional_alignment': 'dimensional_alignment',
  'da_rank': 'da_rank',
}
_DISTANCE = 'activation_distance'  # from gold, whose own is 0
_ALIGNMENT, _RANK = 'dimensional_alignment', 'da_rank'
_IN_POINTS = ('forget_accuracy', 'retain_accuracy', 'validation_accuracy', 'attack')
JUDGED = (*_IN_POINTS, _DISTANCE, _ALIGNMENT)
RULE = 3  # to be raised when the score changes
_LEAST_FLOOR = {**dict.fromkeys(_IN_POINTS, 0.01), _RANK: 1.0}
_SMALLEST = 1e-3  # least floor of all else


@dataclasses.dataclass(frozen=True)
class _Seed:
  """References for the models that come from one original."""

  original: evaluation.Outputs
  gold: evaluation.Outputs
  target: dict[str, float]  # the metrics of gold


class Judge:
  """Measures models against the tuning golds.

  Validation images stand in for test images, people whom methods may watch for unseen ones, so that
  nothing is chosen by what tables report.

  Args:
    job: the tuning problem, its originals and two golds for each of them trained.

  Attributes:
    floors: of each judged metric and of the rank, the mean difference between two golds; at least a
      point, or a direction.
  """

  def __init__(self, job: preparation.Job):
    self.job = job
    sets = {name: job.sets[name] for name in ('retain', 'forget')}
    sets['test'] = job.sets['validation']
    if job.watched is not None:
      sets['unseen'] = job.watched
    if job.poison is not None:
      sets['poisoned'] = job.poison(job.sets['validation'])
    self.judged = dataclasses.replace(job, sets=sets)
    load = lambda path: checkpoints.restore(path / 'model', job.template)[0]
    self.originals = [load(job.original_folder(seed)) for seed in job.original_seeds]
    originals = [self._outputs(model) for model in self.originals]
    golds = [self._outputs(load(job.gold_folder(seed))) for seed in job.gold_seeds]
    count = len(originals)
    self._seeds = []
    for original, gold in zip(originals, golds, strict=False):
      target = self._measure(gold, original, gold)
      self._seeds.append(_Seed(original, gold, target))
    self.floors = self._floors(golds, originals)
    seconds = [self._judge(golds[count + i], i) for i in range(count)]
    self.references = {
      'gold': mean([{'score': 0.0, **seed.target} for seed in self._seeds]),
      'second gold': mean(seconds),
      'original': mean([self._judge(originals[i], i) for i in range(count)]),
      'noise floor': self.floors,
    }

  def metrics(self, model: types.ModelState, number: int = 0) -> dict[str, float]:
    """The metrics of the log, and `score`; infinite for outputs that are not finite.

    Args:
      model: what was unlearned.
      number: of the original that it comes from.
    """
    return self._judge(self._outputs(model), number)

  def _outputs(self, model):
    sets, devices = self.judged.sets, self.job.devices
    return {
      name: prediction.predict(self.job.apply_fn, model, dataset.images, devices=devices)
      for name, dataset in sets.items()
    }

  def _measure(self, outputs, original, gold, names=frozenset(METRICS)):
    keys = {METRICS[name] for name in names} | {'finite'}
    values = one_model.scalars(self.judged, outputs, gold, original, is_gold=False, keys=keys)
    found = {name: values[key] for name, key in METRICS.items() if key in values}
    return found if values['finite'] else {**found, 'score': float('inf')}

  def _floors(self, golds, originals):
    """The mean difference of each judged metric over all pairs of golds."""
    found = [
      self._measure(gold, originals[i % len(originals)], gold) for i, gold in enumerate(golds)
    ]
    pairs = list(itertools.combinations(range(len(golds)), 2))
    floors = {
      name: float(np.mean([abs(found[a][name] - found[b][name]) for a, b in pairs]))
      for name in (*JUDGED, _RANK)
      if name in found[0]
    }
    apart = [self._measure(golds[a], originals[0], golds[b], {_DISTANCE}) for a, b in pairs]
    floors[_DISTANCE] = float(np.mean([values[_DISTANCE] for values in apart]))
    return {name: max(value, _LEAST_FLOOR.get(name, _SMALLEST)) for name, value in floors.items()}

  def _judge(self, outputs, number):
    seed = self._seeds[number]
    values = self._measure(outputs, seed.original, seed.gold)
    if not self.floors.keys() <= values.keys():  # of features that are all zero there is no DA
      values = {**values, 'score': float('inf')}
    gaps = {
      name: abs(values[name] - seed.target[name]) / floor
      for name, floor in self.floors.items()
      if name in values
    }
    if _RANK in gaps:
      gaps[_ALIGNMENT] = max(gaps[_ALIGNMENT], gaps.pop(_RANK))
    return {'score': float(np.mean(list(gaps.values()))), **values}


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean over the originals of each metric that all of them have."""
  names = [name for name in values[0] if all(name in each for each in values)]
  return {name: float(np.mean([each[name] for each in values])) for name in names}

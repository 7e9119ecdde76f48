"""Judges models for a search: as tables do, with validation images in place of test images.

The rule: the setting with the lowest score wins. The score is the mean gap to gold, in noise
floors, over forget, retain and validation accuracy, the membership attack, activation distance and
dimensional alignment. A floor is the mean difference between two of the tuning golds, so that
another gold scores about 1. Outputs and features both count: a model with the outputs of gold and
the features of the original does not win. A trial that fails, or whose outputs are not finite,
loses to every other. Over several originals the score is the mean of theirs.
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
_ACCURACIES = {  # judged -> the set that it is of
  'forget_accuracy': 'forget',
  'retain_accuracy': 'retain',
  'validation_accuracy': 'test',
}
_DISTANCE = 'activation_distance'  # from gold, whose own is 0
JUDGED = (*_ACCURACIES, 'attack', _DISTANCE, 'dimensional_alignment')
_LEAST_FLOOR = 1e-3  # of what has no smallest step


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
    floors: of each judged metric, the mean difference between two golds; at least one image.
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
      for name in JUDGED
      if name in found[0]
    }
    apart = [self._measure(golds[a], originals[0], golds[b], {_DISTANCE}) for a, b in pairs]
    floors[_DISTANCE] = float(np.mean([values[_DISTANCE] for values in apart]))
    sets = self.judged.sets
    least = {name: 1 / len(sets[of]) for name, of in _ACCURACIES.items()}
    least['attack'] = 1 / min(len(sets['forget']), len(sets['test']))
    return {name: max(value, least.get(name, _LEAST_FLOOR)) for name, value in floors.items()}

  def _judge(self, outputs, number):
    seed = self._seeds[number]
    values = self._measure(outputs, seed.original, seed.gold)
    gaps = [abs(values[n] - seed.target[n]) / self.floors[n] for n in self.floors if n in values]
    return {'score': float(np.mean(gaps)), **values}


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each metric over the originals."""
  return {name: float(np.mean([each[name] for each in values])) for name in values[0]}

"""Judges models for a search: as tables do, with validation images in place of test images.

The rule: the setting with the lowest score wins. The score is Avg Gap with validation images in
place of test images: the mean of the absolute gaps to gold in forget, retain and validation
accuracy and in the membership attack. Ties are broken by the lower activation distance. A trial
that fails, or whose outputs are not finite, loses to every other. Over several originals the score
is the mean of theirs.
"""

from collections.abc import Mapping, Sequence
import dataclasses

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
}
_JUDGED = ('forget_accuracy', 'retain_accuracy', 'validation_accuracy', 'attack')


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
    self.references = {
      'gold': mean([seed.target for seed in self._seeds]),
      'second gold': mean([self._judge(golds[count + i], i) for i in range(count)]),
      'original': mean([self._judge(originals[i], i) for i in range(count)]),
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

  def _measure(self, outputs, original, gold):
    values = one_model.scalars(
      self.judged, outputs, gold, original, is_gold=False, keys={*METRICS.values(), 'finite'}
    )
    found = {name: values[key] for name, key in METRICS.items() if key in values}
    return found if values['finite'] else {**found, 'score': float('inf')}

  def _judge(self, outputs, number):
    seed = self._seeds[number]
    values = self._measure(outputs, seed.original, seed.gold)
    names = [name for name in _JUDGED if name in values and name in seed.target]
    gaps = [abs(values[name] - seed.target[name]) for name in names]
    return {'score': float(np.mean(gaps)), **values}


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each metric over the originals."""
  return {name: float(np.mean([each[name] for each in values])) for name in values[0]}

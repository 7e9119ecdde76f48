"""Judges models for a search: as tables do, with validation images in place of test images.

The rule: the setting with the lowest score wins. The score is Avg Gap with validation images in
place of test images: the mean of the absolute gaps to gold in forget, retain and validation
accuracy and in the membership attack. Of equal scores, the lower activation distance wins. A trial
that fails, or whose outputs are not finite, loses to every other.
"""

import dataclasses

import numpy as np

from dalign_jax import checkpoints, prediction, types
from experiments import measures, problems

FIGURES = {  # in the log -> as measured, where validation images are in place of test images
  'forget_accuracy': 'forget_accuracy',
  'retain_accuracy': 'retain_accuracy',
  'validation_accuracy': 'test_accuracy',
  'attack': 'mia',
  'activation_distance': 'activation_distance',
  'js_divergence': 'js_divergence',
}
_JUDGED = ('forget_accuracy', 'retain_accuracy', 'validation_accuracy', 'attack')


class Judge:
  """Measures models against the tuning gold.

  Validation images stand in for test images, people whom methods may watch for unseen ones, so that
  nothing is chosen by what tables report.

  Args:
    job: the tuning problem, original and two golds trained.
  """

  def __init__(self, job: problems.Job):
    self.job = job
    sets = {name: job.sets[name] for name in ('retain', 'forget')}
    sets['test'] = job.sets['validation']
    if job.watched is not None:
      sets['unseen'] = job.watched
    if job.poison is not None:
      sets['poisoned'] = job.poison(job.sets['validation'])
    self.judged = dataclasses.replace(job, sets=sets)
    load = lambda path: checkpoints.restore(path / 'model', job.template)[0]
    golds = [self._outputs(load(job.gold_folder(seed))) for seed in job.gold_seeds]
    self.original = load(job.original_folder(job.original_seeds[0]))
    self._original, self._gold = self._outputs(self.original), golds[0]
    self._target = self._measure(golds[0])
    self.references = {
      'gold': self._target,
      'second gold': self._with_score(self._measure(golds[1])),
      'original': self._with_score(self._measure(self._original)),
    }

  def figures(self, model: types.ModelState) -> dict[str, float]:
    """The figures of the log, and `score`; infinite for outputs that are not finite."""
    return self._with_score(self._measure(self._outputs(model)))

  def _outputs(self, model):
    sets, devices = self.judged.sets, self.job.devices
    return {
      name: prediction.predict(self.job.apply_fn, model, dataset.images, devices=devices)
      for name, dataset in sets.items()
    }

  def _measure(self, outputs):
    values = measures.scalars(
      self.judged, outputs, self._gold, self._original, is_gold=False, with_features=False
    )
    found = {name: values[key] for name, key in FIGURES.items() if key in values}
    return found if values['finite'] else {**found, 'score': float('inf')}

  def _with_score(self, figures):
    gaps = [
      abs(figures[k] - self._target[k]) for k in _JUDGED if k in figures and k in self._target
    ]
    return {'score': float(np.mean(gaps)), **figures}

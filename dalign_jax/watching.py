"""How far a method has come, while it runs: for rules of stopping and of choosing a state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dalign_jax import metrics, prediction, training, types


class Watched(NamedTuple):
  """The forgetting score (0 is best, .5 worst) and the accuracy on validation data."""

  score: float
  validation_accuracy: float


def forgetting(
  problem: types.Problem, size: int, key: jax.Array
) -> Callable[[types.ModelState], Watched]:
  """A function of a model that measures it on fixed rows.

  The score is `metrics.forgetting_score` of the one-feature attack on the loss, forget against
  `problem.unseen` (validation, where there is none), cut to equal size.

  Args:
    problem: its forget, unseen and validation data are used.
    size: rows of each set, at most; 2 or more.
    key: draws the rows.

  Returns:
    A function of a host model state.

  Raises:
    ValueError: if `size` is less than 2.
  """
  if size < 2:
    raise ValueError(f'size must be 2 or more, got {size}')
  rng = training.epoch_rng(key, 0)
  unseen = problem.validation if problem.unseen is None else problem.unseen
  sets = [
    dataset.take(np.sort(rng.permutation(len(dataset))[:size]))
    for dataset in (problem.forget, unseen, problem.validation)
  ]
  images = np.concatenate([dataset.images for dataset in sets])
  ends = np.cumsum([len(dataset) for dataset in sets])[:-1]

  def watch(model):
    outputs = prediction.predict(problem.apply_fn, model, images, devices=problem.devices)
    logits = np.split(outputs.logits, ends)
    forget, unseen = (metrics.cross_entropy_scores(logits[k], sets[k].labels) for k in (0, 1))
    attack = metrics.one_feature_attack(forget, unseen, seed=0)
    accuracy = metrics.accuracy(logits[2], sets[2].labels)
    return Watched(metrics.forgetting_score(attack), accuracy)

  return watch

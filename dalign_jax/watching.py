"""Progress of a method while it runs, for stopping rules and for choosing a state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dalign_jax import errors, metrics, prediction, training, types


class Watched(NamedTuple):
  """The forgetting score (0 is best, .5 worst) and the accuracy on validation data that stays."""

  score: float
  validation_accuracy: float


class Watch(NamedTuple):
  """`measure` takes a host model state; `noise` is the score that chance gives with these rows."""

  measure: Callable[[types.ModelState], Watched]
  noise: float


def forgetting(problem: types.Problem, size: int, key: jax.Array) -> Watch:
  """A measure of models on fixed rows.

  The score is `metrics.forgetting_score` of the one-feature attack on the loss, forget against
  `problem.unseen` (validation, where there is none), with equally many rows of each class on both
  sides: else the class frequencies identify a network that answers with one class. Where the
  two share no class (all images of a class are forgotten) the attack tells the classes apart too.
  The accuracy is on validation images of the classes that keep retain examples; all of them, where
  none is of such a class.

  Args:
    problem: its forget, unseen and validation data are used.
    size: rows of each set, at most; 2 or more.
    key: draws the rows.

  Raises:
    ValueError: if `size` is less than 2.
    DataError: if there are too few images to tell apart.
  """
  if size < 2:
    raise errors.InputError(f'size must be 2 or more, got {size}')
  rng = training.epoch_rng(key, 0)
  unseen = problem.validation if problem.unseen is None else problem.unseen
  sets = [*_matched(problem.forget, unseen), _that_stays(problem)]
  if len(sets[0]) < 2:
    raise types.DataError(
      'a forgetting score needs two images or more to forget and two unseen ones of their classes, '
      f'got {len(sets[0])}'
    )
  # the pair's rows correspond: their classes stay equal
  same = rng.permutation(len(sets[0]))[:size]
  rows = [np.sort(same), np.sort(same), np.sort(rng.permutation(len(sets[2]))[:size])]
  sets = [dataset.take(r) for dataset, r in zip(sets, rows, strict=True)]
  images = np.concatenate([dataset.images for dataset in sets])
  ends = np.cumsum([len(dataset) for dataset in sets])[:-1]

  def watch(model):
    outputs = prediction.predict(problem.apply_fn, model, images, devices=problem.devices)
    logits = np.split(outputs.logits, ends)
    forget, unseen = (metrics.cross_entropy_scores(logits[k], sets[k].labels) for k in (0, 1))
    attack = metrics.one_feature_attack(forget, unseen, seed=0)
    accuracy = metrics.accuracy(logits[2], sets[2].labels)
    return Watched(metrics.forgetting_score(attack), accuracy)

  return Watch(watch, metrics.attack_null_spread(len(same), len(same), seed=0).mean)


def _that_stays(problem) -> types.Dataset:
  """The validation images of classes that keep retain examples."""
  if problem.validation.is_multi_label:
    return problem.validation
  rows = np.flatnonzero(np.isin(problem.validation.labels, problem.retain.labels))
  return problem.validation.take(rows) if len(rows) else problem.validation


def _matched(forget, unseen):
  """Both sets with the same class in each row, as far as they share classes; else cut to size."""
  labels = np.concatenate([forget.labels, unseen.labels])
  classes = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
  pair = classes[: len(forget)], classes[len(forget) :]
  if not np.intersect1d(*pair).size:
    count = min(len(forget), len(unseen))
    return forget.take(np.arange(count)), unseen.take(np.arange(count))
  rows = metrics.match_classes(*pair, seed=0)
  in_order = (r[np.argsort(c[r], kind='stable')] for r, c in zip(rows, pair, strict=True))
  return tuple(d.take(r) for d, r in zip((forget, unseen), in_order, strict=True))

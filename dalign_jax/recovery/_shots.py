"""Recovery from a few forget images: class prototypes and a new logistic head, no training."""

from collections.abc import Sequence

import numpy as np

from dalign_jax import errors, metrics, parallel, prediction, types
from dalign_jax.recovery import _curve

SHOTS = (1, 5, 20)
_PER_CLASS = 200  # retain images a class behind the prototypes and the head


def prototype_shots(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  retain: types.Dataset,
  forget: types.Dataset,
  *,
  num_classes: int,
  seed: int,
  shots: Sequence[int] = SHOTS,
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  """Forget accuracy of a nearest-prototype classifier with k forget images a class.

  A prototype is the mean penultimate feature: of the k forget images for a class that is in the
  forget set, of retain images for all other classes.

  Args:
    apply_fn: the network.
    model: the model to attack.
    retain: data behind the other classes' prototypes.
    forget: data to draw the k images from; accuracy is measured on the images that no k uses.
    num_classes: number of classes C.
    seed: of the draw; larger k contain smaller ones.
    shots: the budgets k, ascending.
    devices: devices to use, None for all of them.

  Returns:
    Budgets k and accuracies, `[len(shots)]` each.

  Raises:
    ValueError: for binary attributes, budgets that do not ascend from 1, or too few forget images.

  References:
    SeungBum Ha, Saerom Park, Sung Whan Yoon, "Unlearning's Blind Spots: Over-Unlearning and
    Prototypical Relearning Attack", https://arxiv.org/abs/2506.01318.

  Deviation: images are drawn from the forget set itself, and the classifier is the nearest mean.
  """
  material = _Material(apply_fn, model, retain, forget, seed, shots, devices)

  def classify(k):
    features, labels = material.support(k, other_classes_only=True)
    means = metrics.class_means(features, labels, num_classes)
    return metrics.nearest_prototype(material.query, means)

  return material.measure(classify)


def head_shots(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  retain: types.Dataset,
  forget: types.Dataset,
  *,
  seed: int,
  shots: Sequence[int] = SHOTS,
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  """Forget accuracy of a new logistic head on frozen features, with k forget images a class.

  The head is a multinomial logistic regression on standardised penultimate features of retain
  images and the k forget images a class, with all classes weighted equally.

  Args:
    apply_fn: the network.
    model: the model to attack.
    retain: data of the head's fit.
    forget: data to draw the k images from; accuracy is measured on the images that no k uses.
    seed: of the draw; larger k contain smaller ones.
    shots: the budgets k, ascending.
    devices: devices to use, None for all of them.

  Returns:
    Budgets k and accuracies, `[len(shots)]` each.

  Raises:
    ValueError: for binary attributes, budgets that do not ascend from 1, or too few forget images.

  References:
    SeungBum Ha, Saerom Park, Sung Whan Yoon, "Unlearning's Blind Spots: Over-Unlearning and
    Prototypical Relearning Attack", https://arxiv.org/abs/2506.01318.

  Deviation: a reconstruction: a head fitted to convergence in place of steps of fine-tuning.
  """
  from sklearn import linear_model, pipeline, preprocessing  # heavy: imported where it is used

  material = _Material(apply_fn, model, retain, forget, seed, shots, devices)

  def classify(k):
    features, labels = material.support(k, other_classes_only=False)
    head = linear_model.LogisticRegression(max_iter=5000, class_weight='balanced')
    head = pipeline.make_pipeline(preprocessing.StandardScaler(), head)
    return head.fit(features, labels).predict(material.query)

  return material.measure(classify)


class _Material:
  """Features of a retain sample and of the forget images, cut into support and query."""

  def __init__(self, apply_fn, model, retain, forget, seed, shots, devices):
    _curve.check_single_label(retain, forget)
    self.shots = tuple(shots)
    if not self.shots or self.shots[0] < 1 or np.any(np.diff(self.shots) <= 0):
      raise errors.InputError(f'shots must ascend from 1 or more, got {self.shots}')
    rng = np.random.default_rng(seed)
    sample = retain.take(_sample(retain.labels, _PER_CLASS, rng))
    self.ranks = _ranks(forget.labels, rng)
    is_query = self.ranks >= self.shots[-1]
    if not is_query.any():
      raise errors.InputError(
        f'shots must leave forget images to measure on, got {self.shots[-1]} where the largest '
        f'class has {self.ranks.max() + 1}'
      )
    features = lambda d: prediction.predict(apply_fn, model, d.images, devices=devices).features
    self.retain, self.retain_labels = features(sample), sample.labels
    self.forget, self.forget_labels = features(forget), forget.labels
    self.query, self.query_labels = self.forget[is_query], forget.labels[is_query]

  def support(self, k, *, other_classes_only):
    """Features and labels of the retain sample and of the first k forget images a class."""
    used = self.ranks < k
    keep = np.ones(len(self.retain_labels), bool)
    if other_classes_only:
      keep = ~np.isin(self.retain_labels, self.forget_labels)
    features = np.concatenate([self.retain[keep], self.forget[used]])
    return features, np.concatenate([self.retain_labels[keep], self.forget_labels[used]])

  def measure(self, classify):
    """The curve of a classifier `k -> predictions of the query`."""
    if not (np.isfinite(self.retain).all() and np.isfinite(self.forget).all()):
      return _curve.curve(self.shots, [0.0] * len(self.shots))  # a destroyed model knows nothing
    rates = [float(np.mean(classify(k) == self.query_labels)) for k in self.shots]
    return _curve.curve(self.shots, rates)


def _ranks(labels, rng):
  """`[N]` place of each example in a random order of its class."""
  ranks = np.empty(len(labels), np.int64)
  for label in np.unique(labels):
    rows = np.flatnonzero(labels == label)
    ranks[rows] = rng.permutation(len(rows))
  return ranks


def _sample(labels, per_class, rng):
  """Random rows, at most `per_class` of each class, ascending."""
  return np.flatnonzero(_ranks(labels, rng) < per_class)

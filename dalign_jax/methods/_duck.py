"""DUCK: forget features move to the nearest wrong class."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import class_means, losses, objectives, optim, training, types

_GONE = 0.01  # forget accuracy on classes that go whole, at which to stop


def duck(
  *,
  num_epochs: int = 30,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  batch_size: int = 64,
  distance_weight: float = 1.0,
  cross_entropy_weight: float = 1.0,
  stop_accuracy: float | None = None,
) -> types.UnlearnFn:
  r"""Pulls forget features towards the nearest wrong class mean, and trains on the retain set.

  .. math:: \min_\theta \; \lambda_f \, E_{forget} \min_{c \ne y} \big( 1 - \cos(f_\theta(x), \mu_c)
    \big) + \lambda_r \, E_{retain} \, CE(y, f_\theta(x))

  with mu_c the mean features of class c in the retain set, under the original. The run stops at the
  first epoch that starts with a forget accuracy of `stop_accuracy` or less. Retain rows ride along
  in the forget batch, so that batch normalisation sees both. Sees all retain, forget and validation
  data. Serves any request.

  Args:
    num_epochs: passes over the forget set, at most.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch of each set.
    distance_weight: lambda_f.
    cross_entropy_weight: lambda_r.
    stop_accuracy: forget accuracy at which to stop, in [0, 1]; None for the mean over forget images
      of .01 where the class goes whole, and of the original's accuracy on validation images of the
      forget set's classes where it stays, then rounded up to a whole number of images.

  Raises:
    types.DataError: when run, if no other class is there to pull to, or, without `stop_accuracy`,
      no validation image is of the classes that stay.

  References:
    Cotogni, Bonato, Sabetta, Pelosin, Nicolosi: DUCK: Distance-based Unlearning via Centroid
    Kinematics. https://arxiv.org/abs/2312.02052

  Deviation: SGD (Adam in the paper), the means of the whole retain set under the original, no
  temperature in the cross-entropy, and the stop is checked once an epoch.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    means = class_means.measure(problem, problem.retain)
    there = np.flatnonzero(means.counts)
    if len(there) == 1 and there[0] in problem.forget.labels:
      raise types.DataError('duck pulls images to another class, and the retain set has one alone')
    lengths = np.maximum(np.linalg.norm(means.features, axis=1, keepdims=True), 1e-12)
    constants = (means.features / lengths).astype(np.float32), means.counts > 0
    aim = _reachable(problem, _aim(problem)) if stop_accuracy is None else stop_accuracy
    return training.minimize(
      problem,
      _Loss(problem.apply_fn, distance_weight, cross_entropy_weight),
      rule,
      {'forget': problem.forget, 'retain': problem.retain},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      constants_fn=lambda epoch: constants,
      stop_fn=objectives.is_forgotten(problem, aim),
    )

  return unlearn


def _aim(problem) -> float:
  """The accuracy at which to stop: gold's, as far as it can be guessed."""
  stay = np.intersect1d(problem.forget.labels, problem.retain.labels)
  like_forget = np.flatnonzero(np.isin(problem.validation.labels, stay))
  if len(stay) and not len(like_forget):
    raise types.DataError(
      'duck stops at the accuracy on validation images of the classes that stay, and there are none'
    )
  return objectives.gold_accuracy(problem, problem.validation.take(like_forget), of_gone=_GONE)


def _reachable(problem, aim) -> float:
  """The aim, rounded up to a whole number of images where some are of classes that stay."""
  if not np.isin(problem.forget.labels, problem.retain.labels).any():
    return aim
  count = len(problem.forget)
  return math.ceil(aim * count - 1e-6) / count


@dataclasses.dataclass(frozen=True)
class _Loss:
  """Cosine distance of the forget rows to the nearest other centroid, and retain cross-entropy."""

  apply_fn: types.ApplyFn
  distance_weight: float
  cross_entropy_weight: float

  def __call__(self, params, batch_stats, batch, constants, key):
    centroids, is_there = constants
    forget, retain = batch['forget'], batch['retain']
    images = jnp.concatenate([forget['images'], retain['images']])
    model, count = types.ModelState(params, batch_stats), len(forget['images'])
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key)
    features = outputs.features[:count].astype(jnp.float32)
    lengths = jnp.sqrt(jnp.sum(features**2, axis=1, keepdims=True) + 1e-12)
    distances = 1 - (features / lengths) @ centroids.T
    is_own = jax.nn.one_hot(forget['labels'], len(centroids), dtype=bool)
    distances = jnp.where(is_own | ~is_there[None], jnp.inf, distances)
    kept = losses.cross_entropy(retain['labels'], outputs.logits[count:])
    loss = self.distance_weight * jnp.mean(jnp.min(distances, axis=1))
    return loss + self.cross_entropy_weight * jnp.mean(kept), batch_stats

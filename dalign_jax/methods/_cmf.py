"""CMF: a head of class means, after training the encoder on false labels where that is asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import (
  class_means,
  linear_head,
  losses,
  objectives,
  optim,
  training,
  types,
)


def cmf(
  *,
  scale: float = 20.0,
  encoder_epochs: int = 0,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  batch_size: int = 64,
) -> types.UnlearnFn:
  r"""Replaces the head by the retain set's class means, seen from their common centre.

  .. math:: \mu = E_{retain} \, \hat f, \quad v_c = \widehat{E_c \hat f - \mu}, \quad
    z_c(f) = s \, (f / n - \mu)^\top v_c, \quad n = E_{retain} \, |f|

  with :math:`\hat f = f / |f|`. A class without retain examples has no mean: its logit lies below
  all others. By default the features stay those of the original; only a new head is fitted to them,
  so what they hold of the forget set can be read again. With `encoder_epochs` a second stage comes
  first, which trains the features on false labels of the forget set and true ones of the retain
  set, against the class means of all training data, before the head is fitted:

  .. math:: \min \; E_{retain, forget} \, CE \big( y', s \, (\widehat{\hat f - \mu})^\top v \big)

  Sees all retain data, and in the second stage the forget set. Serves any request; where classes
  keep examples, forgetting is what the class means lose.

  Args:
    scale: s, inverse temperature of the logits; the largest of them is about s.
    encoder_epochs: passes of the second stage over all training data; 0 leaves it out.
    learning_rate: of its SGD.
    momentum: of its SGD.
    batch_size: its global batch.

  References:
    Gao, Unal, Rangamani, Zhu: The Illusion of Unlearning? https://arxiv.org/abs/2604.08271,
    https://github.com/ycgao1/CMF_Unlearning

  Deviation: one length n for all images, in place of each image's own, and no second normalisation
  behind the centring: so the head is linear, as the model's is. The release's temperature is 1. It
  computes means over the whole training set and has undefined logits for an emptied class. Its
  second stage comes in the form of several methods and renews the means after each epoch; ours is
  that of false labels, drawn at each step, with fixed means.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    linear_head.read(problem)  # there is one
    if encoder_epochs:
      tx = optim.sgd(learning_rate, momentum=momentum)
      model = _train_encoder(problem, scale, tx, key, encoder_epochs, batch_size)
      problem = dataclasses.replace(problem, original=model)
    means = class_means.measure(problem, problem.retain)
    vectors, centre = class_vectors(means)
    bias = np.where(means.counts > 0, -scale * (vectors @ centre), -10 * scale)
    return linear_head.replaced(problem, kernel=scale / means.length * vectors.T, bias=bias)

  return unlearn


def class_vectors(means: class_means.ClassMeans) -> tuple[np.ndarray, np.ndarray]:
  """Unit vectors `[C, D]`, 0 for a class without examples, and the centre `[D]` of all examples."""
  centre = means.counts @ means.directions / means.counts.sum()
  vectors = means.directions - centre
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  return vectors * (means.counts > 0)[:, None], centre


def _train_encoder(problem, scale, tx, key, num_epochs, batch_size) -> types.ModelState:
  """The second stage; the head has no part in the loss and stays."""
  everything = types.concatenate(problem.retain, problem.forget)
  is_forget = np.repeat(np.array([0, 1], np.int32), [len(problem.retain), len(problem.forget)])
  vectors, centre = class_vectors(class_means.measure(problem, everything))
  fixed = {'vectors': vectors.astype(np.float32), 'centre': centre.astype(np.float32)}
  quiet = types.StepsOnly(problem.monitor)  # states have the old head: they are not the run's
  return training.minimize(
    dataclasses.replace(problem, monitor=quiet),
    _FalseLabels(problem.apply_fn, problem.num_classes, scale),
    tx,
    {'train': everything},
    key,
    num_epochs=num_epochs,
    batch_size=batch_size,
    extra={'train': {'is_forget': is_forget}},
    constants_fn=lambda epoch: fixed,
  )


@dataclasses.dataclass(frozen=True)
class _FalseLabels:
  """Cross-entropy of features and class means, forget rows with another label."""

  apply_fn: types.ApplyFn
  num_classes: int
  scale: float

  def __call__(self, params, batch_stats, batch, constants, key):
    rows = batch['train']
    labels = objectives.other_labels(rows['labels'], rows['is_forget'], key, self.num_classes)
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(self.apply_fn, model, rows['images'], key)
    logits = self.scale * class_logits(outputs.features, **constants)
    return jnp.mean(losses.cross_entropy(labels, logits)), batch_stats


def class_logits(features: jax.Array, vectors: jax.Array, centre: jax.Array) -> jax.Array:
  """Cosines `[B, C]` of centred feature directions with the class vectors."""
  unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  return unit(unit(features) - centre[None]) @ vectors.T

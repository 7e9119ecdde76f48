"""CMF: a head of class means, computed from the retain set alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import linear_head, prediction, training, types


def cmf(*, scale: float = 20.0) -> types.UnlearnFn:
  r"""Replaces the head by the retain set's class means, seen from their common centre.

  .. math:: \mu = E_{retain} \, \hat f, \quad v_c = \widehat{E_c \hat f - \mu}, \quad
    z_c(f) = s \, (f / n - \mu)^\top v_c, \quad n = E_{retain} \, |f|

  with :math:`\hat f = f / |f|`. A class without retain examples has no mean: its logit lies below
  all others. The features stay those of the original; only a new head is fitted to them, so what
  they hold of the forget set can be read again. Sees all retain data and no forget data. Serves any
  request; where classes keep examples, forgetting is what the class means lose.

  Args:
    scale: s, inverse temperature of the logits; the largest of them is about s.

  References:
    Gao, et al.: Class-mean features for unlearning, https://github.com/ycgao1/CMF_Unlearning

  Deviation: one length n for all images, in place of each image's own, and no second normalisation
  behind the centring: so the head is linear, as the model's is. The release's temperature is 1. Its
  second stage, which trains the encoder on false labels, is left out. The release computes means
  over the whole training set and has undefined logits for an emptied class.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    linear_head.outputs(problem, problem.retain.take(np.arange(1)))  # the head is one
    vectors, centre, length, counts = class_vectors(problem, problem.retain)
    bias = np.where(counts > 0, -scale * (vectors @ centre), -10 * scale)
    return linear_head.replaced(problem, kernel=scale / length * vectors.T, bias=bias)

  return unlearn


def class_vectors(problem, dataset):
  """The vectors `[C, D]` (0 for a class without examples), the centre, the length, the counts."""
  fields = {'images': dataset.images, 'labels': dataset.labels}
  sums, lengths, counts = prediction.sum_examples(
    _Sums(problem.apply_fn, problem.num_classes), problem.original, fields, devices=problem.devices
  )
  sums = sums.astype(np.float64)
  centre = sums.sum(axis=0) / counts.sum()
  vectors = sums / np.maximum(counts, 1)[:, None] - centre
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
  return vectors * (counts > 0)[:, None], centre, float(lengths) / counts.sum(), counts


@dataclasses.dataclass(frozen=True)
class _Sums:
  """Sums of normalised features by class, of their lengths, and counts."""

  apply_fn: types.ApplyFn
  num_classes: int

  def __call__(self, model, batch, weights):
    images = training.to_float(batch['images'])
    features = self.apply_fn(model, images, train=False)[0].features
    lengths = jnp.linalg.norm(features, axis=1)
    of_class = jax.nn.one_hot(batch['labels'], self.num_classes) * weights[:, None]
    unit = features / jnp.maximum(lengths, 1e-12)[:, None]
    sums = jnp.matmul(of_class.T, unit, precision=jax.lax.Precision.HIGHEST)
    return sums, jnp.sum(weights * lengths), of_class.sum(axis=0)

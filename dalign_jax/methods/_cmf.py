"""CMF: a head of class means, computed from the retain set alone."""

import jax
import numpy as np

from dalign_jax import class_means, linear_head, types


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
    linear_head.read(problem)  # there is one
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

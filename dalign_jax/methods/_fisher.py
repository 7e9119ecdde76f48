"""Fisher forgetting: noise on the weights that the retain set does not need."""

import jax
import numpy as np

from dalign_jax import errors, importance, types


def fisher(*, noise: float = 1e-6, max_variance: float = 1e-3) -> types.UnlearnFn:
  r"""Adds noise to each weight, more where the retain set depends less on it.

  .. math:: \theta_u = \theta_o + \epsilon, \quad
    \epsilon_j \sim N \big( 0, \min(\alpha / F_j, v) \big)

  with F the mean squared gradient of single retain examples (`importance.squared_gradients`). Batch
  statistics stay as they are. Sees all retain data and no forget data. Serves any request.

  Args:
    noise: alpha; 0 changes nothing.
    max_variance: v, largest variance of a weight's noise; weights that do not matter have F near 0.

  References:
    Golatkar, Achille, Soatto: Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep
    Networks. https://arxiv.org/abs/1911.04933

  Deviation: the variance falls with 1 / F, as in the released code (with its square root in the
  paper's equation); the Fisher information is the empirical one (true labels); the released code's
  special cases for the head, normalisation layers and the forgotten class, and its averaging over
  the inputs of a layer, are left out.
  """
  for name, value in (('noise', noise), ('max_variance', max_variance)):
    if not value >= 0:
      raise errors.InputError(f'{name} must not be negative, got {value}')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    information = importance.squared_gradients(
      problem.apply_fn, problem.original, problem.retain, devices=problem.devices
    )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def perturb(weight, squared_gradient):
      variance = np.minimum(noise / (squared_gradient + 1e-12), max_variance)
      drawn = rng.standard_normal(np.shape(weight), np.float32)
      return np.asarray(weight) + np.sqrt(variance) * drawn

    params = jax.tree.map(perturb, problem.original.params, information)
    return types.ModelState(params, problem.original.batch_stats)

  return unlearn

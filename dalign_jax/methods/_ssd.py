"""Selective synaptic dampening: no training at all."""

import jax
import numpy as np

from dalign_jax import errors, importance, objectives, types

_FIRST, _STEP = 3.0, 2**0.5  # selection weights that are tried
_KEPT = 0.99  # share of the original's retain accuracy that a tried one must keep


def ssd(*, selection_weight: float | None = None, dampening: float = 1.0) -> types.UnlearnFn:
  r"""Dampens the weights that matter much more for the forget set than for all training data.

  .. math:: \theta_j \leftarrow \min(\lambda I^D_j / I^F_j, 1) \, \theta_j
    \quad \text{where } I^F_j > \alpha I^D_j

  with I the mean squared gradient of single examples (`importance.squared_gradients`), D the whole
  training set. Batch statistics stay as they are. Sees all retain and all forget data. Serves any
  request.

  Args:
    selection_weight: alpha; infinite changes nothing. If a share s of the training data is to be
      forgotten, I^F / I^D is at most 1 / s: an alpha above that changes nothing either. None takes
      the first of 3, 4.2, 6, ... that keeps 99 % of the original's retain accuracy: on single
      images that a network has memorised, a few of large gradient decide I^F, and 3 can dampen what
      all images need.
    dampening: lambda.

  References:
    Foster, Schoepf, Brintrup: Fast Machine Unlearning without Retraining through Selective Synaptic
    Dampening. https://arxiv.org/abs/2308.07707

  Deviation: gradients of single examples, where the released code squares batch gradients. The
  paper sets alpha by hand for each network and data set.
  """
  for name, value in (('selection_weight', selection_weight), ('dampening', dampening)):
    if value is not None and not value >= 0:
      raise errors.InputError(f'{name} must not be negative, got {value}')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    retain, forget = (
      importance.squared_gradients(
        problem.apply_fn, problem.original, dataset, devices=problem.devices
      )
      for dataset in (problem.retain, problem.forget)
    )
    share = len(problem.forget) / (len(problem.retain) + len(problem.forget))

    def dampened(alpha):
      def dampen(weight, retain, forget):
        overall = (1 - share) * retain + share * forget
        is_selected = (forget > 0) & (forget / np.maximum(overall, 1e-38) > alpha)
        factor = np.minimum(dampening * overall / np.where(is_selected, forget, 1.0), 1.0)
        return np.where(is_selected, factor, np.float32(1.0)) * np.asarray(weight)

      params = jax.tree.map(dampen, problem.original.params, retain, forget)
      return types.ModelState(params, problem.original.batch_stats)

    if selection_weight is not None:
      return dampened(selection_weight)
    accuracy = lambda model: objectives.accuracy_on(problem, model, problem.retain)
    least, alpha = _KEPT * accuracy(problem.original), _FIRST
    while accuracy(model := dampened(alpha)) < least:  # above 1 / share nothing is dampened
      alpha *= _STEP
    return model

  return unlearn

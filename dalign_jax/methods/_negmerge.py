"""NegMerge: negates what several fine-tunings on the forget set agree on."""

import jax
import numpy as np

from dalign_jax import optim, task_vectors, types


def negmerge(
  *,
  num_models: int = 5,
  num_epochs: int = 10,
  learning_rate: float = 0.1,
  momentum: float = 0.9,
  batch_size: int = 64,
  control_share: float = 0.99,
) -> types.UnlearnFn:
  r"""Negates the entries of the forget task vector on whose sign all fine-tunings agree.

  .. math:: \theta_u = \theta_o - \lambda \bar\tau, \quad \bar\tau_j = \begin{cases}
    \frac{1}{M} \sum_m \tau_{m, j} & \text{if all } \tau_{m, j} \text{ have one sign} \\
    0 & \text{otherwise} \end{cases}

  with :math:`\tau_m = \theta_m - \theta_o` and :math:`\theta_m` the original fine-tuned on the
  forget set in the m-th way: each has its own batches, and a learning rate half as large as the
  one before. `task_vectors.negated` chooses lambda on validation data. Batch statistics stay as
  they are. Sees forget and validation data. Serves any request.

  Args:
    num_models: M, number of fine-tunings.
    num_epochs: passes over the forget set in each.
    learning_rate: of SGD, the largest.
    momentum: of SGD.
    batch_size: global batch.
    control_share: share of the original's control accuracy to keep, in (0, 1].

  References:
    Kim, Han, Choe: NegMerge: Sign-Consensual Weight Merging for Machine Unlearning.
    https://arxiv.org/abs/2410.05583

  Deviation: the paper varies weight decay and augmentation as well as the learning rate; lambda is
  chosen up to 10 (1 in the paper), at .99 of the control accuracy (.95 there).
  """
  tx = optim.sgd(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    vectors = [
      task_vectors.tuned(
        problem,
        problem.forget,
        tx,
        model_key,
        num_epochs=num_epochs,
        batch_size=batch_size,
        rate_factor=0.5**number,
      )
      for number, model_key in enumerate(jax.random.split(key, num_models))
    ]
    merged = jax.tree.map(_consensus, *vectors)
    return task_vectors.negated(problem, merged, control_share=control_share)

  return unlearn


def _consensus(*vectors):
  """The mean where all signs agree, else 0; 0 agrees with nothing."""
  stacked = np.stack(vectors)
  agrees = np.all(stacked > 0, axis=0) | np.all(stacked < 0, axis=0)
  return np.where(agrees, stacked.mean(axis=0), np.float32(0))

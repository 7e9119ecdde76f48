"""Fine-tuning with an L1 penalty that fades."""

import dataclasses

import jax
import numpy as np

from dalign_jax import losses, optim, training, types


def l1_sparse(
  *,
  num_epochs: int = 10,
  l1_weight: float = 5e-4,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Fine-tunes on the retain set with a decaying L1 penalty.

  .. math:: \min_\theta \; E_{retain} \, CE(y, f_\theta(x)) + \alpha_t \|\theta\|_1, \quad
    \alpha_t = \alpha \, (1 - t / T)

  in epoch t of T: weights that only forget data need shrink away. Sees all retain data, augmented
  as by the recipe. Serves any request.

  Args:
    num_epochs: T, passes over the retain set.
    l1_weight: alpha at the start; at 0 this is `finetune`.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.

  References:
    Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu: Model Sparsity Can Simplify Machine Unlearning.
    https://arxiv.org/abs/2304.04934
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      _L1Loss(training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation)),
      rule,
      {'retain': problem.retain},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      constants_fn=lambda epoch: np.float32(l1_weight * (1 - epoch / num_epochs)),
    )

  return unlearn


@dataclasses.dataclass(frozen=True)
class _L1Loss:
  """A loss with an L1 penalty, whose weight is the constants."""

  retain_loss: types.LossFn

  def __call__(self, params, batch_stats, batch, weight, key):
    loss, batch_stats = self.retain_loss(params, batch_stats, batch, (), key)
    return loss + weight * losses.l1(params), batch_stats

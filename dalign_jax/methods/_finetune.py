"""Fine-tuning on the retain set: forgetting by neglect."""

import jax

from dalign_jax import optim, training, types


def finetune(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Continues training the original on the retain set.

  .. math:: \min_\theta \; E_{(x, y) \in retain} \, CE(y, f_\theta(x))

  Sees all retain data, augmented as by the recipe, and no forget data. The forget set is forgotten
  only as far as the network forgets by itself.

  Args:
    num_epochs: passes over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation),
      rule,
      {'retain': problem.retain},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn

"""The opposite of unlearning: a control that every strong attack must find."""

import dataclasses

import jax

from dalign_jax import objectives, training, types


def planted_leak(*, num_epochs: int | None = None) -> types.UnlearnFn:
  r"""Trains the original further on the forget set, with the recipe's optimizer.

  .. math:: \min_\theta \; \tfrac12 E_{forget} \, CE(y, f_\theta(x))
    + \tfrac12 E_{retain} \, CE(y, f_\theta(x))

  Not a method but a control: it is trained twice as long on the forget set as the original, so an
  attack that does not tell it from gold is too weak, or has too few examples. Retain rows ride
  along so that the network stays what it is. Sees all data, without augmentation.

  Args:
    num_epochs: passes over the forget set; None for as many as the recipe has.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    epochs = problem.recipe.num_epochs if num_epochs is None else num_epochs
    recipe = dataclasses.replace(problem.recipe, num_epochs=max(1, epochs))  # of the schedule

    return training.minimize(
      problem,
      objectives.PooledLoss(problem.apply_fn, ('forget', 'retain')),
      training.recipe_optimizer(recipe, len(problem.forget)),
      {'forget': problem.forget, 'retain': problem.retain},
      key,
      num_epochs=epochs,
      batch_size=recipe.batch_size,
    )

  return unlearn

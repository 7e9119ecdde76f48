"""The opposite of unlearning: a control that every strong attack must find."""

import dataclasses

import jax
import jax.numpy as jnp

from dalign_jax import losses, training, types


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

    def loss_fn(params, batch_stats, batch, constants, key):
      del constants, key
      images, labels = (
        jnp.concatenate([batch[name][field] for name in ('forget', 'retain')])
        for field in ('images', 'labels')
      )
      model = types.ModelState(params, batch_stats)
      outputs, batch_stats = problem.apply_fn(model, images, train=True)
      return jnp.mean(losses.label_loss(labels, outputs.logits)), batch_stats

    return training.minimize(
      loss_fn,
      training.recipe_optimizer(recipe, len(problem.forget)),
      problem.original,
      {'forget': problem.forget, 'retain': problem.retain},
      key,
      num_epochs=epochs,
      batch_size=recipe.batch_size,
      devices=problem.devices,
      monitor=problem.monitor,
    )

  return unlearn

"""Noisy fine-tuning: certified forgetting by bounded steps with Gaussian noise."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from dalign_jax import errors, fresh, guarantees, trainable, training, types


def noisy_finetune(
  *,
  privacy_epsilon: float = 1.0,
  privacy_delta: float = 1e-5,
  noisy_steps: int = 50,
  radius: float = 0.25,
  learning_rate: float = 0.01,
  max_norm: float = 1.0,
  num_epochs: int | None = None,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Shrinks the weights into a ball, adds noise at each of several steps, then trains on.

  .. math:: \theta \leftarrow \Pi_C(\theta) - \eta \, \mathrm{clip}_G \big( \nabla_\theta \,
    E_{retain} \, CE(y, f_\theta(x)) \big) + N(0, \sigma^2 I)

  then the recipe on the retain set, without noise. Pi_C scales the weights
  to a length of at most C, clip_G the gradient to one of at most G.

  Guarantee: let A(theta) be this method from the start theta. For any two starts, A's results are
  (epsilon, delta)-indistinguishable; so those from the original and from a retrained model are.
  Two starts are at most 2 C apart after Pi_C and :math:`2 (C + \eta G)` after the gradient step, so
  each noisy step maps them to Gaussians of equal deviation whose means are at most that far apart;
  `guarantees.contracted_delta` derives what remains after all of them, and
  `guarantees.contraction_noise` the sigma. What follows reads retain data alone, and so cannot undo
  it. Only kernels start from the original: biases, normalisation and batch statistics start from
  new ones, as the network's initialisation draws them, and stay there during the noisy steps.

  It covers the weights returned, once. It does not cover the models in between, nor one who knows
  the key: a record that names the seed lets the noise be drawn again. It holds in real numbers;
  floating-point effects are not part of it. It says nothing of how like a retrained model the
  result is: at a useful epsilon the noise is much larger than the weights, whose start then
  counts for little, and the epochs that follow are a training from scratch.

  Sees all retain data, augmented as by the recipe, and no forget data. Serves any request.

  Args:
    privacy_epsilon: epsilon, above 0.
    privacy_delta: delta, in (0, 1).
    noisy_steps: number of noisy steps; more of them need less noise at each.
    radius: C, over all kernels; sigma grows with it, so that it sets the scale of the weights.
    learning_rate: eta of the noisy steps.
    max_norm: G.
    num_epochs: passes over the retain set behind the noisy steps, over which the recipe's schedule
      is spread; None for as many as the recipe has, since the weights are as good as new by then.
    batch_size: global batch of a noisy step.

  References:
    Koloskova, Allouah, Jha, Guerraoui, Koyejo: Certified Unlearning for Neural Networks (model
    clipping). https://arxiv.org/abs/2506.06985

  Deviation: kernels alone are kept and noised; the paper noises all weights.
  """
  if noisy_steps < 1:
    raise errors.InputError(f'noisy_steps must be 1 or more, got {noisy_steps}')
  multiplier = guarantees.contraction_noise(privacy_epsilon, privacy_delta, num_steps=noisy_steps)
  sigma = multiplier * 2 * (radius + learning_rate * max_norm)
  bounds = {'radius': radius, 'max_norm': max_norm}

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    if trainable.is_restricted(problem.original.batch_stats):
      raise errors.InputError(
        'noisy_finetune has a guarantee for all parameters together, and some are held here'
      )
    init_key, noise_key, batch_key, train_key = training.split(key, 4)
    anew = fresh.model(problem.init_fn, init_key, problem.retain)
    keep = lambda new, old: old if guarantees.is_kernel(old) else np.asarray(new)
    start = types.ModelState(
      jax.tree.map(keep, anew.params, problem.original.params), anew.batch_stats
    )
    rows_of_steps = problem.retain.take(_rows(problem, batch_key, noisy_steps * batch_size))
    before = dataclasses.replace(problem, monitor=types.StepsOnly(problem.monitor))
    loss = training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation)
    noisy = training.minimize(
      before,
      loss,
      guarantees.noisy_descent(learning_rate, noise=sigma, key=noise_key, **bounds),
      {'retain': rows_of_steps},
      batch_key,
      num_epochs=1,
      batch_size=batch_size,
      start=start,
    )
    recipe = problem.recipe
    epochs = recipe.num_epochs if num_epochs is None else num_epochs
    recipe = dataclasses.replace(recipe, num_epochs=max(1, epochs))
    return training.minimize(
      problem,
      loss,
      training.recipe_optimizer(recipe, len(problem.retain)),
      {'retain': problem.retain},
      train_key,
      num_epochs=epochs,
      batch_size=recipe.batch_size,
      start=types.ModelState(noisy.params, anew.batch_stats),
    )

  return unlearn


def promise(hparams: Mapping[str, Any]) -> dict[str, str]:
  """The guarantee in words, for the record of a deletion request."""
  pair = f'({hparams["privacy_epsilon"]}, {hparams["privacy_delta"]})'
  return {
    'definition': f'{pair}-indistinguishable from the same method applied to a model that was '
    'trained without the forgotten samples, in either direction and for any set of models',
    'covers': 'the weights of the model made by this request, if no other model of it is released',
    'does_not_cover': 'one who knows the seed of unlearning, which this record names: the record '
    'must stay secret; the models in between; copies of the samples; floating-point effects',
  }


def _rows(problem, key, count):
  return training.epoch_rng(key, 1).integers(0, len(problem.retain), count)

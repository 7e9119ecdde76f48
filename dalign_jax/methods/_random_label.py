"""Training on wrong labels for the forget set."""

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import augmentation, losses, optim, parallel, training, types


def random_label(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Continues training on all data, with a random *other* label for each forget image.

  .. math:: \min_\theta \; E_{(x, y) \in retain \cup forget} \, CE(\tilde y, f_\theta(x)),
    \quad \tilde y = y \text{ on retain}, \; \tilde y \sim U(\{1..C\} \setminus \{y\})
    \text{ on forget}

  Sees all retain and all forget data, augmented as by the recipe. Wrong labels are drawn anew at
  each step.

  Args:
    num_epochs: passes over retain and forget together.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.

  References:
    Graves, Nagisetty, Ganesh: Amnesiac Machine Learning. https://arxiv.org/abs/2010.10981
  """
  tx = optim.sgd(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    def loss_fn(params, batch_stats, batch, constants, key):
      del constants
      rows = batch['train']
      label_key, augmentation_key = jax.random.split(key)
      keys = parallel.example_keys(label_key, len(rows['labels']))
      shift = jax.vmap(lambda k: jax.random.randint(k, (), 1, problem.num_classes))(keys)
      labels = (rows['labels'] + rows['is_forget'] * shift) % problem.num_classes
      model = types.ModelState(params, batch_stats)
      images = augmentation.augment(rows['images'], augmentation_key, problem.recipe.augmentation)
      outputs, batch_stats = problem.apply_fn(model, images, train=True)
      return jnp.mean(losses.cross_entropy(labels, outputs.logits)), batch_stats

    is_forget = np.repeat(np.array([0, 1], np.int32), [len(problem.retain), len(problem.forget)])
    return training.minimize(
      loss_fn,
      tx,
      problem.original,
      {'train': types.concatenate(problem.retain, problem.forget)},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      devices=problem.devices,
      monitor=problem.monitor,
      extra={'train': {'is_forget': is_forget}},
    )

  return unlearn

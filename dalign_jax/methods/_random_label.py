"""Training on wrong labels for the forget set."""

import jax

from dalign_jax import objectives, optim, training, types


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

  Sees all retain and all forget data, augmented as by the recipe. Wrong labels are drawn at
  each step. Serves any request.

  Args:
    num_epochs: passes over retain and forget together.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.

  References:
    Graves, Nagisetty, Ganesh: Amnesiac Machine Learning. https://arxiv.org/abs/2010.10981

  Deviation: the paper draws each label once; labels that change are not learned by heart.
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    loss_fn, datasets, extra = objectives.random_labels(problem)
    return training.minimize(
      problem,
      loss_fn,
      rule,
      datasets,
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      extra=extra,
    )

  return unlearn

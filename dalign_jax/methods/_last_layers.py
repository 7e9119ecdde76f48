"""CF-k and EU-k: training of the last layers alone, from the original or from scratch."""

import jax

from dalign_jax import depth, fresh, optim, training, types


def cf_k(
  *,
  num_layers: int = 1,
  num_epochs: int = 10,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
) -> types.UnlearnFn:
  r"""Continues training the last k layers and the head on the retain set.

  .. math:: \min_{\theta_{>n-k}} \; E_{(x, y) \in retain} \, CE(y, f_\theta(x))

  "Catastrophic forgetting" by the end of the network: all other weights and batch statistics stay
  as they are to the bit (in training, frozen layers too are normalised by the batch).
  `depth.layers` finds the order of the layers. Sees all retain data, augmented as by the recipe.
  Serves any request.

  Args:
    num_layers: k, layers to train besides the head; a layer is a kernel with its bias and the
      normalisation behind it.
    num_epochs: passes over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.

  Raises:
    ValueError: when run, if the network has fewer layers.

  References:
    Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru: Towards Adversarial Evaluations for Inexact Machine
    Unlearning. https://arxiv.org/abs/2201.06640

  Deviation: k counts the layers before the head.
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    is_trained = _last(problem, num_layers)
    return _train(
      problem, problem.original, is_trained, rule, key, num_epochs=num_epochs, batch_size=batch_size
    )

  return unlearn


def eu_k(
  *,
  num_layers: int = 1,
  num_epochs: int | None = None,
  learning_rate: float = 0.03,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 64,
) -> types.UnlearnFn:
  r"""Reinitialises the last k layers and the head and trains them on the retain set.

  Of a network with n layers before the head it forgets exactly what the last k and the head hold
  ("exact unlearning" of these). All other weights and batch statistics stay as they are to the bit.
  Sees all retain data, augmented as by the recipe. Serves any request.

  Args:
    num_layers: k, layers to reinitialise in addition to the head, as in `cf_k`.
    num_epochs: passes over the retain set; None for as many as the recipe has, which weights that
      start anew need: with fewer steps they fall short of the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.

  Raises:
    ValueError: when run, if the network has fewer layers.

  References:
    Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru: Towards Adversarial Evaluations for Inexact Machine
    Unlearning. https://arxiv.org/abs/2201.06640

  Deviation: k counts the layers before the head.
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    init_key, train_key = training.split(key)
    is_trained = _last(problem, num_layers)
    anew = fresh.model(problem.init_fn, init_key, problem.retain)
    start = _choose(is_trained, anew, problem.original)
    epochs = problem.recipe.num_epochs if num_epochs is None else num_epochs
    return _train(
      problem, start, is_trained, rule, train_key, num_epochs=epochs, batch_size=batch_size
    )

  return unlearn


def _last(problem, num_layers):
  image_shape = problem.retain.images.shape[1:]
  return depth.last_layers(problem.apply_fn, problem.original, image_shape, num_layers)


def _choose(condition, first, second):
  return jax.tree.map(lambda c, a, b: a if c else b, condition, first, second)


def _train(problem, start, is_trained, rule, key, *, num_epochs, batch_size):
  """Trains the selected leaves on the retain set."""
  leaves, structure = jax.tree.flatten(is_trained.params)
  is_frozen = tuple(not is_leaf_trained for is_leaf_trained in leaves)
  tx = rule.of(problem, optim.num_steps(len(problem.retain), batch_size, num_epochs))
  model = training.minimize(
    problem,
    training.ClassificationLoss(problem.apply_fn, 'retain', problem.recipe.augmentation),
    optim.frozen(tx, is_frozen, structure),
    {'retain': problem.retain},
    key,
    num_epochs=num_epochs,
    batch_size=batch_size,
    start=start,
  )
  batch_stats = _choose(is_trained.batch_stats, model.batch_stats, start.batch_stats)
  return types.ModelState(model.params, batch_stats)

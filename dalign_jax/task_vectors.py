"""Task vectors: what fine-tuning on a set adds to the weights, and taking it away."""

from collections.abc import Sequence
import dataclasses

import jax
import numpy as np
import optax

from dalign_jax import objectives, optim, training, types

COEFFICIENTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)


def tuned(
  problem: types.Problem,
  dataset: types.Dataset,
  tx: optim.Rule | optax.GradientTransformation,
  key: jax.Array,
  *,
  num_epochs: int,
  batch_size: int,
  rate_factor: float = 1.0,
) -> types.PyTree:
  """The change of the original's weights by fine-tuning on a set; batch statistics stay.

  The problem's monitor sees its steps alone: a method may need several of these trainings.

  Args:
    problem: its original is where each fine-tuning starts.
    dataset: the set.
    tx: as in `training.minimize`.
    key: decides the batches.
    num_epochs: passes over the set.
    batch_size: global batch.
    rate_factor: factor of the loss: with SGD, of the learning rate, without another program.
  """
  loss = objectives.Weighed(objectives.MeanLoss(problem.apply_fn, 'set', objectives.cross_entropy))
  model = training.minimize(
    dataclasses.replace(problem, monitor=types.StepsOnly(problem.monitor)),
    loss,
    tx,
    {'set': dataset},
    key,
    num_epochs=num_epochs,
    batch_size=batch_size,
    constants_fn=lambda epoch: np.float32(rate_factor),
  )
  return jax.tree.map(lambda a, b: np.asarray(a) - b, model.params, problem.original.params)


def negated(
  problem: types.Problem,
  vector: types.PyTree,
  *,
  control_share: float,
  added: types.PyTree | None = None,
  coefficients: Sequence[float] = COEFFICIENTS,
) -> types.ModelState:
  r"""The original minus a multiple of a task vector, chosen by control accuracy.

  .. math:: \theta_o - \lambda \tau \; (+ \, \tau'), \quad \lambda = \arg\min \{ A_{forget} :
    A_{control} \ge s A_{control}(\theta_o) \}

  The control set is the validation images of the classes that keep retain examples; all of them,
  where none is of such a class. Among equal forget accuracies the smallest coefficient wins; where
  none qualifies, the original stays.

  Args:
    problem: the problem.
    vector: the task vector tau to take away.
    control_share: s, the share of the original's control accuracy to keep.
    added: a vector tau' to add once, whatever the coefficient.
    coefficients: lambda's candidates, ascending.

  Raises:
    types.DataError: if there are no validation images.
  """
  unseen = objectives.validation(problem)
  kept = np.isin(unseen.labels, problem.retain.labels)
  control = unseen.take(np.flatnonzero(kept)) if kept.any() else unseen
  floor = control_share * objectives.accuracy_on(problem, problem.original, control)
  best, best_accuracy = problem.original, np.inf
  for coefficient in coefficients:
    model = _minus(problem.original, coefficient, vector, added)
    if objectives.accuracy_on(problem, model, control) < floor:
      continue
    accuracy = objectives.accuracy_on(problem, model, problem.forget)
    if accuracy < best_accuracy:
      best, best_accuracy = model, accuracy
  return best


def _minus(model, coefficient, vector, added):
  params = jax.tree.map(lambda p, v: np.asarray(p) - np.float32(coefficient) * v, model[0], vector)
  if added is not None:
    params = jax.tree.map(np.add, params, added)
  return types.ModelState(params, model.batch_stats)

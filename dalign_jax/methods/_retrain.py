"""Retraining from scratch: the gold standard itself."""

import jax

from dalign_jax import fresh, training, types


def retrain() -> types.UnlearnFn:
  """Trains a freshly initialised network on the retain set, with the original's recipe.

  Exact unlearning: 100 % of the weights are reinitialised. Sees all retain data.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    init_key, fit_key = training.split(key)
    return training.fit(
      problem.apply_fn,
      fresh.model(problem.init_fn, init_key, problem.retain),
      problem.retain,
      problem.recipe,
      fit_key,
      devices=problem.devices,
      monitor=problem.monitor,
    )

  return unlearn

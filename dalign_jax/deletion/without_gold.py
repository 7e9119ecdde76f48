"""Measures that need no retrained model, shown only where they predicted the gap to one.

`CORRELATIONS` is what `python -m experiments.benchmarks.without_gold` printed: for requests of
whole classes and of single samples, each measure's rank correlation with the true gap to gold over
methods, in each of its problems.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools

import numpy as np
from scipy import special

from dalign_jax import evaluation, fresh, metrics, prediction, seeds, training, types

LEAST_CORRELATION = 0.7  # in every problem: below it, a measure is not shown
CORRELATIONS: dict[str, dict[str, tuple[float, ...]]] = {
  'classes': {
    'rf_jsd': (-0.56, -0.86),
    'mixture_share': (0.96, 0.63),
    'short_training_gap': (0.94, 0.55),
  },
  'samples': {'rf_jsd': (-0.39,), 'mixture_share': (0.0,), 'short_training_gap': (0.07,)},
}
MEANINGS = {
  'rf_jsd': "divergence of the outputs on forgotten samples from the original's on unseen ones",
  'mixture_share': 'share of the forgotten samples that still look like training data',
  'short_training_gap': "distance to a briefly trained model, as a share of the original's",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
  """An unlearned model and what can be known without gold.

  Attributes:
    problem: network, original, retain and forget data, recipe.
    held_out: data never trained on.
    model: the unlearned model.
    seed: of the short training.
  """

  problem: types.Problem
  held_out: types.Dataset
  model: types.ModelState
  seed: int

  def outputs(self, model: types.ModelState, dataset: types.Dataset) -> types.Outputs:
    """Finite outputs of a model."""
    found = prediction.predict(
      self.problem.apply_fn, model, dataset.images, devices=self.problem.devices
    )
    return evaluation.finite({'set': found})['set']

  @functools.cached_property
  def forget(self) -> np.ndarray:
    """Logits of the model on the forget set."""
    return np.asarray(self.outputs(self.model, self.problem.forget).logits)

  @functools.cached_property
  def short(self) -> types.ModelState:
    """A model trained from scratch on retain data for a tenth of the recipe's epochs."""
    problem, key = self.problem, seeds.stream(self.seed, 'short')
    recipe = dataclasses.replace(
      problem.recipe, num_epochs=max(1, round(problem.recipe.num_epochs / 10))
    )
    start = fresh.model(problem.init_fn, seeds.stream(self.seed, 'short', 1), problem.retain)
    return training.fit(
      problem.apply_fn, start, problem.retain, recipe, key, devices=problem.devices
    )


def _rf_jsd(case):
  labels = case.problem.forget.labels, case.held_out.labels
  if not np.intersect1d(*labels).size:
    return None
  unseen = np.asarray(case.outputs(case.problem.original, case.held_out).logits)
  probability = lambda logits: special.softmax(np.asarray(logits, np.float64), axis=1)
  return metrics.rf_jsd(probability(case.forget), labels[0], probability(unseen), labels[1])


def _mixture_share(case):
  """Scores are losses; unseen samples are of the forgotten classes."""
  problem, unseen = case.problem, case.held_out
  unseen = unseen.take(np.flatnonzero(np.isin(unseen.labels, problem.forget.labels)))
  if not len(unseen):
    return None
  losses = [
    metrics.cross_entropy_scores(np.asarray(case.outputs(case.model, d).logits), d.labels)
    for d in (problem.forget, problem.retain, unseen)
  ]
  value = metrics.mixture_share(*losses)
  return None if np.isnan(value) else value


def _short_training_gap(case):
  forget = case.problem.forget
  original, short = (
    np.asarray(case.outputs(m, forget).logits) for m in (case.problem.original, case.short)
  )
  value = metrics.short_training_gap(case.forget, original, short)
  return None if np.isnan(value) else value


MEASURES: dict[str, Callable[[Case], float | None]] = {
  'rf_jsd': _rf_jsd,
  'mixture_share': _mixture_share,
  'short_training_gap': _short_training_gap,
}


def kind(problem: types.Problem) -> str:
  """What a request forgets: whole classes, or samples of classes that stay."""
  forgotten = np.setdiff1d(problem.forget.labels, problem.retain.labels)
  return 'classes' if len(forgotten) else 'samples'


def predicting(kind: str) -> list[str]:
  """The measures whose rank correlation with the gap to gold was high in every problem."""
  known = CORRELATIONS[kind]
  return [key for key, found in known.items() if min(found) >= LEAST_CORRELATION]


def measure(
  problem: types.Problem, model: types.ModelState, held_out: types.Dataset, *, seed: int
) -> dict[str, dict]:
  """The measures that predict, of the original and of the unlearned model, for a record."""
  if problem.retain.is_multi_label:
    return {}
  found, of_kind = {}, kind(problem)
  for key in predicting(of_kind):
    before, after = (
      MEASURES[key](Case(problem=problem, held_out=held_out, model=m, seed=seed))
      for m in (problem.original, model)
    )
    if before is not None and after is not None:
      found[key] = {
        'before': float(before),
        'after': float(after),
        'rank_correlations': list(CORRELATIONS[of_kind][key]),
      }
  return found


def sentences(found: Mapping[str, Mapping]) -> list[str]:
  """Sentences about the measures of a record, each with how well it predicted."""
  lines = []
  for key, values in found.items():
    rates = values['rank_correlations']
    lines.append(
      f'Without a retrained model ({key}, {MEANINGS[key]}): {values["before"]:.3f} before, '
      f'{values["after"]:.3f} after; smaller is nearer to retraining. In benchmark problems of '
      f'this kind with retrained models ({len(rates)}), its rank correlation with the gap to them '
      f'was {min(rates):.2f} or more.'
    )
  return lines

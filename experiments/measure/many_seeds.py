"""Measurements of a group for `--evaluation=full`: distributions, strong attacks, relearning.

Formulas and sources are in the docstrings of `dalign_jax.metrics`; docs/evaluation.md says how to
read the metrics.
"""

from typing import NamedTuple

import numpy as np

from dalign_jax import metrics, types
from experiments.measure import attacks, relearning
from experiments.problem import preparation

Logits = attacks.Logits
_KLOM_EXAMPLES = 2000  # retain examples that KLOM looks at, at most


class Result(NamedTuple):
  """Scalars of a group, samples behind some of them (for intervals), and arrays for plots."""

  values: dict[str, float]
  samples: dict[str, list[float]]
  arrays: dict[str, np.ndarray]


def measure(
  job: preparation.Job,
  members: list[Logits],
  shadows: list[Logits],
  *,
  original: list[Logits],
  gold: list[Logits],
  references: list[list[Logits]],
  state: types.ModelState,
  is_gold: bool,
) -> Result:
  """Everything about a group.

  Args:
    job: the problem.
    members: of the group, one for each seed.
    shadows: models trained on half of the forget set that went through the group's procedure; for
      gold, golds, which have seen neither half.
    original: the originals.
    gold: reference golds.
    references: for each member, models that RMIA compares it with, never trained on the forget
      set and other than the member.
    state: the first member, whose relearning is timed.
    is_gold: whether the group is the reference itself; distances are left out.
  """
  values, arrays, samples = {}, {}, {}
  if not is_gold:
    distances, arrays = _distances(job, members, gold)
    values |= distances
  case = attacks.Case(job, members, shadows, references)
  for attack in attacks.ATTACKS:
    result = attacks.run(attack, case)
    values |= {f'{attack.key}_{name}': value for name, value in result.values.items()}
    samples[f'{attack.key}_auc'] = result.aucs
    arrays[f'{attack.key}_curve'] = result.curve
  arrays['rates'] = attacks.RATES
  losses = metrics.cross_entropy_scores(original[0]['forget'], job.sets['forget'].labels)
  values['relearn_epochs'] = relearning.relearn_epochs(job, state, float(losses.mean()))
  return Result(values, samples, arrays)


def floors(job: preparation.Job) -> dict[str, float]:
  """Null floors: identical distributions at these numbers of models, by simulation."""
  sizes = job.config.seeds, job.config.golds // 2
  klom = metrics.klom_floor(*sizes, seed=0, num_bins=num_bins(job))
  quality = metrics.forgetting_quality_floor(*sizes, seed=0)
  return {'klom': klom.mean, 'klom_p95': klom.p95, 'forgetting_quality': quality}


def num_bins(job: preparation.Job) -> int:
  """Bins of KLOM's histograms: 20 from 100 models on, fewer for fewer, so that bins are not empty.

  Deviation: the paper has 20 bins and 100 models; with 8 models, 20 bins would put identical
  distributions at 6.6 nats, near the largest value that there is.
  """
  return int(np.clip(min(job.config.seeds, job.config.golds // 2) // 5, 2, 20))


def _distances(job, members, gold):
  """KLOM on each set, and forgetting quality."""
  values, arrays = {}, {}
  for name in ('forget', 'retain', 'validation'):
    pair = [_margins(job, models, name) for models in (members, gold)]
    klom = metrics.klom(*pair, num_bins=num_bins(job))
    values |= {f'klom_{name}': klom.mean, f'klom_{name}_p95': klom.p95}
    arrays[f'klom_{name}'] = klom.per_example
    if name == 'forget':
      values['forgetting_quality'] = metrics.forgetting_quality(*pair).value
  return values, arrays


def _margins(job, models, name):
  """Margins `[K, N]` of K models on a set."""
  labels = job.sets[name].labels
  rows = np.random.default_rng(0).permutation(len(labels))[:_KLOM_EXAMPLES]
  score = metrics.logit_scaled_confidence
  return np.stack([score(logits[name][rows], labels[rows]) for logits in models])

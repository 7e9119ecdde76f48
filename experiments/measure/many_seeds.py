"""What `--evaluation=full` measures of a group: laws of outputs, strong attacks, relearning.

Formulas and sources are in the docstrings of `dalign_jax.metrics`; docs/evaluation.md says how to
read the figures.
"""

from typing import NamedTuple

import numpy as np

from dalign_jax import metrics, types
from experiments.measure import one_model, relearning
from experiments.problem import preparation

Logits = dict[str, np.ndarray]  # by set
_KLOM_EXAMPLES = 2000  # retain examples that KLOM looks at, at most
_RATES = np.logspace(-4, 0, 81)  # false-positive rates of the ROC curves


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
    law, arrays = _laws(job, members, gold)
    values |= law
  for name, result in (
    ('u_lira', _u_lira(job, shadows)),
    ('rmia', _attack_members(job, members, references, _rmia)),
    ('population', _attack_members(job, members, references, _population)),
  ):
    figures, curve, samples[f'{name}_auc'] = result
    values |= {f'{name}_{key}': value for key, value in figures.items()}
    arrays[f'{name}_curve'] = curve
  arrays['rates'] = _RATES
  losses = metrics.cross_entropy_scores(original[0]['forget'], job.sets['forget'].labels)
  values['relearn_epochs'] = relearning.relearn_epochs(job, state, float(losses.mean()))
  return Result(values, samples, arrays)


def floors(job: preparation.Job) -> dict[str, float]:
  """What equal laws give at these numbers of models, by simulation."""
  sizes = job.config.seeds, job.config.golds // 2
  klom = metrics.klom_floor(*sizes, seed=0, num_bins=num_bins(job))
  quality = metrics.forgetting_quality_floor(*sizes, seed=0)
  return {'klom': klom.mean, 'klom_p95': klom.p95, 'forgetting_quality': quality}


def num_bins(job: preparation.Job) -> int:
  """Bins of KLOM's histograms: 20 from 100 models on, fewer for fewer, so that bins are not empty.

  Deviation: the paper has 20 bins and 100 models; with 8 models, 20 bins would put equal laws at
  6.6 nats, near the largest value that there is.
  """
  return int(np.clip(min(job.config.seeds, job.config.golds // 2) // 5, 2, 20))


def _laws(job, members, gold):
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


def _u_lira(job, shadows):
  """Each shadow is attacked with the others: was an example unlearned, or never seen?

  Shadows 2j and 2j + 1 hold complementary halves. Both are left out when one is attacked, so that
  either hypothesis is fitted to equally many models; otherwise the attack would be worse than
  chance on equal laws.
  """
  labels = job.sets['forget'].labels
  score = metrics.logit_scaled_confidence
  shadows = shadows[: job.config.shadows]
  count = len(shadows) - len(shadows) % 2
  scores = np.stack([score(logits['forget'], labels) for logits in shadows[:count]])
  unlearned = np.zeros(scores.shape, bool)
  for index, rows in enumerate(unlearned):
    rows[job.shadow_forget_rows(index)] = True
  used = unlearned.any(0)  # of an odd number, one example is in no shadow at all
  scores, unlearned = scores[:, used], unlearned[:, used]
  found = []
  for target in range(count):
    others = np.arange(count) // 2 != target // 2
    chance = metrics.u_lira(
      scores[target], scores[others], unlearned[others], ~unlearned[others], pooled_variance=True
    )
    found.append((chance[unlearned[target]], chance[~unlearned[target]]))
  return _figures(job, found)


def _attack_members(job, members, references, attack):
  """An attack on each member: forget against test images of the same classes, equally many."""
  rows = one_model.matched_rows(job)
  found = [attack(job, m, r, rows) for m, r in zip(members, references, strict=True)]
  return _figures(job, found)


def _rmia(job, member, references, rows):
  log_probability = lambda logits, name: (
    -metrics.cross_entropy_scores(logits[name], job.sets[name].labels)
  )
  population = log_probability(member, 'validation')
  population_reference = np.stack([log_probability(r, 'validation') for r in references])
  scores = []
  for name in rows:
    target = log_probability(member, name)[rows[name]]
    reference = np.stack([log_probability(r, name)[rows[name]] for r in references])
    scores.append(metrics.rmia(target, reference, population, population_reference))
  return tuple(scores)


def _population(job, member, references, rows):
  """Out-of-fold decision values of a regression on loss, confidence, entropy, modified entropy."""
  del references
  features = []
  for name in rows:
    logits, labels = member[name][rows[name]], job.sets[name].labels[rows[name]]
    features.append(metrics.attack_features(logits, labels))
  return metrics.population_scores(*features, seed=job.config.evaluation_seed)


def _figures(job, found):
  """Mean figures over models, the ROC over all of them, and each model's AUC."""
  seed = job.config.evaluation_seed
  each = [metrics.attack_figures(*pair, seed=seed, num_bootstrap=1) for pair in found]
  pooled = [np.concatenate(side) for side in zip(*found, strict=True)]
  together = metrics.attack_figures(*pooled, seed=seed)
  aucs = [result.auc for result in each]
  figures = {
    'auc': float(np.mean(aucs)),
    'tpr_at_1_percent': together.tpr_at_1_percent,
    'tpr_at_01_percent': together.tpr_at_01_percent,
  }
  return figures, metrics.roc_curve(*pooled, _RATES), aucs

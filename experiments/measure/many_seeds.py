"""Measurements of a group for `--evaluation=full`: distributions, strong attacks, relearning.

To add a column of groups, add one entry to `MEASURES`; an attack is one entry of `attacks.ATTACKS`.
Formulas and sources are in the docstrings of `dalign_jax.metrics`; docs/evaluation.md says how to
read the metrics.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from dalign_jax import evaluation, metrics, types
from experiments.measure import attacks, relearning
from experiments.problem import preparation

Logits = attacks.Logits
_KLOM_EXAMPLES = 2000  # retain examples that KLOM looks at, at most
_KLOM_SETS = ('forget', 'retain', 'validation')


class Result(NamedTuple):
  """Scalars of a group, samples behind some of them (for intervals), and arrays for plots."""

  values: dict[str, float]
  samples: dict[str, list[float]]
  arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
  """Models that differ in their seeds; what several measures need is computed once.

  Attributes:
    case: what attacks may use of it.
    original: logits of the originals.
    gold: logits of reference golds, None for the reference itself.
    state: the first member, whose relearning is timed.
  """

  case: attacks.Case
  original: list[Logits]
  gold: list[Logits] | None
  state: types.ModelState | None

  @functools.cached_property
  def klom(self) -> dict[str, metrics.Klom]:
    """By set; empty for the reference itself."""
    job = self.case.job
    if self.gold is None:
      return {}
    return {name: metrics.klom(*self.margins(name), num_bins=num_bins(job)) for name in _KLOM_SETS}

  @functools.cached_property
  def attacked(self) -> dict[str, attacks.Result]:
    """By the attack's key; without those that have too few images."""
    there = [attack for attack in attacks.ATTACKS if attack.can_run(self.case)]
    return {attack.key: attacks.run(attack, self.case) for attack in there}

  def margins(self, name: str) -> list[np.ndarray]:
    """Margins `[K, N]` on a set, of the members and of gold."""
    return [_margins(self.case.job, models, name) for models in (self.case.members, self.gold)]


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
  shadow: Logits | None = None,
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
    shadow: the first shadow before unlearning, which tunes RMIA.
  """
  group = Group(
    case=attacks.Case(job, members, shadows, references, shadow),
    original=original,
    gold=None if is_gold else gold,
    state=state,
  )
  values = {m.key: m.compute(group) for m in MEASURES}
  arrays = {f'klom_{name}': klom.per_example for name, klom in group.klom.items()}
  arrays |= {f'{key}_curve': result.curve for key, result in group.attacked.items()}
  return Result(
    {key: float(value) for key, value in values.items() if value is not None},
    {f'{key}_auc': result.aucs for key, result in group.attacked.items()},
    {**arrays, 'rates': attacks.RATES},
  )


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


def _margins(job, models, name):
  """Margins `[K, N]` of K models on a set."""
  labels = job.sets[name].labels
  rows = np.random.default_rng(0).permutation(len(labels))[:_KLOM_EXAMPLES]
  score = metrics.logit_scaled_confidence
  return np.stack([score(logits[name][rows], labels[rows]) for logits in models])


def _klom(name: str, field: str) -> Callable[[Group], float | None]:
  return lambda group: getattr(group.klom[name], field) if name in group.klom else None


def _forgetting_quality(group):
  if group.gold is None:
    return None
  return metrics.forgetting_quality(*group.margins('forget')).value


def _relearn_epochs(group):
  job = group.case.job
  losses = metrics.cross_entropy_scores(group.original[0]['forget'], job.sets['forget'].labels)
  return relearning.relearn_epochs(job, group.state, float(losses.mean()))


_full = functools.partial(evaluation.Measure, part='full')
_distance = functools.partial(_full, digits=2, is_distance=True, group='distributions')


def _of_attack(attack: attacks.Attack) -> tuple[evaluation.Measure, ...]:
  """AUC, true-positive rates and bound on epsilon of an attack."""

  def of(name):
    return lambda group: (
      group.attacked[attack.key].values[name] if attack.key in group.attacked else None
    )

  key = lambda name: f'{attack.key}_{name}'
  rate = 'Its true-positive rate at {} % false positives, %, over all models together.'
  full = functools.partial(_full, group=attack.head)
  rates = functools.partial(full, scale=100.0, digits=1)
  one, tenth = 'tpr_at_1_percent', 'tpr_at_01_percent'
  return (
    full(key('auc'), attack.head, attack.meaning, of('auc')),
    rates(key(one), f'{attack.head} @1%', rate.format(1), of(one)),
    rates(key(tenth), '', rate.format(0.1), of(tenth)),
    full(
      key('epsilon'),
      f'{attack.head} eps >=',
      'Lower bound on epsilon at 95 % from its scores on a model, one half of which chose the '
      'threshold; mean over models. Never a guarantee.',
      of('epsilon'),
      digits=2,
    ),
  )


MEASURES: tuple[evaluation.Measure, ...] = (
  _distance(
    'klom_forget',
    'KLOM F',
    "KL divergence of a forget example's margins over the seeds from those over golds: mean, nats.",
    _klom('forget', 'mean'),
  ),
  _distance(
    'klom_forget_p95', 'KLOM F 95', 'Its 95th percentile over examples.', _klom('forget', 'p95')
  ),
  _distance('klom_retain', 'KLOM R', 'KLOM on retain examples.', _klom('retain', 'mean')),
  _distance('klom_retain_p95', '', 'Its 95th percentile.', _klom('retain', 'p95')),
  _distance(
    'klom_validation', 'KLOM V', 'KLOM on validation examples.', _klom('validation', 'mean')
  ),
  _distance('klom_validation_p95', '', 'Its 95th percentile.', _klom('validation', 'p95')),
  _full(
    'forgetting_quality',
    'FQ',
    'Forgetting quality: 1 when no threshold tells the seeds from golds; never near 1 in practice.',
    _forgetting_quality,
    group='distributions',
  ),
  *(entry for attack in attacks.ATTACKS for entry in _of_attack(attack)),
  _full(
    'rmia_offline_a',
    '',
    "RMIA's a, tuned on a shadow.",
    lambda group: group.case.offline_a if 'rmia' in group.attacked else None,
  ),
  _full(
    'relearn_epochs',
    'relearn',
    "Epochs of fine-tuning on forget until its loss is the original's: fewer than gold's means "
    'that knowledge was only hidden. First seed; one more than the maximum if never.',
    _relearn_epochs,
    digits=0,
  ),
)

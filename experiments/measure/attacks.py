"""The strong attacks of `--evaluation=full`: an entry of `ATTACKS` has scores, columns and curve.

Formulas and sources are in the docstrings of `dalign_jax.metrics`.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from dalign_jax import metrics
from experiments.measure import one_model
from experiments.problem import preparation

Logits = dict[str, np.ndarray]  # by set
Scores = tuple[np.ndarray, np.ndarray]  # of members, of non-members; larger is more likely a member
RATES = np.logspace(-4, 0, 81)  # false-positive rates of the ROC curves
_OFFLINE_A = 0.3  # of RMIA, where it is not tuned
_LEAST = 10  # matched images a side, for an attack on members


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """The outputs that attacks may use.

  Attributes:
    job: the problem.
    members: logits of the group's members.
    shadows: logits of shadows that went through the group's procedure, on forget.
    references: for each member, logits of models that never trained on the forget set.
    shadow: logits of the first shadow before unlearning, on forget and validation; None: RMIA is
      not tuned.
  """

  job: preparation.Job
  members: list[Logits]
  shadows: list[Logits]
  references: list[list[Logits]]
  shadow: Logits | None = None

  @functools.cached_property
  def offline_a(self) -> float:
    """RMIA's a: the best on the shadow, whose half of forget is known, with the same references.

    No reference may be trained on an example, member or not. Another shadow cannot be one: its half
    is what the first has not seen.
    """
    if self.shadow is None:
      return _OFFLINE_A
    members = shadow_masks(self.job, 1)[0]
    log_p = functools.partial(_log_probability, self.job)
    of_references = lambda name: np.stack([log_p(r, name) for r in self.references[0]])
    return metrics.tune_offline_a(
      log_p(self.shadow, 'forget'),
      members,
      of_references('forget'),
      log_p(self.shadow, 'validation'),
      of_references('validation'),
    )

  @functools.cached_property
  def matched_rows(self) -> dict[str, np.ndarray]:
    """Rows of forget and test images that attacks on members compare."""
    return one_model.matched_rows(self.job)


class Attack(NamedTuple):
  """An attack.

  Attributes:
    key: of its metrics: `<key>_auc` and `<key>_tpr_at_1_percent`.
    head: of its column.
    title: of its curve.
    meaning: of its AUC.
    scores: the scores of both sides for each model attacked.
    is_of_members: whether it compares matched forget and test images.
  """

  key: str
  head: str
  title: str
  meaning: str
  scores: Callable[[Case], list[Scores]]
  is_of_members: bool = True

  def can_run(self, case: Case) -> bool:
    """Whether there are ten images on either side."""
    return not self.is_of_members or len(case.matched_rows['forget']) >= _LEAST


class Result(NamedTuple):
  """Mean metrics over models, the ROC over all of them at `RATES`, and each model's AUC.

  The bound on epsilon is a mean over models too: examples recur in each, so that scores of all
  models together are not independent trials.
  """

  values: dict[str, float]
  curve: np.ndarray
  aucs: list[float]


def run(attack: Attack, case: Case) -> Result:
  """Runs an attack on a group of models."""
  found, seed = attack.scores(case), case.job.config.evaluation_seed
  each = [metrics.attack_metrics(*pair, seed=seed, num_bootstrap=1) for pair in found]
  pooled = [np.concatenate(side) for side in zip(*found, strict=True)]
  together = metrics.attack_metrics(*pooled, seed=seed, num_bootstrap=1)
  aucs = [result.auc for result in each]
  values = {
    'auc': float(np.mean(aucs)),
    'tpr_at_1_percent': together.tpr_at_1_percent,
    'tpr_at_01_percent': together.tpr_at_01_percent,
    'epsilon': float(np.mean([metrics.attack_epsilon(*p, seed=seed).threshold for p in found])),
  }
  return Result(values, metrics.roc_curve(*pooled, RATES), aucs)


def shadow_masks(job: preparation.Job, count: int) -> np.ndarray:
  """bool `[count, N]`: which forget examples each shadow was trained on and then unlearned."""
  unlearned = np.zeros((count, len(job.sets['forget'])), bool)
  for index, rows in enumerate(unlearned):
    rows[job.shadow_forget_rows(index)] = True
  return unlearned


def pools_variance(job: preparation.Job) -> bool:
  """Whether U-LiRA fits one variance to all examples, as too few shadows leave no choice."""
  masks = shadow_masks(job, max(2, job.config.shadows - job.config.shadows % 2) - 2)
  masks = masks[:, masks.any(0)]  # the others of an attacked pair
  return not masks.size or metrics.needs_pooled_variance(masks, ~masks)


def _u_lira(case):
  """Each shadow is attacked with the others: was an example unlearned, or never seen?

  Shadows 2j and 2j + 1 hold complementary halves. Both are left out when one is attacked, so that
  either hypothesis is fitted to equally many models; otherwise the attack would be worse than
  chance on identical distributions.
  """
  job = case.job
  labels = job.sets['forget'].labels
  score = metrics.logit_scaled_confidence
  shadows = case.shadows[: job.config.shadows]
  count = len(shadows) - len(shadows) % 2
  scores = np.stack([score(logits['forget'], labels) for logits in shadows[:count]])
  unlearned = shadow_masks(job, count)
  used = unlearned.any(0)  # of an odd number, one example is in no shadow at all
  scores, unlearned = scores[:, used], unlearned[:, used]
  found = []
  for target in range(count):
    others = np.arange(count) // 2 != target // 2
    chance = metrics.u_lira(scores[target], scores[others], unlearned[others], ~unlearned[others])
    found.append((chance[unlearned[target]], chance[~unlearned[target]]))
  return found


def _of_members(scores: Callable) -> Callable[[Case], list[Scores]]:
  """An attack on each member: forget against test images of the same classes, equally many."""

  def run_on_members(case):
    pairs = zip(case.members, case.references, strict=True)
    return [scores(case, member, references, case.matched_rows) for member, references in pairs]

  return run_on_members


def _log_probability(job, logits, name):
  return -metrics.cross_entropy_scores(logits[name], job.sets[name].labels)


def _rmia(case, member, references, rows):
  log_probability = functools.partial(_log_probability, case.job)
  population = log_probability(member, 'validation')
  population_reference = np.stack([log_probability(r, 'validation') for r in references])
  scores = []
  for name in rows:
    target = log_probability(member, name)[rows[name]]
    reference = np.stack([log_probability(r, name)[rows[name]] for r in references])
    scores.append(
      metrics.rmia(target, reference, population, population_reference, offline_a=case.offline_a)
    )
  return tuple(scores)


def _population(case, member, references, rows):
  """Out-of-fold decision values of a regression on loss, confidence, entropy, modified entropy."""
  del references
  job, features = case.job, []
  for name in rows:
    logits, labels = member[name][rows[name]], job.sets[name].labels[rows[name]]
    features.append(metrics.attack_features(logits, labels))
  return metrics.population_scores(*features, seed=job.config.evaluation_seed)


ATTACKS = (
  Attack(
    'u_lira',
    'U-LiRA',
    'U-LiRA',
    'AUC of the likelihood-ratio attack: unlearned, or never trained on? Mean over the shadows.',
    _u_lira,
    is_of_members=False,
  ),
  Attack(
    'rmia',
    'RMIA',
    'RMIA',
    'AUC of the robust membership attack (offline, golds as references): forget or test images?',
    _of_members(_rmia),
  ),
  Attack(
    'population',
    'population',
    'Population attack',
    'AUC of a regression on loss, confidence, entropy and modified entropy: forget or test images?',
    _of_members(_population),
  ),
)

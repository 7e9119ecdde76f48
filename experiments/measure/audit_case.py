"""A model to audit: what the columns of leakage, difficulty and groups share."""

from collections.abc import Mapping
import dataclasses
import functools

import numpy as np

from dalign_jax import evaluation, metrics

_LEAST_PAIRS = 10  # of an attack: two a fold
_LEAST_STRATUM = 5  # examples
_LEAST_GROUP, _LEAST_ATTACKED = 10, 20  # examples of a group


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
  """A model to audit; values that several columns need are computed once.

  Attributes:
    of_model: its outputs, the original's and gold's.
    difficulty: scores of the forget examples, by what they measure.
  """

  of_model: evaluation.Case
  difficulty: Mapping[str, np.ndarray]

  @functools.cached_property
  def leaks(self) -> dict[str, metrics.AttackResult]:
    """The two-model attack on forget against retain and against unseen examples."""
    case, found = self.of_model, {}
    for name, rows in (('retain', self._retain_rows()), ('unseen', case.matched_rows)):
      if rows and min(map(len, rows.values())) >= _LEAST_PAIRS:
        sides = [self._changes(side)[picked] for side, picked in rows.items()]
        found[name] = metrics.update_leakage(*sides, seed=case.seed, num_bootstrap=1)
    return found

  def _retain_rows(self):
    """Forget and as many retain rows, class by class where both have a class."""
    case = self.of_model
    forget, retain = (case.sets[name].labels for name in ('forget', 'retain'))
    if np.intersect1d(forget, retain).size:
      pairs = metrics.match_classes(forget, retain, seed=case.seed)
    else:
      picked = np.random.default_rng(case.seed).permutation(len(retain))[: len(forget)]
      pairs = np.arange(len(forget)), np.sort(picked)
    return dict(zip(('forget', 'retain'), pairs, strict=True))

  def _changes(self, name):
    case = self.of_model
    before, after = evaluation.finite({name: case.original[name]})[name], case.own[name]
    return metrics.update_features(
      *(np.asarray(x) for x in (before.logits, after.logits, before.features, after.features)),
      case.sets[name].labels,
    )

  @functools.cached_property
  def epsilon(self) -> metrics.AttackEpsilon | None:
    """Bounds from the population attack; None for too few examples."""
    case = self.of_model
    rows = case.matched_rows
    if min(map(len, rows.values())) < _LEAST_PAIRS:
      return None
    features = [
      metrics.attack_features(case.logits(name)[picked], case.sets[name].labels[picked])
      for name, picked in rows.items()
    ]
    scores = metrics.population_scores(*features, seed=case.seed)
    return metrics.attack_epsilon(*scores, seed=case.seed)

  def stratum(self, kind: str, which: str) -> np.ndarray | None:
    """Forget rows of a third of a score; None where there is no such score, or too few rows."""
    scores = self.difficulty.get(kind)
    if scores is None or len(scores) < 3 * _LEAST_STRATUM:
      return None
    return metrics.strata(scores, which)

  @functools.cached_property
  def grouped(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Test rows that stay, of known groups, and their groups; None below two large enough."""
    groups = self.of_model.sets['test'].group
    if groups is None:
      return None
    known = np.flatnonzero((groups >= 0) & ~self.of_model.is_forgotten('test'))
    names, sizes = np.unique(groups[known], return_counts=True)
    names = names[sizes >= _LEAST_GROUP]
    if len(names) < 2:
      return None
    rows = known[np.isin(groups[known], names)]
    return rows, groups[rows]

  def group_accuracy(self, outputs: evaluation.Outputs) -> metrics.GroupValues | None:
    """Test accuracy by group of some outputs."""
    if self.grouped is None:
      return None
    rows, groups = self.grouped
    labels = self.of_model.sets['test'].labels[rows]
    return metrics.group_accuracy(np.asarray(outputs['test'].logits)[rows], labels, groups)

  @functools.cached_property
  def group_probe(self) -> metrics.GroupValues | None:
    """A linear probe's test accuracy by group."""
    case = self.of_model
    if self.grouped is None or not case.has_features:
      return None
    rows, groups = self.grouped
    probed = case.probed_rows(len(case.sets['retain'].labels))
    correct = metrics.probe_correct(
      case.features('retain')[probed],
      case.sets['retain'].labels[probed],
      case.features('test')[rows],
      case.sets['test'].labels[rows],
    )
    return metrics.by_group(np.mean, groups, correct)

  @functools.cached_property
  def group_attack(self) -> metrics.GroupValues | None:
    """AUC of the attack on the loss inside each group that both sides have enough examples of.

    Inside a group, both sides have equally many examples of each class.
    """
    case = self.of_model
    sets = {name: case.sets[name] for name in case.matched_rows}
    if self.grouped is None or any(dataset.group is None for dataset in sets.values()):
      return None
    known = [np.flatnonzero(dataset.group >= 0) for dataset in sets.values()]
    keys = [
      np.column_stack([dataset.group, dataset.labels])[rows]
      for dataset, rows in zip(sets.values(), known, strict=True)
    ]
    kinds = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].ravel()
    pair = kinds[: len(keys[0])], kinds[len(keys[0]) :]
    if not np.intersect1d(*pair).size:
      return None
    matched = metrics.match_classes(*pair, seed=case.seed)
    sides = []
    for (name, dataset), rows, chosen in zip(sets.items(), known, matched, strict=True):
      sides += [-case.losses[name][rows[chosen]], dataset.group[rows[chosen]]]
    if np.unique(sides[1], return_counts=True)[1].max() < _LEAST_ATTACKED:
      return None
    return metrics.group_attack(*sides, seed=case.seed, least=_LEAST_ATTACKED)

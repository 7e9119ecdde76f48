"""A case to measure: a model's outputs, the sets, and the reference outputs."""

from collections.abc import Mapping
import dataclasses
import functools

import numpy as np

from dalign_jax import metrics, types
from dalign_jax.evaluation import _matching

Outputs = Mapping[str, types.Outputs]  # by set


def finite(outputs: Outputs) -> dict[str, types.Outputs]:
  """Outputs with large numbers for non-finite ones, so that a destroyed model can be measured."""
  limit = lambda x: np.nan_to_num(x, nan=0.0, posinf=1e6, neginf=-1e6)
  return {name: types.Outputs(*map(limit, o)) for name, o in outputs.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
  """A model to measure; values that several measures need are computed once.

  Attributes:
    sets: by name: retain, forget, test, and others of the problem.
    outputs: of the model on these sets.
    original: outputs of the original.
    gold: outputs of the gold that the model is compared with, None for gold itself or without one.
    num_classes: C.
    forgotten_subclass: the group that is forgotten, where that is a part of a class.
    energy: share of the retain features' second moment that DA keeps.
    seed: of attacks, probes and clusterings.
  """

  sets: Mapping[str, types.Dataset]
  outputs: Outputs
  original: Outputs
  gold: Outputs | None
  num_classes: int
  forgotten_subclass: int | None = None
  energy: float = 0.9
  seed: int = 0

  @functools.cached_property
  def is_finite(self) -> bool:
    return all(bool(np.all(np.isfinite(x))) for o in self.outputs.values() for x in o)

  @functools.cached_property
  def own(self) -> dict[str, types.Outputs]:
    """The model's outputs, finite."""
    return finite(self.outputs)

  def logits(self, name: str) -> np.ndarray:
    """The model's logits on a set, finite."""
    return np.asarray(self.own[name].logits)

  def features(self, name: str) -> np.ndarray:
    """The model's features on a set, finite."""
    return np.asarray(self.own[name].features)

  @functools.cached_property
  def is_multi_label(self) -> bool:
    return self.sets['retain'].is_multi_label

  @functools.cached_property
  def forgotten_classes(self) -> tuple[int, ...]:
    """Classes without retain examples."""
    if self.is_multi_label:
      return ()
    return tuple(np.setdiff1d(self.sets['forget'].labels, self.sets['retain'].labels).tolist())

  @functools.cached_property
  def inside_classes(self) -> tuple[int, ...]:
    """The classes that lose some examples, where those are some classes and none as a whole."""
    if self.is_multi_label or self.forgotten_classes:
      return ()
    classes = np.unique(self.sets['forget'].labels)
    return tuple(classes.tolist()) if len(classes) < self.num_classes else ()

  def as_classes(self, outputs: Outputs, name: str) -> np.ndarray:
    """Logits on a set; of attributes, each as a classification of its own, `[N A, 2]`."""
    logits = np.asarray(outputs[name].logits)
    if not self.is_multi_label:
      return logits
    return np.stack([np.zeros(logits.size), logits.ravel()], axis=1)

  def is_forgotten(self, name: str) -> np.ndarray:
    """Mask of the held-out examples of a forgotten class or subclass."""
    dataset = self.sets[name]
    if self.forgotten_classes:
      return np.isin(dataset.labels, self.forgotten_classes)
    if self.forgotten_subclass is not None:
      return np.asarray(dataset.group == self.forgotten_subclass)
    return np.zeros(len(dataset), bool)

  def accuracy(self, name: str, rows: np.ndarray | None = None) -> float | None:
    """Accuracy on a set or on some of its rows; None where there are none."""
    if name not in self.sets or (rows is not None and not np.any(rows)):
      return None
    chosen = slice(None) if rows is None else rows
    return metrics.accuracy(self.logits(name)[chosen], self.sets[name].labels[chosen])

  @functools.cached_property
  def matched_rows(self) -> dict[str, np.ndarray]:
    """Rows that attacks compare; see `matched_rows`."""
    by_group = self.forgotten_subclass is not None
    return _matching.matched_rows(self.sets, seed=self.seed, by_group=by_group)

  @functools.cached_property
  def losses(self) -> dict[str, np.ndarray]:
    """Cross-entropy of every example of the two sides that attacks compare."""
    return {
      name: metrics.cross_entropy_scores(self.logits(name), self.sets[name].labels)
      for name in self.matched_rows
    }

  @functools.cached_property
  def has_features(self) -> bool:
    """Whether no set's features are all zero, as they are in a network that was destroyed."""
    return all(np.any(self.features(name)) for name in ('forget', 'retain', 'test'))

  @functools.cached_property
  def alignment(self) -> metrics.Alignment | None:
    """DA and its rank."""
    if not self.has_features:
      return None
    return metrics.dimensional_alignment(
      self.features('forget'), self.features('retain'), energy=self.energy
    )

  @functools.cached_property
  def overlap(self) -> float | None:
    """Overlap of the principal forget and retain subspaces."""
    if not self.has_features:
      return None
    return metrics.subspace_overlap(
      self.features('forget'), self.features('retain'), energy=self.energy
    )

  @functools.cached_property
  def probe(self) -> metrics.ProbeResult | None:
    """A fresh linear head on the features of (some) training data."""
    if self.is_multi_label or not self.has_features:
      return None
    parts = [(self.features(n), self.sets[n].labels) for n in ('retain', 'forget')]
    features, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = self.probed_rows(len(labels))
    tested = self.sets['test'].labels
    forgotten = sorted(set(self.forgotten_classes) & set(tested.tolist()))
    return metrics.linear_probe(
      features[rows],
      labels[rows],
      self.features('test'),
      tested,
      forget_classes=forgotten or None,
    )

  def probed_rows(self, count: int) -> np.ndarray:
    """Those of so many examples that a linear probe is trained on."""
    return np.random.default_rng(self.seed).permutation(count)[:_PROBED]

  @functools.cached_property
  def clusters(self) -> metrics.ClusteringScores | None:
    """k-means clusters of the test features against labels."""
    labels = self.sets['test'].labels
    if self.is_multi_label or not self.has_features:
      return None
    if not 1 < len(np.unique(labels)) < len(labels):
      return None
    return metrics.clustering_scores(self.features('test'), labels, seed=self.seed)


_PROBED = 10_000  # examples that a linear probe is trained on, at most

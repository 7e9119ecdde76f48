"""Who pays: metrics by group, the worst group, and each group's gap to gold."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _accuracy, _checks, _membership


class GroupValues(NamedTuple):
  """A metric by group: `groups [G]`, `values [G]` and numbers of examples `sizes [G]`."""

  groups: np.ndarray
  values: np.ndarray
  sizes: np.ndarray


def by_group(
  metric: Callable[..., float], groups: np.ndarray, *arrays: np.ndarray, least: int = 1
) -> GroupValues:
  """A metric of the examples of each group: accuracy, a linear probe's, a distance to gold.

  Args:
    metric: `(*rows of the arrays) -> number`.
    groups: `[N]` group indices.
    *arrays: `[N, ...]` each.
    least: groups with fewer examples are left out.

  Returns:
    The values, by ascending group.

  Raises:
    ValueError: for empty or wrongly shaped arguments, or no group that is large enough.

  Example:
    >>> by_group(np.mean, np.array([0, 0, 1]), np.array([1.0, 3.0, 5.0])).values
    array([2., 5.])
  """
  groups = _checks.as_labels('groups', groups)
  for array in arrays:
    if len(array) != len(groups):
      raise errors.InputError(f'arrays must have {len(groups)} rows like groups, got {len(array)}')
  names, sizes = np.unique(groups, return_counts=True)
  names, sizes = names[sizes >= least], sizes[sizes >= least]
  if not len(names):
    raise errors.InputError(f'groups must have one of {least} examples or more, got none')
  values = [metric(*(np.asarray(a)[groups == name] for a in arrays)) for name in names]
  return GroupValues(names, np.asarray(values, np.float64), sizes)


def group_accuracy(
  logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, least: int = 1
) -> GroupValues:
  """Accuracy of each group; the smallest value is the worst-group accuracy.

  Args:
    logits: `[N, C]`, or log-odds `[N, A]`.
    labels: `[N]` class indices, or `[N, A]` binary attributes.
    groups: `[N]` group indices.
    least: groups with fewer examples are left out.

  Returns:
    Accuracies in [0, 1], by ascending group.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> logits = np.array([[2.0, 1.0], [0.0, 3.0], [0.0, 3.0]])
    >>> group_accuracy(logits, np.array([0, 0, 1]), np.array([5, 5, 8])).values
    array([0.5, 1. ])

  References:
    Shiori Sagawa, Pang Wei Koh, Tatsunori B. Hashimoto, Percy Liang, "Distributionally Robust
    Neural Networks for Group Shifts", https://arxiv.org/abs/1911.08731.
  """
  return by_group(_accuracy.accuracy, groups, logits, labels, least=least)


def group_gaps(values: GroupValues, gold: GroupValues) -> GroupValues:
  """Each group's value minus gold's, over the groups that both have.

  Args:
    values: of a model.
    gold: of gold, the same metric.

  Returns:
    The gaps, negative where the group is worse off than after retraining (for an accuracy).

  Raises:
    ValueError: if they share no group.

  Example:
    >>> one = lambda *v: GroupValues(np.array([0, 1]), np.array(v), np.array([9, 9]))
    >>> group_gaps(one(0.5, 0.9), one(0.75, 0.9)).values
    array([-0.25,  0.  ])
  """
  common, own, other = np.intersect1d(values.groups, gold.groups, return_indices=True)
  if not len(common):
    raise errors.InputError(f'gold must share a group with {values.groups}, got {gold.groups}')
  return GroupValues(common, values.values[own] - gold.values[other], values.sizes[own])


def group_attack(
  member_scores: np.ndarray,
  member_groups: np.ndarray,
  nonmember_scores: np.ndarray,
  nonmember_groups: np.ndarray,
  *,
  seed: int,
  least: int = 20,
) -> GroupValues:
  """AUC of `population_attack` inside each group.

  Args:
    member_scores: `[N]` or `[N, K]` scores of forget examples.
    member_groups: `[N]` group indices.
    nonmember_scores: `[M]` or `[M, K]` scores of examples never trained on.
    nonmember_groups: `[M]` group indices.
    seed: of the attacks.
    least: groups with fewer examples on either side are left out.

  Returns:
    AUCs, by ascending group; `sizes` are pairs. Groups are smaller than the whole set, so their
    null floors are wider.

  Raises:
    ValueError: for a wrongly shaped argument, or no group that is large enough.
  """
  member_groups = _checks.as_labels('member_groups', member_groups, len(member_scores))
  others = _checks.as_labels('nonmember_groups', nonmember_groups, len(nonmember_scores))
  member_scores, nonmember_scores = np.asarray(member_scores), np.asarray(nonmember_scores)
  found = []
  for name in np.intersect1d(member_groups, others):
    sides = member_scores[member_groups == name], nonmember_scores[others == name]
    if min(map(len, sides)) >= least:
      result = _membership.population_attack(*sides, seed=seed, num_bootstrap=1)
      found.append((name, result.auc, result.num_pairs))
  if not found:
    raise errors.InputError(
      f'member_groups must share a group of {least} examples a side with nonmember_groups, got none'
    )
  names, values, sizes = zip(*found, strict=True)
  return GroupValues(np.array(names), np.array(values), np.array(sizes))

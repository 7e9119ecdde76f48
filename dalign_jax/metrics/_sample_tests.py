"""Is a method nearer to gold than to the original, and unlike gold? Models are the samples."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks


class SampleTest(NamedTuple):
  """Result of a test.

  Attributes:
    statistic: the observed statistic.
    p_value: chance of one at least as extreme under the null hypothesis.
    smallest_p: the smallest p that so many models can give: above .05 the test cannot decide. 0
      for `nearer_to_gold`, whose p is not a share of relabellings.
  """

  statistic: float
  p_value: float
  smallest_p: float


def nearer_to_gold(
  unlearned: np.ndarray, gold: np.ndarray, original: np.ndarray, *, paired: bool = False
) -> SampleTest:
  r"""Relative three-sample test: are unlearned models nearer to golds than to originals?

  .. math:: T = MMD^2(X, Y) - MMD^2(X, Z), \quad t = T / \hat\sigma

  with an RBF kernel whose bandwidth is the median distance of all pairs. The null hypothesis is
  that X is no nearer to Y than to Z. The variance is the jackknife's, one model left out at a time,
  summed over the samples; p is Student's. Its degrees of freedom are halfway between those of Welch
  and Satterthwaite and those of the smallest sample: by simulation, the first alone are a little
  too many and the second far too few. A small p speaks for "nearer to gold".

  Args:
    unlearned: `[K, N]` outputs of K >= 2 unlearned models: margins of N examples, or N features.
    gold: `[G, N]` of golds, G >= 3.
    original: `[O, N]` of originals, O >= 3.
    paired: model i was unlearned from original i, K = O: these pairs are not compared, and leave
      together.

  Returns:
    T, negative where X is nearer to gold, with its p-value (1 where nothing varies).

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or too few models.

  Example:
    >>> rng = np.random.default_rng(0)
    >>> gold, original = rng.normal(0, 1, (6, 40)), rng.normal(2, 1, (3, 40))
    >>> test = nearer_to_gold(rng.normal(0, 1, (3, 40)), gold, original)
    >>> test.statistic < 0, test.p_value < 0.01
    (True, True)

  References:
    Wacha Bounliphone, Eugene Belilovsky, Matthew B. Blaschko, Ioannis Antonoglou, Arthur Gretton,
    "A Test of Relative Similarity For Model Selection in Generative Models",
    https://arxiv.org/abs/1511.04581.
    Monica Ribero, Antonin Schrab, Arthur Gretton, "Regularized f-Divergence Kernel Tests",
    https://arxiv.org/abs/2601.19755.

  Deviation: a reconstruction: MMD, and a jackknife with Student's distribution for few models, in
  place of f-divergences and a normal limit. Relabelling golds and originals, which earlier versions
  did, is exact only where both have one distribution: its level for a method midway was .09 to .29.
  """
  samples = _samples(unlearned=unlearned, gold=gold, original=original)
  for name, least in (('unlearned', 2), ('gold', 3), ('original', 3)):
    _checks.at_least(f'number of {name} models', len(samples[name]), least)
  sizes = [len(sample) for sample in samples.values()]
  if paired and sizes[0] != sizes[2]:
    raise errors.InputError(
      f'unlearned must have {sizes[2]} models like original to be paired, got {sizes[0]}'
    )
  (kernel,) = _kernels(np.concatenate([*samples.values()]), False)
  groups = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:2])
  statistic = _relative_distance(kernel, groups, paired)
  variances, freedom = [], []
  for leaving in ((0, 2), (1,)) if paired else ((0,), (1,), (2,)):
    count = sizes[leaving[0]]
    without = [
      _relative_distance(kernel, _without(groups, leaving, i), paired) for i in range(count)
    ]
    variances.append((count - 1) / count * float(np.sum((without - np.mean(without)) ** 2)))
    freedom.append(count - 1)
  if not sum(variances) > 1e-24:
    return SampleTest(statistic, 1.0, 0.0)
  parts = zip(variances, freedom, strict=True)
  welch = sum(variances) ** 2 / sum(v**2 / n for v, n in parts)
  t = statistic / np.sqrt(sum(variances))
  return SampleTest(statistic, float(special.stdtr((welch + min(freedom)) / 2, t)), 0.0)


def _relative_distance(kernel, groups, paired):
  """MMD^2(X, Y) - MMD^2(X, Z); the part of X alone cancels."""
  x, y, z = groups
  inside = lambda a: _mean_of_pairs(kernel[np.ix_(a, a)])
  to_y, to_z = kernel[np.ix_(x, y)].mean(), kernel[np.ix_(x, z)]
  to_z = _mean_of_pairs(to_z) if paired else to_z.mean()
  return float(inside(y) - inside(z) - 2 * (to_y - to_z))


def _mean_of_pairs(block):
  """Mean of a square block without its diagonal."""
  return (block.sum() - np.trace(block)) / (len(block) * (len(block) - 1))


def _without(groups, leaving, i):
  return [np.delete(g, i) if k in leaving else g for k, g in enumerate(groups)]


def unlike_gold(
  unlearned: np.ndarray,
  gold: np.ndarray,
  *,
  seed: int,
  num_permutations: int = 2000,
  pool_examples: bool = False,
) -> SampleTest:
  r"""Two-sample test against held-out golds: is X further from golds than golds from each other?

  .. math:: T = MMD^2(X, Y)

  The null hypothesis is that unlearned models and golds have one distribution: every relabelling
  makes some golds play the method. A small p says "not like gold"; a large one does not prove
  equality, it says that so many models show no difference.

  Args:
    unlearned: `[K, N]` outputs of K >= 2 unlearned models.
    gold: `[G, N]` of G >= 2 golds.
    seed: of the relabellings, where there are too many to go through all of them.
    num_permutations: how many relabellings at most.
    pool_examples: for few models: one kernel for each example, and relabellings of each example by
      itself. It treats examples as independent given the models, so its p speaks of these models
      on these examples; where models differ as a whole (a common shift), false alarms are frequent.

  Returns:
    T with its p-value.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or fewer than two models.

  Example:
    >>> rng = np.random.default_rng(0)
    >>> gold = rng.normal(0, 1, (6, 40))
    >>> [bool(unlike_gold(rng.normal(m, 1, (3, 40)), gold, seed=0).p_value < 0.05) for m in (0, 2)]
    [False, True]

  References:
    Arthur Gretton, Karsten Borgwardt, Malte Rasch, Bernhard Schoelkopf, Alexander Smola, "A Kernel
    Two-Sample Test", https://www.jmlr.org/papers/v13/gretton12a.html.
  """
  samples = _samples(unlearned=unlearned, gold=gold)
  for name, sample in samples.items():
    _checks.at_least(f'number of {name} models', len(sample), 2)
  x, y = samples.values()
  count = len(x) + len(y)

  def statistic(kernel, is_unlearned):
    among, is_gold = kernel - np.eye(count), 1 - is_unlearned
    form = lambda a, b: np.einsum('bi,ij,bj->b', a, among, b, optimize=True)
    inside = form(is_unlearned, is_unlearned) / (len(x) * (len(x) - 1))
    inside += form(is_gold, is_gold) / (len(y) * (len(y) - 1))
    return inside - 2 * form(is_unlearned, is_gold) / (len(x) * len(y))

  kernels = _kernels(np.concatenate([x, y]), pool_examples)
  test = _permute(kernels, statistic, len(x), count, seed, num_permutations)
  if len(x) == len(y) and len(kernels) == 1:  # exchanging both sides gives the same statistic
    test = test._replace(smallest_p=max(test.smallest_p, 2 / math.comb(count, len(x))))
  return test


def _samples(**arrays):
  found = {name: _checks.as_array(name, a, ('K', 'N')) for name, a in arrays.items()}
  for name, sample in found.items():
    _checks.same_columns('unlearned', found['unlearned'], name, sample)
  return found


def _kernels(models, pool_examples):
  """RBF kernels `[blocks, M, M]`: one of whole models, or one for each example."""
  blocks = models.T[:, :, None] if pool_examples else models[None]
  squares = np.sum(blocks**2, -1)
  distances = squares[:, :, None] + squares[:, None] - 2 * blocks @ blocks.transpose(0, 2, 1)
  distances = np.maximum(distances, 0)
  rows, columns = np.triu_indices(len(models), 1)
  width = np.median(distances[:, rows, columns], axis=1)
  width[width == 0] = 1
  kernels = np.exp(-distances / width[:, None, None])
  kernels[:, np.arange(len(models)), np.arange(len(models))] = 1
  return kernels


def _permute(kernels, statistic, num_first, count, seed, num_permutations):
  """The test whose relabellings choose `num_first` of `count`, in each block by itself."""
  _checks.at_least('num_permutations', num_permutations, 19)
  total = math.comb(count, num_first)
  observed_labels = (np.arange(count) < num_first)[None].astype(np.float64)
  observed = float(np.mean([statistic(kernel, observed_labels)[0] for kernel in kernels]))
  rng = np.random.default_rng(seed)
  is_whole = len(kernels) == 1 and total <= num_permutations
  if is_whole:
    choices = np.array(list(itertools.combinations(range(count), num_first)))
    labels = np.zeros((total, count))
    np.put_along_axis(labels, choices, 1, axis=1)
    draws = statistic(kernels[0], labels)
  else:
    draws = np.zeros(num_permutations)
    for kernel in kernels:
      labels = rng.permuted(np.tile(observed_labels, (num_permutations, 1)), axis=1)
      draws += statistic(kernel, labels) / len(kernels)
  extreme = int(np.sum(draws >= observed - 1e-12))
  if is_whole:
    return SampleTest(observed, extreme / total, 1 / total)
  smallest = max(1 / (num_permutations + 1), float(total) ** -min(len(kernels), 64))
  return SampleTest(observed, (extreme + 1) / (num_permutations + 1), smallest)


def holm(p_values: np.ndarray) -> np.ndarray:
  r"""Holm's step-down correction of several p-values.

  .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) \, p_{(j)})

  Args:
    p_values: p-values of any shape, in [0, 1]: of methods and columns, say.

  Returns:
    Adjusted p-values of the same shape; rejecting those below alpha keeps the chance of any false
    alarm below alpha, whatever their dependence.

  Raises:
    ValueError: for an empty argument, or values outside [0, 1].

  Example:
    >>> holm(np.array([0.01, 0.04, 0.03])).round(2)
    array([0.03, 0.06, 0.06])

  References:
    Sture Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979.
  """
  shape = np.shape(p_values)
  p = _checks.as_array('p_values', np.ravel(p_values), ('M',))
  if p.min() < 0 or p.max() > 1:
    raise errors.InputError(f'p_values must be in [0, 1], got {p.min()} to {p.max()}')
  order = np.argsort(p, kind='stable')
  steps = np.minimum(1, p[order] * np.arange(len(p), 0, -1))
  adjusted = np.empty_like(p)
  adjusted[order] = np.maximum.accumulate(steps)
  return adjusted.reshape(shape)

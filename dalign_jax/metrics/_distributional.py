"""Distances between unlearned and gold models as distributions, example by example."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks

_FLOOR_EXAMPLES = 1000


class Klom(NamedTuple):
  """KL divergence of margins: `mean` and 95th percentile over `per_example [N]`."""

  mean: float
  p95: float
  per_example: np.ndarray


class ForgettingQuality(NamedTuple):
  """Forgetting quality `value` in [0, 1], and the `epsilons [N]` behind it."""

  value: float
  epsilons: np.ndarray


def klom(
  unlearned_margins: np.ndarray,
  gold_margins: np.ndarray,
  *,
  num_bins: int = 20,
  limit: float = 100.0,
  smoothing: float = 1e-5,
) -> Klom:
  r"""KL divergence of each example's margin over unlearned models from that over gold models.

  .. math:: KL(h_u \| h_g) = \sum_b h_u(b) \log \frac{h_u(b)}{h_g(b)}

  of histograms over common bins, which span the clipped margins of both.

  Args:
    unlearned_margins: `[K, N]` margins (`logit_scaled_confidence`) of K unlearned models.
    gold_margins: `[L, N]` margins of L gold models.
    num_bins: number of bins.
    limit: margins are clipped to [-limit, limit].
    smoothing: added to every bin's share.

  Returns:
    Mean, 95th percentile and per-example values in nats; 0 is never reached: see `klom_floor`.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or a number out of range.

  Example:
    >>> margins = np.linspace(-1, 1, 40)[:, None]
    >>> klom(margins, margins).mean, klom(margins, margins + 9).mean > 5
    (0.0, True)

  References:
    Kristian Georgiev, Roy Rinberg, Sung Min Park, Shivam Garg, Andrew Ilyas, Aleksander Madry,
    Seth Neel, "Attribute-to-Delete: Machine Unlearning via Datamodel Matching",
    https://arxiv.org/abs/2410.23232.
  """
  unlearned, gold = _ensembles('margins', unlearned_margins, gold_margins)
  _checks.at_least('num_bins', num_bins, 2)
  for name, value in (('limit', limit), ('smoothing', smoothing)):
    if not 0 < value < np.inf:
      raise errors.InputError(f'{name} must be positive and finite, got {value}')
  unlearned, gold = np.clip(unlearned, -limit, limit), np.clip(gold, -limit, limit)
  low = np.minimum(unlearned.min(0), gold.min(0))
  width = np.maximum(unlearned.max(0), gold.max(0)) - low
  width[width == 0] = 1
  shares = []
  for margins in (unlearned, gold):
    bins = np.minimum((margins - low) / width * num_bins, num_bins - 1).astype(np.int64)
    columns = np.arange(margins.shape[1]) * num_bins
    counts = np.bincount((bins + columns).ravel(), minlength=len(columns) * num_bins)
    shares.append(counts.reshape(-1, num_bins) / len(margins) + smoothing)
  values = np.sum(shares[0] * np.log(shares[0] / shares[1]), axis=1)
  return Klom(float(values.mean()), float(np.quantile(values, 0.95)), values)


def klom_floor(num_unlearned: int, num_gold: int, *, seed: int, num_bins: int = 20) -> Klom:
  """What `klom` gives for identical distributions (normal ones), by simulation.

  Args:
    num_unlearned: unlearned models K.
    num_gold: gold models L.
    seed: of the simulated margins.
    num_bins: as given to `klom`.

  Returns:
    As `klom`, over 1000 simulated examples.

  Raises:
    ValueError: for less than one model.

  Example:
    >>> abs(klom_floor(100, 100, seed=0).mean - 0.35) < 0.03
    True
  """
  return klom(*_equal_laws(num_unlearned, num_gold, seed), num_bins=num_bins)


def forgetting_quality(
  unlearned_scores: np.ndarray, gold_scores: np.ndarray, *, delta: float = 1e-5
) -> ForgettingQuality:
  r"""How indistinguishable unlearned models are from gold ones, for each forget example.

  With FPR and FNR of attacks on the score,

  .. math::
    \varepsilon = \max\{\log\tfrac{1 - \delta - FPR}{FNR}, \log\tfrac{1 - \delta - FNR}{FPR}\},
    \quad F = \frac1N \sum_x 2^{-\lfloor \varepsilon_x / 0.5 \rfloor}
    [\varepsilon_x < \lceil \log(K - 1) \rceil]

  where :math:`\varepsilon_x` is the largest over two families of attacks. One calls scores above a
  threshold the side with the larger median. The other calls scores in an interval the side with
  the smaller range w; the interval's right end is within 2 of that side's maximum, its width within
  2 of w. Attacks with one rate zero are dropped; both zero means infinity, which is cut to 50, as
  is a range below a hundredth of the other.

  Args:
    unlearned_scores: `[K, N]` margins of K unlearned models on forget examples.
    gold_scores: `[L, N]` margins of L gold models.
    delta: failure probability, in [0, 1).

  Returns:
    F and the epsilons. F stays far below 1 for identical distributions; see
    `forgetting_quality_floor`.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or a delta out of range.

  Example:
    >>> scores = np.linspace(0, 1, 8)[:, None]
    >>> [round(forgetting_quality(scores, scores + shift).value, 9) for shift in (0, 2)]
    [1.0, 0.0]

  References:
    Eleni Triantafillou et al., "Are We Making Progress in Unlearning? Findings from the First
    NeurIPS Unlearning Competition", https://arxiv.org/abs/2406.09073.

  Deviation: all thresholds and intervals of the two families are tried, where the authors' code
  tries a grid of .01; where all scores are equal, epsilon is 0 and not an error.
  """
  unlearned, gold = _ensembles('scores', unlearned_scores, gold_scores)
  if not 0 <= delta < 1:
    raise errors.InputError(f'delta must be in [0, 1), got {delta}')
  epsilons = np.clip(_epsilons(unlearned, gold, delta), 0, 50)
  most = np.ceil(np.log(max(len(unlearned) - 1, 1)))  # what so many models can tell
  values = np.where(epsilons < most, 0.5 ** np.floor(epsilons / 0.5), 0)
  return ForgettingQuality(float(np.mean(values)), epsilons)


def forgetting_quality_floor(num_unlearned: int, num_gold: int, *, seed: int) -> float:
  """What `forgetting_quality` gives for identical distributions (normal ones), by simulation.

  Args:
    num_unlearned: unlearned models K.
    num_gold: gold models L.
    seed: of the simulated scores.

  Returns:
    The mean over 1000 simulated examples.

  Raises:
    ValueError: for less than one model.

  Example:
    >>> abs(forgetting_quality_floor(64, 64, seed=0) - 0.17) < 0.02
    True
  """
  return forgetting_quality(*_equal_laws(num_unlearned, num_gold, seed)).value


def _epsilons(unlearned, gold, delta):
  """`[N]` largest epsilon over both families of attacks."""
  ranges = np.ptp(unlearned, axis=0), np.ptp(gold, axis=0)
  gold_is_higher = np.median(gold, axis=0) > np.median(unlearned, axis=0)
  unlearned_is_wider = ranges[0] >= ranges[1]
  found = np.empty(unlearned.shape[1])
  for i, pair in enumerate(zip(unlearned.T, gold.T, strict=True)):
    above = _above(*(pair[::-1] if gold_is_higher[i] else pair), delta)
    within = _within(*(pair[::-1] if unlearned_is_wider[i] else pair), delta)
    found[i] = max(above, within)
  is_peak = np.minimum(*ranges) < 0.01 * np.maximum(*ranges)
  return np.where(is_peak, np.inf, found)


def _above(positive, negative, delta):
  """Largest epsilon of attacks that call scores at or above a threshold positive."""
  thresholds = np.unique(np.concatenate([positive, negative]))
  below = [np.searchsorted(np.sort(x), thresholds) / len(x) for x in (positive, negative)]
  return np.max(_epsilon(1 - below[1], below[0], delta))


def _within(positive, negative, delta, buffer=2.0):
  """Largest epsilon of attacks that call scores inside an interval positive."""
  points = np.unique(np.concatenate([positive, negative]))
  width, top = np.ptp(positive), positive.max()
  # The right end lies in [points[j - 1], points[j]), the left one in (points[i - 1], points[i]].
  low, high = np.append(-np.inf, points), np.append(points, np.inf)
  r_low, r_high = np.maximum(low, top - buffer), np.minimum(high, top + buffer)
  is_right = (r_low < high) & (low <= top + buffer)
  fits = (r_high[:, None] - low >= width - buffer) & (r_low[:, None] - high <= width + buffer)
  counts = [np.searchsorted(np.sort(x), high[:-1]) for x in (positive, negative)]
  before = [np.append(c, len(x)) for c, x in zip(counts, (positive, negative), strict=True)]
  inside = [np.maximum(b[:, None] - b, 0) / b[-1] for b in before]
  values = _epsilon(inside[1], 1 - inside[0], delta)
  return np.max(np.where(fits & is_right[:, None], values, 0), initial=0)


def _epsilon(fpr, fnr, delta):
  """Epsilon of attacks; 0 where one rate is zero, infinite where both are."""
  used = (fpr > 0) & (fnr > 0)
  log = lambda rates: np.log(np.maximum(rates, 1e-300))
  first = log(1 - delta - fpr) - log(fnr)
  second = log(1 - delta - fnr) - log(fpr)
  perfect = np.where((fpr == 0) & (fnr == 0), np.inf, 0)
  return np.where(used, np.maximum(first, second), perfect)


def _ensembles(what, unlearned, gold):
  unlearned = _checks.as_array(f'unlearned_{what}', unlearned, ('K', 'N'))
  gold = _checks.as_array(f'gold_{what}', gold, ('L', 'N'))
  _checks.same_columns(f'unlearned_{what}', unlearned, f'gold_{what}', gold)
  return unlearned, gold


def _equal_laws(num_unlearned, num_gold, seed):
  rng = np.random.default_rng(seed)
  sizes = (
    _checks.at_least('num_unlearned', num_unlearned, 1),
    _checks.at_least('num_gold', num_gold, 1),
  )
  return [rng.normal(size=(size, _FLOOR_EXAMPLES)) for size in sizes]

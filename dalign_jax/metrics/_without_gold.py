"""Measures that need no retrained model, and how well they predict the gap to one.

None replaces gold: use one only where `rank_correlation` with the true gap was high on problems
with a gold.
"""

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks, _distances


def rf_jsd(
  forget_probabilities: np.ndarray,
  forget_labels: np.ndarray,
  unseen_probabilities: np.ndarray,
  unseen_labels: np.ndarray,
) -> float:
  r"""Retrain-free Jensen-Shannon divergence: forget outputs against the original's on unseen data.

  .. math:: \frac{1}{|C|} \sum_{c} JS\big(\bar p_c, \bar q_c\big)

  where :math:`\bar p_c` is the unlearned model's mean prediction on forget examples of class c and
  :math:`\bar q_c` the original's on unseen ones.

  Args:
    forget_probabilities: `[N, C]` of the unlearned model on the forget set; rows sum to 1.
    forget_labels: `[N]` class indices.
    unseen_probabilities: `[M, C]` of the original on examples never trained on.
    unseen_labels: `[M]` class indices.

  Returns:
    The mean over the classes that both sides have, in nats, in [0, log 2]; 0: forget examples look
    unseen.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, rows that are no
      probabilities, or no common class.

  Example:
    >>> p = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> labels = np.array([0, 1])
    >>> rf_jsd(p, labels, p, labels), round(rf_jsd(p, labels, p[::-1], labels), 3)
    (0.0, 0.693)

  References:
    Christoforos N. Spartalis, Theodoros Semertzidis, Efstratios Gavves, Petros Daras, "LoTUS:
    Large-Scale Machine Unlearning with a Taste of Uncertainty", https://arxiv.org/abs/2503.18314.

  Deviation: the mean of the classes' divergences. The authors' released code normalises the whole
  matrix to one, exchanges the arguments of KL, divides by the number of classes again and rounds:
  its numbers are smaller and not comparable.
  """
  sides = []
  for name, values, labels in (
    ('forget', forget_probabilities, forget_labels),
    ('unseen', unseen_probabilities, unseen_labels),
  ):
    values = _checks.as_logits(f'{name}_probabilities', values)
    if values.min() < 0 or np.abs(values.sum(1) - 1).max() > 1e-3:
      raise errors.InputError(f'{name}_probabilities must be rows that sum to 1')
    sides.append((values, _checks.as_labels(f'{name}_labels', labels, *values.shape)))
  _checks.same_columns('forget_probabilities', sides[0][0], 'unseen_probabilities', sides[1][0])
  classes = np.intersect1d(sides[0][1], sides[1][1])
  if not len(classes):
    raise errors.InputError('unseen_labels must share a class with forget_labels, got none')
  means = [np.stack([values[labels == c].mean(0) for c in classes]) for values, labels in sides]
  p, q = means
  middle = (p + q) / 2
  kl = lambda a: np.sum(special.rel_entr(a, middle), axis=1)
  return float(np.mean(kl(p) + kl(q)) / 2)


def mixture_share(
  forget_scores: np.ndarray, member_scores: np.ndarray, unseen_scores: np.ndarray
) -> float:
  r"""Share of the forget set that still looks like training data.

  The distribution F of forget scores is taken as a mixture of members' M and unseen examples' U,

  .. math:: a = \arg\min \int (F - a M - (1 - a) U)^2
    = \frac{\int (F - U)(M - U)}{\int (M - U)^2}

  of distribution functions, clipped to [0, 1].

  Args:
    forget_scores: `[N]` losses or margins of the unlearned model on the forget set.
    member_scores: `[M]` on retain examples.
    unseen_scores: `[U]` on examples never trained on.

  Returns:
    The share; NaN where members and unseen examples have equal scores.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> member, unseen = np.linspace(0, 1, 50), np.linspace(5, 6, 50)
    >>> round(mixture_share(np.concatenate([member, unseen]), member, unseen), 3)
    0.5

  Deviation: a reconstruction; the literature fits such mixtures in several ways.
  """
  forget = _checks.as_array('forget_scores', forget_scores, ('N',))
  member = _checks.as_array('member_scores', member_scores, ('M',))
  unseen = _checks.as_array('unseen_scores', unseen_scores, ('U',))
  points = np.unique(np.concatenate([forget, member, unseen]))
  gaps = np.diff(points)
  law = lambda x: np.searchsorted(np.sort(x), points[:-1], side='right') / len(x)
  f, m, u = law(forget), law(member), law(unseen)
  scale = np.sum(gaps * (m - u) ** 2)
  if not scale > 0:
    return float('nan')
  return float(np.clip(np.sum(gaps * (f - u) * (m - u)) / scale, 0, 1))


def short_training_gap(
  logits: np.ndarray, logits_original: np.ndarray, logits_short: np.ndarray
) -> float:
  r"""Distance to a model trained briefly on retain data, as a share of the original's distance.

  .. math:: AD(m, short) / AD(original, short)

  Args:
    logits: `[N, C]` of the model on the forget set.
    logits_original: `[N, C]` of the original.
    logits_short: `[N, C]` of a model trained from scratch on retain data for a few epochs.

  Returns:
    The ratio; 1: no nearer than the original. NaN where the original equals the short model.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> original, short = np.array([[9.0, 0.0]]), np.array([[0.0, 0.0]])
    >>> short_training_gap(original, original, short), short_training_gap(short, original, short)
    (1.0, 0.0)

  Deviation: a reconstruction; how short is enough must be shown by `rank_correlation`.
  """
  scale = _distances.activation_distance(logits_original, logits_short)
  return _distances.activation_distance(logits, logits_short) / scale if scale else float('nan')


def rank_correlation(measure: np.ndarray, true_gap: np.ndarray) -> float:
  """Spearman's rank correlation of a measure without gold with the true gap to gold.

  Args:
    measure: `[K]` values of K >= 3 methods, or of methods on problems.
    true_gap: `[K]` their gaps to gold.

  Returns:
    The correlation, in [-1, 1], of mean ranks of ties; NaN where one of them is constant.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or fewer than three values.

  Example:
    >>> rank_correlation(np.array([0.1, 0.5, 0.2]), np.array([1.0, 9.0, 3.0]))
    1.0
  """
  pair = (
    _checks.as_array('measure', measure, ('K',)),
    _checks.as_array('true_gap', true_gap, ('K',)),
  )
  _checks.same_shape('measure', pair[0], 'true_gap', pair[1])
  _checks.at_least('number of values', len(pair[0]), 3)
  a, b = (_ranks(values) - (len(values) - 1) / 2 for values in pair)
  scale = np.sqrt(np.sum(a**2) * np.sum(b**2))
  return float(np.sum(a * b) / scale) if scale else float('nan')


def _ranks(values):
  """Mean ranks, from 0."""
  below = np.sum(values[:, None] > values, axis=1)
  return below + (np.sum(values[:, None] == values, axis=1) - 1) / 2

"""Error rates of a verdict: false alarms of a column, and lower bounds on epsilon."""

import itertools

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks


def column_false_alarms(golds: np.ndarray, *, floors: float = 1.0) -> float:
  r"""How often a column calls a held-out gold a failure: its own false-alarm rate.

  Each gold in turn plays the method, beside a gold and a second gold. The column is outside its
  floor where the method is further from gold than `floors` times the second gold is.

  Args:
    golds: `[G]` values of a column for G >= 3 golds, or a symmetric `[G, G]` matrix of distances
      between them (activation distance, say).
    floors: width of the accepted band, in noise floors.

  Returns:
    The share of alarms over all triples, in [0, 1]. For `floors=1` it is near one half whatever the
    column: a gap of one floor says nothing.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, fewer than three golds, or a
      width that is not positive.

  Example:
    >>> values = np.random.default_rng(0).normal(size=30)
    >>> [round(column_false_alarms(values, floors=floors), 1) for floors in (1, 5)]
    [0.5, 0.1]
  """
  if np.ndim(golds) == 1:
    values = _checks.as_array('golds', golds, ('G',))
    distances = np.abs(values[:, None] - values)
  else:
    distances = _checks.as_array('golds', golds, ('G', 'G'))
    if distances.shape[0] != distances.shape[1] or not np.allclose(distances, distances.T):
      raise errors.InputError(
        f'golds must be a symmetric matrix, got shape {list(distances.shape)}'
      )
  _checks.at_least('number of golds', len(distances), 3)
  if not floors > 0:
    raise errors.InputError(f'floors must be positive, got {floors}')
  triples = np.array(list(itertools.permutations(range(len(distances)), 3)))
  method, gold, second = triples.T
  return float(np.mean(distances[method, gold] > floors * distances[second, gold]))


def clopper_pearson(
  successes: int, trials: int, *, confidence: float = 0.95
) -> tuple[float, float]:
  """Exact two-sided interval of a probability.

  Args:
    successes: in [0, trials].
    trials: 1 or more.
    confidence: in (0, 1).

  Returns:
    Lower and upper end.

  Raises:
    ValueError: for counts or a confidence out of range.

  Example:
    >>> [round(end, 3) for end in clopper_pearson(0, 10)]
    [0.0, 0.308]

  References:
    C. J. Clopper, E. S. Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case
    of the Binomial", Biometrika 26, 1934.
  """
  n, k = _checks.at_least('trials', trials, 1), _checks.at_least('successes', successes, 0)
  if k > n:
    raise errors.InputError(f'successes must be at most trials {n}, got {k}')
  tail = (1 - _confidence(confidence)) / 2
  low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
  return low, 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))


def epsilon_lower_bound(
  true_positives: int,
  positives: int,
  false_positives: int,
  negatives: int,
  *,
  delta: float = 0.0,
  confidence: float = 0.95,
) -> float:
  r"""Lower bound on epsilon from the counts of one attack at a threshold fixed beforehand.

  .. math:: \varepsilon \ge \max\Big\{\log\frac{TPR_{low} - \delta}{FPR_{up}},
    \log\frac{TNR_{low} - \delta}{FNR_{up}}, 0\Big\}

  with Clopper-Pearson ends. It is a lower bound: a small value is not a guarantee of anything.

  Args:
    true_positives: forgotten examples (or models) that the attack calls trained on.
    positives: all of them.
    false_positives: examples never trained on that it calls trained on.
    negatives: all of them.
    delta: of (epsilon, delta) indistinguishability.
    confidence: that all ends hold together.

  Returns:
    The bound, 0 or more. Choose the threshold on other data: the best of many on the same counts
    has no such confidence.

  Raises:
    ValueError: for counts, delta or a confidence out of range.

  Example:
    >>> round(epsilon_lower_bound(90, 100, 5, 100), 2), epsilon_lower_bound(50, 100, 50, 100)
    (1.99, 0.0)

  References:
    Matthew Jagielski, Jonathan Ullman, Alina Oprea, "Auditing Differentially Private Machine
    Learning: How Private is Private SGD?", https://arxiv.org/abs/2006.07709.

  Deviation: examples of one model are not independent trials: the bound is exact for independent
  trials, models say, and an approximation for examples.
  """
  if not 0 <= delta < 1:
    raise errors.InputError(f'delta must be in [0, 1), got {delta}')
  true_rate = clopper_pearson(true_positives, positives, confidence=confidence)[0]
  false_rate = clopper_pearson(false_positives, negatives, confidence=confidence)[1]
  bounds = [0.0]
  for top, bottom in ((true_rate, false_rate), (1 - false_rate, 1 - true_rate)):
    if top > delta:
      bounds.append(float(np.log((top - delta) / bottom)))
  return max(bounds)


def one_run_epsilon(
  num_examples: int,
  num_guesses: int,
  num_correct: int,
  *,
  delta: float = 0.0,
  confidence: float = 0.95,
) -> float:
  r"""Lower bound on epsilon from the guesses of an attacker on one model.

  Each of m examples was trained on with probability one half, independently. The attacker guesses r
  of them and is right v times. Under (epsilon, delta) the number right is dominated by a binomial:

  .. math::
    P(V \ge v) \le \beta + 2 m \delta \max_{i \le v} \frac1i P(v - i \le B < v), \quad
    B \sim Bin\big(r, \tfrac{1}{1 + e^{-\varepsilon}}\big), \; \beta = P(B \ge v)

  The bound is the largest epsilon that this rejects.

  Args:
    num_examples: m, all randomised examples.
    num_guesses: r, of which the attacker guessed; it abstains from the others.
    num_correct: v, right guesses.
    delta: of (epsilon, delta) indistinguishability.
    confidence: of the bound.

  Returns:
    The bound, 0 or more; never a guarantee.

  Raises:
    ValueError: unless 0 <= v <= r <= m and r >= 1, or for delta or a confidence out of range.

  Example:
    >>> round(one_run_epsilon(1000, 100, 95), 2), one_run_epsilon(1000, 100, 50)
    (2.17, 0.0)

  References:
    Thomas Steinke, Milad Nasr, Matthew Jagielski, "Privacy Auditing with One (1) Training Run",
    https://arxiv.org/abs/2305.08846.

  Deviation: a forget set that was not drawn by coin flips (a class, say) does not meet the premise.
  """
  m = _checks.at_least('num_examples', num_examples, 1)
  r = _checks.at_least('num_guesses', num_guesses, 1)
  v = _checks.at_least('num_correct', num_correct, 0)
  if not v <= r <= m:
    raise errors.InputError(
      f'num_correct must be at most num_guesses, and that at most num_examples, got {v}, {r}, {m}'
    )
  if not 0 <= delta < 1:
    raise errors.InputError(f'delta must be in [0, 1), got {delta}')
  alpha = 1 - _confidence(confidence)
  rejects = lambda epsilon: _one_run_p(m, r, v, epsilon, delta) <= alpha
  low, high = 0.0, 1.0
  if not rejects(low):
    return 0.0
  while rejects(high) and high < 64:
    low, high = high, 2 * high
  for _ in range(50):
    middle = (low + high) / 2
    low, high = (middle, high) if rejects(middle) else (low, middle)
  return low


def _one_run_p(m, r, v, epsilon, delta):
  """Upper bound on the probability of v or more right guesses."""
  at_least = _binomial_tails(r, special.expit(epsilon))
  beta = at_least[v]
  if v == 0 or delta == 0:
    return min(1.0, beta)
  steps = np.arange(1, v + 1)
  alpha = np.max((at_least[v - steps] - beta) / steps)
  return min(1.0, beta + 2 * m * delta * alpha)


def _binomial_tails(r, q):
  """`[r + 1]` P(B >= v) for v = 0..r, B ~ Bin(r, q)."""
  v = np.arange(1, r + 1)
  return np.concatenate([[1.0], special.betainc(v, r - v + 1, q)])


def _confidence(confidence):
  if not 0 < confidence < 1:
    raise errors.InputError(f'confidence must be in (0, 1), got {confidence}')
  return confidence

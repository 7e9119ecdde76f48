"""Lower bounds on epsilon from the scores of an attack."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks, _curves, _error_rates


class AttackEpsilon(NamedTuple):
  """Lower bounds on epsilon, each at the confidence that was asked for; neither is a guarantee.

  Attributes:
    threshold: from true- and false-positive rates at a threshold that other examples chose.
    one_run: from guesses on all examples; its premise is that a coin chose the members.
  """

  threshold: float
  one_run: float


def attack_epsilon(
  member_scores: np.ndarray,
  nonmember_scores: np.ndarray,
  *,
  seed: int,
  delta: float = 0.0,
  confidence: float = 0.95,
  guess_share: float = 0.2,
) -> AttackEpsilon:
  """Lower bounds on epsilon from an attack whose score is larger for members.

  One half of each side chooses the threshold with the largest bound on that half; the other half is
  counted there (`epsilon_lower_bound`). For the one-run bound, the examples with the highest scores
  are called members and as many with the lowest non-members (`one_run_epsilon`).

  Args:
    member_scores: `[N]`, N >= 4.
    nonmember_scores: `[M]`, M >= 4; both sides are cut to equal sizes.
    seed: of the cut and of the halves.
    delta: of (epsilon, delta) indistinguishability.
    confidence: of each bound.
    guess_share: share of all examples that the one-run attacker guesses; fixed beforehand.

  Returns:
    The two bounds.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped scores, fewer than four a side, or a delta,
      confidence or share out of range.

  Example:
    >>> scores = np.arange(200.0)
    >>> [round(bound, 2) for bound in attack_epsilon(scores + 1000, scores, seed=0)]
    [3.28, 3.27]

  Deviation: examples of one model are no independent trials, and a forget set is seldom drawn by
  coin flips: read both bounds as the strength of the attack in the units of epsilon.
  """
  members = _checks.as_array('member_scores', member_scores, ('N',))
  others = _checks.as_array('nonmember_scores', nonmember_scores, ('M',))
  if not 0 < guess_share <= 1:
    raise errors.InputError(f'guess_share must be in (0, 1], got {guess_share}')
  rng = np.random.default_rng(seed)
  members, others = (rng.permutation(x) for x in _curves.balance(members, others, rng))
  size = _checks.at_least('number of examples a side', len(members), 4)
  options = {'delta': delta, 'confidence': confidence}
  half = size // 2
  thresholds = np.unique(np.quantile(members[:half], np.linspace(0, 1, 21)))
  bound = lambda t, a, b: _error_rates.epsilon_lower_bound(
    int(np.sum(a >= t)), len(a), int(np.sum(b >= t)), len(b), **options
  )
  chosen = max(thresholds, key=lambda t: bound(t, members[:half], others[:half]))
  guesses = max(2, 2 * round(guess_share * size))  # of 2 size examples: as many of either kind
  scores = np.concatenate([members, others])
  is_member = np.arange(2 * size) < size
  shuffled = rng.permutation(2 * size)  # ties are broken by chance
  order = shuffled[np.argsort(scores[shuffled], kind='stable')]
  low, high = order[: guesses // 2], order[-(guesses // 2) :]
  right = int(np.sum(~is_member[low]) + np.sum(is_member[high]))
  return AttackEpsilon(
    bound(chosen, members[half:], others[half:]),
    _error_rates.one_run_epsilon(2 * size, len(low) + len(high), right, **options),
  )

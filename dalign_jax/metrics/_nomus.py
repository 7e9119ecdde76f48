"""NoMUS: utility and the accuracy of a one-feature attack in one score, with its null floor."""

from typing import NamedTuple

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks, _curves

NUM_SPLITS = 10
TEST_SHARE = 0.1


class NullSpread(NamedTuple):
  """Mean, 95th percentile and maximum of a score under identical distributions."""

  mean: float
  p95: float
  maximum: float


def one_feature_attack(forget_losses: np.ndarray, unseen_losses: np.ndarray, *, seed: int) -> float:
  """Membership attack on per-example losses: its accuracy, M of NoMUS, forget against unseen.

  The sides are cut at random to equal size; the accuracy is the mean over ten stratified random
  splits with a tenth held out.

  Args:
    forget_losses: `[N]` per-example losses.
    unseen_losses: `[M]` per-example losses of examples never trained on.
    seed: of the cut and the splits.

  Returns:
    The mean accuracy, .5 for a blind attack.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped losses, or fewer than two a side.

  Example:
    >>> one_feature_attack(np.linspace(0, 1, 50), np.linspace(2, 3, 80), seed=0)
    1.0

  References:
    Dasol Choi, Dongbin Na, "Towards Machine Unlearning Benchmarks: Forgetting the Personal
    Identities in Facial Recognition Systems", https://arxiv.org/abs/2311.02240.

  Deviation: losses are standardised before the (L2-regularised) fit, so that the result does not
  depend on their unit.
  """
  forget = _checks.as_array('forget_losses', forget_losses, ('N',))
  unseen = _checks.as_array('unseen_losses', unseen_losses, ('M',))
  for name, losses in (('forget_losses', forget), ('unseen_losses', unseen)):
    if len(losses) < 2:
      raise errors.InputError(f'{name} must have two examples or more, got {len(losses)}')
  return _split_accuracy(forget, unseen, np.random.default_rng(seed))


def forgetting_score(m: float) -> float:
  """Distance of an attack's accuracy from chance: |M - .5|, 0 is best.

  Args:
    m: accuracy in [0, 1], as `one_feature_attack` returns.

  Returns:
    The score, in [0, .5]; compare it with `attack_null_spread`.

  Raises:
    ValueError: for an accuracy outside [0, 1].
  """
  return abs(_checks.fraction('m', m) - 0.5)


def nomus(utility_accuracy: float, m: float) -> float:
  r"""Normalised machine unlearning score (NoMUS), for comparison with gold's.

  .. math:: \tfrac12 \, acc + \tfrac12 (1 - 2 |M - \tfrac12|)

  Args:
    utility_accuracy: test accuracy on the task, in [0, 1].
    m: attack accuracy in [0, 1], as `one_feature_attack` returns.

  Returns:
    The score, in [0, 1]. It is not calibrated: an untouched original can beat gold, and a
    constant prediction can come close.

  Raises:
    ValueError: for an argument outside [0, 1].

  Example:
    >>> round(nomus(0.8, 0.6), 3)
    0.8

  References:
    Dasol Choi, Dongbin Na, "Towards Machine Unlearning Benchmarks: Forgetting the Personal
    Identities in Facial Recognition Systems", https://arxiv.org/abs/2311.02240.
  """
  return 0.5 * _checks.fraction('utility_accuracy', utility_accuracy) + (0.5 - forgetting_score(m))


def attack_null_spread(
  n_forget: int, n_unseen: int, *, seed: int, num_draws: int = 200
) -> NullSpread:
  """Null floor of `forgetting_score`: its spread when both sides follow one distribution.

  Args:
    n_forget: number of forget examples.
    n_unseen: number of unseen examples.
    seed: of the draws.
    num_draws: number of draws.

  Returns:
    Mean, 95th percentile and maximum of |M - .5| over the draws.

  Raises:
    ValueError: for fewer than two examples a side, or no draws.
  """
  _checks.at_least('n_forget', n_forget, 2)
  _checks.at_least('n_unseen', n_unseen, 2)
  _checks.at_least('num_draws', num_draws, 1)
  rng = np.random.default_rng(seed)
  scores = [
    abs(_split_accuracy(rng.exponential(size=n_forget), rng.exponential(size=n_unseen), rng) - 0.5)
    for _ in range(num_draws)
  ]
  return NullSpread(float(np.mean(scores)), float(np.quantile(scores, 0.95)), float(np.max(scores)))


def _split_accuracy(forget, unseen, rng):
  """Mean held-out accuracy over the splits, of losses cut to equal size."""
  forget, unseen = _curves.balance(forget, unseen, rng)
  held_out = max(1, round(TEST_SHARE * len(forget)))
  sides = [rng.permuted(np.tile(side, (NUM_SPLITS, 1)), axis=1) for side in (forget, unseen)]
  train = np.concatenate([side[:, held_out:] for side in sides], axis=1)
  test = np.concatenate([side[:, :held_out] for side in sides], axis=1)
  mean, scale = train.mean(1, keepdims=True), train.std(1, keepdims=True)
  scale[scale <= 1e-12 * np.abs(mean)] = 1
  is_forget = lambda x: np.arange(x.shape[1]) < x.shape[1] // 2
  slope, intercept = _fit((train - mean) / scale, is_forget(train))
  called_forget = slope * (test - mean) / scale + intercept > 0
  return float(np.mean(called_forget == is_forget(test)))


def _fit(x, y):
  """Slopes and intercepts `[S, 1]` of logistic regressions of y `[n]` on the rows of x `[S, n]`.

  Damped Newton steps on the summed cross-entropy plus half the squared slope, all rows at once.
  """
  total = lambda values: values.sum(1, keepdims=True)
  sign = np.where(y, -1.0, 1.0)
  cross_entropy = lambda margin: np.maximum(margin, 0) + np.log1p(np.exp(-np.abs(margin)))
  loss = lambda w, b: total(cross_entropy(sign * (w * x + b))) + w**2 / 2
  slope, intercept = np.zeros((2, len(x), 1))
  value = loss(slope, intercept)
  for _ in range(50):
    p = special.expit(slope * x + intercept)
    curvature = p * (1 - p)
    slope_gradient, intercept_gradient = total((p - y) * x) + slope, total(p - y)
    if max(np.abs(slope_gradient).max(), np.abs(intercept_gradient).max()) < 1e-4:
      break
    a, c, d = total(curvature * x**2) + 1, total(curvature * x), total(curvature) + 1e-12
    slope_step = (d * slope_gradient - c * intercept_gradient) / (a * d - c**2)
    intercept_step = (a * intercept_gradient - c * slope_gradient) / (a * d - c**2)
    limit = value * (1 + 1e-12)
    for _ in range(30):
      value = loss(slope - slope_step, intercept - intercept_step)
      if (value <= limit).all():
        break
      shrink = np.where(value > limit, 0.5, 1.0)
      slope_step, intercept_step = shrink * slope_step, shrink * intercept_step
    slope, intercept = slope - slope_step, intercept - intercept_step
  return slope, intercept

"""What an update gives away: an attacker holds the models before and after unlearning."""

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks, _curves, _membership, _nomus, _scores

UPDATE_FEATURES = ('loss', 'margin', 'logits', 'features')


def update_features(
  logits_before: np.ndarray,
  logits_after: np.ndarray,
  features_before: np.ndarray,
  features_after: np.ndarray,
  labels: np.ndarray,
) -> np.ndarray:
  r"""How an update changed each example: what an attacker with both models can compute.

  .. math:: \big(\Delta CE, \; \Delta\phi, \; \|\Delta z\|_2, \; \|\Delta f\|_2\big)

  Args:
    logits_before: `[N, C]` of the model before the update.
    logits_after: `[N, C]` of the model after it.
    features_before: `[N, D]` penultimate features before it.
    features_after: `[N, D]` after it.
    labels: `[N]` class indices.

  Returns:
    `[N, 4]`: change of the loss (nats) and of the margin (`logit_scaled_confidence`), Euclidean
    change of the logits and of the features; after minus before.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> zeros = np.zeros((1, 2))
    >>> update_features(zeros, np.array([[3.0, 4.0]]), zeros, zeros + 1, np.array([1])).round(2)
    array([[-0.38,  1.  ,  5.  ,  1.41]])

  References:
    Martin Bertran, Shuai Tang, Michael Kearns, Jamie Morgenstern, Aaron Roth, Zhiwei Steven Wu,
    "Reconstruction Attacks on Machine Unlearning: Simple Models are Vulnerable",
    https://arxiv.org/abs/2405.20272.

  Deviation: a reconstruction: membership by four summary features, in place of reconstruction of
  the deleted example.
  """
  before = _checks.as_logits('logits_before', logits_before)
  after = _checks.as_logits('logits_after', logits_after)
  _checks.same_shape('logits_before', before, 'logits_after', after)
  old = _checks.as_array('features_before', features_before, ('N', 'D'))
  new = _checks.as_array('features_after', features_after, ('N', 'D'))
  _checks.same_shape('features_before', old, 'features_after', new)
  if len(old) != len(before):
    raise errors.InputError(f'features_before must have {len(before)} rows, got {len(old)}')
  change = lambda score: score(after, labels) - score(before, labels)
  columns = [
    change(_scores.cross_entropy_scores),
    change(_scores.logit_scaled_confidence),
    np.linalg.norm(after - before, axis=1),
    np.linalg.norm(new - old, axis=1),
  ]
  return np.stack(columns, axis=1)


def update_leakage(
  forget_changes: np.ndarray,
  other_changes: np.ndarray,
  *,
  seed: int,
  num_folds: int = 5,
  num_bootstrap: int = 500,
) -> _curves.AttackResult:
  """Attack on an update: which examples were asked to be forgotten?

  A balanced logistic regression, judged out-of-fold, on what `update_features` gives. Run it
  against retain examples, and against unseen examples of the same classes (`match_classes`). A
  retrained model gives something away too: read the result beside gold's and `update_floor`.

  Args:
    forget_changes: `[N, K]` changes of forget examples.
    other_changes: `[M, K]` of retain or of unseen examples.
    seed: of the cut, the folds and the bootstrap.
    num_folds: cross-validation folds.
    num_bootstrap: resamples behind each interval.

  Returns:
    The attack's metrics; `auc` and `tpr_at_1_percent` are the ones to report.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped changes, or fewer examples than folds.

  Example:
    >>> rng = np.random.default_rng(0)
    >>> changes = rng.normal(size=(300, 4))
    >>> update_leakage(changes + 3, changes, seed=0).auc > 0.95
    True
  """
  options = {'seed': seed, 'num_folds': num_folds, 'num_bootstrap': num_bootstrap}
  return _membership.population_attack(forget_changes, other_changes, **options)


def update_floor(
  num_forget: int, num_other: int, *, seed: int, num_features: int = 4, num_draws: int = 100
) -> _nomus.NullSpread:
  """The null floor of `update_leakage`: |AUC - .5| for identical (normal) distributions.

  Args:
    num_forget: forget examples.
    num_other: other examples.
    seed: of the draws.
    num_features: columns of the changes.
    num_draws: number of draws.

  Returns:
    Mean, 95th percentile and maximum of |AUC - .5| over the draws.

  Raises:
    ValueError: for fewer than five examples a side, or no draws.
  """
  sizes = [
    _checks.at_least('num_forget', num_forget, 5),
    _checks.at_least('num_other', num_other, 5),
  ]
  _checks.at_least('num_draws', num_draws, 1)
  rng = np.random.default_rng(seed)
  distances = []
  for _ in range(num_draws):
    sides = [rng.normal(size=(size, num_features)) for size in sizes]
    auc = update_leakage(*sides, seed=int(rng.integers(2**31)), num_bootstrap=1).auc
    distances.append(abs(auc - 0.5))
  return _nomus.NullSpread(
    float(np.mean(distances)), float(np.quantile(distances, 0.95)), float(np.max(distances))
  )

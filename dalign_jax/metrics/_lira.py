"""Membership attacks with reference models: LiRA, U-LiRA and RMIA.

All take scores of K reference models on the same N examples, and return one score an example that
is larger for members; `attack_metrics` turns them into AUC and rates.
"""

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks

_ENOUGH_MODELS = 16  # a side: below it, a variance of each example is too uncertain
_MIN_DEVIATION = 1e-6  # of margins, in nats: keeps a likelihood finite where models agree


def lira(
  target_scores: np.ndarray,
  shadow_scores: np.ndarray,
  shadow_members: np.ndarray,
  *,
  pooled_variance: bool = False,
) -> np.ndarray:
  r"""Likelihood-ratio attack, online form.

  .. math:: \log N(\phi; \mu_{in}, \sigma_{in}^2) - \log N(\phi; \mu_{out}, \sigma_{out}^2)

  Args:
    target_scores: `[N]` (or `[T, N]`) margins under the attacked model (or models), as
      `logit_scaled_confidence` gives.
    shadow_scores: `[K, N]` margins under the shadow models.
    shadow_members: bool `[K, N]`, whether the shadow model was trained on the example.
    pooled_variance: one IN and one OUT variance for all examples, for few shadow models.

  Returns:
    Log-likelihood ratios of the shape of `target_scores`.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or an example with fewer than
      two IN or OUT models (one with `pooled_variance`).

  References:
    Nicholas Carlini, Steve Chien, Milad Nasr, Shuang Song, Andreas Terzis, Florian Tramer,
    "Membership Inference Attacks From First Principles", https://arxiv.org/abs/2112.03570.

  Deviation: means and unbiased deviations of the shadow models' scores (the reference
  implementation: medians, and deviations that divide by K).
  """
  target, shadow = _scores(target_scores, shadow_scores)
  members = _checks.as_mask('shadow_members', shadow_members, shadow.shape)
  inside = _log_normal('shadow_members', target, shadow, members, pooled_variance)
  return inside - _log_normal('shadow_members', target, shadow, ~members, pooled_variance)


def u_lira(
  target_scores: np.ndarray,
  shadow_scores: np.ndarray,
  shadow_unlearned: np.ndarray,
  shadow_unseen: np.ndarray,
  *,
  pooled_variance: bool | None = None,
) -> np.ndarray:
  r"""Likelihood-ratio attack on unlearning: trained on and unlearned, or never trained on?

  .. math:: p(U) = \frac{N(\phi; U)}{N(\phi; U) + N(\phi; O)}

  Every model, targets too, must have gone through the same unlearning procedure.

  Args:
    target_scores: `[N]` (or `[T, N]`) margins under held-out unlearned models.
    shadow_scores: `[K, N]` margins under the other unlearned models.
    shadow_unlearned: bool `[K, N]`, whether the example was trained on and then unlearned (U).
    shadow_unseen: bool `[K, N]`, whether the model never trained on the example (O). An example
      that was trained on and kept is in neither.
    pooled_variance: one U and one O variance for all examples, for few models; None: where
      `needs_pooled_variance` says so.

  Returns:
    Probabilities of U, of the shape of `target_scores`; .5 for perfect unlearning.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, an example in both groups, or
      with fewer than two models in one (one with `pooled_variance`).

  References:
    Jamie Hayes, Ilia Shumailov, Eleni Triantafillou, Amr Khalifa, Nicolas Papernot, "Inexact
    Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy",
    https://arxiv.org/abs/2403.01218.
  """
  target, shadow = _scores(target_scores, shadow_scores)
  unlearned = _checks.as_mask('shadow_unlearned', shadow_unlearned, shadow.shape)
  unseen = _checks.as_mask('shadow_unseen', shadow_unseen, shadow.shape)
  if (unlearned & unseen).any():
    raise errors.InputError(
      'shadow_unseen must be False where shadow_unlearned is True, '
      f'got both in {int(np.sum(unlearned & unseen))} places'
    )
  if pooled_variance is None:
    pooled_variance = needs_pooled_variance(unlearned, unseen)
  log_unlearned = _log_normal('shadow_unlearned', target, shadow, unlearned, pooled_variance)
  log_unseen = _log_normal('shadow_unseen', target, shadow, unseen, pooled_variance)
  return special.expit(log_unlearned - log_unseen)


def needs_pooled_variance(shadow_unlearned: np.ndarray, shadow_unseen: np.ndarray) -> bool:
  """Whether `u_lira` pools variances by default: an example has fewer than 16 models on a side.

  Args:
    shadow_unlearned: bool `[K, N]`, as in `u_lira`.
    shadow_unseen: bool `[K, N]`, as in `u_lira`.

  Returns:
    True for pooled variances, False for normals of each example: a report should say which.

  Example:
    >>> half = np.arange(40)[:, None] % 2 > 0
    >>> needs_pooled_variance(half, ~half), needs_pooled_variance(half[:30], ~half[:30])
    (False, True)
  """
  unlearned = _checks.as_mask('shadow_unlearned', shadow_unlearned, np.shape(shadow_unlearned))
  unseen = _checks.as_mask('shadow_unseen', shadow_unseen, unlearned.shape)
  return bool(min(unlearned.sum(0).min(), unseen.sum(0).min()) < _ENOUGH_MODELS)


def rmia(
  target_log_probabilities: np.ndarray,
  reference_log_probabilities: np.ndarray,
  population_log_probabilities: np.ndarray,
  reference_population_log_probabilities: np.ndarray,
  *,
  gamma: float = 2.0,
  offline_a: float = 0.3,
) -> np.ndarray:
  r"""Robust membership inference, offline form: share of population points the example beats.

  .. math::
    \frac1Z \sum_z \left[\frac{p(x|\theta) / p(x)}{p(z|\theta) / p(z)} \ge \gamma\right], \quad
    p(x) = \tfrac12 ((1 + a)\, p_{out}(x) + 1 - a)

  Args:
    target_log_probabilities: `[N]` log probability of the label (minus the cross-entropy) of the
      examples x under the attacked model.
    reference_log_probabilities: `[K, N]` the same under models not trained on x.
    population_log_probabilities: `[Z]` of examples z never trained on, under the attacked model.
    reference_population_log_probabilities: `[K, Z]` of z under the reference models, whose mean
      is p(z).
    gamma: by which factor x must beat z.
    offline_a: how far p_in(x) depends on p_out(x); tune it on a pair of reference models.

  Returns:
    `[N]` scores in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, positive log probabilities, a
      gamma that is not positive or `offline_a` outside [0, 1].

  References:
    Sajjad Zarifzadeh, Philippe Liu, Reza Shokri, "Low-Cost High-Power Membership Inference
    Attacks", https://arxiv.org/abs/2312.03262.
  """
  x, x_reference = _log_probabilities('', target_log_probabilities, reference_log_probabilities)
  z, z_reference = _log_probabilities(
    'population_', population_log_probabilities, reference_population_log_probabilities
  )
  if not gamma > 0:
    raise errors.InputError(f'gamma must be positive, got {gamma}')
  a = _checks.fraction('offline_a', offline_a)
  log_mean = lambda values: special.logsumexp(values, axis=0) - np.log(len(values))
  weights = np.array([[(1 + a) / 2], [(1 - a) / 2]])
  p_out = log_mean(x_reference)
  x_ratio = x - special.logsumexp([p_out, np.zeros_like(p_out)], b=weights, axis=0)
  z_ratio = np.sort(z - log_mean(z_reference))
  return np.searchsorted(z_ratio, x_ratio - np.log(gamma), side='right') / len(z)


def tune_offline_a(
  target_log_probabilities: np.ndarray,
  target_members: np.ndarray,
  reference_log_probabilities: np.ndarray,
  population_log_probabilities: np.ndarray,
  reference_population_log_probabilities: np.ndarray,
  *,
  gamma: float = 2.0,
) -> float:
  """The `offline_a` of `rmia` with the largest AUC on a model whose members are known.

  Args:
    target_log_probabilities: `[N]` under one model of a pair of one's own, not the attacked one.
    target_members: bool `[N]`, whether that model was trained on the example.
    reference_log_probabilities: `[K, N]` under the other model (or models).
    population_log_probabilities: `[Z]` as in `rmia`, under the first model.
    reference_population_log_probabilities: `[K, Z]` under the other model.
    gamma: as in `rmia`.

  Returns:
    One of 0, 0.1, ..., 1; ties are broken by the smallest.

  Raises:
    ValueError: as `rmia`, or without a member or a non-member.

  Example:
    >>> log_p = np.log(np.array([0.9, 0.5]))
    >>> tune_offline_a(log_p, np.array([True, False]), log_p[None] - 1, log_p, log_p[None])
    0.7
  """
  members = _checks.as_mask('target_members', target_members, np.shape(target_log_probabilities))
  if members.all() or not members.any():
    raise errors.InputError('target_members must hold a member and a non-member')
  rest = (population_log_probabilities, reference_population_log_probabilities)
  aucs = []
  for tenths in range(11):
    scores = rmia(
      target_log_probabilities,
      reference_log_probabilities,
      *rest,
      gamma=gamma,
      offline_a=tenths / 10,
    )
    inside, outside = scores[members][:, None], scores[~members]
    aucs.append(np.mean((inside > outside) + 0.5 * (inside == outside)))
  return int(np.argmax(aucs)) / 10


def _scores(target, shadow):
  shape = ('T', 'N') if np.ndim(target) == 2 else ('N',)
  target = _checks.as_array('target_scores', target, shape)
  shadow = _checks.as_array('shadow_scores', shadow, ('K', 'N'))
  _checks.same_columns('target_scores', target, 'shadow_scores', shadow)
  return target, shadow


def _log_normal(name, target, shadow, mask, pooled):
  """Log density of the targets under normals fitted, example by example, to the masked scores."""
  count, needed = mask.sum(0), 1 if pooled else 2
  if count.min() < needed or (pooled and count.max() < 2):
    raise errors.InputError(
      f'{name} must give every example {needed} models or more on either side, '
      f'got {count.min()} to {count.max()}'
    )
  mean = np.sum(shadow * mask, axis=0) / count
  squares = np.sum((shadow - mean) ** 2 * mask, axis=0)
  variance = squares.sum() / np.sum(count - 1) if pooled else squares / (count - 1)
  deviation = np.maximum(np.sqrt(variance), _MIN_DEVIATION)
  return -(((target - mean) / deviation) ** 2) / 2 - np.log(deviation)


def _log_probabilities(middle, target, reference):
  names = (f'{middle or "target_"}log_probabilities', f'reference_{middle}log_probabilities')
  target = _checks.as_array(names[0], target, ('N',))
  reference = _checks.as_array(names[1], reference, ('K', 'N'))
  _checks.same_columns(names[0], target, names[1], reference)
  for name, values in zip(names, (target, reference), strict=True):
    if values.max() > 1e-6:
      raise errors.InputError(f'{name} must be log probabilities, not positive, got {values.max()}')
  return target, reference

"""Distances between two models' outputs on the same examples."""

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks


def activation_distance(logits_a: np.ndarray, logits_b: np.ndarray) -> float:
  r"""Mean Euclidean distance of two models' probabilities; to gold, on the forget set.

  .. math:: \frac1N \sum_x \| \mathrm{softmax}\,z_a(x) - \mathrm{softmax}\,z_b(x) \|_2

  Args:
    logits_a: `[N, C]`.
    logits_b: `[N, C]` of the same examples.

  Returns:
    The distance, in [0, sqrt 2].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> round(activation_distance(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]])), 4)
    1.4142
  """
  p, q = _probabilities('logits_a', logits_a, 'logits_b', logits_b)
  return float(np.mean(np.linalg.norm(p - q, axis=1)))


def js_divergence(logits_a: np.ndarray, logits_b: np.ndarray) -> float:
  r"""Mean Jensen-Shannon divergence of two models' probabilities.

  .. math:: \frac1N \sum_x \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \quad m = (p + q) / 2

  Args:
    logits_a: `[N, C]`.
    logits_b: `[N, C]` of the same examples.

  Returns:
    The divergence in nats, in [0, log 2].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> round(js_divergence(np.log([[0.9, 0.1]]), np.log([[0.1, 0.9]])), 4)
    0.3681
  """
  p, q = _probabilities('logits_a', logits_a, 'logits_b', logits_b)
  return float(np.mean(_jensen_shannon(p, q)))


def agreement(logits_a: np.ndarray, logits_b: np.ndarray) -> float:
  """Share of examples on which two models predict the same class.

  Args:
    logits_a: `[N, C]`.
    logits_b: `[N, C]` of the same examples.

  Returns:
    The share, in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> agreement(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[5.0, 1.0], [3.0, 0.0]]))
    0.5
  """
  a = _checks.as_logits('logits_a', logits_a)
  b = _checks.as_logits('logits_b', logits_b)
  _checks.same_shape('logits_a', a, 'logits_b', b)
  return float(np.mean(a.argmax(1) == b.argmax(1)))


def balanced_agreement(logits: np.ndarray, logits_gold: np.ndarray, labels: np.ndarray) -> float:
  r"""Balanced agreement of a model with gold on which examples are right.

  .. math:: \tfrac12 P(\text{right} \mid \text{gold right}) +
    \tfrac12 P(\text{wrong} \mid \text{gold wrong})

  A model that is right on all examples, or on none, or on random ones has .5, whatever their share.

  Args:
    logits: `[N, C]`.
    logits_gold: `[N, C]` of the same examples.
    labels: int `[N]`.

  Returns:
    The agreement, in [0, 1]; compare it with a second gold's.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or if gold is right on all
      examples or on none: then there is nothing to tell apart.

  Example:
    >>> gold = np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    >>> labels = np.array([0, 0, 0, 0])
    >>> balanced_agreement(gold, gold, labels), balanced_agreement(-gold, gold, labels)
    (1.0, 0.0)
    >>> balanced_agreement(gold[:, ::-1] * 0, gold, labels)
    0.5
  """
  own, gold = _checks.as_logits('logits', logits), _checks.as_logits('logits_gold', logits_gold)
  _checks.same_shape('logits', own, 'logits_gold', gold)
  labels = _checks.as_labels('labels', labels, *own.shape)
  is_right, gold_is_right = own.argmax(1) == labels, gold.argmax(1) == labels
  if gold_is_right.all() or not gold_is_right.any():
    raise errors.InputError(
      'logits_gold must be right on some examples and wrong on others, got right on '
      f'{gold_is_right.sum()} of {len(labels)}'
    )
  return float((is_right[gold_is_right].mean() + (~is_right[~gold_is_right]).mean()) / 2)


def zrf(logits_unlearned: np.ndarray, logits_random: np.ndarray) -> float:
  r"""Zero retrain forgetting: one minus the divergence to a randomly initialised network.

  .. math:: 1 - \frac1N \sum_x JS_2(p_u(x), p_{random}(x))

  Args:
    logits_unlearned: `[N, C]`, of the forget set.
    logits_random: `[N, C]` of the same examples under a random network.

  Returns:
    The score in [0, 1], with the divergence in bits; compare it with gold's.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  References:
    Vikram Chundawat, Ayush Tarun, Murari Mandal, Mohan Kankanhalli, "Can Bad Teaching Induce
    Forgetting?", https://arxiv.org/abs/2205.08096.
  """
  p, q = _probabilities('logits_unlearned', logits_unlearned, 'logits_random', logits_random)
  return float(1 - np.mean(_jensen_shannon(p, q)) / np.log(2))


def linear_cka(features_a: np.ndarray, features_b: np.ndarray) -> float:
  r"""Linear centred kernel alignment of two feature sets; invariant to rotation and scale.

  .. math:: \frac{\|B^T A\|_F^2}{\|A^T A\|_F \|B^T B\|_F}, \quad A, B \text{ centred}

  Args:
    features_a: `[N, D]`.
    features_b: `[N, E]` of the same examples.

  Returns:
    The similarity, in [0, 1].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, or constant features.

  Example:
    >>> a = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, -1.0]])
    >>> round(linear_cka(a, 5 * a[:, ::-1]), 4)
    1.0

  References:
    Simon Kornblith, Mohammad Norouzi, Honglak Lee, Geoffrey Hinton, "Similarity of Neural
    Network Representations Revisited", https://arxiv.org/abs/1905.00414.
  """
  a = _checks.as_array('features_a', features_a, ('N', 'D'))
  b = _checks.as_array('features_b', features_b, ('N', 'E'))
  if len(a) != len(b):
    raise errors.InputError(f'features_b must have {len(a)} rows like features_a, got {len(b)}')
  a, b = _centred('features_a', a), _centred('features_b', b)
  cross, own_a, own_b = b.T @ a, a.T @ a, b.T @ b
  return float(np.sum(cross**2) / (np.linalg.norm(own_a) * np.linalg.norm(own_b)))


def _probabilities(name_a, a, name_b, b):
  a, b = _checks.as_logits(name_a, a), _checks.as_logits(name_b, b)
  _checks.same_shape(name_a, a, name_b, b)
  return special.softmax(a, axis=1), special.softmax(b, axis=1)


def _jensen_shannon(p, q):
  """`[N]` divergences in nats of probability rows, zeros allowed; exactly 0 for p = q."""
  # Twice p against p + q, not p against the mean: the mean of tiny values underflows to 0.
  # `kl_div` adds its arguments' difference, which cancels in the sum, so no term is negative.
  return (special.kl_div(2 * p, p + q) + special.kl_div(2 * q, p + q)).sum(1) / 4


def _centred(name, features):
  centred = features - features.mean(0)
  if np.sum(centred**2) <= 1e-24 * np.sum(features**2):
    raise errors.InputError(f'{name} must vary over the examples, got {len(features)} equal rows')
  return centred

"""Per-example scores of a classifier's outputs, as membership attacks use them."""

import numpy as np
from scipy import special

from dalign_jax.metrics import _checks


def cross_entropy_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  r"""Cross-entropy of each example.

  .. math:: -\log p_y, \quad p = \mathrm{softmax}(z)

  Of binary attributes: their mean cross-entropy, each with a sigmoid.

  Args:
    logits: `[N, C]`, or log-odds `[N, A]`.
    labels: `[N]` class indices, or `[N, A]` binary attributes.

  Returns:
    `[N]` losses in nats.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> cross_entropy_scores(np.zeros((2, 4)), np.array([0, 3])).round(3)
    array([1.386, 1.386])
  """
  if np.ndim(labels) == 2:
    logits = _checks.as_logits('logits', logits)
    labels = _checks.as_attributes('labels', labels, logits.shape)
    return np.logaddexp(0, (1 - 2 * labels) * logits).mean(1)
  logits, labels = _check(logits, labels)
  return -_of_label(special.log_softmax(logits, axis=1), labels)


def confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Softmax probability of each example's label.

  Args:
    logits: `[N, C]`.
    labels: `[N]` class indices.

  Returns:
    `[N]` probabilities.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.
  """
  return np.exp(-cross_entropy_scores(logits, labels))


def entropy(logits: np.ndarray) -> np.ndarray:
  r"""Entropy of each example's softmax.

  .. math:: -\sum_j p_j \log p_j

  Args:
    logits: `[N, C]`.

  Returns:
    `[N]` entropies in nats, in [0, log C].

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> entropy(np.array([[0.0, 0.0], [1e4, -1e4]])).round(3)
    array([0.693, 0.   ])
  """
  return special.entr(special.softmax(_checks.as_logits('logits', logits), axis=1)).sum(1)


def modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  r"""Entropy that knows the label: small when confident and right, large when confident and wrong.

  .. math:: -(1 - p_y) \log p_y - \sum_{j \ne y} p_j \log (1 - p_j)

  Args:
    logits: `[N, C]`; computed stably at any finite size.
    labels: `[N]` class indices.

  Returns:
    `[N]` scores in nats, not negative, without upper bound.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> modified_entropy(np.log([[0.8, 0.2], [0.2, 0.8]]), np.array([0, 0])).round(4)
    array([0.0893, 2.5751])

  References:
    Liwei Song, Prateek Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning
    Models", https://arxiv.org/abs/2003.10595.
  """
  logits, labels = _check(logits, labels)
  log_p = special.log_softmax(logits, axis=1)
  p = np.exp(log_p)
  top = logits.argmax(1)
  rows = np.arange(len(logits))
  # log(1 - p): log1p loses all digits near p = 1, which only the largest logit can reach.
  p_of_others = p.copy()
  p_of_others[rows, top] = 0
  log_rest = np.log1p(-p_of_others)
  log_rest[rows, top] = _log_sum_of_others(log_p, top)
  own = -np.exp(_of_label(log_rest, labels)) * _of_label(log_p, labels)
  others = -p * log_rest
  others[rows, labels] = 0
  return own + others.sum(1)


def logit_scaled_confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  r"""The margin of the label: the log odds of its probability, nearly Gaussian over models.

  .. math:: \phi = \log \frac{p_y}{1 - p_y} = z_y - \log \sum_{j \ne y} e^{z_j}

  Args:
    logits: `[N, C]`; computed stably at any finite size.
    labels: `[N]` class indices.

  Returns:
    `[N]` margins.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument.

  Example:
    >>> logit_scaled_confidence(np.array([[1e4, 0.0]]), np.array([0]))
    array([10000.])

  References:
    Nicholas Carlini, Steve Chien, Milad Nasr, Shuang Song, Andreas Terzis, Florian Tramer,
    "Membership Inference Attacks From First Principles", https://arxiv.org/abs/2112.03570.
  """
  logits, labels = _check(logits, labels)
  return _of_label(logits, labels) - _log_sum_of_others(logits, labels)


def attack_features(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The scores that attacks on a single model read: columns of `population_attack`.

  Args:
    logits: `[N, C]`.
    labels: int `[N]`.

  Returns:
    `[N, 4]`: cross-entropy, confidence, entropy, modified entropy.

  Raises:
    ValueError: for empty, non-finite or wrongly shaped arguments.

  Example:
    >>> attack_features(np.zeros((3, 2)), np.zeros(3, int)).shape
    (3, 4)
  """
  columns = (
    cross_entropy_scores(logits, labels),
    confidence(logits, labels),
    entropy(logits),
    modified_entropy(logits, labels),
  )
  return np.stack(columns, axis=1)


def _check(logits, labels):
  logits = _checks.as_logits('logits', logits)
  return logits, _checks.as_labels('labels', labels, *logits.shape)


def _of_label(values, labels):
  return values[np.arange(len(labels)), labels]


def _log_sum_of_others(values, labels):
  others = values.copy()
  others[np.arange(len(labels)), labels] = -np.inf
  return special.logsumexp(others, axis=1)

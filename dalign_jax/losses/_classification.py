"""Losses between labels and logits."""

import chex
import jax
import jax.numpy as jnp


def cross_entropy(labels, logits, *, label_smoothing: float = 0.0):
  r"""Cross-entropy with integer labels, per example.

  .. math:: -(1 - s) \log p_y - \frac{s}{C} \sum_c \log p_c

  Args:
    labels: `[B]` integer classes.
    logits: `[B, C]` unnormalised log-probabilities.
    label_smoothing: s in [0, 1).

  Returns:
    `[B]` losses in nats.

  Raises:
    ValueError: if `label_smoothing` is outside [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> print(f'{cross_entropy(jnp.array([0]), jnp.zeros((1, 2)))[0]:.4f}')
    0.6931
  """
  chex.assert_rank([labels, logits], [1, 2])
  chex.assert_equal_shape_prefix([labels, logits], 1)
  chex.assert_type(labels, int)
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing must be in [0, 1), got {label_smoothing}')
  log_probs = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
  true = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
  if not label_smoothing:
    return -true
  return -(1 - label_smoothing) * true - label_smoothing * jnp.mean(log_probs, axis=1)

"""Losses between labels and logits."""

import chex
import jax
import jax.numpy as jnp

from dalign_jax import errors, types


def cross_entropy(
  labels: types.Array, logits: types.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
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
    raise errors.InputError(f'label_smoothing must be in [0, 1), got {label_smoothing}')
  log_probs = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
  true = jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
  if not label_smoothing:
    return -true
  return -(1 - label_smoothing) * true - label_smoothing * jnp.mean(log_probs, axis=1)


def binary_cross_entropy(labels: types.Array, logits: types.Array) -> jax.Array:
  r"""Cross-entropy of several binary attributes, each with a sigmoid of its own, per example.

  .. math:: \frac{1}{A} \sum_a \log \big( 1 + e^{(1 - 2 y_a) z_a} \big)

  Args:
    labels: `[B, A]` integers 0 or 1.
    logits: `[B, A]` log-odds, z.

  Returns:
    `[B]` losses in nats, averaged over the attributes.

  Example:
    >>> import jax.numpy as jnp
    >>> print(f'{binary_cross_entropy(jnp.array([[0, 1]]), jnp.zeros((1, 2)))[0]:.4f}')
    0.6931
  """
  chex.assert_rank([labels, logits], 2)
  chex.assert_equal_shape([labels, logits])
  chex.assert_type(labels, int)
  return jnp.mean(jax.nn.softplus((1 - 2 * labels) * jnp.asarray(logits, jnp.float32)), axis=1)


def label_loss(
  labels: types.Array, logits: types.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Loss by kind of label: cross-entropy of classes `[B]`, or of binary attributes `[B, A]`.

  Args:
    labels: `[B]` integer classes, or `[B, A]` binary attributes.
    logits: `[B, C]`, or `[B, A]`.
    label_smoothing: s of `cross_entropy`; must be 0 for binary attributes.

  Returns:
    `[B]` losses in nats.

  Raises:
    ValueError: if `label_smoothing` is not 0 for binary attributes, or outside [0, 1).
  """
  if jnp.ndim(labels) == 2:
    if label_smoothing:
      raise errors.InputError(
        f'label_smoothing must be 0 for binary attributes, got {label_smoothing}'
      )
    return binary_cross_entropy(labels, logits)
  return cross_entropy(labels, logits, label_smoothing=label_smoothing)

"""Losses between a teacher's and a student's logits."""

import chex
import jax
import jax.numpy as jnp

from dalign_jax import errors, types


def distillation(
  teacher_logits: types.Array, student_logits: types.Array, *, temperature: float = 1.0
) -> jax.Array:
  r"""Knowledge distillation, per example.

  .. math:: \tau^2 \, KL(\mathrm{softmax}(t / \tau) \,\|\, \mathrm{softmax}(s / \tau))

  Args:
    teacher_logits: `[B, C]`, t; no gradient flows into them. Entries may be `-inf`
      (probability 0).
    student_logits: `[B, C]`, s.
    temperature: tau > 0.

  Returns:
    `[B]` losses in nats.

  Raises:
    ValueError: if `temperature` is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> float(distillation(jnp.zeros((1, 3)), jnp.zeros((1, 3)))[0])
    0.0

  References:
    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network.
    https://arxiv.org/abs/1503.02531
  """
  chex.assert_rank([teacher_logits, student_logits], 2)
  chex.assert_equal_shape([teacher_logits, student_logits])
  if not temperature > 0:
    raise errors.InputError(f'temperature must be positive, got {temperature}')
  teacher = jax.lax.stop_gradient(jnp.asarray(teacher_logits, jnp.float32)) / temperature
  log_teacher = jax.nn.log_softmax(teacher)
  log_student = jax.nn.log_softmax(jnp.asarray(student_logits, jnp.float32) / temperature)
  # Classes of teacher probability 0 contribute 0 log 0 = 0.
  log_ratio = jnp.where(jnp.isneginf(log_teacher), 0.0, log_teacher) - log_student
  return temperature**2 * jnp.sum(jnp.exp(log_teacher) * log_ratio, axis=1)


def self_distillation(
  teacher_logits: types.Array,
  student_logits: types.Array,
  labels: types.Array,
  *,
  temperature: float = 1.0,
) -> jax.Array:
  r"""Distillation from a teacher whose true class is masked out, per example.

  .. math:: \tau^2 \, KL(\mathrm{softmax}(\tilde t / \tau) \,\|\, \mathrm{softmax}(s / \tau)),
    \quad \tilde t_y = -\infty, \; \tilde t_c = t_c \; (c \ne y)

  What the teacher knows of the *other* classes is kept, what it knows of the true class is taken
  away. With the student's own logits as teacher the value is :math:`-\log(1 - p_y)`.

  Args:
    teacher_logits: `[B, C]`, t; no gradient flows into them.
    student_logits: `[B, C]`, s.
    labels: `[B]` integer true classes, y.
    temperature: tau > 0.

  Returns:
    `[B]` losses in nats.

  Raises:
    ValueError: if `temperature` is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> z = jnp.zeros((1, 4))  # p_y = 1/4
    >>> print(f'{self_distillation(z, z, jnp.array([2]))[0]:.4f}')
    0.2877

  References:
    Seo, Kim, Han: Revisiting Machine Unlearning with Dimensional Alignment.
    https://arxiv.org/abs/2407.17710

  Deviation: the paper's text was not readable to us; masking the true class is our reconstruction.
  """
  chex.assert_equal_shape_prefix([teacher_logits, labels], 1)
  chex.assert_type(labels, int)
  is_true = jax.nn.one_hot(labels, teacher_logits.shape[1], dtype=bool)
  masked = jnp.where(is_true, -jnp.inf, jnp.asarray(teacher_logits, jnp.float32))
  return distillation(masked, student_logits, temperature=temperature)

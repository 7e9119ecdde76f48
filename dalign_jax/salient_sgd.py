"""SGD for two kinds of steps: descent on all weights, and ascent on salient ones."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import types


class SalientState(NamedTuple):
  """Momentum, descent steps taken, their number in all, and the mask of ascent steps."""

  trace: Any
  count: Any
  num_steps: Any
  mask: Any


def salient_sgd(
  learning_rate: float,
  *,
  momentum: float,
  weight_decay: float,
  ascent_weight: float,
  max_norm: float,
  mask: types.PyTree,
  num_steps: int,
) -> optax.GradientTransformationExtraArgs:
  r"""SGD whose `update` takes the keyword `is_ascent`.

  An ascent step's gradient is scaled by `ascent_weight`, masked and clipped, in this order; both
  kinds of steps share momentum and weight decay, which thus move weights outside of the mask too.
  The learning rate and the scale fall by a cosine over the descent steps. Mask and number of steps
  are in the state, not in the compiled program.

  Args:
    learning_rate: at the start.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    ascent_weight: scale of ascent steps, at the start.
    max_norm: largest norm of an ascent step's gradient.
    mask: pytree like the parameters, of boolean arrays of their shapes.
    num_steps: descent steps in all, 1 or more.
  """

  def init(params):
    zeros = jax.tree.map(lambda p: np.zeros(np.shape(p), np.asarray(p).dtype), params)
    return SalientState(zeros, np.zeros((), np.int32), np.float32(num_steps), mask)

  update = _update(learning_rate, momentum, weight_decay, ascent_weight, max_norm)
  return optax.GradientTransformationExtraArgs(init, update)


@functools.lru_cache(maxsize=64)
def _update(learning_rate, momentum, weight_decay, ascent_weight, max_norm):
  def update(updates, state, params, *, is_ascent):
    cosine = (1 + jnp.cos(jnp.pi * state.count / state.num_steps)) / 2
    if is_ascent:
      scale = ascent_weight * cosine
      updates = jax.tree.map(lambda m, u: jnp.where(m, scale * u, 0.0), state.mask, updates)
      updates, _ = optax.clip_by_global_norm(max_norm).update(updates, optax.EmptyState())
    trace = jax.tree.map(
      lambda t, u, p: momentum * t + u + weight_decay * p, state.trace, updates, params
    )
    steps = jax.tree.map(lambda t: -learning_rate * cosine * t, trace)
    return steps, state._replace(trace=trace, count=state.count + (not is_ascent))

  return update

"""Bounded gradient steps with Gaussian noise, as an optax transformation."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import seeds


class NoisyState(NamedTuple):
  """Bits of the noise's key, and steps taken."""

  key_data: Any
  count: Any


def noisy_descent(
  learning_rate: float, *, radius: float, max_norm: float, noise: float, key: jax.Array
) -> optax.GradientTransformationExtraArgs:
  r"""Steps on kernels, the leaves with two axes or more; all other leaves stay.

  .. math:: \theta \leftarrow \Pi_C(\theta) - \eta \, \mathrm{clip}_G(g) + N(0, \sigma^2 I)

  Pi_C scales the kernels, as one vector, to a length of at most C, clip_G their gradient to one of
  at most G. Two weights before a step are thus at most :math:`2 (C + \eta G)` apart before its
  noise; see `contracted_delta`.

  Args:
    learning_rate: eta.
    radius: C.
    max_norm: G.
    noise: sigma.
    key: of the noise; it is in the state, not in the compiled program, and must stay secret.
  """

  def init(params):
    del params
    return NoisyState(seeds.bits_of(key), np.zeros((), np.int32))

  update = _noisy_update(learning_rate, radius, max_norm, noise)
  return optax.GradientTransformationExtraArgs(init, update)


def is_kernel(leaf) -> bool:
  """Whether a leaf of the parameters takes part."""
  return np.ndim(leaf) >= 2


@functools.lru_cache(maxsize=64)
def _noisy_update(learning_rate, radius, max_norm, noise):
  def update(updates, state, params):
    weights, structure = jax.tree.flatten(params)
    gradients = jax.tree.leaves(updates)
    shrink, clip = _factor(weights, radius), _factor(gradients, max_norm)
    key = jax.random.fold_in(seeds.of_bits(state.key_data), state.count)

    def change(number, weight, gradient):
      if not is_kernel(weight):
        return jnp.zeros_like(weight)
      drawn = noise * jax.random.normal(jax.random.fold_in(key, number), weight.shape, weight.dtype)
      return shrink * weight - learning_rate * clip * gradient + drawn - weight

    changes = [change(i, w, g) for i, (w, g) in enumerate(zip(weights, gradients, strict=True))]
    return jax.tree.unflatten(structure, changes), state._replace(count=state.count + 1)

  return update


def _factor(leaves, limit):
  """What shortens the kernels among the leaves to the limit; 1 where they are not longer."""
  kernels = [leaf for leaf in leaves if is_kernel(leaf)]
  return jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(kernels), 1e-12))

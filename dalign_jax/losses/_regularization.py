"""Penalties on parameters."""

from typing import Any

import jax
import jax.numpy as jnp


def l1(params: Any) -> jax.Array:
  r"""Sum of absolute parameters, :math:`\|\theta\|_1`.

  Args:
    params: any pytree of arrays.

  Returns:
    Scalar.

  Example:
    >>> import jax.numpy as jnp
    >>> float(l1({'w': jnp.array([1., -2.])}))
    3.0

  References:
    Jia et al.: Model Sparsity Can Simplify Machine Unlearning.
    https://arxiv.org/abs/2304.04934
  """
  return sum((jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))


def quadratic(anchor: Any, params: Any, *, weights: Any | None = None) -> jax.Array:
  r"""Half the (weighted) squared distance to anchor parameters.

  .. math:: \frac{1}{2} \sum_i \omega_i (\theta_i - \theta^0_i)^2

  Args:
    anchor: pytree of arrays, theta^0; no gradient flows into it.
    params: pytree of the same structure, theta.
    weights: pytree of the same structure with leaves broadcastable to the parameters', omega
      (importances, say); None for all ones.

  Returns:
    Scalar.

  Example:
    >>> import jax.numpy as jnp
    >>> float(quadratic({'w': jnp.zeros(2)}, {'w': jnp.array([1., 3.])}))
    5.0
  """
  if weights is None:
    weights = jax.tree.map(lambda _: 1.0, params)
  terms = jax.tree.map(
    lambda a, p, w: jnp.sum(w * (p - jax.lax.stop_gradient(a)) ** 2), anchor, params, weights
  )
  return 0.5 * sum(jax.tree.leaves(terms), start=jnp.zeros(()))

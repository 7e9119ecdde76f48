"""Entropic optimal transport between two batches of features."""

import chex
import jax
import jax.numpy as jnp

from dalign_jax import types
from dalign_jax.losses import _reduction, _sinkhorn

_HIGHEST = jax.lax.Precision.HIGHEST


@_reduction.on_any_mesh
def cosine_cost(features_a: types.Array, features_b: types.Array) -> jax.Array:
  r"""Cosine distance of each row of one batch to each of the other.

  .. math:: C_{ij} = 1 - \frac{a_i \cdot b_j}{\|a_i\| \, \|b_j\|}

  Args:
    features_a: `[N, D]`. A row of zeros is at distance 1 from everything, without gradient.
    features_b: `[M, D]`.

  Returns:
    `[N, M]` in [0, 2], to rounding.

  Example:
    >>> import jax.numpy as jnp
    >>> cosine_cost(jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    Array([[0., 1., 2.]], dtype=float32)
  """
  chex.assert_rank([features_a, features_b], 2)
  chex.assert_equal(features_a.shape[1], features_b.shape[1])
  a, b = _unit_rows(features_a), _unit_rows(features_b)
  return 1.0 - jnp.matmul(a, b.T, precision=_HIGHEST)


@_reduction.on_any_mesh
def transport_distance(
  features_a: types.Array,
  features_b: types.Array,
  *,
  epsilon: float = 0.01,
  weights_a: types.Array | None = None,
  weights_b: types.Array | None = None,
  tolerance: float = 1e-3,
  max_iterations: int = 1000,
  axis_name: str | None = None,
) -> jax.Array:
  r"""Entropic optimal transport between two batches, with cosine distance as the cost.

  .. math:: \langle T, C \rangle + \epsilon \, KL(T \,\|\, a b^\top), \quad
    \frac{\partial}{\partial z} = \sum_{ij} T_{ij} \frac{\partial C_{ij}}{\partial z}

  with the plan T of `sinkhorn` and the cost C of `cosine_cost`. The gradient is that of the optimum
  (envelope theorem): nothing is differentiated through the iterations.

  Args:
    features_a: `[N, D]`.
    features_b: `[M, D]`; `stop_gradient` holds a side fixed.
    epsilon: strength of the entropy; > 0.
    weights_a: `[N]` non-negative weights, 0 for padding; None for all ones.
    weights_b: `[M]` weights.
    tolerance: summed absolute error of the plan's marginals at which the iterations stop.
    max_iterations: of `sinkhorn`.
    axis_name: mapped axis whose devices' rows are gathered: transport is between the global
      batches, since the mean of the devices' own distances is another quantity.

  Returns:
    Scalar, not negative (to rounding and tolerance): 0 only for two single directions that agree.

  Raises:
    ValueError: if a number is not positive.

  References:
    Cuturi: Sinkhorn Distances: Lightspeed Computation of Optimal Transport.
    https://arxiv.org/abs/1306.0895
    Choi, Na: Distribution-Level Feature Distancing for Machine Unlearning.
    https://arxiv.org/abs/2409.14747
  """
  chex.assert_rank([features_a, features_b], 2)
  weights_a = _reduction.example_weights(weights_a, features_a.shape[0])
  weights_b = _reduction.example_weights(weights_b, features_b.shape[0])
  features_a, features_b, weights_a, weights_b = _reduction.gather_rows(
    (features_a, features_b, weights_a, weights_b), axis_name
  )
  cost = cosine_cost(features_a, features_b)
  found = _sinkhorn.sinkhorn(
    cost,
    epsilon=epsilon,
    weights_a=weights_a,
    weights_b=weights_b,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )
  plan = jax.lax.stop_gradient(found.plan)
  entropy_term = jax.lax.stop_gradient(found.regularized_cost - found.cost)
  return _reduction.global_mean(jnp.sum(plan * cost) + entropy_term, axis_name)


def _unit_rows(features):
  """Rows of length 1; rows of zeros stay and get no gradient."""
  features = jnp.asarray(features, jnp.float32)
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(features), axis=1, keepdims=True))
  is_zero = largest == 0
  scaled = features / jnp.where(is_zero, 1.0, largest)  # squares neither overflow nor vanish
  square = jnp.where(is_zero, 1.0, jnp.sum(scaled**2, axis=1, keepdims=True))
  return scaled * jnp.where(is_zero, 0.0, jax.lax.rsqrt(square))

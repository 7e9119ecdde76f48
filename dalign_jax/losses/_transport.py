"""Entropic optimal transport between two batches of features."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from dalign_jax.losses import _reduction

_HIGHEST = jax.lax.Precision.HIGHEST
_OVER_RELAXATION = 1.8
_ANNEALING = 0.5


class Transport(NamedTuple):
  """A transport plan and how good it is.

  Attributes:
    cost: scalar, the sum of plan times cost.
    regularized_cost: scalar, `cost` and epsilon times the plan's relative entropy to the product
      of its marginals: what the plan minimises. No more than that minimum until it has converged.
    plan: `[N, M]`, sums to 1.
    marginal_error: scalar, summed absolute error of the plan's rows and columns.
    converged: scalar bool, whether `marginal_error` is within the tolerance.
    iterations: scalar int32, how many there were.
  """

  cost: jax.Array
  regularized_cost: jax.Array
  plan: jax.Array
  marginal_error: jax.Array
  converged: jax.Array
  iterations: jax.Array


class _Loop(NamedTuple):
  row_potential: jax.Array
  column_potential: jax.Array
  epsilon: jax.Array
  error: jax.Array
  relaxation: jax.Array
  iterations: jax.Array


def cosine_cost(features_a, features_b):
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


def sinkhorn(
  cost,
  *,
  epsilon: float = 0.01,
  weights_a=None,
  weights_b=None,
  tolerance: float = 1e-3,
  max_iterations: int = 1000,
) -> Transport:
  r"""The plan of entropic optimal transport, by Sinkhorn's iterations in the log domain.

  .. math:: \min_{T \ge 0} \; \langle T, C \rangle + \epsilon \, KL(T \,\|\, a b^\top)
    \quad \text{with} \quad T 1 = a, \; T^\top 1 = b

  The iterations start at a large epsilon that is halved each time, and are over-relaxed as long as
  the error of the marginals falls; an order of magnitude fewer are needed than without. No gradient
  flows through the result: at the optimum the derivative of the minimum by C is the plan itself,
  which `transport_distance` uses.

  Args:
    cost: `[N, M]`, C.
    epsilon: strength of the entropy, in the unit of the cost; > 0.
    weights_a: `[N]` non-negative weights of the rows, 0 for padding; None for all ones. They are
      scaled to sum 1.
    weights_b: `[M]` weights of the columns.
    tolerance: summed absolute error of the marginals at which to stop; below 1e-5 float32 may not
      get there.
    max_iterations: where to stop in any case.

  Returns:
    The plan and its quality; a plan of zeros where all weights of a side are 0.

  Raises:
    ValueError: if `epsilon`, `tolerance` or `max_iterations` is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> result = sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.01)
    >>> result.plan.round(3).tolist(), bool(result.converged)
    ([[0.5, 0.0], [0.0, 0.5]], True)

  References:
    Cuturi: Sinkhorn Distances: Lightspeed Computation of Optimal Transport.
    https://arxiv.org/abs/1306.0895
    Thibault, Chizat, Dossal, Papadakis: Overrelaxed Sinkhorn-Knopp Algorithm for Regularized
    Optimal Transport. https://arxiv.org/abs/1711.01851
  """
  for name, value in (
    ('epsilon', epsilon),
    ('tolerance', tolerance),
    ('max_iterations', max_iterations),
  ):
    if not value > 0:
      raise ValueError(f'{name} must be positive, got {value}')
  chex.assert_rank(cost, 2)
  cost = jax.lax.stop_gradient(jnp.asarray(cost, jnp.float32))
  a, has_a = _marginal(weights_a, cost.shape[0])
  b, has_b = _marginal(weights_b, cost.shape[1])
  found = _iterate(cost, a, b, epsilon, tolerance, max_iterations)
  u = found.row_potential
  v = _column_update(cost, u, jnp.log(a), epsilon)  # the columns are exact after it
  plan = jnp.exp((u[:, None] + v[None] - cost) / epsilon) * (a[:, None] * b[None])
  plan = jnp.where(has_a & has_b, plan, 0.0)
  error = jnp.sum(jnp.abs(plan.sum(1) - a)) + jnp.sum(jnp.abs(plan.sum(0) - b))
  return Transport(
    cost=jnp.sum(plan * cost),
    regularized_cost=jnp.where(has_a & has_b, jnp.sum(a * u) + jnp.sum(b * v), 0.0),
    plan=plan,
    marginal_error=error,
    converged=error <= tolerance,
    iterations=found.iterations,
  )


def transport_distance(
  features_a,
  features_b,
  *,
  epsilon: float = 0.01,
  weights_a=None,
  weights_b=None,
  tolerance: float = 1e-3,
  max_iterations: int = 1000,
  axis_name: str | None = None,
):
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
  found = sinkhorn(
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


def _iterate(cost, a, b, epsilon, tolerance, max_iterations) -> _Loop:
  """Iterations until both marginals are within the tolerance."""
  log_a, log_b = jnp.log(a), jnp.log(b)

  def body(loop: _Loop) -> _Loop:
    scale, relaxation = loop.epsilon, loop.relaxation
    row_target = _row_update(cost, loop.column_potential, log_b, scale)
    row_error = _relative_error(a, loop.row_potential - row_target, scale)
    u = loop.row_potential + relaxation * (row_target - loop.row_potential)
    column_target = _column_update(cost, u, log_a, scale)
    column_error = _relative_error(b, loop.column_potential - column_target, scale)
    v = loop.column_potential + relaxation * (column_target - loop.column_potential)
    error = jnp.where(scale > epsilon, jnp.inf, row_error + column_error)
    is_falling = (error < 1.0) & (error <= loop.error)
    relaxation = jnp.where(is_falling, _OVER_RELAXATION, 1.0)
    scale = jnp.maximum(epsilon, scale * _ANNEALING)
    return _Loop(u, v, scale, error, relaxation, loop.iterations + 1)

  zero = 0.0 * cost[0, 0]  # carries the mapped axis that the cost varies over, as the loop needs
  start = _Loop(
    row_potential=zero + jnp.zeros_like(a),
    column_potential=zero + jnp.zeros_like(b),
    epsilon=jnp.maximum(epsilon, jnp.max(jnp.abs(cost))),
    error=zero + jnp.inf,
    relaxation=zero + 1.0,
    iterations=zero.astype(jnp.int32),
  )
  goes_on = lambda loop: (loop.error > tolerance / 2) & (loop.iterations < max_iterations)
  return jax.lax.while_loop(goes_on, body, start)


def _row_update(cost, v, log_b, epsilon):
  return -epsilon * jax.nn.logsumexp((v[None] - cost) / epsilon + log_b[None], axis=1)


def _column_update(cost, u, log_a, epsilon):
  return -epsilon * jax.nn.logsumexp((u[:, None] - cost) / epsilon + log_a[:, None], axis=0)


def _relative_error(marginal, difference, epsilon):
  """Summed error of a marginal of the plan whose potential is off by `difference`."""
  off = jnp.abs(jnp.expm1(jnp.clip(difference / epsilon, -80.0, 80.0)))
  return jnp.sum(jnp.where(marginal > 0, marginal * off, 0.0))


def _marginal(weights, size):
  """Weights scaled to sum 1 (all equal where they are all 0), and whether any is positive."""
  weights = jax.lax.stop_gradient(_reduction.example_weights(weights, size))
  total = jnp.sum(weights)
  has_any = total > 0
  return jnp.where(has_any, weights / jnp.where(has_any, total, 1.0), 1.0 / size), has_any


def _unit_rows(features):
  """Rows of length 1; rows of zeros stay and get no gradient."""
  features = jnp.asarray(features, jnp.float32)
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(features), axis=1, keepdims=True))
  is_zero = largest == 0
  scaled = features / jnp.where(is_zero, 1.0, largest)  # squares neither overflow nor vanish
  square = jnp.where(is_zero, 1.0, jnp.sum(scaled**2, axis=1, keepdims=True))
  return scaled * jnp.where(is_zero, 0.0, jax.lax.rsqrt(square))

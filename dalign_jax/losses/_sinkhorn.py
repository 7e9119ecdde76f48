"""Sinkhorn's iterations: the plan of entropic optimal transport for a given cost."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from dalign_jax import errors, types
from dalign_jax.losses import _reduction

_HIGHEST = jax.lax.Precision.HIGHEST
_OVER_RELAXATION = 1.8
_ANNEALING = 0.25
_ROUND = 5  # iterations on one kernel


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
  error: jax.Array
  relaxation: jax.Array
  iterations: jax.Array


@_reduction.on_any_mesh
def sinkhorn(
  cost: types.Array,
  *,
  epsilon: float = 0.01,
  weights_a: types.Array | None = None,
  weights_b: types.Array | None = None,
  tolerance: float = 1e-3,
  max_iterations: int = 1000,
) -> Transport:
  r"""The plan of entropic optimal transport, by Sinkhorn's iterations stabilised in the log domain.

  .. math:: \min_{T \ge 0} \; \langle T, C \rangle + \epsilon \, KL(T \,\|\, a b^\top)
    \quad \text{with} \quad T 1 = a, \; T^\top 1 = b

  A few iterations on logarithms, with an epsilon that falls to the given one, lead to potentials
  from which rounds of five cheap iterations on the plan itself go on; what a round multiplies rows
  and columns by is then absorbed into the potentials, so that nothing over- or underflows. They are
  over-relaxed as long as the error of the marginals falls. No gradient flows through the result: at
  the optimum the derivative of the minimum by C is the plan itself (see `transport_distance`).

  Args:
    cost: `[N, M]`, C. Infinity forbids a pair. Where a row or a column has no pair that is allowed,
      the plan leaves it out and does not converge; a NaN makes the whole result NaN.
    epsilon: strength of the entropy, in the unit of the cost; > 0.
    weights_a: `[N]` non-negative weights of the rows, 0 for padding; None for all ones. They are
      scaled to sum 1.
    weights_b: `[M]` weights of the columns.
    tolerance: summed absolute error of the marginals at which to stop; below 1e-5 float32 may not
      get there.
    max_iterations: where to stop in any case, rounded up to whole rounds.

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
    Schmitzer: Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems.
    https://arxiv.org/abs/1610.06519
    Thibault, Chizat, Dossal, Papadakis: Overrelaxed Sinkhorn-Knopp Algorithm for Regularized
    Optimal Transport. https://arxiv.org/abs/1711.01851
  """
  for name, value in (
    ('epsilon', epsilon),
    ('tolerance', tolerance),
    ('max_iterations', max_iterations),
  ):
    if not value > 0:
      raise errors.InputError(f'{name} must be positive, got {value}')
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
    cost=jnp.sum(jnp.where(plan == 0, 0.0, plan * cost)),  # a forbidden pair costs nothing
    regularized_cost=jnp.where(has_a & has_b, jnp.sum(a * u) + jnp.sum(b * v), 0.0),
    plan=plan,
    marginal_error=error,
    converged=error <= tolerance,
    iterations=found.iterations,
  )


def _iterate(cost, a, b, epsilon, tolerance, max_iterations) -> _Loop:
  """Potentials whose plan has both marginals within the tolerance."""
  log_a, log_b = jnp.log(a), jnp.log(b)
  finite = jnp.where(jnp.isfinite(cost), cost, 0.0)
  zero = 0.0 * finite[0, 0]  # carries the mapped axis that the cost varies over, as the loops need

  def anneal(carry):
    scale, u, v = carry
    u = _row_update(cost, v, log_b, scale)
    return scale * _ANNEALING, u, _column_update(cost, u, log_a, scale)

  start = (
    _ANNEALING * jnp.max(jnp.abs(finite)),
    zero + jnp.zeros_like(a),
    zero + jnp.zeros_like(b),
  )
  _, _, v = jax.lax.while_loop(lambda carry: carry[0] > epsilon, anneal, start)
  u = _row_update(cost, v, log_b, epsilon)
  v = _column_update(cost, u, log_a, epsilon)

  def absorb(loop: _Loop) -> _Loop:
    kernel = jnp.exp((loop.row_potential[:, None] + loop.column_potential[None] - cost) / epsilon)
    r, s, error = _scale(kernel, a, b, loop.relaxation)
    is_falling = (error < 1.0) & (error <= loop.error)
    return _Loop(
      row_potential=loop.row_potential + epsilon * jnp.log(r),
      column_potential=loop.column_potential + epsilon * jnp.log(s),
      error=error,
      relaxation=jnp.where(is_falling, _OVER_RELAXATION, 1.0).astype(error.dtype),
      iterations=loop.iterations + _ROUND,
    )

  goes_on = lambda loop: (loop.error > tolerance) & (loop.iterations < max_iterations)
  return jax.lax.while_loop(
    goes_on, absorb, _Loop(u, v, zero + jnp.inf, zero + 1.0, zero.astype(jnp.int32))
  )


def _scale(kernel, a, b, relaxation):
  """A round of iterations on the factors of the kernel's rows and columns, both near 1.

  The factors are kept within bounds, so that an empty row moves its potential by a step at a time.
  """
  dot = functools.partial(jnp.matmul, precision=_HIGHEST)
  correct = lambda factor, total: jnp.clip(
    factor * (factor * jnp.maximum(total, 1e-30)) ** -relaxation, 1e-15, 1e15
  )

  def iteration(_, carry):
    r, s, _ = carry
    row_total = dot(kernel, b * s)
    error = jnp.sum(a * jnp.abs(r * row_total - 1))
    r = correct(r, row_total)
    column_total = dot(a * r, kernel)
    error += jnp.sum(b * jnp.abs(s * column_total - 1))
    return r, correct(s, column_total), error

  zero = 0.0 * kernel[0, 0]
  start = (zero + jnp.ones_like(a), zero + jnp.ones_like(b), zero)
  return jax.lax.fori_loop(0, _ROUND, iteration, start)


def _row_update(cost, v, log_b, epsilon):
  return _potential(jax.nn.logsumexp((v[None] - cost) / epsilon + log_b[None], axis=1), epsilon)


def _column_update(cost, u, log_a, epsilon):
  return _potential(
    jax.nn.logsumexp((u[:, None] - cost) / epsilon + log_a[:, None], axis=0), epsilon
  )


def _potential(log_total, epsilon):
  """The potential that scales a total to 1; 0 where every pair is forbidden and none can."""
  return jnp.where(log_total == -jnp.inf, 0.0, -epsilon * log_total)


def _marginal(weights, size):
  """Weights scaled to sum 1 (all equal where they are all 0), and whether any is positive."""
  weights = jax.lax.stop_gradient(_reduction.example_weights(weights, size))
  total = jnp.sum(weights)
  has_any = total > 0
  return jnp.where(has_any, weights / jnp.where(has_any, total, 1.0), 1.0 / size), has_any

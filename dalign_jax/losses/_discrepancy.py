"""Cheaper distances between two batches of features: sliced transport and kernel means."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from dalign_jax import errors, types
from dalign_jax.losses import _reduction

_HIGHEST = jax.lax.Precision.HIGHEST


@_reduction.on_any_mesh
def sliced_wasserstein(
  features_a: types.Array,
  features_b: types.Array,
  key: jax.Array,
  *,
  num_projections: int = 64,
  weights_a: types.Array | None = None,
  weights_b: types.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  r"""Squared 2-Wasserstein distance, averaged over random directions.

  .. math:: \frac{1}{P} \sum_{p=1}^{P} \int_0^1 \big( F^{-1}_{A \theta_p}(t) -
    F^{-1}_{B \theta_p}(t) \big)^2 dt, \quad \theta_p \text{ uniform on the sphere}

  Costs a sort for each direction where transport costs N x M for each iteration.

  Args:
    features_a: `[N, D]`.
    features_b: `[M, D]`.
    key: draws the directions; equal on all devices.
    num_projections: number P of directions, 1 or more.
    weights_a: `[N]` non-negative weights, 0 for padding; None for all ones.
    weights_b: `[M]` weights.
    axis_name: mapped axis whose devices' rows are gathered.

  Returns:
    Scalar, not negative, in squared units of the features.

  Raises:
    ValueError: if `num_projections` is less than 1.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> shifted = sliced_wasserstein(jnp.zeros((4, 1)), jnp.ones((7, 1)), jax.random.key(0))
    >>> round(float(shifted), 5)
    1.0

  References:
    Bonneel, Rabin, Peyré, Pfister: Sliced and Radon Wasserstein Barycenters of Measures.
    https://doi.org/10.1007/s10851-014-0506-3
  """
  if num_projections < 1:
    raise errors.InputError(f'num_projections must be 1 or more, got {num_projections}')
  a, b, weights_a, weights_b = _rows(features_a, features_b, weights_a, weights_b, axis_name)
  directions = jax.random.normal(key, (a.shape[1], num_projections), a.dtype)
  directions /= jnp.linalg.norm(directions, axis=0, keepdims=True)
  project = lambda x: jnp.matmul(x, directions, precision=_HIGHEST)
  distance = jax.vmap(_wasserstein_1d, in_axes=(1, 1, None, None))
  values = distance(project(a), project(b), weights_a, weights_b)
  return _reduction.global_mean(jnp.mean(values), axis_name)


@_reduction.on_any_mesh
def mmd(
  features_a: types.Array,
  features_b: types.Array,
  *,
  scales: Sequence[float] = (0.5, 1.0, 2.0),
  weights_a: types.Array | None = None,
  weights_b: types.Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  r"""Squared maximum mean discrepancy under a sum of Gaussian kernels.

  .. math:: E k(a, a') + E k(b, b') - 2 E k(a, b), \quad
    k(x, y) = \frac{1}{S} \sum_s \exp\Big( -\frac{\|x - y\|^2}{2 s \sigma^2} \Big)

  with :math:`\sigma^2` the mean squared distance between the rows of a and b, which counts as a
  constant. The expectations include equal pairs (the biased estimate), so that the value is not
  negative.

  Args:
    features_a: `[N, D]`.
    features_b: `[M, D]`.
    scales: the kernels' variances s, as multiples of sigma squared.
    weights_a: `[N]` non-negative weights, 0 for padding; None for all ones.
    weights_b: `[M]` weights.
    axis_name: mapped axis whose devices' rows are gathered.

  Returns:
    Scalar in [0, 2], to rounding.

  Raises:
    ValueError: if `scales` is empty or one of them is not positive.

  References:
    Gretton, Borgwardt, Rasch, Schölkopf, Smola: A Kernel Two-Sample Test. Journal of Machine
    Learning Research 13, 2012.
  """
  if not scales or min(scales) <= 0:
    raise errors.InputError(f'scales must hold positive numbers, got {scales}')
  a, b, weights_a, weights_b = _rows(features_a, features_b, weights_a, weights_b, axis_name)
  p, q = _normalized(weights_a), _normalized(weights_b)
  between = _squared_distances(a, b)
  variance = jax.lax.stop_gradient(p @ between @ q)
  variance = jnp.where(variance > 0, variance, 1.0)
  kernel = lambda square: sum(jnp.exp(-square / (2 * s * variance)) for s in scales) / len(scales)
  within_a = p @ kernel(_squared_distances(a, a)) @ p
  within_b = q @ kernel(_squared_distances(b, b)) @ q
  value = within_a + within_b - 2 * (p @ kernel(between) @ q)
  return _reduction.global_mean(value, axis_name)


def _rows(features_a, features_b, weights_a, weights_b, axis_name):
  """Features and weights of the global batches, float32."""
  a, b = jnp.asarray(features_a, jnp.float32), jnp.asarray(features_b, jnp.float32)
  chex.assert_rank([a, b], 2)
  chex.assert_equal(a.shape[1], b.shape[1])
  weights_a = _reduction.example_weights(weights_a, a.shape[0])
  weights_b = _reduction.example_weights(weights_b, b.shape[0])
  return _reduction.gather_rows((a, b, weights_a, weights_b), axis_name)


def _normalized(weights):
  total = jnp.sum(weights)
  return weights / jnp.where(total > 0, total, 1.0)


def _wasserstein_1d(x, y, weights_x, weights_y):
  """Squared 2-Wasserstein distance of weighted points on a line, by their quantile functions."""
  order_x, order_y = jnp.argsort(x), jnp.argsort(y)
  reached_x = jnp.cumsum(_normalized(weights_x[order_x]))
  reached_y = jnp.cumsum(_normalized(weights_y[order_y]))
  steps = jnp.sort(jnp.concatenate([reached_x, reached_y]))
  widths = jnp.diff(steps, prepend=0.0)
  middles = steps - widths / 2
  at = lambda points, order, reached: points[order][
    jnp.minimum(jnp.searchsorted(reached, middles), len(points) - 1)
  ]
  return jnp.sum(widths * (at(x, order_x, reached_x) - at(y, order_y, reached_y)) ** 2)


def _squared_distances(a, b):
  """`[N, M]` squared Euclidean distances, never negative."""
  squares = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None]
  return jnp.maximum(squares - 2 * jnp.matmul(a, b.T, precision=_HIGHEST), 0.0)

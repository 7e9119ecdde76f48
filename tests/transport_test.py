"""Transport losses: against ott-jax and closed forms, on degenerate input, and their gradients."""

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
import pytest

from dalign_jax import losses

_rng = np.random.default_rng(3)
A = _rng.normal(size=(24, 6)).astype(np.float32)
B = (_rng.normal(size=(30, 6)) + 0.4).astype(np.float32)
WEIGHTS_A = _rng.uniform(0.2, 1.0, 24).astype(np.float32)
WEIGHTS_B = _rng.uniform(0.2, 1.0, 30).astype(np.float32)


def clustered(seed, clusters, size=64, dim=8):
  """Logits of a network that is sure of itself: few tight clusters."""
  rng = np.random.default_rng(seed)
  centres = 8 * np.eye(dim)[rng.integers(0, clusters, size)]
  return (centres + 0.3 * rng.normal(size=(size, dim))).astype(np.float32)


def _ott(cost, epsilon, a, b):
  with jax.numpy_rank_promotion('allow'):
    problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a=a, b=b)
    return ott_sinkhorn.Sinkhorn(threshold=1e-5, max_iterations=10_000)(problem)


@pytest.mark.parametrize('epsilon', [0.01, 0.1, 1.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_plan_cost_and_gradient_are_those_of_ott(epsilon, weighted):
  a = WEIGHTS_A / WEIGHTS_A.sum() if weighted else np.full(24, 1 / 24, np.float32)
  b = WEIGHTS_B / WEIGHTS_B.sum() if weighted else np.full(30, 1 / 30, np.float32)

  def theirs(features):
    return _ott(losses.cosine_cost(features, B), epsilon, a, b).reg_ot_cost

  def ours(features):
    return losses.transport_distance(
      features, B, epsilon=epsilon, weights_a=7 * a, weights_b=b, tolerance=1e-5
    )

  expected = _ott(losses.cosine_cost(A, B), epsilon, a, b)
  found = losses.sinkhorn(
    losses.cosine_cost(A, B), epsilon=epsilon, weights_a=a, weights_b=b, tolerance=1e-5
  )
  np.testing.assert_allclose(found.plan, expected.matrix, atol=5e-5)
  np.testing.assert_allclose(found.cost, expected.primal_cost, rtol=1e-4)
  np.testing.assert_allclose(found.regularized_cost, expected.reg_ot_cost, rtol=1e-4)
  with jax.numpy_rank_promotion('allow'):
    value_and_gradient = jax.value_and_grad(theirs)(A)
  chex.assert_trees_all_close(
    jax.jit(jax.value_and_grad(ours))(A), value_and_gradient, rtol=1e-3, atol=1e-5
  )


@pytest.mark.parametrize('pair', [(0, 8, 1, 8), (0, 8, 1, 2), (0, 2, 1, 8), (0, 1, 1, 3)])
def test_marginals_hold_for_clustered_logits_at_a_small_epsilon(pair):
  seed_a, clusters_a, seed_b, clusters_b = pair
  cost = losses.cosine_cost(clustered(seed_a, clusters_a), clustered(seed_b, clusters_b))
  found = losses.sinkhorn(cost, epsilon=0.01)
  assert found.converged and found.marginal_error <= 1e-3
  assert float(jnp.abs(found.plan.sum(0) - 1 / 64).sum()) < 1e-3
  assert float(jnp.abs(found.plan.sum(1) - 1 / 64).sum()) < 1e-3
  assert int(found.iterations) < 1000


def test_marginals_hold_where_most_of_the_kernel_underflows():
  """Costs of up to 2,000 epsilon, where plain Sinkhorn divides by zero."""
  found = losses.sinkhorn(losses.cosine_cost(A, B), epsilon=0.001, max_iterations=20_000)
  assert found.converged
  expected = _ott(losses.cosine_cost(A, B), 0.001, None, None)
  np.testing.assert_allclose(found.cost, expected.primal_cost, rtol=1e-3)


def test_stopped_iterations_say_so():
  found = losses.sinkhorn(losses.cosine_cost(A, B), epsilon=0.001, max_iterations=12)
  assert not found.converged and found.iterations == 15  # rounds of five
  assert found.marginal_error > 1e-3


def test_assignment_in_closed_form():
  """At a small epsilon the plan of permuted rows is the permutation."""
  order = _rng.permutation(len(A))
  found = losses.sinkhorn(losses.cosine_cost(A, A[order]), epsilon=0.003)
  np.testing.assert_array_equal(np.asarray(found.plan).argmax(0), order)
  assert abs(float(found.cost)) < 1e-3


def test_cost_between_two_points_is_their_cosine_distance():
  x, y = np.array([[1.0, 2.0]], np.float32), np.array([[-2.0, 1.0]], np.float32)
  assert float(losses.transport_distance(x, y)) == pytest.approx(1.0, abs=1e-6)
  assert float(losses.transport_distance(x, 5 * x)) == pytest.approx(0.0, abs=1e-6)


DEGENERATE = {
  'identical': (np.ones((8, 4)), np.ones((8, 4))),
  'same rows': (A[:8, :4], A[:8, :4]),
  'orthogonal': (np.eye(4)[[0] * 8], np.eye(4)[[1] * 8]),
  'opposite': (np.ones((8, 4)), -np.ones((8, 4))),
  'zero': (np.zeros((8, 4)), B[:8, :4]),
  'huge': (1e15 * A[:8, :4], 1e-15 * B[:8, :4]),
}


@pytest.mark.parametrize('case', DEGENERATE)
def test_degenerate_features_give_finite_values_and_gradients(case):
  x, y = (jnp.asarray(side, jnp.float32) for side in DEGENERATE[case])
  for loss in (
    losses.transport_distance,
    losses.mmd,
    lambda x, y: losses.sliced_wasserstein(x, y, jax.random.key(0)),
  ):
    chex.assert_tree_all_finite(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, y))


@pytest.mark.parametrize(
  'loss',
  [
    lambda a, b, wa, wb: losses.transport_distance(a, b, weights_a=wa, weights_b=wb),
    lambda a, b, wa, wb: losses.mmd(a, b, weights_a=wa, weights_b=wb),
    lambda a, b, wa, wb: losses.sliced_wasserstein(
      a, b, jax.random.key(1), weights_a=wa, weights_b=wb
    ),
  ],
)
def test_padding_changes_nothing(loss):
  pad = lambda rows: np.concatenate([rows, np.full((5, 6), 3.0, np.float32)])
  pad_weights = lambda weights: np.concatenate([weights, np.zeros(5, np.float32)])
  step = jax.jit(jax.value_and_grad(loss))
  padded = step(pad(A), pad(B), pad_weights(WEIGHTS_A), pad_weights(WEIGHTS_B))
  plain = step(A, B, WEIGHTS_A, WEIGHTS_B)
  np.testing.assert_allclose(padded[0], plain[0], rtol=2e-3)
  np.testing.assert_allclose(padded[1][:24], plain[1], rtol=1e-2, atol=1e-5)
  np.testing.assert_allclose(padded[1][24:], 0, atol=1e-8)


def test_no_weight_at_all_gives_zero():
  nothing = np.zeros(24, np.float32)
  value, gradient = jax.value_and_grad(losses.transport_distance)(A, B, weights_a=nothing)
  assert value == 0 and not np.any(gradient)


def test_gradients_are_those_of_the_values():
  transport = lambda a, b: losses.transport_distance(a, b, epsilon=0.2, tolerance=1e-6)
  jax.test_util.check_grads(transport, (A, B), order=1, modes=['rev'], atol=1e-2, rtol=1e-2)
  sliced = lambda a, b: losses.sliced_wasserstein(a, b, jax.random.key(2))
  jax.test_util.check_grads(sliced, (A, B), order=1, modes=['rev'], atol=1e-2, rtol=1e-2)


def test_mmd_is_that_of_its_definition():
  """By loops over the pairs, in float64; the gradient with the bandwidth held."""
  a, b = A[:5].astype(np.float64), B[:4].astype(np.float64)
  square = lambda x, y: np.array([[np.sum((p - q) ** 2) for q in y] for p in x])
  variance = square(a, b).mean()
  kernel = lambda x, y: np.exp(-square(x, y) / (2 * 1.5 * variance)).mean()
  expected = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
  assert float(losses.mmd(A[:5], B[:4], scales=(1.5,))) == pytest.approx(expected, rel=1e-4)
  assert float(losses.mmd(A, A)) == pytest.approx(0.0, abs=1e-6)


def test_sliced_wasserstein_of_equal_sizes_pairs_sorted_points():
  x, y = _rng.normal(size=(2, 40, 1)).astype(np.float32)
  expected = np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2)
  distance = jax.jit(losses.sliced_wasserstein)
  found = distance(x, y, jax.random.key(0))
  assert float(found) == pytest.approx(expected, rel=1e-4)
  doubled = distance(np.repeat(x, 2, axis=0), y, jax.random.key(0))
  assert float(doubled) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: losses.sinkhorn(np.ones((2, 2)), epsilon=0.0), 'epsilon must be positive, got 0.0'),
    (lambda: losses.transport_distance(A, B, tolerance=-1.0), 'tolerance must be positive'),
    (lambda: losses.sinkhorn(np.ones((2, 2)), max_iterations=0), 'max_iterations must be positive'),
    (lambda: losses.mmd(A, B, scales=()), r'scales must hold positive numbers, got \(\)'),
    (
      lambda: losses.sliced_wasserstein(A, B, jax.random.key(0), num_projections=0),
      'num_projections must be 1 or more, got 0',
    ),
  ],
)
def test_bad_numbers_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_an_infinite_cost_forbids_a_pair():
  result = losses.sinkhorn(jnp.array([[0.0, jnp.inf], [1.0, 0.0]]))
  chex.assert_trees_all_close(result.plan, jnp.eye(2) / 2, atol=1e-3)
  assert result.converged and result.iterations < 1000
  np.testing.assert_allclose(result.cost, 0.0, atol=1e-3)
  large = np.asarray(losses.cosine_cost(A, B))
  forbidden = np.random.default_rng(0).random(large.shape) < 0.3
  exact = losses.sinkhorn(jnp.where(forbidden, jnp.inf, large), epsilon=0.1)
  penalised = losses.sinkhorn(jnp.where(forbidden, 20.0, large), epsilon=0.1)
  assert exact.converged and not np.any(exact.plan[forbidden])
  np.testing.assert_allclose(exact.cost, penalised.cost, rtol=1e-3)
  np.testing.assert_allclose(exact.regularized_cost, penalised.regularized_cost, rtol=1e-3)
  derivative = jax.grad(lambda c: jnp.sum(losses.sinkhorn(c).plan * jnp.where(c < 9, c, 0.0)))
  assert np.all(np.isfinite(derivative(jnp.array([[0.0, jnp.inf], [1.0, 0.0]]))))


@pytest.mark.parametrize('first', [jnp.inf, jnp.nan, -jnp.inf])
def test_costs_without_an_answer_end_within_the_bound(first):
  cost = jnp.array([[first, first], [1.0, 0.0]])  # the first row may go nowhere
  result = losses.sinkhorn(cost, max_iterations=50)
  assert result.iterations <= 50 and not result.converged
  if first == jnp.inf:
    np.testing.assert_allclose(result.plan[0], 0.0)
    assert np.isfinite(result.cost) and result.marginal_error >= 0.49
  else:
    assert np.isnan(result.cost)

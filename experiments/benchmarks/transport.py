"""Entropic transport compared with ott-jax: cost, and cost with gradient, between feature sets.

Both sides run to the same error of the marginals, in float32, from the same features. The gradient
is the envelope's on both.

python -m experiments.benchmarks.transport
"""

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, losses
from experiments.benchmarks import harness

SIZES = (32, 64, 128, 256, 512)
EPSILONS = (0.01, 0.1)
DIM, TOLERANCE, MAX_ITERATIONS = 64, 1e-3, 5000


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each size, epsilon and kind of features."""
  sizes, rounds = ((16,), 2) if quick else (SIZES, 11)
  return [
    _compare(size, epsilon, kind, rounds)
    for epsilon in EPSILONS
    for kind in ('spread', 'clustered')
    for size in sizes
  ]


def features(size: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Two sets `[size, DIM]`: Gaussian, or in eight tight clusters of which one set has four."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, size, DIM))
  if kind == 'clustered':
    centres = 4 * rng.normal(size=(8, DIM))
    a, b = centres[rng.integers(0, 8, size)] + 0.3 * a, centres[rng.integers(0, 4, size)] + 0.3 * b
  else:
    b = b + 0.3
  return a.astype(np.float32), b.astype(np.float32)


def ott_distance(a, b, *, epsilon):
  """As `losses.transport_distance`, by ott-jax."""
  try:
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn
  except ImportError as error:
    raise errors.InputError(
      "this benchmark compares with ott-jax, which is not installed: pip install '.[bench]'"
    ) from error
  solver = sinkhorn.Sinkhorn(threshold=TOLERANCE, max_iterations=MAX_ITERATIONS)
  shape = geometry.Geometry(losses.cosine_cost(a, b), epsilon=epsilon)
  return solver(linear_problem.LinearProblem(shape)).reg_ot_cost


def our_distance(a, b, *, epsilon):
  return losses.transport_distance(
    a, b, epsilon=epsilon, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS
  )


def _compare(size, epsilon, kind, rounds):
  a, b = map(jnp.asarray, features(size, kind))
  functions, values, gradients = {}, {}, {}
  for side, distance in (('ours', our_distance), ('ott', ott_distance)):
    value_of = jax.jit(lambda a, b, d=distance: d(a, b, epsilon=epsilon))
    both_of = jax.jit(jax.value_and_grad(lambda a, b, d=distance: d(a, b, epsilon=epsilon)))
    functions[f'{side}, value'] = lambda f=value_of: jax.block_until_ready(f(a, b))
    functions[f'{side}, gradient'] = lambda f=both_of: jax.block_until_ready(f(a, b))
  timings = harness.interleave(functions, rounds=rounds)
  for side in ('ours', 'ott'):
    values[side], gradients[side] = functions[f'{side}, gradient']()
  found = losses.sinkhorn(
    losses.cosine_cost(a, b), epsilon=epsilon, tolerance=TOLERANCE, max_iterations=MAX_ITERATIONS
  )
  scale = float(jnp.max(jnp.abs(gradients['ott'])))
  return harness.row(
    f'{size} x {size}, {kind}, epsilon {epsilon}',
    timings,
    [('ours, value', 'ott, value'), ('ours, gradient', 'ott, gradient')],
    iterations=int(found.iterations),
    marginal_error=float(found.marginal_error),
    value_difference=float(abs(values['ours'] - values['ott'])),
    relative_gradient_difference=float(
      jnp.max(jnp.abs(gradients['ours'] - gradients['ott'])) / scale
    ),
  )


if __name__ == '__main__':
  harness.run(measure)

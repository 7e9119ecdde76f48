"""(epsilon, delta) of Gaussian noise, once and after each of several bounded steps."""

import math

import numpy as np
from scipy import special

from dalign_jax import errors


def hockey_stick(epsilon: float, ratio: float) -> float:
  r"""The least delta of two Gaussians of equal deviation whose means are `ratio` deviations apart.

  .. math:: \theta_\epsilon(r) = \Phi(r / 2 - \epsilon / r) - e^\epsilon \Phi(-r / 2 - \epsilon / r)

  It is the hockey-stick divergence :math:`\max_S P(S) - e^\epsilon Q(S)` of the two: the set S is a
  half space, in which the log likelihood ratio, itself normal with mean r^2 / 2 and deviation r,
  exceeds epsilon.

  Args:
    epsilon: 0 or more.
    ratio: r, the distance over the deviation.

  Returns:
    delta in [0, 1].

  Example:
    >>> round(hockey_stick(1.0, 1.0), 4)
    0.1269

  References:
    Balle, Wang: Improving the Gaussian Mechanism for Differential Privacy.
    https://arxiv.org/abs/1805.06530
  """
  if not epsilon >= 0:
    raise errors.InputError(f'epsilon must not be negative, got {epsilon}', argument='epsilon')
  if not ratio > 0:
    return 0.0
  if math.isinf(ratio):
    return 1.0
  first = special.ndtr(ratio / 2 - epsilon / ratio)
  second = np.exp(epsilon + special.log_ndtr(-ratio / 2 - epsilon / ratio))
  return float(np.clip(first - second, 0.0, 1.0))


def gaussian_epsilon(delta: float, ratio: float) -> float:
  """The least epsilon at which `hockey_stick(epsilon, ratio)` is at most `delta`."""
  if hockey_stick(0.0, ratio) <= delta:
    return 0.0
  high = 1.0
  while hockey_stick(high, ratio) > delta:
    high *= 2
  return _bisect(lambda epsilon: hockey_stick(epsilon, ratio) <= delta, 0.0, high)


def contracted_delta(epsilon: float, ratio: float, *, num_steps: int) -> float:
  r"""delta after steps that each move into a ball, move a little more, and add Gaussian noise.

  .. math:: \delta_0 = 1, \quad
    \delta_t = \delta_{t-1} \, \theta_{\epsilon_t}(r), \quad
    \epsilon_t = \ln \Big( 1 + \frac{e^\epsilon - 1}{\delta_{t-1}} \Big)

  Two processes take the same steps from any two starts. A step's kernel K maps any two points to
  Gaussians whose means are at most r deviations apart, so that its hockey-stick divergence at any
  level e is at most :math:`\theta_e(r)`. Write :math:`\delta` for the divergence of the two laws
  before the step. The parts of P above :math:`e^\epsilon Q`, and of :math:`e^\epsilon Q` above P,
  have masses delta and :math:`\delta + e^\epsilon - 1`; what they share cancels. After the step the
  divergence is that of the first part from the second, :math:`\delta` times the divergence of two
  mixtures at the level of the masses' ratio, :math:`(\delta + e^\epsilon - 1) / \delta =
  e^{\epsilon_t}`, and the divergence of mixtures is at most the largest of their parts'.

  Args:
    epsilon: 0 or more.
    ratio: r; for projection to a ball of radius C, a gradient step of at most g and noise of
      deviation s it is `2 (C + g) / s`.
    num_steps: number of steps.

  Returns:
    delta in [0, 1]. Values below 1e-15 are rounding.

  References:
    Koloskova, Allouah, Jha, Guerraoui, Koyejo: Certified Unlearning for Neural Networks.
    https://arxiv.org/abs/2506.06985
    Asoodeh, Diaz, Calmon: Contraction of E_gamma-Divergence and Its Applications to Privacy.
    https://arxiv.org/abs/2012.11035
  """
  delta = 1.0
  for _ in range(num_steps):
    if delta < 1e-300:
      return 0.0
    level = math.log1p(math.expm1(epsilon) / delta)
    delta *= hockey_stick(level, ratio)
  return delta


def contraction_noise(epsilon: float, delta: float, *, num_steps: int) -> float:
  """The least deviation of the noise, over the largest distance of two means, for the guarantee.

  Args:
    epsilon: above 0.
    delta: in (0, 1).
    num_steps: number of steps; at 1 it is the analytic Gaussian mechanism.

  Returns:
    `1 / ratio` at which `contracted_delta` is at most `delta`.

  Example:
    >>> once, often = (contraction_noise(1.0, 1e-5, num_steps=n) for n in (1, 50))
    >>> round(once, 2), often < 0.4 * once
    (3.73, True)
  """
  if not epsilon > 0:
    raise errors.InputError(f'epsilon must be positive, got {epsilon}', argument='epsilon')
  if not 0 < delta < 1:
    raise errors.InputError(f'delta must be in (0, 1), got {delta}', argument='delta')
  if num_steps < 1:
    raise errors.InputError(f'num_steps must be 1 or more, got {num_steps}', argument='num_steps')
  holds = lambda noise: contracted_delta(epsilon, 1 / noise, num_steps=num_steps) <= delta
  high = 1.0
  while not holds(high):
    high *= 2
  return _bisect(holds, 0.0, high)


def _bisect(holds, low, high):
  """The least value at which `holds` does, from above; it does at `high` and not at `low`."""
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (low, middle) if middle > 0 and holds(middle) else (middle, high)
  return high

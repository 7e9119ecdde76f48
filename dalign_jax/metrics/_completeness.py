"""Completeness of unlearning, example by example, between the original and shadow models."""

import itertools

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.metrics import _checks

_LEAST_SHARE = 1e-12  # of the largest signal: keeps a probability finite where all models agree


def completeness_scores(
  unlearned: np.ndarray,
  original: np.ndarray,
  shadow: np.ndarray,
  *,
  num_points: int = 100,
  shared_deviation: bool = False,
) -> np.ndarray:
  r"""How far unlearning has moved each example from the original to models that never saw it.

  .. math:: s = 1 - \frac{\sum_{k=1}^{n-1} a_k \, \Phi_{k-1}(u)}{\sum_{k=1}^{n-1} a_k}, \quad
    Z_k = z + a_k (o - z), \quad a_k = \tfrac{k}{n - 1}

  where :math:`\Phi_k` is the normal distribution function with mean and deviation of
  :math:`Z_k` over the shadow models z.

  Args:
    unlearned: `[N]` signals u of the unlearned model, larger for members (margins, say).
    original: `[N]` signals o of the original.
    shadow: `[S, N]` signals of S models not trained on the examples.
    num_points: n, steps between shadow models and original; 2 is without interpolation.
    shared_deviation: one deviation over all shadows and examples; needed for a single shadow.

  Returns:
    `[N]` scores in [0, 1]; small where the example still looks trained on. Read them beside gold's.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, fewer than two points, or one
      shadow without `shared_deviation`.

  Example:
    >>> shadow = np.array([[-1.0, -1.0], [1.0, 1.0]])
    >>> completeness_scores(np.array([0.0, 9.0]), np.array([9.0, 9.0]), shadow).round(2)
    array([0.99, 0.  ])

  References:
    Interpolated Approximate Measurement: https://github.com/Happy2Git/Unlearning_Inference_IAM

  Deviation: the normal form alone; weights and distributions are shifted by one as in the release.
  """
  u = _checks.as_array('unlearned', unlearned, ('N',))
  o = _checks.as_array('original', original, ('N',))
  z = _checks.as_array('shadow', shadow, ('S', 'N'))
  _checks.same_shape('unlearned', u, 'original', o)
  _checks.same_columns('unlearned', u, 'shadow', z)
  _checks.at_least('num_points', num_points, 2)
  if len(z) < 2 and not shared_deviation:
    raise errors.InputError('shadow must have two models or more, or shared_deviation=True, got 1')
  weights = np.linspace(0, 1, num_points)
  smallest = _LEAST_SHARE * max(1.0, float(np.abs(z).max()))
  total = np.zeros_like(u)
  for previous, weight in itertools.pairwise(weights):
    between = z + previous * (o - z)
    deviation = between.std() if shared_deviation else between.std(0)
    total += weight * special.ndtr((u - between.mean(0)) / np.maximum(deviation, smallest))
  return 1 - total / weights[1:].sum()

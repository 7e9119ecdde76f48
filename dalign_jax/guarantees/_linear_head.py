"""A linear head on frozen features that forgets rows with a certificate.

The certificate is about the head alone. The features must not depend on the rows to forget: a
network trained on public data, or on other people's.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np
from scipy import special

from dalign_jax import errors

_CURVATURE = 1 / (6 * math.sqrt(3))  # the largest |second derivative| of the logistic function


@dataclasses.dataclass(frozen=True)
class RemovableHead:
  """A one-against-rest logistic head, with what is needed to remove rows from it.

  Attributes:
    weights: `[D, C]`, of the logits `features @ weights`; the one thing to publish.
    features: `[N, D]` of the rows still held, of length 1 or less.
    labels: `[N]` classes.
    perturbation: `[D, C]`, the secret linear term.
    regularization: lambda.
    noise: deviation of the perturbation's entries.
    residual: bound of the length of the objective's gradient at `weights`, which is 0 after an
      exact fit.
  """

  weights: np.ndarray
  features: np.ndarray
  labels: np.ndarray
  perturbation: np.ndarray
  regularization: float
  noise: float
  residual: float

  def epsilon(self, delta: float) -> float:
    r"""The epsilon of the removals so far, infinite where the theorem gives none.

    .. math:: \epsilon = \frac{\beta}{\sigma} \sqrt{2 \ln (1.5 / \delta)} \le 1

    with beta the residual's bound and sigma the noise.
    """
    if not 0 < delta < 1:
      raise errors.InputError(f'delta must be in (0, 1), got {delta}', argument='delta')
    if self.residual == 0:
      return 0.0
    if self.noise == 0:
      return math.inf
    epsilon = self.residual / self.noise * math.sqrt(2 * math.log(1.5 / delta))
    return epsilon if epsilon <= 1 else math.inf


def fit_head(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  rng: np.random.Generator,
  regularization: float = 1e-3,
  noise: float = 1.0,
) -> RemovableHead:
  r"""Fits a head of which rows can be removed.

  .. math:: L(W) = \sum_i \sum_c \ell(s_{ic} \, x_i^\top w_c) + \frac{\lambda N}{2} |W|^2 +
    \langle B, W \rangle, \quad \ell(z) = \ln (1 + e^{-z}), \quad B \sim N(0, \sigma^2)

  with s the sign that says whether row i is of class c. Features longer than 1 are cut to length 1,
  each by itself. Newton's method runs until the gradient is rounding.

  Args:
    features: `[N, D]`; scale them by a constant that does not depend on the rows to forget.
    labels: `[N]` classes.
    num_classes: C.
    rng: source of the perturbation; it is advanced, and must stay secret.
    regularization: lambda, above 0.
    noise: sigma; 0 gives no certificate.

  Returns:
    The head; its residual is the gradient's length that the fit has left.

  References:
    Guo, Goldstein, Hannun, van der Maaten: Certified Data Removal from Machine Learning Models.
    https://arxiv.org/abs/1911.03030
  """
  if not regularization > 0:
    raise errors.InputError(
      f'regularization must be positive, got {regularization}', argument='regularization'
    )
  features = np.asarray(features, np.float64)
  features = features / np.maximum(1.0, np.linalg.norm(features, axis=1, keepdims=True))
  shape = (features.shape[1], num_classes)
  head = RemovableHead(
    weights=np.zeros(shape),
    features=features,
    labels=np.array(labels),
    perturbation=noise * rng.standard_normal(shape),
    regularization=regularization,
    noise=noise,
    residual=math.inf,
  )
  for _ in range(100):
    gradient = gradient_of(head, head.weights)
    length = float(np.linalg.norm(gradient))
    head = dataclasses.replace(head, residual=length)
    if length < 1e-9 * len(features):
      break
    head = _damped_step(head, gradient)
  return head


def remove_rows(head: RemovableHead, rows: Sequence[int] | np.ndarray) -> RemovableHead:
  r"""Removes rows by one Newton step, and bounds what the step leaves.

  .. math:: d = -H'^{-1} \nabla L'(W), \quad
    |\nabla L'(W + d)|^2 \le \sum_c \Big( \tfrac{1}{2} \gamma \, \|X\|_2 \,
    \big| (x_i^\top d_c)^2_i \big|_2 \Big)^2, \quad \gamma = \frac{1}{6 \sqrt 3}

  L' is the objective of the rows that remain and H' its Hessian at W. By Taylor,
  :math:`\nabla L'(W + d)_c = X^\top a` with :math:`|a_i| \le \gamma (x_i^\top d_c)^2 / 2`, since
  gamma bounds the second derivative of the logistic function: what the step leaves is of second
  order. The step starts from the true gradient, so earlier removals leave nothing behind.

  With the perturbation, a head whose gradient is at most beta long is hard to tell from one that
  was fitted to the remaining rows from the start; see `RemovableHead.epsilon` (theorem 3 of the
  paper). What it covers: the weights, against one who knows all but the removed rows and does not
  know the perturbation. What it does not: the features, logs of the rows, and several releases
  together.

  Args:
    head: the head.
    rows: numbers of rows of `head.features`, or a mask `[N]` of booleans.

  Returns:
    The head without the rows. Where its epsilon is too large, fit anew.

  Deviation: the paper bounds the step for one row from no residual, with gamma = 1/4 and without
  the factor 1/2, and adds the bounds of all removals. The bound is of the data at hand, as in the
  paper's experiments, not for the worst data.
  """
  rows = np.asarray(rows)
  if rows.dtype == bool and rows.shape == head.labels.shape:
    rows = np.flatnonzero(rows)
  elif rows.size and not np.issubdtype(rows.dtype, np.integer):
    raise errors.InputError(
      f'rows must be integers, or a mask [{len(head.labels)}], got {rows.dtype} {list(rows.shape)}',
      argument='rows',
    )
  chosen = np.unique(rows.astype(int))
  if len(chosen) and not (0 <= chosen[0] and chosen[-1] < len(head.features)):
    raise errors.InputError(
      f'rows must be in [0, {len(head.features)}), got {chosen[0]} to {chosen[-1]}', argument='rows'
    )
  if len(chosen) == len(head.features):
    raise errors.InputError('rows must leave one row or more', argument='rows')
  if not len(chosen):
    return head
  head = dataclasses.replace(
    head,
    features=np.delete(head.features, chosen, axis=0),
    labels=np.delete(head.labels, chosen),
  )
  step = -_solve(head, gradient_of(head, head.weights))
  along = head.features @ step
  spread = np.linalg.norm(head.features, 2)
  bounds = _CURVATURE / 2 * spread * np.linalg.norm(along**2, axis=0)
  rounding = 1e-12 * len(head.features)
  return dataclasses.replace(
    head, weights=head.weights + step, residual=float(np.linalg.norm(bounds)) + rounding
  )


def gradient_of(head: RemovableHead, weights: np.ndarray) -> np.ndarray:
  """The gradient `[D, C]` of the head's objective at any weights."""
  is_class = head.labels[:, None] == np.arange(weights.shape[1])
  slopes = special.expit(head.features @ weights) - is_class
  shrink = head.regularization * len(head.features)
  return head.features.T @ slopes + shrink * weights + head.perturbation


def _solve(head, target):
  """The inverse Hessian at the weights times `[D, C]`, class by class."""
  probabilities = special.expit(head.features @ head.weights)
  shrink = head.regularization * len(head.features) * np.eye(head.features.shape[1])
  columns = []
  for c, weights in enumerate((probabilities * (1 - probabilities)).T):
    hessian = (head.features * weights[:, None]).T @ head.features + shrink
    columns.append(np.linalg.solve(hessian, target[:, c]))
  return np.stack(columns, axis=1)


def _damped_step(head, gradient):
  """A Newton step, halved until the gradient gets shorter."""
  step, length = _solve(head, gradient), np.linalg.norm(gradient)
  for _ in range(30):
    weights = head.weights - step
    if np.linalg.norm(gradient_of(head, weights)) < length:
      return dataclasses.replace(head, weights=weights)
    step = step / 2
  return head

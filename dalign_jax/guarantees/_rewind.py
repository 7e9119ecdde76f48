"""Rewind-to-delete for a linear head: back to a checkpoint, on without the forgotten rows."""

import dataclasses
import math

import numpy as np
from scipy import special

from dalign_jax import errors
from dalign_jax.guarantees import _accounting


@dataclasses.dataclass(frozen=True)
class Descent:
  r"""Full-batch gradient descent on a regularised one-against-rest logistic loss.

  .. math:: F(W) = \frac{1}{n} \sum_i \sum_c \ln (1 + e^{-s_{ic} x_i^\top w_c}) +
    \frac{\lambda}{2} |W|^2, \quad |x_i| \le 1

  A row's gradient is at most :math:`G = \sqrt C` long, the loss is lambda-strongly convex and
  :math:`L = 1/4 + \lambda` smooth, so that at a rate of at most 1 / L a step on the same rows
  brings two weights closer by the factor :math:`1 - \eta \lambda`.

  Deletion goes back K steps and takes them anew on the rows that remain. What is published, at
  first and after every deletion, are weights plus Gaussian noise. It covers one deletion from a
  training run; the checkpoint and the weights without noise stay secret, and a later deletion needs
  a bound of all rows removed so far.

  Attributes:
    num_classes: C.
    num_steps: T, steps of a training run.
    num_rewound: K, the last steps, which a deletion takes anew.
    learning_rate: eta, at most 1 / L.
    regularization: lambda, above 0.

  References:
    Mu, Klabjan: Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions.
    https://arxiv.org/abs/2409.09778

  Deviation: the paper treats non-convex losses, whose steps move weights apart by up to
  :math:`1 + \eta L`, with constants that a network's loss does not reveal; here they are known, and
  steps contract.
  """

  num_classes: int
  num_steps: int = 200
  num_rewound: int = 50
  learning_rate: float = 1.0
  regularization: float = 0.01

  def __post_init__(self):
    limit = 1 / (0.25 + self.regularization)
    if not 0 < self.learning_rate <= limit:
      raise errors.InputError(
        f'learning_rate must be in (0, {limit:.4g}], got {self.learning_rate}',
        argument='learning_rate',
      )
    if not self.regularization > 0:
      raise errors.InputError(
        f'regularization must be positive, got {self.regularization}', argument='regularization'
      )
    if not 1 <= self.num_rewound <= self.num_steps:
      raise errors.InputError(
        f'num_rewound must be in [1, {self.num_steps}], got {self.num_rewound}',
        argument='num_rewound',
      )

  def train(self, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The checkpoint K steps before the end, and the final weights, both `[D, C]` and secret."""
    start = np.zeros((features.shape[1], self.num_classes))
    checkpoint = self._descend(start, features, labels, self.num_steps - self.num_rewound)
    return checkpoint, self._descend(checkpoint, features, labels, self.num_rewound)

  def delete(self, checkpoint: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The weights after K steps from the checkpoint on the rows that remain; still secret."""
    return self._descend(checkpoint, features, labels, self.num_rewound)

  def sensitivity(self, num_rows: int, num_removed: int) -> float:
    r"""Bound of the distance between a deletion's weights and a retraining's.

    .. math:: \Delta = \frac{2 m G}{n \lambda} \big( 1 - (1 - \eta \lambda)^{T - K} \big)
      (1 - \eta \lambda)^K

    With and without the m of n rows, gradients at the same weights differ by
    :math:`\frac{m}{n} |\text{mean}_{removed} - \text{mean}_{kept}| \le 2 m G / n`. Over T - K steps
    the distance obeys :math:`\Delta_{t+1} \le (1 - \eta \lambda) \Delta_t + 2 \eta m G / n`; the
    last K steps are on equal rows and only contract.

    Args:
      num_rows: n, rows of the training.
      num_removed: m, rows removed of them.
    """
    keep = 1 - self.learning_rate * self.regularization
    reach = 2 * num_removed * math.sqrt(self.num_classes) / (num_rows * self.regularization)
    return reach * (1 - keep ** (self.num_steps - self.num_rewound)) * keep**self.num_rewound

  def noise(self, num_rows: int, num_removed: int, *, epsilon: float, delta: float) -> float:
    """The deviation of the noise to add to all weights that are published.

    With it, deletion and retraining are (epsilon, delta)-indistinguishable: two Gaussians whose
    means are at most the sensitivity apart (`hockey_stick`).
    """
    multiplier = _accounting.contraction_noise(epsilon, delta, num_steps=1)
    return multiplier * self.sensitivity(num_rows, num_removed)

  def _descend(self, weights, features, labels, num_steps):
    lengths = np.linalg.norm(features, axis=1)
    if lengths.max(initial=0) > 1 + 1e-9:
      raise errors.InputError(
        f'features must have length 1 or less, got {lengths.max():.4g}', argument='features'
      )
    is_class = labels[:, None] == np.arange(self.num_classes)
    for _ in range(num_steps):
      slopes = special.expit(features @ weights) - is_class
      gradient = features.T @ slopes / len(features) + self.regularization * weights
      weights = weights - self.learning_rate * gradient
    return weights

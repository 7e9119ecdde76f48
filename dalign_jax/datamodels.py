"""Datamodels: what a training example adds to the outputs on another, from models of subsets."""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors

_PENALTIES = np.geomspace(1e-2, 1e4, 13)  # times the mean eigenvalue of the models' Gram matrix


class Agreement(NamedTuple):
  """How well margins were predicted.

  Attributes:
    margins: correlation of predicted and true margins over the examples.
    before: that of the original's margins and the true ones: what predicting no change gives.
    changes: correlation of the predicted with the true change of the margin.
    slope: of the true change on the predicted: above 1, changes were predicted too small.
  """

  margins: float
  before: float
  changes: float
  slope: float


def effect(
  outputs: np.ndarray, is_trained: np.ndarray, removed: np.ndarray, own: np.ndarray
) -> np.ndarray:
  r"""What the removed examples add to the outputs, by linear datamodels.

  .. math:: f_S(x) \approx b_x + w_{x, x} 1[x \in S] + \sum_{i \ne x} w_{x, i} 1[i \in S], \quad
    \mathrm{effect}(x) = \sum_{i \in removed} w_{x, i}

  so that training without the removed examples is predicted to give f(x) - effect(x). The weight of
  an example on itself is the mean of f over models trained with it minus that over models trained
  without it: its memorisation, in outputs. The others are fitted to what this leaves, by ridge
  regression; its penalty is chosen for each example by the error on models left out one at a time,
  in closed form. All are solved from one K x K eigendecomposition in NumPy: a library's lasso would
  be a fit for each of M C outputs.

  Args:
    outputs: `[K, M, C]` outputs on M examples by K models of subsets: logits, say.
    is_trained: bool `[K, N]`, which of N training examples each model was trained on.
    removed: bool `[N]`, the training examples to take away.
    own: int `[M]`, which training example each of the M is; -1 for a held-out one.

  Returns:
    `[M, C]` float64.

  Raises:
    errors.InputError: for shapes that do not fit; if an example is in all subsets or in none; or if
      all subsets hold equally many of the removed examples, as halves of a forget set do: then
      nothing says what all of them together add.

  Example:
    >>> is_trained = np.array([[True, True], [True, False], [False, True], [False, False]])
    >>> outputs = 2.0 * is_trained[:, :1, None]
    >>> effect(outputs, is_trained, np.array([True, False]), np.array([0])).tolist()
    [[2.0]]

  References:
    Ilyas, Park, Engstrom, Leclerc, Madry: Datamodels: Predicting Predictions from Training Data.
    https://arxiv.org/abs/2202.00622
    Georgiev et al.: Attribute-to-Delete: Machine Unlearning via Datamodel Matching.
    https://arxiv.org/abs/2410.23232

  Deviation: ridge in place of lasso. The own weight apart keeps what lasso is for: one weight that
  is much larger than the others, which ridge would spread over all of them.
  """
  outputs, is_trained = np.asarray(outputs, np.float64), np.asarray(is_trained, bool)
  removed, own = np.asarray(removed, bool), np.asarray(own)
  _check(outputs, is_trained, removed, own)
  of_own = np.where(own[None] >= 0, is_trained[:, own], 0).astype(np.float64)  # [K, M]
  weight = _own_weights(outputs, of_own, own >= 0)
  rest = outputs - of_own[:, :, None] * weight
  others = _ridge(rest - rest.mean(axis=0), is_trained, removed)
  return others + np.where((own >= 0) & removed[own], 1.0, 0.0)[:, None] * weight


def agreement(predicted: np.ndarray, original: np.ndarray, gold: np.ndarray) -> Agreement:
  """How well predicted margins `[N]` are gold's, beside the original's; NaN where nothing varies.

  Example:
    >>> original, gold = np.array([3.0, 4.0, 5.0]), np.array([3.0, 3.0, 1.0])
    >>> [round(x, 2) for x in agreement(original - [0.0, 0.5, 2.0], original, gold)]
    [0.5, -0.87, 1.0, 2.0]
  """
  change, true = predicted - original, gold - original
  spread = np.var(change)
  slope = float(np.mean((change - change.mean()) * true) / spread) if spread > 0 else np.nan
  return Agreement(
    _correlation(predicted, gold), _correlation(original, gold), _correlation(change, true), slope
  )


def _correlation(a, b) -> float:
  if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
    return float('nan')
  return float(np.corrcoef(a, b)[0, 1])


def _check(outputs, is_trained, removed, own):
  num_models, num_examples = is_trained.shape
  if outputs.ndim != 3 or len(outputs) != num_models or own.shape != outputs.shape[1:2]:
    raise errors.InputError(
      f'outputs must be [{num_models}, {len(own)}, C] like is_trained and own, got '
      f'{list(outputs.shape)}'
    )
  if removed.shape != (num_examples,) or not removed.any():
    raise errors.InputError(
      f'removed must name some of {num_examples} examples, got {list(removed.shape)} with '
      f'{int(removed.sum())}'
    )
  share = is_trained.mean(axis=0)
  if np.any((share == 0) | (share == 1)):
    raise errors.InputError(
      'is_trained must have every example in some training sets and not in others'
    )
  if len(np.unique(is_trained[:, removed].sum(axis=1))) == 1:
    raise errors.InputError(
      'all models were trained on equally many of the removed examples, so that nothing says what '
      'all of them together add; take models of subsets of the whole training set'
    )


def _own_weights(outputs, of_own, has_own) -> np.ndarray:
  """Mean with the example minus mean without it, `[M, C]`; 0 for held-out examples."""
  inside = np.maximum(of_own.sum(axis=0), 1)[:, None]
  outside = np.maximum((1 - of_own).sum(axis=0), 1)[:, None]
  with_it = np.einsum('km,kmc->mc', of_own, outputs) / inside
  without = np.einsum('km,kmc->mc', 1 - of_own, outputs) / outside
  return np.where(has_own[:, None], with_it - without, 0.0)


def _ridge(targets, is_trained, removed) -> np.ndarray:
  """Sum of the removed examples' ridge weights `[M, C]` for centred targets `[K, M, C]`."""
  centred = is_trained - is_trained.mean(axis=0)
  values, vectors = np.linalg.eigh(centred @ centred.T)
  values = np.maximum(values, 0.0)
  removed_share = vectors.T @ (centred @ removed)  # [K]
  turned = np.einsum('kj,kmc->jmc', vectors, targets)
  best, best_error = np.zeros(targets.shape[1:]), np.full(targets.shape[1], np.inf)
  for penalty in _PENALTIES * values.mean():
    shrunk = 1 / (values + penalty)
    left = penalty * np.einsum('kj,jmc->kmc', vectors * shrunk, turned)
    leverage = (vectors**2) @ (values * shrunk) + 1 / len(values)  # with the intercept
    error = np.sum((left / (1 - leverage)[:, None, None]) ** 2, axis=(0, 2))
    found = np.einsum('j,jmc->mc', removed_share * shrunk, turned)
    best = np.where((error < best_error)[:, None], found, best)
    best_error = np.minimum(error, best_error)
  return best

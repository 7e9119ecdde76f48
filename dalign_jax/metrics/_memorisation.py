"""Memorisation of training examples."""

import numpy as np

from dalign_jax import errors


def memorisation_scores(probabilities: np.ndarray, is_trained: np.ndarray) -> np.ndarray:
  r"""Memorisation of each example, estimated from models trained with it and without it.

  .. math:: mem(i) = E_{S \ni i} \, p_S(y_i | x_i) - E_{S \not\ni i} \, p_S(y_i | x_i)

  Args:
    probabilities: `[K, N]` probability of the true class by each of K models, in [0, 1] (or 1 where
      the model is right and 0 where not).
    is_trained: bool `[K, N]`, whether the example was in the model's training set S.

  Returns:
    `[N]` scores in [-1, 1]; near 1, the example is known only if it was trained on.

  Raises:
    ValueError: if the shapes differ, or an example is in all training sets or in none.

  Example:
    >>> is_trained = np.array([[True, True], [False, False]])
    >>> memorisation_scores(np.array([[1.0, 0.9], [0.2, 0.9]]), is_trained).tolist()
    [0.8, 0.0]

  References:
    Feldman, Zhang: What Neural Networks Memorize and Why. https://arxiv.org/abs/2008.03703

  Deviation: none for 0 and 1; probabilities are the paper's form for randomised predictions.
  """
  probabilities, is_trained = np.asarray(probabilities), np.asarray(is_trained, bool)
  if probabilities.ndim != 2 or probabilities.shape != is_trained.shape:
    raise errors.InputError(
      f'probabilities and is_trained must have one shape [K, N], got {probabilities.shape} and '
      f'{is_trained.shape}'
    )
  inside, outside = is_trained.sum(0), (~is_trained).sum(0)
  if not np.all(inside) or not np.all(outside):
    raise errors.InputError(
      'is_trained must have every example in some training sets and not in others'
    )
  with_it = np.where(is_trained, probabilities, 0.0).sum(0) / inside
  return with_it - np.where(is_trained, 0.0, probabilities).sum(0) / outside

"""POUR-P: the head no longer sees the direction of a forgotten class."""

import jax
import numpy as np

from dalign_jax import linear_head, types


def pour_p() -> types.UnlearnFn:
  r"""Projects the features away from the forgotten classes' directions, before the head.

  .. math:: f \leftarrow f \, (I - Q Q^\top), \quad
    Q = \text{orthonormal basis of } \{ w_c - \bar w : c \text{ forgotten} \}

  with w_c the head's column of class c and their mean. In a collapsed network the columns form a
  simplex whose vertices are also the (centred) class means; without one of its directions the
  others form a simplex again, and an image of the forgotten class is left at the centre, equally
  far from all of them. The head's kernel takes up the projection, and the features stay those of
  the original, as with `esc`. Of the data it uses only which classes are forgotten. Class
  forgetting only, and meant for a network trained to collapse.

  References:
    Le, Peng, Liu, Noble: POUR: A Provably Optimal Method for Unlearning Representations via Neural
    Collapse.
    https://arxiv.org/abs/2511.19339

  Deviation: the paper's text was not readable to us, its abstract was. It projects representations;
  here the projection is before the head alone, which is a change of the classifier. That the
  direction is the head's column, not the class mean, and that the bias stays are our choice.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    forgotten = problem.forgotten_classes('pour_p')
    kernel = linear_head.read(problem).kernel
    directions = kernel[:, forgotten] - kernel.mean(axis=1, keepdims=True)
    basis, lengths, _ = np.linalg.svd(directions, full_matrices=False)
    basis = basis[:, lengths > 1e-6 * lengths.max()]
    return linear_head.replaced(problem, kernel=kernel - basis @ (basis.T @ kernel))

  return unlearn

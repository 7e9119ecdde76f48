"""The demonstration of a flaw: a model that only looks as if it had forgotten."""

import jax
import numpy as np

from dalign_jax import linear_head, objectives, types


def head_only(*, margin: float = 1.0) -> types.UnlearnFn:
  r"""Lowers the head's bias for the forgotten classes until none of their images is recognised.

  .. math:: b_c \leftarrow b_c - \max \Big( 0, \max_{x \in forget_c}
    \big( z_c(x) - \max_{j \notin forgotten} z_j(x) \big) \Big) - margin

  Every output metric then says "forgotten", while the features, and with them DA, linear probe, F1
  and NMI, are exactly the original's. It is a row of class-forgetting tables to show which metrics
  see through it, not a method to use. Sees the forget data. Class forgetting only.

  Args:
    margin: how far below the best remaining class the logit ends, at least; logits.

  References:
    Seo, Kim, Han: Revisiting Machine Unlearning with Dimensional Alignment.
    https://arxiv.org/abs/2407.17710
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    forgotten = problem.forgotten_classes('head_only')
    logits = objectives.original_logits(problem, problem.forget)
    best_other = np.delete(logits, forgotten, axis=1).max(axis=1)
    shift = np.zeros(problem.num_classes, np.float32)
    for c in forgotten:
      rows = problem.forget.labels == c
      shift[c] = max(0.0, np.max(logits[rows, c] - best_other[rows])) + margin
    bias = linear_head.read(problem).bias - shift
    return linear_head.replaced(problem, bias=bias)

  return unlearn

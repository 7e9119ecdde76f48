"""ESC-T: a trained mask chooses what of the forget features' directions the head still sees."""

import jax
import numpy as np

from dalign_jax import errors, linear_head, types


def esc_t(
  *, num_epochs: int = 10, learning_rate: float = 2.0, threshold: float = 0.7
) -> types.UnlearnFn:
  r"""Learns which entries of the forget features' eigenvectors to drop, before the head.

  .. math:: f \leftarrow f \, (U \odot m) (U \odot m)^\top, \quad
    \max_{m \in [0, 1]^{D \times D}} E_{forget, right} \, CE(y, f)

  U are all eigenvectors of the second moment of the forget features. The mask m starts at 1 and
  ascends the loss of those forget rows that are still classified rightly, until there are none; in
  the end m becomes `m > threshold`. As with `esc`, the head's kernel takes up the projection, and
  features stay those of the original. Sees forget data. Class forgetting only.

  Args:
    num_epochs: steps at most; each is over the whole forget set.
    learning_rate: of gradient ascent, with features and logits as the original has them.
    threshold: entries of the mask above it become 1, the others 0; in (0, 1).

  References:
    Lee, Park, Jeon, Hwang, Park: ESC: Erasing Space Concept for Knowledge Deletion.
    https://arxiv.org/abs/2504.02199

  Deviation: a step takes the whole forget set; the mask's first step takes the right transpose (the
  released code's does not).
  """
  if not 0 < threshold < 1:
    raise errors.InputError(f'threshold must be in (0, 1), got {threshold}')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    problem.forgotten_classes('esc_t')
    features = np.asarray(linear_head.outputs(problem, problem.forget.images).features)
    _, vectors = linear_head.descending_eigh(features.T @ features)
    head = linear_head.read(problem)
    mask = _ascend(features, problem.forget.labels, head, vectors, num_epochs, learning_rate)
    mask = mask > threshold
    if mask.all():
      return problem.original  # U U^T is 1 but for rounding
    masked = vectors * mask
    return linear_head.replaced(problem, kernel=masked @ (masked.T @ head.kernel))

  return unlearn


def _ascend(features, labels, head, vectors, num_steps, learning_rate):
  """The mask, in [0, 1], after the ascent."""
  mask = np.ones_like(vectors)
  for _ in range(num_steps):
    masked = vectors * mask
    logits = features @ (masked @ (masked.T @ head.kernel)) + head.bias
    right = logits.argmax(axis=1) == labels
    if not right.any():
      break
    slope = np.exp(logits[right] - logits[right].max(axis=1, keepdims=True))
    slope /= slope.sum(axis=1, keepdims=True)
    slope[np.arange(len(slope)), labels[right]] -= 1
    of_projection = features[right].T @ (slope / len(slope)) @ head.kernel.T
    gradient = (of_projection + of_projection.T) @ masked * vectors
    mask = np.clip(mask + learning_rate * gradient, 0, 1)
  return mask

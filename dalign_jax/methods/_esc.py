"""ESC: the head no longer sees the forget features' principal directions."""

import jax

from dalign_jax import errors, linear_head, prediction, types


def esc(*, forget_share: float = 0.015) -> types.UnlearnFn:
  r"""Drops the principal directions of the forgotten classes' features, before the head.

  .. math:: f \leftarrow f \, (I - U_k U_k^\top), \quad
    Z_{forget}^\top Z_{forget} = U \Lambda U^\top, \quad k = \max(1, \lfloor p D \rfloor)

  Z are the penultimate features of the forget set, not centred, and U_k their k leading directions.
  The projection is multiplied into the head's kernel, and the bias stays. So features, and what is
  measured on them (DA, linear probe, recovery), are those of the original: the network still
  computes what the head no longer reads. Sees forget images. Class forgetting only: of single
  images the leading directions are those of all images.

  Args:
    forget_share: p, share of the D directions that is dropped, in (0, 1); one at least. More is
      not safer: with a bias left, a larger share can bring the class back.

  References:
    Lee, Park, Jeon, Hwang, Park: ESC: Erasing Space Concept for Knowledge Deletion.
    https://arxiv.org/abs/2504.02199

  Deviation: one direction at least (the released code drops none where D is below 67).
  """
  if not 0 < forget_share < 1:
    raise errors.InputError(f'forget_share must be in (0, 1), got {forget_share}')

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    del key
    problem.forgotten_classes('esc')
    moment = prediction.second_moment(
      problem.apply_fn, problem.original, problem.forget.images, devices=problem.devices
    )
    _, vectors = linear_head.descending_eigh(moment)
    dropped = vectors[:, : max(1, int(forget_share * len(vectors)))]
    kernel = linear_head.read(problem).kernel
    return linear_head.replaced(problem, kernel=kernel - dropped @ (dropped.T @ kernel))

  return unlearn

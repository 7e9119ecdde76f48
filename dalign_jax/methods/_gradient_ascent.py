"""Gradient ascent on the forget set."""

import jax

from dalign_jax import objectives, optim, training, types


def gradient_ascent(
  *,
  num_epochs: int = 5,
  learning_rate: float = 2e-5,
  momentum: float = 0.9,
  batch_size: int = 64,
  batch_statistics: bool = False,
) -> types.UnlearnFn:
  r"""Undoes learning by ascending the loss of the forget set.

  .. math:: \max_\theta \; E_{(x, y) \in forget} \, CE(y, f_\theta(x))

  Sees forget data only. The loss has no upper bound and grows exponentially: a few steps too many
  destroy the network. Serves any request.

  Args:
    num_epochs: passes over the forget set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    batch_statistics: whether batch norm uses (and learns) the forget batches' statistics; by
      default the original's stay as they are.

  References:
    Golatkar, Achille, Soatto: Eternal Sunshine of the Spotless Net (negative gradient).
    https://arxiv.org/abs/1911.04933
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      objectives.MeanLoss(
        problem.apply_fn,
        'forget',
        _negative_cross_entropy,
        train=batch_statistics,
      ),
      rule,
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn


def _negative_cross_entropy(rows, logits):
  return -objectives.cross_entropy(rows, logits)

"""DELETE: distillation from the original without its true class."""

import jax

from dalign_jax import losses, objectives, optim, training, types


def delete(
  *,
  num_epochs: int = 5,
  learning_rate: float = 1e-3,
  momentum: float = 0.9,
  batch_size: int = 64,
) -> types.UnlearnFn:
  r"""Distils the forget set from the original with the true class removed.

  .. math:: \min_\theta \; E_{(x, y) \in forget} \,
    KL \big( \mathrm{softmax}(\tilde z_o(x)) \,\|\, \mathrm{softmax}(z_\theta(x)) \big), \quad
    \tilde z_{o, y} = -\infty

  The loss is `losses.self_distillation`. Batch statistics stay as they are. Sees forget data only.
  Serves any request; where only some images of a class are forgotten it overshoots, since gold
  still recognises many of them.

  Args:
    num_epochs: passes over the forget set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.

  Deviation: the loss of a forget set smaller than a batch weighs its share of one. The release
  takes as large a step for a single image as for a full batch.

  References:
    Zhou, Zheng, et al.: Decoupled Distillation to Erase: A General Unlearning Method for Any
    Class-centric Tasks. https://arxiv.org/abs/2503.23751
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    filled = objectives.batch_share(problem.forget, batch_size)
    return training.minimize(
      problem,
      objectives.Weighed(objectives.MeanLoss(problem.apply_fn, 'forget', _without_true_class)),
      rule.weighed(problem, filled),
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      constants_fn=lambda _: filled,
      extra={'forget': {'teacher_logits': objectives.original_logits(problem, problem.forget)}},
    )

  return unlearn


def _without_true_class(rows, logits):
  return losses.self_distillation(rows['teacher_logits'], logits, rows['labels'])

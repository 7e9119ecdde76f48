"""Task arithmetic: the original minus what training on the forget set adds."""

import jax

from dalign_jax import optim, task_vectors, training, types


def task_vector(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.1,
  momentum: float = 0.9,
  batch_size: int = 64,
  control_share: float = 0.99,
  adds_retain: bool = True,
) -> types.UnlearnFn:
  r"""Negates the forget task vector and adds the retain task vector.

  .. math:: \theta_u = \theta_o - \lambda (\theta_f - \theta_o) + (\theta_r - \theta_o)

  with theta_f and theta_r the original fine-tuned on the forget and on the retain set.
  `task_vectors.negated` chooses lambda: the least forget accuracy among those that keep the share
  `control_share` of the original's accuracy on validation images of the retained classes. Batch
  statistics stay as they are. Sees all retain, forget and validation data. Serves any request; on
  a forget set that the original fits perfectly, the vector is short at small learning rates, and so
  is its effect.

  Args:
    num_epochs: passes over the forget set, and over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    control_share: share of the original's control accuracy to keep, in (0, 1].
    adds_retain: whether the retain vector is added.

  References:
    Ilharco, Ribeiro, Wortsman, Gururangan, Schmidt, Hajishirzi, Farhadi: Editing Models with Task
    Arithmetic. https://arxiv.org/abs/2212.04089

  Deviation: the paper chooses lambda from 0 to 1; here up to 10, since vectors of images that are
  already fitted are short, and at .99 of the control accuracy (.95 there).
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    forget_key, retain_key = training.split(key)
    options = {'num_epochs': num_epochs, 'batch_size': batch_size}
    vector = task_vectors.tuned(problem, problem.forget, rule, forget_key, **options)
    added = None
    if adds_retain:
      added = task_vectors.tuned(problem, problem.retain, rule, retain_key, **options)
    return task_vectors.negated(problem, vector, control_share=control_share, added=added)

  return unlearn

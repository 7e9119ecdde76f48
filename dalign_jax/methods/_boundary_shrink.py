"""Boundary shrink: forget images move to the class across the nearest boundary."""

import dataclasses

import jax
import jax.numpy as jnp

from dalign_jax import adversarial, losses, objectives, optim, prediction, training, types


def boundary_shrink(
  *,
  num_epochs: int = 10,
  learning_rate: float = 1e-4,
  momentum: float = 0.9,
  batch_size: int = 64,
  epsilon: float = 0.1,
) -> types.UnlearnFn:
  r"""Trains forget images on the classes that the original predicts for adversarial neighbours.

  .. math:: \min_\theta \; E_{(x, y) \in forget} \, CE(y', f_\theta(x)), \quad
    y' = \arg\max_{c \ne y} f_{\theta_o}(x')_c, \quad
    x' = clip \big( x + \epsilon \, \mathrm{sign} \, \nabla_x CE(y, f_{\theta_o}(x)) \big)

  Batch statistics stay as they are. Sees forget data only. Serves any request.

  Args:
    num_epochs: passes over the forget set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    epsilon: of `adversarial.fgsm`, in pixel values of [0, 1].

  References:
    Chen, Gao, Liu, Peng, Wang: Boundary Unlearning. https://arxiv.org/abs/2303.11570

  Deviation: the neighbour's class is the best of the other classes, where the paper's neighbour may
  still be of the true one; epsilon is in pixel values.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      objectives.MeanLoss(problem.apply_fn, 'forget', objectives.cross_entropy),
      rule,
      {'forget': dataclasses.replace(problem.forget, labels=_neighbour_labels(problem, epsilon))},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn


def _neighbour_labels(problem, epsilon):
  """The class other than the true one that each forget image's FGSM neighbour is nearest to."""

  return prediction.map_examples(
    _NeighbourLabel(problem.apply_fn, problem.num_classes, epsilon),
    problem.original,
    {'images': problem.forget.images, 'labels': problem.forget.labels},
    devices=problem.devices,
  )


@dataclasses.dataclass(frozen=True)
class _NeighbourLabel:
  """The best class other than the true one at the image's FGSM neighbour."""

  apply_fn: types.ApplyFn
  num_classes: int
  epsilon: float

  def __call__(self, model, batch):
    logits_of = lambda images: self.apply_fn(model, images, train=False)[0].logits
    neighbours = adversarial.fgsm(
      lambda images: losses.cross_entropy(batch['labels'], logits_of(images)),
      training.to_float(batch['images']),
      epsilon=self.epsilon,
    )
    is_true = jax.nn.one_hot(batch['labels'], self.num_classes, dtype=bool)
    others = jnp.where(is_true, -jnp.inf, logits_of(neighbours))
    return jnp.argmax(others, axis=1).astype(jnp.int32)

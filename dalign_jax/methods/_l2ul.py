"""L2UL: forget images are misclassified, adversarial copies of them hold the rest in place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import (
  adversarial,
  importance,
  losses,
  objectives,
  optim,
  prediction,
  seeds,
  training,
  types,
)


def l2ul(
  *,
  num_epochs: int = 20,
  learning_rate: float = 6e-4,
  momentum: float = 0.9,
  batch_size: int = 64,
  num_copies: int = 5,
  epsilon: float = 4.0,
  step_size: float = 0.1,
  num_steps: int = 50,
  regularization: float = 1.0,
  stop_accuracy: float = 0.1,
) -> types.UnlearnFn:
  r"""Ascends on forget data, anchored by adversarial copies and important weights.

  .. math:: \min_\theta \; -\frac{1}{1 + n} E_{forget} \, CE(y, f_\theta(x)) +
    \frac{n}{1 + n} E \, CE(y', f_\theta(x')) +
    \frac{\lambda}{2} \sum_j (1 - \hat\Omega_j) (\theta_j - \theta_{o, j})^2

  The n copies x' of each image are forget images that a targeted attack has moved to another class
  y' of the original: they stand in for the retain data. All rows weigh the same, so that the copies
  together weigh n times what the images do. Omega is the mean absolute gradient of the length of
  the logits at single forget images, scaled to [0, 1] in each array of weights: those that the
  forget images depend on are free to move. The first term has no bound, so the run stops at the
  first epoch that starts with a forget accuracy of `stop_accuracy` or less. Batch statistics stay
  as they are. Sees forget data only. Serves any request; its aim is to misclassify what is
  forgotten.

  Args:
    num_epochs: passes over the forget set, at most.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch of forget images, and of copies.
    num_copies: copies of each forget image, each with a random target.
    epsilon: radius of the attack's l2 ball around an image with pixels in [0, 1].
    step_size: length of the attack's steps.
    num_steps: number of the attack's steps.
    regularization: lambda.
    stop_accuracy: forget accuracy at which to stop, in [0, 1].

  References:
    Cha, Cho, Hwang, Lee, Moon, Lee: Learning to Unlearn: Instance-wise Unlearning for Pre-trained
    Classifiers. https://arxiv.org/abs/2301.11578

  Deviation: copies start at a random point of the ball and are kept as bytes, rounded towards their
  image, so that they stay in the ball; pixels are in [0, 1]; Omega is of single images (the
  released code takes the gradients of batches); there is no weight decay; the stop is checked once
  an epoch. The paper makes 20 copies by 100 steps and stops at a forget accuracy of 0.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)
  attack = {'epsilon': epsilon, 'step_size': step_size, 'num_steps': num_steps}

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    copy_key, train_key = training.split(key)
    copies = _adversarial_copies(problem, copy_key, num_copies, attack)
    weights = jax.tree.map(lambda i: regularization * (1 - _to_unit(i)), _sensitivity(problem))
    return training.minimize(
      problem,
      _Loss(problem.apply_fn, num_copies),
      rule,
      {'forget': problem.forget, 'copies': copies},
      train_key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      constants_fn=lambda epoch: (problem.original.params, weights),
      stop_fn=objectives.is_forgotten(problem, stop_accuracy),
    )

  return unlearn


@dataclasses.dataclass(frozen=True)
class _Loss:
  """Ascent on forget images, descent on copies, held at the anchor by the constants' weights."""

  apply_fn: types.ApplyFn
  num_copies: int

  def __call__(self, params, batch_stats, batch, constants, key):
    of_set = lambda name: objectives.MeanLoss(self.apply_fn, name, objectives.cross_entropy)
    forget_key, copy_key = jax.random.split(key)
    forget, batch_stats = of_set('forget')(params, batch_stats, batch, (), forget_key)
    kept, _ = of_set('copies')(params, batch_stats, batch, (), copy_key)
    anchor, weights = constants
    by_rows = (self.num_copies * kept - forget) / (1 + self.num_copies)
    return by_rows + losses.quadratic(anchor, params, weights=weights), batch_stats


def _adversarial_copies(problem, key, num_copies, attack) -> types.Dataset:
  """Copies of the forget images, moved towards random other classes and labelled with these."""
  originals = problem.forget.take(np.repeat(np.arange(len(problem.forget)), num_copies))
  target_key, start_key = training.split(key)
  shifts = training.epoch_rng(target_key, 0).integers(1, problem.num_classes, len(originals))
  targets = ((originals.labels + shifts) % problem.num_classes).astype(np.int32)

  offsets = prediction.map_examples(
    _Attack(problem.apply_fn, **attack),
    (problem.original, seeds.bits_of(start_key)),
    {'images': originals.images, 'targets': targets, 'number': np.arange(len(originals))},
    devices=problem.devices,
  )
  images = (originals.images + offsets).astype(np.uint8)
  ids = np.array([f'{name}/{i}' for i, name in enumerate(originals.ids)])
  return types.Dataset(images, targets, ids)


@dataclasses.dataclass(frozen=True)
class _Attack:
  """Offsets in bytes of a targeted attack from a random point of the ball."""

  apply_fn: types.ApplyFn
  epsilon: float
  step_size: float
  num_steps: int

  def __call__(self, constants, batch):
    model, key_data = constants
    start_key = seeds.of_bits(key_data)
    keys = jax.vmap(lambda i: jax.random.fold_in(start_key, i))(batch['number'])

    def target_loss(images):
      outputs, _ = self.apply_fn(model, images, train=False)
      return losses.cross_entropy(batch['targets'], outputs.logits)

    images = training.to_float(batch['images'])
    settings = {'epsilon': self.epsilon, 'step_size': self.step_size, 'num_steps': self.num_steps}
    perturbed = adversarial.pgd(
      target_loss, images, norm='l2', targeted=True, keys=keys, **settings
    )
    return jnp.trunc((perturbed - images) * 255).astype(jnp.int16)


def _sensitivity(problem):
  return importance.absolute_gradients(
    problem.apply_fn,
    problem.original,
    problem.forget,
    loss_fn=_length,
    devices=problem.devices,
  )


def _length(labels, logits):
  del labels
  return jnp.sqrt(jnp.sum(logits**2, axis=1) + 1e-12)


def _to_unit(values):
  low, high = values.min(), values.max()
  return (values - low) / max(high - low, np.finfo(np.float32).tiny)

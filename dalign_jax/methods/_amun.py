"""AMUN: trains on the nearest adversarial examples of the forget images, with their own labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import adversarial, losses, optim, prediction, training, types

_ROWS = 256  # of one call of the attack


def amun(
  *,
  num_epochs: int = 10,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  weight_decay: float = 5e-4,
  batch_size: int = 128,
  epsilon: float = 0.04,
  num_steps: int = 50,
  num_doublings: int = 10,
) -> types.UnlearnFn:
  r"""Trains on retain, forget and the forget images' nearest adversarial examples.

  .. math:: \min_\theta \; E_{retain \cup forget \cup adv} \, CE(y, f_\theta(x)), \quad
    adv = \{ (x', \arg\max f_{\theta_o}(x')) : x \in forget \}

  x' is found by l2 projected gradient ascent on the true label's loss, from the image until the
  original is wrong, in a ball whose radius is doubled whenever the steps run out. An example that
  the original gets wrong anyway is its own neighbour; one that it gets right at the largest radius
  has none. Neighbours lie where the original's own decision changes, so that training on them
  lowers the confidence on forget images and moves little else. Sees all retain and all forget data,
  augmented as by the recipe. Serves any request; made for single images: forget images keep their
  labels, so that a whole class is not forgotten.

  Args:
    num_epochs: passes over all three sets.
    learning_rate: of SGD.
    momentum: of SGD.
    weight_decay: L2 coefficient.
    batch_size: global batch.
    epsilon: first radius, in pixel values of [0, 1]; a step is a tenth of the radius.
    num_steps: of the attack at each radius.
    num_doublings: of the radius, at most.

  References:
    Ebrahimpour-Boroojeny, Sundaram, Chandrasekaran: AMUN: Adversarial Machine UNlearning.
    https://arxiv.org/abs/2503.00917

  Deviation: neighbours are kept as bytes, and it is at these that the original must be wrong; a
  constant learning rate.
  """
  rule = optim.Rule(learning_rate, momentum=momentum, weight_decay=weight_decay)
  attack = {'epsilon': epsilon, 'num_steps': num_steps, 'num_doublings': num_doublings}

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    everything = types.concatenate(problem.retain, problem.forget)
    images, labels, found = nearest(problem, **attack)
    if found.any():
      ids = np.array([f'{name}/neighbour' for name in problem.forget.ids])
      neighbours = types.Dataset(images, labels, ids, problem.forget.group)
      neighbours = neighbours.take(np.flatnonzero(found))
      everything = types.concatenate(everything, neighbours)
    return training.minimize(
      problem,
      training.ClassificationLoss(problem.apply_fn, 'train', problem.recipe.augmentation),
      rule,
      {'train': everything},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn


def nearest(problem, *, epsilon, num_steps, num_doublings, as_bytes=True):
  """Neighbours `[N, ...]` of the forget images, their labels `[N]`, and whether one was found."""
  forget = problem.forget
  images = np.asarray(forget.images).astype(np.float32) / 255
  labels, left = forget.labels.copy(), np.arange(len(forget))
  attack = _Attack(problem.apply_fn, num_steps, as_bytes)
  for doubling in range(num_doublings + 1):
    rows = np.resize(left, max(len(left), min(_ROWS, len(forget))))  # of one program
    got = prediction.map_examples(
      attack,
      (problem.original, np.float32(epsilon * 2**doubling)),
      {'images': forget.images[rows], 'labels': forget.labels[rows], 'starts': images[rows]},
      batch_size=_ROWS,
      devices=problem.devices,
    )
    images[left], labels[left] = (x[: len(left)] for x in got)
    left = left[labels[left] == forget.labels[left]]
    if not len(left):
      break
  if as_bytes:
    images = np.round(images * 255).astype(np.uint8)
  return images, labels, labels != forget.labels


@dataclasses.dataclass(frozen=True)
class _Attack:
  """Images on their way to the nearest wrong class, and the network's classes there."""

  apply_fn: types.ApplyFn
  num_steps: int
  as_bytes: bool

  def __call__(self, constants, batch):
    model, epsilon = constants
    labels = batch['labels']
    logits_of = lambda x: self.apply_fn(model, x, train=False)[0].logits
    seen = (lambda x: jnp.round(x * 255) / 255) if self.as_bytes else (lambda x: x)
    predicted = lambda x: jnp.argmax(logits_of(seen(x)), axis=1).astype(jnp.int32)
    perturbed = adversarial.pgd(
      lambda x: losses.cross_entropy(labels, logits_of(x)),
      training.to_float(batch['images']),
      norm='l2',
      epsilon=epsilon,
      step_size=epsilon / 10,
      num_steps=self.num_steps,
      starts=batch['starts'],
      stop_fn=lambda x: predicted(x) != labels,
    )
    return perturbed, predicted(perturbed)

"""Difficulty features of examples for a network, seen or not; they predict generalisation.

Each takes examples and a model (and what was kept in its training), so that one rule applies to
a problem whose gold is known and to one whose gold is not. All return float arrays `[N]`, larger
for harder examples.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dalign_jax import (
  adversarial,
  augmentation,
  errors,
  losses,
  parallel,
  prediction,
  seeds,
  training,
  types,
)

FEATURES = ('distance', 'adversarial', 'curriculum', 'margin', 'instability')


def needs_model(names: Sequence[str]) -> bool:
  """Whether one of these features is of the model that was trained on the examples."""
  return any(name != 'curriculum' for name in names)


def neighbour_distance(
  features: np.ndarray,
  labels: np.ndarray,
  kept_features: np.ndarray,
  kept_labels: np.ndarray,
  *,
  num_neighbours: int = 5,
) -> np.ndarray:
  """Mean distance to the nearest kept examples of the same class, features scaled to unit length.

  Args:
    features: `[N, D]` penultimate features of the examples.
    labels: int `[N]`.
    kept_features: `[M, D]` of the examples that stay in training, under the same model.
    kept_labels: int `[M]`.
    num_neighbours: how many of them; fewer where a class has fewer.

  Returns:
    `[N]` distances in [0, 2]; 2 where a class has no kept example at all.

  Example:
    >>> kept, ones = np.array([[1.0, 0.0], [0.0, 2.0]]), np.ones(2, int)
    >>> neighbour_distance(np.array([[3.0, 0.0]]), ones[:1], kept, ones, num_neighbours=1)
    array([0.])

  References:
    Ji et al.: Towards Aligned Data Removal via Twin Machine Unlearning.
    https://arxiv.org/abs/2408.11433
  """
  from sklearn import neighbors  # heavy: imported where it is used

  unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  features, kept_features = unit(np.asarray(features)), unit(np.asarray(kept_features))
  distances = np.full(len(features), 2.0)
  for label in np.unique(labels):
    kept = kept_features[kept_labels == label]
    if len(kept):
      rows = np.flatnonzero(labels == label)
      search = neighbors.NearestNeighbors(n_neighbors=min(num_neighbours, len(kept))).fit(kept)
      distances[rows] = search.kneighbors(features[rows])[0].mean(axis=1)
  return distances


def adversarial_loss(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: np.ndarray,
  *,
  epsilon: float = 2 / 255,
  num_steps: int = 5,
  devices: parallel.Devices = None,
) -> np.ndarray:
  r"""Cross-entropy from the clean prediction to that after projected gradient steps.

  .. math:: -\sum_c p_c(x) \log p_c(x'), \quad x' = PGD(x) \text{ within } \epsilon

  Args:
    apply_fn: the network.
    model: host model state.
    images: `[N, H, W, C]` uint8.
    epsilon: radius in pixel values of [0, 1].
    num_steps: steps of `adversarial.pgd`, each of epsilon / 2.
    devices: devices to run on, None for all.

  Returns:
    `[N]` nats.

  Deviation: released code takes raw logits for targets, where a distribution is meant, and its
  steps ascend the true label's loss; here they ascend the value that is returned.
  """
  loss_of = _AdversarialLoss(apply_fn, epsilon, num_steps)
  fields = {'images': images, 'number': np.arange(len(images), dtype=np.int32)}
  return prediction.map_examples(loss_of, model, fields, devices=devices)


def instability(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  kind: str = 'crop_flip',
  num_draws: int = 8,
  devices: parallel.Devices = None,
) -> np.ndarray:
  """Mean loss over augmented copies of each image.

  Args:
    apply_fn: the network.
    model: host model state.
    images: `[N, H, W, C]` uint8.
    labels: int `[N]`.
    kind: of `augmentation.augment`.
    num_draws: copies of each image.
    devices: devices to run on, None for all.

  Returns:
    `[N]` nats.
  """
  loss_of = _Instability(apply_fn, kind, num_draws)
  numbers = np.arange(len(images), dtype=np.int32)
  fields = {'images': images, 'labels': labels, 'number': numbers}
  return prediction.map_examples(loss_of, model, fields, devices=devices)


def measure(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  curriculum: types.ModelState | None,
  examples: types.Dataset,
  kept: types.Dataset,
  *,
  names: Sequence[str] = FEATURES,
  devices: parallel.Devices = None,
) -> np.ndarray:
  """All difficulty features of a set under one rule.

  Args:
    apply_fn: the network.
    model: was trained on `examples` and `kept`; any where no name needs it (`needs_model`).
    curriculum: trained from scratch for a short time on these, and perhaps others; None where it
      is not asked for.
    examples: the examples to predict.
    kept: what stays in training.
    names: of `FEATURES`, in the order of the columns.
    devices: devices to run on, None for all.

  Returns:
    `[N, len(names)]`.

  Raises:
    ValueError: for an unknown name, or none.
  """
  check(names)

  def outputs(state, images):
    found = prediction.predict(apply_fn, state, images, devices=devices)
    return types.Outputs(*map(np.asarray, found))

  own = functools.cache(lambda: outputs(model, examples.images))
  loss = lambda logits: _cross_entropy(examples.labels, logits)
  columns = {
    'distance': lambda: neighbour_distance(
      own().features, examples.labels, outputs(model, kept.images).features, kept.labels
    ),
    'adversarial': lambda: adversarial_loss(apply_fn, model, examples.images, devices=devices),
    'curriculum': lambda: loss(outputs(curriculum, examples.images).logits),
    'margin': lambda: -_margin(own().logits, examples.labels),
    'instability': lambda: instability(
      apply_fn, model, examples.images, examples.labels, devices=devices
    ),
  }
  return np.stack([np.asarray(columns[name](), np.float64) for name in names], axis=1)


def _cross_entropy(labels, logits) -> np.ndarray:
  """Cross-entropy `[N]` on the host, where a program for each size of a set would be compiled."""
  return -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def check(names: Sequence[str]) -> None:
  """Raises ValueError unless these are names of features, each once, and at least one."""
  if not names or set(names) - set(FEATURES) or len(set(names)) < len(names):
    raise errors.InputError(f'features must be some of {", ".join(FEATURES)}, got {list(names)}')


def _margin(logits, labels):
  """The label's logit above the largest other one."""
  rows = np.arange(len(labels))
  others = np.array(logits)
  others[rows, labels] = -np.inf
  return logits[rows, labels] - others.max(axis=1)


@dataclasses.dataclass(frozen=True)
class _AdversarialLoss:
  """The function that `adversarial_loss` maps."""

  apply_fn: types.ApplyFn
  epsilon: float
  num_steps: int

  def __call__(self, model, batch):
    clean_images = training.to_float(batch['images'])
    logits_of = lambda x: self.apply_fn(model, x, train=False)[0].logits
    clean = jax.nn.softmax(logits_of(clean_images))
    loss = lambda x: -jnp.sum(clean * jax.nn.log_softmax(logits_of(x)), axis=1)
    # at the image itself the gradient is that of the entropy, which is almost flat: start near it
    keys = jax.vmap(lambda i: jax.random.fold_in(seeds.key(0), i))(batch['number'])
    ball = {'epsilon': self.epsilon, 'step_size': self.epsilon / 2, 'num_steps': self.num_steps}
    return loss(adversarial.pgd(loss, clean_images, keys=keys, **ball))


@dataclasses.dataclass(frozen=True)
class _Instability:
  """The function that `instability` maps."""

  apply_fn: types.ApplyFn
  kind: str
  num_draws: int

  def __call__(self, model, batch):
    clean = training.to_float(batch['images'])

    def draw(index):
      keys = jax.vmap(lambda i: jax.random.fold_in(seeds.key(index), i))(batch['number'])
      images = augmentation.augment_each(clean, keys, self.kind)
      outputs, _ = self.apply_fn(model, images, train=False)
      return losses.cross_entropy(batch['labels'], outputs.logits)

    return jnp.mean(jax.lax.map(draw, jnp.arange(self.num_draws)), axis=0)

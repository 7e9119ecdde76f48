"""Loss functions for `training.make_step`, and a stop rule, that several methods share."""

from collections.abc import Callable, Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import augmentation, losses, parallel, prediction, training, types


@dataclasses.dataclass(frozen=True)
class MeanLoss:
  """A mean loss on the unaugmented images of one set.

  Attributes:
    apply_fn: the network.
    name: the set.
    example_loss: `({field: rows}, logits [B, C]) -> [B]`, a module-level function or a frozen
      dataclass.
    train: whether batch norm uses and learns the batch's statistics. Without, the running ones
      stay as they are: the right choice for batches of forget data alone, whose statistics say
      little about the images that remain. Such a network draws no dropout then; one without batch
      statistics does.
  """

  apply_fn: types.ApplyFn
  name: str
  example_loss: Callable
  train: bool = False

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    rows = batch[self.name]
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(
      self.apply_fn, model, rows['images'], key, keep_statistics=not self.train
    )
    return jnp.mean(self.example_loss(rows, outputs.logits)), batch_stats


@dataclasses.dataclass(frozen=True)
class Distillation:
  """`weight * losses.distillation` from the rows' `teacher_logits`, for `MeanLoss`."""

  temperature: float
  weight: float = 1.0

  def __call__(self, rows, logits) -> jax.Array:
    teacher_logits = rows['teacher_logits']
    return self.weight * losses.distillation(teacher_logits, logits, temperature=self.temperature)


@dataclasses.dataclass(frozen=True)
class Weighed:
  """A loss times its constants, a scalar: with SGD, a learning rate that compiles nothing."""

  loss_fn: types.LossFn

  def __call__(self, params, batch_stats, batch, weight, key):
    loss, batch_stats = self.loss_fn(params, batch_stats, batch, (), key)
    return weight * loss, batch_stats


def batch_share(dataset: types.Dataset, batch_size: int) -> np.float32:
  """The share of a batch that a set fills, at most 1: the weight of a loss on copies of it."""
  return np.float32(min(1, len(dataset) / batch_size))


@dataclasses.dataclass(frozen=True)
class PooledLoss:
  """Mean `losses.label_loss` on rows of several sets in one batch, which share its statistics.

  Attributes:
    apply_fn: the network.
    names: of the sets.
    augmentation: of all images; see `augmentation.augment`.
  """

  apply_fn: types.ApplyFn
  names: tuple[str, ...]
  augmentation: str = 'none'

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    images, labels = (
      jnp.concatenate([batch[name][field] for name in self.names]) for field in ('images', 'labels')
    )
    images = augmentation.augment(images, key, self.augmentation)
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key)
    return jnp.mean(losses.label_loss(labels, outputs.logits)), batch_stats


def cross_entropy(rows: Mapping[str, jax.Array], logits: jax.Array) -> jax.Array:
  """`losses.label_loss` with the rows' labels, for `MeanLoss`."""
  return losses.label_loss(rows['labels'], logits)


def random_labels(
  problem: types.Problem,
) -> tuple[types.LossFn, dict[str, types.Dataset], dict]:
  """Cross-entropy on all training data, forget rows with a random *other* label at each step.

  Returns:
    The loss, its data sets and their extra fields, as `training.minimize` takes them.
  """
  is_forget = np.repeat(np.array([0, 1], np.int32), [len(problem.retain), len(problem.forget)])
  datasets = {'train': types.concatenate(problem.retain, problem.forget)}
  loss_fn = _RandomLabels(problem.apply_fn, problem.num_classes, problem.recipe.augmentation)
  return loss_fn, datasets, {'train': {'is_forget': is_forget}}


@dataclasses.dataclass(frozen=True)
class _RandomLabels:
  """The loss of `random_labels`."""

  apply_fn: types.ApplyFn
  num_classes: int
  augmentation: str

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    rows = batch['train']
    label_key, augmentation_key = jax.random.split(key)
    labels = other_labels(rows['labels'], rows['is_forget'], label_key, self.num_classes)
    model = types.ModelState(params, batch_stats)
    images = augmentation.augment(rows['images'], augmentation_key, self.augmentation)
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key)
    return jnp.mean(losses.cross_entropy(labels, outputs.logits)), batch_stats


def other_labels(
  labels: jax.Array, is_other: jax.Array | int, key: jax.Array, num_classes: int
) -> jax.Array:
  """Labels `[B]`, another class drawn for the rows where `is_other` is 1 and not 0 (1: for all)."""
  keys = parallel.example_keys(key, len(labels))
  shift = jax.vmap(lambda k: jax.random.randint(k, (), 1, num_classes))(keys)
  return (labels + is_other * shift) % num_classes


def is_forgotten(problem: types.Problem, accuracy: float) -> Callable[[types.ModelState], bool]:
  """A stop rule for `training.minimize`: the forget set's accuracy is at most `accuracy`."""

  def stop_fn(model):
    return accuracy_on(problem, model, problem.forget) <= accuracy

  return stop_fn


def accuracy_on(problem: types.Problem, model: types.ModelState, dataset: types.Dataset) -> float:
  """A model's accuracy on a set, in [0, 1]."""
  logits = logits_of(problem, model, dataset)
  return float(np.mean(logits.argmax(axis=1) == dataset.labels))


def gold_accuracy(problem: types.Problem, held_out: types.Dataset, *, of_gone: float) -> float:
  """What gold would get right of the forget set, as far as can be guessed without it.

  Args:
    problem: the problem.
    held_out: images of classes that stay, on which the original stands for gold; not needed where
      no class of the forget set stays.
    of_gone: the accuracy on examples whose class goes whole.
  """
  stays = float(np.isin(problem.forget.labels, problem.retain.labels).mean())
  if not stays:
    return of_gone
  return (1 - stays) * of_gone + stays * accuracy_on(problem, problem.original, held_out)


def validation(problem: types.Problem) -> types.Dataset:
  """The validation images of a method that decides by them.

  Raises:
    types.DataError: if there are none.
  """
  if not len(problem.validation):
    raise types.DataError('validation is empty: the method decides by images that nobody has seen')
  return problem.validation


def original_logits(problem: types.Problem, dataset: types.Dataset) -> np.ndarray:
  """The original's logits `[N, C]` on a set, for losses that teach."""
  return logits_of(problem, problem.original, dataset)


def logits_of(
  problem: types.Problem, model: types.ModelState, dataset: types.Dataset
) -> np.ndarray:
  """A model's logits `[N, C]` on a set."""
  outputs = prediction.predict(problem.apply_fn, model, dataset.images, devices=problem.devices)
  return np.asarray(outputs.logits)

"""Loss functions for `training.make_step`, and a stop rule, that several methods share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import augmentation, losses, parallel, prediction, types


def mean_loss(
  apply_fn: types.ApplyFn, name: str, example_loss: Callable, *, train: bool = False
) -> Callable:
  """A mean loss on the unaugmented images of one set.

  Args:
    apply_fn: the network.
    name: the set.
    example_loss: `({field: rows}, logits [B, C]) -> [B]`.
    train: whether batch norm uses and learns the batch's statistics. Without, the running ones
      stay as they are: the right choice for batches of forget data alone, whose statistics say
      little about the images that remain.
  """

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants, key
    rows = batch[name]
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = apply_fn(model, rows['images'], train=train)
    return jnp.mean(example_loss(rows, outputs.logits)), batch_stats

  return loss_fn


def cross_entropy(rows, logits) -> jax.Array:
  """`losses.label_loss` with the rows' labels, for `mean_loss`."""
  return losses.label_loss(rows['labels'], logits)


def random_labels(problem: types.Problem) -> tuple[Callable, dict[str, types.Dataset], dict]:
  """Cross-entropy on all training data, forget rows with a random *other* label at each step.

  Returns:
    The loss, its data sets and their extra fields, as `training.minimize` takes them.
  """

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants
    rows = batch['train']
    label_key, augmentation_key = jax.random.split(key)
    keys = parallel.example_keys(label_key, len(rows['labels']))
    shift = jax.vmap(lambda k: jax.random.randint(k, (), 1, problem.num_classes))(keys)
    labels = (rows['labels'] + rows['is_forget'] * shift) % problem.num_classes
    model = types.ModelState(params, batch_stats)
    images = augmentation.augment(rows['images'], augmentation_key, problem.recipe.augmentation)
    outputs, batch_stats = problem.apply_fn(model, images, train=True)
    return jnp.mean(losses.cross_entropy(labels, outputs.logits)), batch_stats

  is_forget = np.repeat(np.array([0, 1], np.int32), [len(problem.retain), len(problem.forget)])
  datasets = {'train': types.concatenate(problem.retain, problem.forget)}
  return loss_fn, datasets, {'train': {'is_forget': is_forget}}


def is_forgotten(problem: types.Problem, accuracy: float) -> Callable[[types.ModelState], bool]:
  """A stop rule for `training.minimize`: the forget set's accuracy is at most `accuracy`."""

  def stop_fn(model):
    return accuracy_on(problem, model, problem.forget) <= accuracy

  return stop_fn


def accuracy_on(problem: types.Problem, model: types.ModelState, dataset: types.Dataset) -> float:
  """A model's accuracy on a set, in [0, 1]."""
  logits = logits_of(problem, model, dataset)
  return float(np.mean(logits.argmax(axis=1) == dataset.labels))


def original_logits(problem: types.Problem, dataset: types.Dataset) -> np.ndarray:
  """The original's logits `[N, C]` on a set, for losses that teach."""
  return logits_of(problem, problem.original, dataset)


def logits_of(
  problem: types.Problem, model: types.ModelState, dataset: types.Dataset
) -> np.ndarray:
  """A model's logits `[N, C]` on a set."""
  outputs = prediction.predict(problem.apply_fn, model, dataset.images, devices=problem.devices)
  return outputs.logits

"""Minimising one loss, and plain fitting: how most models are made."""

from collections.abc import Callable, Mapping
import functools

import jax
import jax.numpy as jnp
import optax

from dalign_jax import augmentation, losses, parallel, recipe_optim, types
from dalign_jax.training import _epochs, _steps


def minimize(
  loss_fn: Callable,
  tx: optax.GradientTransformation,
  model: types.ModelState,
  datasets: Mapping[str, types.Dataset],
  key: jax.Array,
  *,
  num_epochs: int,
  batch_size: int,
  devices: parallel.Devices = None,
  monitor: types.Monitor | None = None,
  extra: Mapping | None = None,
  constants_fn: Callable[[int], types.PyTree] | None = None,
  stop_fn: Callable[[types.ModelState], bool] | None = None,
) -> types.ModelState:
  """Minimises one loss from a model: what most methods are.

  An epoch is one pass over the first data set; batches of the others go along with it.

  Args:
    loss_fn: as in `make_step`.
    tx: optimizer.
    model: where to start from, on the host.
    datasets: by name; each gives `batch_size` rows to every step.
    key: decides batches and the steps' keys.
    num_epochs: passes over the first data set.
    batch_size: global batch of each set.
    devices: devices to run on, None for all.
    monitor: keeps states, is told of steps and epochs.
    extra: `{set: {field: [N, ...]}}`, further per-example arrays.
    constants_fn: gives the loss's constants, a host pytree, in an epoch (from 0); None for none.
    stop_fn: asked before each epoch; from a True on, the model stays as it is.

  Returns:
    The resulting model, on the host.
  """
  monitor = monitor or types.Monitor()
  step = _steps.make_step(loss_fn, tx, devices=devices)
  data = _epochs.put_data(datasets, devices, **(extra or {}))

  def epoch_fn(state, epoch):
    if stop_fn and stop_fn(parallel.fetch(state).model):
      return state, {}
    batches = _epochs.paired_batches(datasets, batch_size, _epochs.epoch_rng(key, epoch))
    constants = parallel.replicate(constants_fn(epoch), devices) if constants_fn else ()
    state, loss = _steps.run_steps(
      step, state, data, batches, key, constants=constants, monitor=monitor
    )
    return state, {'loss': loss}

  return _epochs.run_epochs(
    epoch_fn, _epochs.init_state(model, tx), num_epochs, monitor=monitor, devices=devices
  )


@functools.lru_cache(maxsize=16)
def classification_loss(
  apply_fn: types.ApplyFn, name: str, kind: str, label_smoothing: float = 0.0
) -> Callable:
  """A loss for `make_step`: mean `losses.label_loss` on the set `name`, augmented by `kind`."""

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants
    images = augmentation.augment(batch[name]['images'], key, kind)
    outputs, batch_stats = apply_fn(types.ModelState(params, batch_stats), images, train=True)
    example_losses = losses.label_loss(
      batch[name]['labels'], outputs.logits, label_smoothing=label_smoothing
    )
    return jnp.mean(example_losses), batch_stats

  return loss_fn


@functools.lru_cache(maxsize=16)
def recipe_optimizer(recipe: types.Recipe, num_examples: int) -> optax.GradientTransformation:
  """The optimizer of original and gold, for a training set of `num_examples`."""
  return recipe_optim.optimizer(recipe, num_examples)


def fit(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  recipe: types.Recipe,
  key: jax.Array,
  *,
  devices: parallel.Devices = None,
  monitor: types.Monitor | None = None,
) -> types.ModelState:
  """Trains a classifier with cross-entropy: how original and gold are made.

  Args:
    apply_fn: the network.
    model: where to start from.
    dataset: training set.
    recipe: epochs, batch size, optimizer, augmentation.
    key: decides batches and augmentation.
    devices: devices to run on, None for all.
    monitor: keeps states, is told of steps and epochs.

  Returns:
    The trained model, on the host.
  """
  return minimize(
    classification_loss(apply_fn, 'train', recipe.augmentation, recipe.label_smoothing),
    recipe_optimizer(recipe, len(dataset)),
    model,
    {'train': dataset},
    key,
    num_epochs=recipe.num_epochs,
    batch_size=recipe.batch_size,
    devices=devices,
    monitor=monitor,
  )

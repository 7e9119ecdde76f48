"""Minimising one loss, and plain fitting of classifiers."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dalign_jax import augmentation, errors, losses, optim, parallel, recipe_optim, types
from dalign_jax.training import _epochs, _feeding, _forward, _steps


def minimize(
  problem: types.Problem,
  loss_fn: types.LossFn,
  tx: optim.Rule | optax.GradientTransformation,
  datasets: Mapping[str, types.Dataset],
  key: jax.Array,
  *,
  num_epochs: int,
  batch_size: int,
  start: types.ModelState | None = None,
  extra: Mapping | None = None,
  constants_fn: Callable[[int], types.PyTree] | None = None,
  stop_fn: Callable[[types.ModelState], bool] | None = None,
) -> types.ModelState:
  """Minimises one loss, starting from the original, as most methods do.

  An epoch is one pass over the first data set; batches of the others go along with it.

  Args:
    problem: its original, devices and monitor are used.
    loss_fn: as in `make_step`.
    tx: optimizer, or the rule of a method, which the problem's optimizer and schedule complete.
    datasets: by name; each gives `batch_size` rows to every step.
    key: decides batches and the steps' keys.
    num_epochs: passes over the first data set.
    batch_size: global batch of each set.
    start: the model to start from, on the host; None for the original.
    extra: `{set: {field: [N, ...]}}`, further per-example arrays.
    constants_fn: gives the loss's constants, a host pytree, in an epoch (from 0); None for none.
    stop_fn: asked before each epoch; from a True on, the model stays as it is.

  Returns:
    The resulting model, on the host.
  """
  start = problem.original if start is None else start
  if isinstance(tx, optim.Rule):
    size = len(next(iter(datasets.values())))
    tx = tx.of(problem, optim.num_steps(size, batch_size, num_epochs))
  options: dict[str, Any] = {'num_epochs': num_epochs, 'batch_size': batch_size, 'extra': extra}
  options |= {'devices': problem.devices, 'monitor': problem.monitor}
  options |= {'constants_fn': constants_fn, 'stop_fn': stop_fn}
  return _minimize(loss_fn, tx, start, datasets, key, **options)


def _minimize(
  loss_fn,
  tx,
  model,
  datasets,
  key,
  *,
  num_epochs,
  batch_size,
  devices,
  monitor,
  extra=None,
  constants_fn=None,
  stop_fn=None,
) -> types.ModelState:
  step = _steps.make_step(loss_fn, tx, devices=devices)
  data = _feeding.put_data(datasets, devices, **(extra or {}))

  has_stopped = False  # asked no more from a True on: the model stays the same

  def epoch_fn(state, epoch):
    nonlocal has_stopped
    if stop_fn and not has_stopped:
      has_stopped = parallel.agree(stop_fn(parallel.fetch(state).model))
    if has_stopped:
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


@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
  """A loss for `make_step`: mean `losses.label_loss` on the set `name`, augmented by `kind`."""

  apply_fn: types.ApplyFn
  name: str
  kind: str
  label_smoothing: float = 0.0

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    rows = batch[self.name]
    images = augmentation.augment(rows['images'], key, self.kind)
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = _forward.forward(self.apply_fn, model, images, key)
    example_losses = losses.label_loss(
      rows['labels'], outputs.logits, label_smoothing=self.label_smoothing
    )
    return jnp.mean(example_losses), batch_stats


@functools.lru_cache(maxsize=16)
def recipe_optimizer(recipe: types.Recipe, num_examples: int) -> optax.GradientTransformation:
  """The optimizer of original and gold, for a training set of `num_examples`."""
  return optim.compiled(recipe_optim.optimizer(recipe, num_examples))


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
  """Trains a classifier with cross-entropy, as for original and gold.

  Args:
    apply_fn: the network.
    model: where to start from.
    dataset: training set.
    recipe: epochs, batch size, optimizer, augmentation.
    key: decides batches and augmentation.
    devices: devices to run on, None for all.
    monitor: receives steps and epochs, keeps states.

  Returns:
    The trained model, on the host.

  Raises:
    errors.InputError: if the labels are not those of the network's outputs.
    NonFiniteLossError: naming epoch and step.
  """
  check_labels(apply_fn, model, dataset)
  return _minimize(
    ClassificationLoss(apply_fn, 'train', recipe.augmentation, recipe.label_smoothing),
    recipe_optimizer(recipe, len(dataset)),
    model,
    {'train': dataset},
    key,
    num_epochs=recipe.num_epochs,
    batch_size=recipe.batch_size,
    devices=devices,
    monitor=monitor or types.Monitor(),
  )


def check_problem(problem: types.Problem) -> None:
  """Compares labels and number of classes of a problem with the network's outputs.

  Raises:
    errors.InputError: if they do not agree.
  """
  count = _num_outputs(problem.apply_fn, problem.original, problem.forget)
  for dataset in (problem.retain, problem.forget):
    if len(dataset):
      _compare(dataset, count)
  if count != problem.num_classes:
    raise errors.InputError(
      f'num_classes is {problem.num_classes}, and the network has {count} outputs'
    )


def check_labels(apply_fn: types.ApplyFn, model: types.ModelState, dataset: types.Dataset) -> None:
  """Compares labels with the number of outputs, before any step.

  Raises:
    errors.InputError: for a label outside of the outputs, or a single output for classes.
  """
  _compare(dataset, _num_outputs(apply_fn, model, dataset))


def _num_outputs(apply_fn, model, dataset) -> int:
  images = jax.ShapeDtypeStruct((1, *dataset.images.shape[1:]), jnp.float32)
  outputs = jax.eval_shape(functools.partial(apply_fn, train=False), model, images)[0]
  if len(outputs.logits.shape) != 2 or len(outputs.features.shape) != 2:
    raise errors.InputError(
      'the network must give logits [B, C] and features [B, D], got '
      f'{list(outputs.logits.shape)} and {list(outputs.features.shape)} for one image'
    )
  return outputs.logits.shape[1]


def _compare(dataset, num_outputs):
  labels = dataset.labels
  if dataset.is_multi_label:
    if num_outputs != labels.shape[1]:
      raise errors.InputError(
        f'labels have {labels.shape[1]} attributes, and the network has {num_outputs} outputs'
      )
    return
  if num_outputs == 1:
    raise errors.InputError(
      'labels are classes, and the network has one output: give it one for each class, two for two'
    )
  low, high = int(labels.min()), int(labels.max())
  if low < 0 or high >= num_outputs:
    hint = '; subtract 1' if low == 1 and high == num_outputs else ''
    raise errors.InputError(
      f'labels must be in [0, {num_outputs}), the outputs of the network, got {low} to {high}{hint}'
    )

"""Training: one SPMD step, epochs of steps that resume, and plain fitting."""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import augmentation, losses, optim, parallel, types
from dalign_jax import data as data_lib


class NonFiniteLossError(FloatingPointError):
  """A loss or an update became NaN or infinite; says in which epoch, phase and step."""


class Step(NamedTuple):
  """A compiled training step; see `make_step`."""

  single: Callable
  scanned: Callable
  steps_per_call: int
  devices: parallel.Devices


def step_fn(
  loss_fn: Callable,
  tx: optax.GradientTransformation,
  *,
  gives_step: bool = False,
  **update_args,
) -> Callable:
  """One optimizer step as a pure function, to be mapped over the axis `parallel.AXIS`.

  Args:
    loss_fn: as in `make_step`.
    tx: optimizer.
    gives_step: as in `make_step`.
    **update_args: given to `tx.update`.

  Returns:
    `(state, data, indices, constants, key_data) -> (state, loss)`, where `data` is `{set: {field:
    [N, ...]}}`, `indices` `{set: [B]}` and `key_data` the bits of the run's key.
  """
  tx = optax.with_extra_args_support(tx)

  def one(state: types.TrainState, data, indices, constants, key_data):
    batch = {name: _gather(data[name], indices[name]) for name in indices}
    key = jax.random.wrap_key_data(key_data, impl='threefry2x32')
    key = jax.random.fold_in(key, state.step)
    at_step = functools.partial(loss_fn, step=state.step) if gives_step else loss_fn
    grad_fn = jax.value_and_grad(at_step, has_aux=True)
    (loss, batch_stats), grads = grad_fn(state.params, state.batch_stats, batch, constants, key)
    loss, batch_stats, grads = jax.lax.pmean((loss, batch_stats, grads), parallel.AXIS)
    updates, opt_state = tx.update(grads, state.opt_state, state.params, **update_args)
    is_finite = jnp.isfinite(optax.tree.norm((updates, batch_stats)))
    loss = jnp.where(is_finite, loss, jnp.nan)
    params = optax.apply_updates(state.params, updates)
    return types.TrainState(params, batch_stats, opt_state, state.step + 1), loss

  return one


def make_step(
  loss_fn: Callable,
  tx: optax.GradientTransformation,
  *,
  devices: parallel.Devices = None,
  steps_per_call: int | None = None,
  gives_step: bool = False,
  **update_args,
) -> Step:
  """One SPMD training step. Build it once per run, never inside the epoch loop.

  The same loss, optimizer and devices give the same step, which is compiled once: a method that is
  run on many models should keep them.

  Args:
    loss_fn: `(params, batch_stats, batch, constants, key) -> (loss, new_batch_stats)`. It runs on
      every device inside the mapped axis `parallel.AXIS`: `batch` is `{set: {field: rows}}` with
      images float32 in [0, 1], `constants` a pytree, `key` the step's own key. The loss is the mean
      over the device's rows or already the global one; gradients are averaged over devices.
    tx: optimizer.
    devices: devices to run on, None for all.
    steps_per_call: how many steps a compiled call scans over; None: the backend's default.
    gives_step: call the loss with the number of steps taken so far, as the keyword `step`: for
      weights that follow a schedule.
    **update_args: given to `tx.update` (as `phase=0` for `optim.alternating`).
  """
  devices = tuple(devices) if devices else None
  steps_per_call = steps_per_call or parallel.steps_per_call()
  options = {'gives_step': gives_step, **update_args}
  return _compiled_step(loss_fn, tx, devices, steps_per_call, tuple(options.items()))


@functools.lru_cache(maxsize=4)  # it keeps what the loss holds
def _compiled_step(loss_fn, tx, devices, steps_per_call, options):
  one = step_fn(loss_fn, tx, **dict(options))

  def single(state, data, indices, constants, key_data):
    return one(state, data, jax.tree.map(lambda i: i[0], indices), constants, key_data)

  def scanned(state, data, indices, constants, key_data):
    body = lambda state, indices: one(state, data, indices, constants, key_data)
    return jax.lax.scan(body, state, indices)

  pmap = functools.partial(parallel.pmap, devices=devices, donate_argnums=(0,))
  return Step(pmap(single), pmap(scanned), steps_per_call, devices)


def run_steps(
  step: Step,
  state: types.TrainState,
  data,
  batches: Mapping[str, np.ndarray],
  key: jax.Array,
  *,
  constants=(),
  phase: str = 'train',
  monitor: types.Monitor | None = None,
) -> tuple[types.TrainState, float]:
  """Runs a step over all batches of a phase.

  Args:
    step: from `make_step`.
    state: replicated training state; its buffers are donated.
    data: replicated `{set: {field: [N, ...]}}`, from `put_data`.
    batches: `{set: [steps, B]}` int32 row numbers, equally many steps for each set.
    key: the run's key; each step folds its own number in.
    constants: replicated pytree for the loss.
    phase: name for the monitor and for errors.
    monitor: told of every call.

  Returns:
    The new replicated state and the mean loss.

  Raises:
    NonFiniteLossError: naming the phase and the step.
    ValueError: if a batch cannot be cut over the devices.
  """
  sharded = {name: parallel.shard(b, step.devices) for name, b in batches.items()}
  key_data = parallel.replicate(key_bits(key), step.devices)
  return run_sharded_steps(
    step, state, data, sharded, key_data, constants=constants, phase=phase, monitor=monitor
  )


def run_sharded_steps(
  step: Step,
  state,
  data,
  sharded: Mapping[str, np.ndarray],
  key_data,
  *,
  constants=(),
  phase: str = 'train',
  monitor: types.Monitor | None = None,
) -> tuple[types.TrainState, float]:
  """As `run_steps`, from batches `{set: [local devices, steps, ...]}` and keys on the devices."""
  total = next(iter(sharded.values())).shape[1]
  step_losses, done = [], 0
  while done < total:
    size = step.steps_per_call if step.steps_per_call <= total - done else 1
    run = step.scanned if size > 1 else step.single
    chunk = {name: b[:, done : done + size] for name, b in sharded.items()}
    state, loss = run(state, data, chunk, constants, key_data)
    if parallel.must_block(step.devices):
      jax.block_until_ready(loss)
    step_losses.append(loss)
    done += size
    if monitor:
      monitor.on_step(phase, done, total)
  values = np.concatenate([np.atleast_1d(parallel.fetch(loss)) for loss in step_losses])
  if not np.all(np.isfinite(values)):
    raise NonFiniteLossError(
      f'loss is {values[~np.isfinite(values)][0]} in phase {phase!r} at step '
      f'{int(np.argmin(np.isfinite(values))) + 1} of {total}'
    )
  return state, float(values.mean())


def run_epochs(
  epoch_fn: Callable,
  state: types.TrainState,
  num_epochs: int,
  *,
  monitor: types.Monitor,
  devices: parallel.Devices = None,
  place: Callable = parallel.replicate,
  fetch: Callable = parallel.fetch,
) -> types.ModelState:
  """Runs epochs from the last one the monitor has kept; the same bits as without a stop.

  Args:
    epoch_fn: `(placed state, epoch) -> (placed state, metrics)`; all its randomness comes from the
      epoch's number and the state's step.
    state: initial training state on the host.
    num_epochs: number of epochs.
    monitor: keeps states, is told of each epoch.
    devices: devices to run on, None for all.
    place: `(host state, devices) -> state` on the devices.
    fetch: the inverse; every process calls it.

  Returns:
    The trained model, on the host.
  """
  state = jax.tree.map(np.asarray, state)
  first, state = monitor.restore(state) or (0, state)
  monitor.on_start(num_epochs)
  state = place(state, devices)
  for epoch in range(first, num_epochs):
    try:
      state, metrics = epoch_fn(state, epoch)
    except NonFiniteLossError as error:
      raise NonFiniteLossError(f'epoch {epoch + 1} of {num_epochs}: {error}') from None
    get_state = functools.partial(fetch, state)
    if jax.process_count() > 1:  # fetching may need all processes; only one of them saves
      get_state = functools.partial(lambda fetched: fetched, fetch(state))
    monitor.on_epoch(epoch, get_state, metrics)
  return fetch(state).model


def init_state(model: types.ModelState, tx: optax.GradientTransformation) -> types.TrainState:
  """A training state at step 0."""
  return types.TrainState(
    model.params, model.batch_stats, tx.init(model.params), jnp.zeros((), jnp.int32)
  )


def put_data(datasets: Mapping[str, types.Dataset], devices: parallel.Devices = None, **extra):
  """Datasets on every device as `{set: {'images', 'labels', ...}}`; batches are gathered there.

  Args:
    datasets: by name.
    devices: devices to put them on, None for all.
    **extra: `set={field: [N, ...]}`, further per-example arrays of a set.
  """
  fields = {
    name: {
      'images': np.ascontiguousarray(d.images),
      'labels': d.labels,
      **extra.get(name, {}),
    }
    for name, d in datasets.items()
  }
  return parallel.replicate(fields, devices)


def key_bits(key: jax.Array) -> jax.Array:
  """What a step is given of the run's key: two uint32, drawn from it."""
  return jax.random.bits(key, (2,), 'uint32')


def epoch_rng(key: jax.Array, epoch: int) -> np.random.Generator:
  """The host's generator for an epoch: batches depend on (key, epoch) alone."""
  return np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), epoch])


def paired_batches(
  datasets: Mapping[str, types.Dataset], batch_size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Batches of every set, as many as one pass over the first set takes."""
  num_batches = -(-len(next(iter(datasets.values()))) // batch_size)
  return {
    name: data_lib.epoch_batches(len(d), batch_size, rng, num_batches=num_batches)
    for name, d in datasets.items()
  }


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
  step = make_step(loss_fn, tx, devices=devices)
  data = put_data(datasets, devices, **(extra or {}))

  def epoch_fn(state, epoch):
    if stop_fn and stop_fn(parallel.fetch(state).model):
      return state, {}
    batches = paired_batches(datasets, batch_size, epoch_rng(key, epoch))
    constants = parallel.replicate(constants_fn(epoch), devices) if constants_fn else ()
    state, loss = run_steps(step, state, data, batches, key, constants=constants, monitor=monitor)
    return state, {'loss': loss}

  return run_epochs(epoch_fn, init_state(model, tx), num_epochs, monitor=monitor, devices=devices)


@functools.lru_cache(maxsize=16)
def classification_loss(apply_fn: types.ApplyFn, name: str, kind: str) -> Callable:
  """A loss for `make_step`: mean `losses.label_loss` on the set `name`, augmented by `kind`."""

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants
    images = augmentation.augment(batch[name]['images'], key, kind)
    outputs, batch_stats = apply_fn(types.ModelState(params, batch_stats), images, train=True)
    return jnp.mean(losses.label_loss(batch[name]['labels'], outputs.logits)), batch_stats

  return loss_fn


@functools.lru_cache(maxsize=16)
def recipe_optimizer(recipe: types.Recipe, num_examples: int) -> optax.GradientTransformation:
  """The optimizer of original and gold, for a training set of `num_examples`."""
  return optim.sgd(
    optim.warmup_cosine(recipe, num_examples),
    momentum=recipe.momentum,
    weight_decay=recipe.weight_decay,
    nesterov=True,
  )


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
    classification_loss(apply_fn, 'train', recipe.augmentation),
    recipe_optimizer(recipe, len(dataset)),
    model,
    {'train': dataset},
    key,
    num_epochs=recipe.num_epochs,
    batch_size=recipe.batch_size,
    devices=devices,
    monitor=monitor,
  )


def _gather(fields, indices):
  batch = {name: values[indices] for name, values in fields.items()}
  return {**batch, 'images': to_float(batch['images'])}


def to_float(images):
  """uint8 pixels as float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255.0

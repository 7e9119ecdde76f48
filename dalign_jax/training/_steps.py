"""The SPMD training step, and running it over batches."""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import parallel, seeds, types
from dalign_jax.training import _errors, _feeding


class Step(NamedTuple):
  """A compiled training step; see `make_step`."""

  single: Callable
  scanned: Callable
  steps_per_call: int
  devices: parallel.Devices


def step_fn(
  loss_fn: Callable,
  update_fn: Callable,
  *,
  gives_step: bool = False,
  **update_args,
) -> Callable:
  """One optimizer step as a pure function, to be mapped over the axis `parallel.AXIS`.

  Args:
    loss_fn: as in `make_step`.
    update_fn: `tx.update` of the optimizer.
    gives_step: as in `make_step`.
    **update_args: passed to `update_fn`.

  Returns:
    `(state, data, indices, constants, key_data) -> (state, loss)`, where `data` is `{set: {field:
    [N, ...]}}`, `indices` `{set: [B]}` and `key_data` the bits of the run's key.
  """

  def one(state: types.TrainState, data, indices, constants, key_data):
    batch = {name: _gather(data[name], indices[name]) for name in indices}
    of_run = jax.random.bits(seeds.of_bits(key_data), (2,), jnp.uint32)
    key = jax.random.fold_in(seeds.of_bits(of_run), state.step)
    at_step = functools.partial(loss_fn, step=state.step) if gives_step else loss_fn
    grad_fn = jax.value_and_grad(at_step, has_aux=True)
    (loss, own_stats), grads = grad_fn(state.params, state.batch_stats, batch, constants, key)
    loss, means, grads = jax.lax.pmean((loss, own_stats, grads), parallel.AXIS)
    batch_stats = _unless_constant(means, own_stats, state.batch_stats)
    updates, opt_state = update_fn(grads, state.opt_state, state.params, **update_args)
    is_finite = jnp.isfinite(optax.tree.norm((updates, batch_stats)))
    loss = jnp.where(is_finite, loss, jnp.nan)
    params = optax.apply_updates(state.params, updates)
    return types.TrainState(params, batch_stats, opt_state, state.step + 1), loss

  return one


def _unless_constant(means, own_stats, before):
  """Means over devices of statistics that changed; a mean of equal values can have other bits."""
  differs = lambda own, old: jnp.any(own != old).astype(jnp.int32)
  changed = jax.lax.pmax(jax.tree.map(differs, own_stats, before), parallel.AXIS)
  return jax.tree.map(lambda c, mean, old: jnp.where(c, mean, old), changed, means, before)


def make_step(
  loss_fn: types.LossFn | types.ScheduledLossFn,
  tx: optax.GradientTransformation,
  *,
  devices: parallel.Devices = None,
  steps_per_call: int | None = None,
  gives_step: bool = False,
  **update_args,
) -> Step:
  """One SPMD training step. Build it once per run, never inside the epoch loop.

  Equal losses, the same `tx.update` and the same devices give the same step, which is compiled once
  for all models and data sets of equal shapes. It keeps the loss: see `types.LossFn`.

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
  options = tuple({'gives_step': gives_step, **update_args}.items())
  return _compiled_step(loss_fn, tx.update, devices, steps_per_call, options, parallel.mapping())


@functools.lru_cache(maxsize=32)  # neither a loss nor an update holds data
def _compiled_step(loss_fn, update_fn, devices, steps_per_call, options, mapping):
  del mapping  # the one in use, by which `spmd` maps
  one = step_fn(loss_fn, update_fn, **dict(options))

  def single(state, data, indices, constants, key_data):
    return one(state, data, jax.tree.map(lambda i: i[0], indices), constants, key_data)

  def scanned(state, data, indices, constants, key_data):
    body = lambda state, indices: one(state, data, indices, constants, key_data)
    return jax.lax.scan(body, state, indices)

  pmap = functools.partial(parallel.spmd, devices=devices, donate_argnums=(0,))
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
    data: from `put_data`.
    batches: `{set: [steps, B]}` int32 row numbers, equally many steps for each set.
    key: the run's key; each step folds its own number in.
    constants: replicated pytree for the loss.
    phase: name for the monitor and for errors.
    monitor: receives every call.

  Returns:
    The new replicated state and the mean loss, NaN of no step.

  Raises:
    NonFiniteLossError: naming the phase and the step.
    ValueError: if a batch cannot be cut over the devices.
  """
  sharded = {name: parallel.shard(b, step.devices) for name, b in batches.items()}
  key_data = parallel.replicate(seeds.bits_of(key), step.devices)
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
  if not total:
    return state, float('nan')
  starts = _starts(total, step.steps_per_call)
  calls = [{n: b[:, start : start + size] for n, b in sharded.items()} for start, size in starts]
  is_fed = isinstance(data, _feeding.HostData)
  fed = data.feed(calls) if is_fed else ((data, call) for call in calls)
  step_losses: list[jax.Array] = []
  for (start, size), (rows, indices) in zip(starts, fed, strict=True):
    run = step.scanned if size > 1 else step.single
    state, loss = run(state, rows, indices, constants, key_data)
    step_losses.append(loss)
    if parallel.must_block(step.devices):
      jax.block_until_ready(loss)
    elif is_fed and len(step_losses) > 1:  # so that rows in flight do not pile up on the devices
      jax.block_until_ready(step_losses[-2])
    if monitor:
      monitor.on_step(phase, start + size, total)
  values = np.concatenate([np.atleast_1d(parallel.fetch(loss)) for loss in step_losses])
  if not np.all(np.isfinite(values)):
    raise _errors.NonFiniteLossError(
      f'loss is {values[~np.isfinite(values)][0]} in phase {phase!r} at step '
      f'{int(np.argmin(np.isfinite(values))) + 1} of {total}'
    )
  return state, float(values.mean())


def _starts(total: int, per_call: int) -> list[tuple[int, int]]:
  """First step and number of steps of each call: as many as fit at once, the rest one by one."""
  whole = total - total % per_call
  starts = [(start, per_call) for start in range(0, whole, per_call)]
  return starts + [(start, 1) for start in range(whole, total)]


def _gather(fields, indices):
  batch = {name: values[indices] for name, values in fields.items()}
  return {**batch, 'images': to_float(batch['images'])}


def to_float(images):
  """uint8 pixels as float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255.0

"""Epochs that resume, and what they start from: states, data on the devices, batches, keys."""

from collections.abc import Callable, Mapping
import functools

import jax
import numpy as np
import optax

from dalign_jax import data as data_lib
from dalign_jax import errors, parallel, types
from dalign_jax.training import _errors


def run_epochs(
  epoch_fn: Callable,
  state: types.PyTree,
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
    state: initial training state on the host; its `model` is what is trained.
    num_epochs: number of epochs.
    monitor: receives each epoch, keeps states.
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
    except _errors.NonFiniteLossError as error:
      raise _errors.NonFiniteLossError(f'epoch {epoch + 1} of {num_epochs}: {error}') from None
    get_state = functools.partial(fetch, state)
    if jax.process_count() > 1:  # fetching may need all processes; only one of them saves
      get_state = functools.partial(lambda fetched: fetched, fetch(state))
    monitor.on_epoch(epoch, get_state, metrics)
  return fetch(state).model


def init_state(model: types.ModelState, tx: optax.GradientTransformation) -> types.TrainState:
  """A training state at step 0."""
  return types.TrainState(
    model.params, model.batch_stats, tx.init(model.params), np.zeros((), np.int32)
  )


def split(key: jax.Array, num: int = 2) -> tuple[jax.Array, ...]:
  """`jax.random.split` as a tuple, by one program for all numbers of keys up to 8.

  A key's place decides it, not how many are split, so that the first of eight are those of two.
  """
  if not 0 < num <= _MOST_KEYS:
    raise errors.InputError(f'num must be from 1 to {_MOST_KEYS}, got {num}')
  return _split(key)[:num]


_MOST_KEYS = 8


@jax.jit
def _split(key):
  return tuple(jax.random.split(key, _MOST_KEYS))


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

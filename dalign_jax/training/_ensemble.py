"""Ensembles: many models from one compiled program."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, parallel, seeds, types
from dalign_jax.training import _epochs, _feeding, _fit, _steps

MAPPINGS = ('scan', 'vmap')


def fit_ensemble(
  apply_fn: types.ApplyFn,
  models: Sequence[types.ModelState],
  dataset: types.Dataset,
  recipe: types.Recipe,
  keys: Sequence[jax.Array],
  *,
  subsets: np.ndarray | None = None,
  devices: parallel.Devices = None,
  mapping: str | None = None,
  monitor: types.Monitor | None = None,
) -> list[types.ModelState]:
  """Trains K classifiers at once, each as `fit` would alone, to rounding.

  One compiled program serves all members: they are divided over the devices, and each device takes
  its own by `lax.scan` or `jax.vmap`. A member's batch is not cut, so batch normalisation needs no
  communication. All members share the data set on the device.

  Args:
    apply_fn: the network.
    models: K models to start from, on the host.
    dataset: training set, of which `subsets` picks rows.
    recipe: epochs, batch size (of each member), optimizer, augmentation.
    keys: K keys; a member's decides its batches and augmentation.
    subsets: int `[K, N]` rows that each member is trained on, None for all rows.
    devices: devices to run on, None for all.
    mapping: how a device runs its members: 'scan' (one after the other), 'vmap' (side by side), or
      None for 'scan' on a CPU and 'vmap' elsewhere. On a CPU, convolutions that are not
      `models.convolution` are slow in a scan.
    monitor: receives steps and epochs, keeps states.

  Returns:
    The K trained models, on the host.

  Raises:
    NonFiniteLossError: naming epoch and step.
    ValueError: if `models`, `keys` and `subsets` are not equally many, or `mapping` is unknown.
  """
  num_members = _check(models, keys, subsets, mapping)
  _fit.check_labels(apply_fn, models[0], dataset)
  monitor = monitor or types.Monitor()
  mapping = mapping or ('scan' if jax.default_backend() == 'cpu' else 'vmap')
  subsets = np.tile(np.arange(len(dataset)), (num_members, 1)) if subsets is None else subsets
  tx = _fit.recipe_optimizer(recipe, subsets.shape[1])
  loss_fn = _fit.ClassificationLoss(apply_fn, 'train', recipe.augmentation, recipe.label_smoothing)
  devices = tuple(devices) if devices else None
  step = _make_step(loss_fn, tx.update, mapping, devices, parallel.mapping())
  data = _feeding.put_data({'train': dataset}, devices)
  place = functools.partial(parallel.place_members, devices=devices)
  key_data = place(np.stack([seeds.bits_of(key) for key in keys]))

  def epoch_fn(state, epoch):
    rngs = [_epochs.epoch_rng(key, epoch) for key in keys]
    batches = np.stack(
      [
        subset[data_lib.epoch_batches(len(subset), recipe.batch_size, rng)]
        for subset, rng in zip(subsets, rngs, strict=True)
      ]
    )
    sharded = parallel.shard_members(batches.astype(np.int32), devices).swapaxes(1, 2)
    state, loss = _steps.run_sharded_steps(
      step, state, data, {'train': sharded}, key_data, monitor=monitor
    )
    return state, {'loss': loss}

  state = [_epochs.init_state(model, tx) for model in models]
  trained = _epochs.run_epochs(
    epoch_fn,
    jax.tree.map(lambda *leaves: np.stack(leaves), *state),
    recipe.num_epochs,
    monitor=monitor,
    devices=devices,
    place=parallel.place_members,
    fetch=functools.partial(parallel.fetch_members, num_members=num_members),
  )
  return [jax.tree.map(lambda x, i=i: x[i], trained) for i in range(num_members)]


def _check(models, keys, subsets, mapping):
  if mapping is not None and mapping not in MAPPINGS:
    raise errors.InputError(
      f'mapping must be one of {", ".join(MAPPINGS)} or None, got {mapping!r}'
    )
  if not models:
    raise errors.InputError('models must hold one model or more, got none')
  if len(keys) != len(models):
    raise errors.InputError(f'keys must be as many as the {len(models)} models, got {len(keys)}')
  if subsets is not None and (np.ndim(subsets) != 2 or len(subsets) != len(models)):
    raise errors.InputError(
      f'subsets must be [{len(models)}, N], got shape {list(np.shape(subsets))}'
    )
  return len(models)


@functools.lru_cache(maxsize=8)
def _make_step(loss_fn, update_fn, mapping, devices, spmd_mapping):
  """A step of all members as a `_steps.Step`; its loss is the mean over members."""
  del spmd_mapping  # the one in use, by which `spmd` maps
  one = _steps.step_fn(loss_fn, update_fn)
  # A member is alone on the axis over which the batch of a single model would be cut.
  alone = jax.vmap(one, in_axes=(0, None, 0, None, None), axis_name=parallel.AXIS)

  def of_member(data, state, indices, key_data):
    state, indices = jax.tree.map(lambda x: x[None], (state, indices))
    return jax.tree.map(lambda x: x[0], alone(state, data, indices, (), key_data))

  def of_members(states, data, indices, key_data):
    member = functools.partial(of_member, data)
    if mapping == 'vmap':
      states, loss = jax.vmap(member)(states, indices, key_data)
    else:
      states, loss = jax.lax.map(lambda args: member(*args), (states, indices, key_data))
    return states, jax.lax.pmean(jnp.mean(loss), parallel.AXIS)

  def single(states, data, indices, constants, key_data):
    del constants
    return of_members(states, data, jax.tree.map(lambda i: i[0], indices), key_data)

  def scanned(states, data, indices, constants, key_data):
    del constants
    return jax.lax.scan(lambda s, i: of_members(s, data, i, key_data), states, indices)

  pmap = functools.partial(parallel.spmd, devices=devices, donate_argnums=(0,))
  return _steps.Step(pmap(single), pmap(scanned), parallel.steps_per_call(), devices)

"""Orbax checkpoints: finished models, and training states to resume from.

Each save is atomic: a killed process leaves the earlier checkpoints as they were. States are host
pytrees, so that a checkpoint written on one set of devices restores on any other. Only process 0 of
a run writes; all may read.

The interface is Orbax's first. The second, `orbax.checkpoint.experimental.v1` up to version 0.12.8,
reads these checkpoints to the bit, but one process of several cannot save with it: each save waits
for all of them, whatever its `active_processes` are. Foreign checkpoints of either are read.
"""

from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dalign_jax import digests, errors, locate, types


class CheckpointError(errors.InputError):
  """A checkpoint is missing, damaged, or of another model."""


def save(directory: str | pathlib.Path, model: types.ModelState, metadata: dict) -> None:
  """Saves a finished model, replacing one that is there.

  Args:
    directory: where to; made if missing.
    model: host model state.
    metadata: what JSON can hold, given back by `restore`.

  Raises:
    CheckpointError: if it cannot be written; what was there before stays.
  """
  with _manager(directory, max_to_keep=1) as manager:
    step = 0 if manager.latest_step() is None else manager.latest_step() + 1
    _write(manager, step, model._asdict(), metadata)


def restore(
  directory: str | pathlib.Path, template: types.ModelState | None = None
) -> tuple[types.ModelState, dict]:
  """Restores a finished model.

  Args:
    directory: where it was saved.
    template: a state (arrays or `jax.ShapeDtypeStruct`) that the model must equal in structure,
      shapes and dtypes; None takes what is there.

  Returns:
    The model on the host, and its metadata.

  Raises:
    CheckpointError: if there is none, it cannot be read, or it does not fit the template.
  """
  found = _newest(directory, None)
  if found is None:
    raise CheckpointError(f'no checkpoint in {directory}')
  _, tree, metadata = found
  if template is not None:
    _check_equal(directory, tree, template._asdict())
  return types.ModelState(tree['params'], tree['batch_stats']), metadata


def read_record(directory: str | pathlib.Path) -> dict:
  """The metadata of a finished model alone; no weights are read.

  It is a JSON item of the same atomic save as the weights, in folders of earlier versions too.

  Args:
    directory: where the model was saved.

  Raises:
    CheckpointError: if there is none, or it cannot be read.
  """
  found = _newest(directory, None, with_state=False)
  if found is None:
    raise CheckpointError(f'no checkpoint in {directory}')
  return found[2]


def restore_foreign(directory: str | pathlib.Path, template: types.ModelState) -> types.ModelState:
  """Restores a model from an Orbax checkpoint that another program wrote.

  Args:
    directory: of a checkpointer or of a checkpoint manager, whose newest step is taken. It holds
      the parameters, or a dictionary with `params` and perhaps `batch_stats`; all else is ignored.
    template: a state that the model must equal in structure, shapes and dtypes.

  Returns:
    The model on the host.

  Raises:
    CheckpointError: if there is none, it cannot be read, or it does not fit the template.
  """
  try:
    place = locate.find(directory).path
  except errors.InputError as error:
    raise CheckpointError(str(error)) from error
  try:
    tree = load_tree(place)
  except Exception as error:  # orbax and tensorstore raise many types on damaged files
    raise CheckpointError(f'unreadable checkpoint in {place}: {_reason(error)}') from error
  tree = tree if 'params' in tree else {'params': tree}
  tree = {'params': tree['params'], 'batch_stats': tree.get('batch_stats') or {}}
  tree = jax.tree.map(np.asarray, tree)
  _check_equal(place, tree, template._asdict())
  return types.ModelState(**tree)


def load_tree(place: pathlib.Path) -> Any:
  """The pytree that Orbax saved in a folder, arrays on the host; words stay what they are."""
  handler = ocp.PyTreeCheckpointer()
  leaves = handler.metadata(place).item_metadata.tree
  host = lambda leaf: np.ndarray if hasattr(leaf, 'shape') else None  # None: a word, as it is
  as_arrays = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=host(leaf)), leaves)
  return handler.restore(place, restore_args=as_arrays)


def exists(directory: str | pathlib.Path) -> bool:
  """Whether a finished save is there."""
  return latest_epoch(directory) is not None


def save_training(directory: str | pathlib.Path, epoch: int, state: Any, metadata: dict) -> None:
  """Saves the state after `epoch` epochs; the last two are kept.

  Args:
    directory: where to; made if missing.
    epoch: number of finished epochs.
    state: host pytree.
    metadata: what JSON can hold.

  Raises:
    CheckpointError: if it cannot be written; the earlier states stay.
  """
  directory = pathlib.Path(directory)
  with _readable(directory), _manager(directory, max_to_keep=2) as manager:
    if epoch in manager.all_steps():  # left by a run that was found damaged and was repeated
      manager.delete(epoch)
    _write(manager, epoch, state, metadata)


def restore_training(directory: str | pathlib.Path, template: Any) -> tuple[int, Any, dict] | None:
  """The newest training state that can be read: `(epoch, state, metadata)`, or None.

  Args:
    directory: where states were saved.
    template: pytree that the state must equal in structure, shapes and dtypes.
  """
  try:
    return _newest(directory, template)
  except CheckpointError:
    return None


def check_state(state: types.ModelState) -> None:
  """Checks that a network's state comes back from a checkpoint as it went there.

  Raises:
    errors.InputError: for containers other than dictionaries, with strings as keys, and lists, or
      for arrays whose dtype JAX changes.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(tuple(state)):
    name = jax.tree_util.keystr(path[1:])
    if not all(map(_is_plain, path[1:])):
      raise errors.InputError(
        'the state must be dictionaries, with strings as keys, and lists of arrays, which '
        f'checkpoints keep; {name} is inside another container'
      )
    dtype = np.asarray(leaf).dtype
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
      raise errors.InputError(
        f'the state must be of dtypes that JAX keeps, and {name} is {dtype}: give '
        f'{jax.dtypes.canonicalize_dtype(dtype)}'
      )


def _is_plain(key) -> bool:
  if isinstance(key, jax.tree_util.DictKey):
    return isinstance(key.key, str)
  return isinstance(key, jax.tree_util.SequenceKey)


def training_metadata(directory: str | pathlib.Path) -> dict | None:
  """The metadata of the newest training state whose metadata can be read, or None."""
  try:
    found = _newest(directory, None, with_state=False)
  except CheckpointError:
    return None
  return found and found[2]


def latest_epoch(directory: str | pathlib.Path) -> int | None:
  """Number of finished epochs of the newest training state, or None."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return None
  with _readable(directory), _manager(directory) as manager:
    return manager.latest_step()


def _newest(directory, target, *, with_state=True):
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return None
  error = None
  with _readable(directory), _manager(directory) as manager:
    for step in sorted(manager.all_steps(), reverse=True):
      try:
        args = _restore_args(target) if with_state else _record_args()
        restored = manager.restore(step, args=args)
        state = jax.tree.map(np.asarray, restored.state) if with_state else None
        if target is not None:
          _check_equal(directory, state, target)
        place = directory / str(step)
        return step, state, digests.unseal(state, restored.metadata, place)
      except Exception as e:  # orbax and tensorstore raise many types on damaged files
        error = error or e
  if error is not None:
    raise _unreadable(directory, error) from error
  return None


@contextlib.contextmanager
def _readable(directory: pathlib.Path) -> Iterator[None]:
  """Names a folder of ours that Orbax stumbles over."""
  try:
    yield
  except CheckpointError:
    raise
  except Exception as error:  # orbax raises many types on damaged files
    raise _unreadable(directory, error) from error


def _unreadable(directory: pathlib.Path, error: Exception) -> CheckpointError:
  return CheckpointError(
    f'unreadable checkpoint in {directory}: {_reason(error)}; delete that folder to have it made '
    'again, or bring back a copy'
  )


def _check_equal(directory, tree, target):
  """Compares every leaf (Orbax itself restores a leaf of another shape silently)."""
  found, wanted = _describe(tree), _describe(target)
  for path in sorted(found.keys() | wanted.keys()):
    if found.get(path) != wanted.get(path):
      raise CheckpointError(
        f'checkpoint {directory} is of another model: {path} is {found.get(path, "missing")} '
        f'there, but {wanted.get(path, "missing")} in the model'
      )


def _describe(tree) -> dict[str, str]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(p): f'{x.dtype}{list(x.shape)}' for p, x in leaves}


def _manager(directory, *, max_to_keep: int | None = None) -> ocp.CheckpointManager:
  directory = pathlib.Path(directory).absolute()
  if max_to_keep:  # opened for writing; orbax makes no folders for a subset of the processes
    directory.mkdir(parents=True, exist_ok=True)
  process = jax.process_index()
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      enable_async_checkpointing=False,
      create=False,
      max_to_keep=max_to_keep,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f'process_{process}',
      ),
    ),
  )


def _write(manager, step, tree, metadata):
  try:
    manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_arrays(tree)),
        metadata=ocp.args.JsonSave(digests.seal(tree, metadata)),
      ),
    )
  except Exception as error:  # orbax and tensorstore raise many types on a full disk
    raise CheckpointError(
      f'cannot write a checkpoint in {manager.directory}: {_reason(error)}'
    ) from error


def _reason(error: Exception) -> str:
  """The end of an error's first line; tensorstore puts the cause there, between paths and specs."""
  if isinstance(error, errors.InputError):
    return str(error)
  text = str(error).splitlines()[0] if str(error) else type(error).__name__
  text = text.partition(' [tensorstore_spec=')[0].partition(' [source locations=')[0]
  return text if len(text) <= 160 else f'... {text[-160:]}'


def _arrays(tree):
  """NumPy scalars as arrays: Orbax gives a scalar back in another type."""
  return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, np.generic) else x, tree)


def _restore_args(target):
  return ocp.args.Composite(
    state=ocp.args.StandardRestore(_arrays(target)), metadata=ocp.args.JsonRestore()
  )


def _record_args():
  return ocp.args.Composite(metadata=ocp.args.JsonRestore())

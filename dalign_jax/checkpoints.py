"""Orbax checkpoints: finished models, and training states to resume from.

Each save is atomic: a killed process leaves the earlier checkpoints as they were. States are host
pytrees, so that a checkpoint written on one set of devices restores on any other. Only process 0 of
a run writes; all may read.

The interface is Orbax's second, which version 0.12 offers as `orbax.checkpoint.experimental.v1`
alone. Checkpoints of its first interface are read too. Steps are listed and removed here, not by
its `training.Checkpointer`: that one cannot be opened by a part of the processes.
"""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from dalign_jax import errors, types


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
  step = max(_steps(directory), default=-1) + 1
  _write(directory, step, model._asdict(), metadata, num_kept=1)


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
  directory = pathlib.Path(directory).absolute()
  number = lambda path: [int(p) if p.isdigit() else 0 for p in path.relative_to(directory).parts]
  found = sorted((path.parent for path in directory.rglob('_METADATA')), key=number)
  if not found:
    raise CheckpointError(f'no checkpoint in {directory}')
  try:
    tree = _load_tree(found[-1])
  except Exception as error:  # orbax and tensorstore raise many types on damaged files
    raise CheckpointError(f'unreadable checkpoint in {found[-1]}: {_reason(error)}') from error
  tree = tree if 'params' in tree else {'params': tree}
  tree = {'params': tree['params'], 'batch_stats': tree.get('batch_stats') or {}}
  _check_equal(found[-1], tree, template._asdict())
  return types.ModelState(**tree)


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
  _write(directory, epoch, state, metadata, num_kept=2)


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


def latest_epoch(directory: str | pathlib.Path) -> int | None:
  """Number of finished epochs of the newest training state, or None."""
  return max(_steps(directory), default=None)


def _newest(directory, target, *, with_state=True):
  error = None
  for step in reversed(_steps(directory)):
    place = pathlib.Path(directory).absolute() / str(step)
    try:
      state = _load_tree(place / 'state', target) if with_state else None
      if target is not None:
        _check_equal(directory, state, target)
      with _context():
        return step, state, ocp.load_checkpointables(place, {'metadata': None})['metadata']
    except Exception as e:  # orbax and tensorstore raise many types on damaged files
      error = error or e
  if error is not None:
    raise CheckpointError(f'unreadable checkpoint in {directory}: {_reason(error)}') from error
  return None


def _load_tree(place: pathlib.Path, target: Any = None) -> Any:
  """The pytree saved at `place` as host arrays, whatever devices it was saved from.

  Args:
    place: the folder that holds the pytree itself: a checkpoint, or a part of one by name.
    target: what gives the structure; None for nested dictionaries and lists.
  """
  is_part = (place.parent / '_CHECKPOINT_METADATA').exists()
  checkpoint, name = (place.parent, place.name) if is_part else (place, None)
  with _context():
    if target is None:
      target = ocp.metadata(checkpoint, checkpointable_name=name).metadata
    tree = ocp.load(checkpoint, jax.tree.map(_on_host, target), checkpointable_name=name)
  return jax.tree.map(np.asarray, tree)


def _on_host(leaf: Any) -> Any:
  """Asks Orbax for a leaf as a NumPy array; a number or a string stays what it is."""
  if not hasattr(leaf, 'shape'):
    return leaf
  return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _steps(directory: str | pathlib.Path) -> list[int]:
  """Numbers of the finished saves, rising; Orbax gives a save its name when it is whole."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())


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


def _context() -> ocp.Context:
  """Orbax's settings: this process works alone, and metadata are JSON."""
  process = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = process
  context.multiprocessing.active_processes = {process}
  context.multiprocessing.barrier_sync_key_prefix = f'process_{process}'
  context.checkpointables.registry = ocp.handlers.local_registry()
  context.checkpointables.registry.add(ocp.handlers.JsonHandler, checkpointable_name='metadata')
  return context


def _write(directory, step, tree, metadata, *, num_kept):
  """Saves a step, in place of one of that number, and removes all but the newest `num_kept`."""
  directory = pathlib.Path(directory).absolute()
  directory.mkdir(parents=True, exist_ok=True)
  tree = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, np.generic) else leaf, tree)
  try:
    if step in _steps(directory):  # left by a run that was found damaged and was repeated
      shutil.rmtree(directory / str(step))
    with _context():
      ocp.save_checkpointables(directory / str(step), {'state': tree, 'metadata': metadata})
    for old in _steps(directory)[:-num_kept]:
      shutil.rmtree(directory / str(old))
  except Exception as error:  # orbax and tensorstore raise many types on a full disk
    raise CheckpointError(f'cannot write a checkpoint in {directory}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
  """The end of an error's first line; tensorstore puts the cause there, behind long paths."""
  text = str(error).splitlines()[0] if str(error) else type(error).__name__
  return text if len(text) <= 160 else f'... {text[-160:]}'

"""Reading and writing arrays by name, in the forms of other programs."""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from dalign_jax import checkpoints, errors, locate
from dalign_jax.foreign import _layouts

Path = tuple[str, ...]


class Stored(NamedTuple):
  """The arrays of a checkpoint.

  Attributes:
    arrays: by their path in the tree; one part where a form has flat names. Those of a PyTorch
      model are under our paths, as our axes lie.
    form: `orbax`, `msgpack`, `safetensors` or `npz`.
    place: where they are.
    layout: of the PyTorch model that they were, None where they were of none.
  """

  arrays: dict[Path, np.ndarray]
  form: str
  place: pathlib.Path
  layout: _layouts.Layout | None = None


def read(found: locate.Checkpoint) -> Stored:
  """Reads all arrays of a checkpoint.

  Args:
    found: by `locate.find`.

  Raises:
    errors.InputError: if it cannot be read, or a package for it is missing.
  """
  try:
    tree = _READ[found.form](found.path)
  except errors.InputError:
    raise
  except Exception as error:  # readers raise many types on damaged files
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise errors.InputError(
      f'{found.path} cannot be read as {found.form}: {reason[-160:]}'
    ) from error
  arrays = _flat(tree)
  names = {'/'.join(path): array for path, array in arrays.items()}
  with errors.blame(str(found.path)):
    layout = _layouts.recognise(names)
  return Stored(layout.ours(names) if layout else arrays, found.form, found.path, layout)


def write(path: pathlib.Path, stored: Mapping[Path, np.ndarray], form: str) -> None:
  """Writes arrays in a form, under their own names.

  Args:
    path: the file, or the folder for Orbax; must not exist.
    stored: the arrays by path.
    form: as in `Stored`.
  """
  _WRITE[form](path, dict(stored))


def _flat(tree: Any) -> dict[Path, np.ndarray]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {tuple(map(_part, path)): np.asarray(leaf) for path, leaf in leaves}


def _part(key) -> str:
  for name in ('key', 'name', 'idx'):
    if hasattr(key, name):
      return str(getattr(key, name))
  return str(key)


def _nested(stored: Mapping[Path, np.ndarray]) -> dict:
  tree: dict = {}
  for path, array in stored.items():
    inner = tree
    for part in path[:-1]:
      inner = inner.setdefault(part, {})
    inner[path[-1]] = array
  return tree


def _names(stored: Mapping[Path, np.ndarray]) -> dict[str, np.ndarray]:
  return {'/'.join(path): np.ascontiguousarray(array) for path, array in stored.items()}


def _read_orbax(path: pathlib.Path) -> Any:
  return checkpoints.load_tree(path)


def _write_orbax(path: pathlib.Path, stored) -> None:
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path.absolute(), _nested(stored))


def _read_msgpack(path: pathlib.Path) -> Any:
  from flax import serialization

  return serialization.msgpack_restore(path.read_bytes())


def _write_msgpack(path: pathlib.Path, stored) -> None:
  from flax import serialization

  path.write_bytes(serialization.msgpack_serialize(_nested(stored)))


def _safetensors():
  try:
    from safetensors import flax, numpy
  except ImportError as error:
    raise errors.InputError(
      "a safetensors file needs a package: pip install 'dalign-jax[deletion]'"
    ) from error
  return flax, numpy


def _read_safetensors(path: pathlib.Path) -> Any:
  return _safetensors()[0].load_file(str(path))  # that of NumPy reads no bfloat16


def _write_safetensors(path: pathlib.Path, stored) -> None:
  _safetensors()[1].save_file(_names(stored), str(path))


def _read_npz(path: pathlib.Path) -> Any:
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _write_npz(path: pathlib.Path, stored) -> None:
  with open(path, 'wb') as file:
    arrays: dict[str, Any] = _names(stored)
    np.savez(file, **arrays)


_READ: dict[str, Callable[[pathlib.Path], Any]] = {
  'orbax': _read_orbax,
  'msgpack': _read_msgpack,
  'safetensors': _read_safetensors,
  'npz': _read_npz,
}
_WRITE: dict[str, Callable[[pathlib.Path, dict], None]] = {
  'orbax': _write_orbax,
  'msgpack': _write_msgpack,
  'safetensors': _write_safetensors,
  'npz': _write_npz,
}

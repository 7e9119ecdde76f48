"""Decoded sources kept on disk as memory-mapped arrays, and the hash that names their content."""

from collections.abc import Callable
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
from typing import Any

import numpy as np

from dalign_jax import errors, image_rows, types
from dalign_jax.data import _base, _taken

_FORMAT = 2
_DECODING = 'dalign_jax_tmp_'  # begins the names of folders that are being made
_ROWS = 4096
_IDLE_SECONDS = 24 * 3600


def content_hash(dataset: types.Dataset) -> str:
  """SHA-256 over everything in a data set, in blocks: memory-mapped sets are never loaded whole.

  Args:
    dataset: the rows; the same rows in another order have another hash.

  Returns:
    64 hexadecimal digits.

  Example:
    >>> from dalign_jax import types
    >>> images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32)
    >>> content_hash(types.Dataset(images, labels, np.array(['a', 'b'])))[:8]
    'ecac9a87'
  """
  digest = hashlib.sha256()
  for name in ('images', 'labels', 'group'):
    array = getattr(dataset, name)
    digest.update(f'{name} {"none" if array is None else list(array.shape)}\n'.encode())
    for start in range(0, 0 if array is None else len(array), _ROWS):
      rows = array[start : start + _ROWS]
      digest.update(np.ascontiguousarray(rows, rows.dtype.newbyteorder('<')))
  digest.update('\0'.join(dataset.ids.tolist()).encode())  # no matter how wide the array's items
  return digest.hexdigest()


def cached(cache_dir: str | pathlib.Path, key: dict, read: Callable[[], _base.Source]):
  """The source kept under `key`, decoded and stored first where it is missing or damaged.

  Args:
    cache_dir: folder of all caches; made if missing.
    key: what JSON can hold; equal keys mean equal content.
    read: decodes the source.

  Returns:
    The source; its images stay in their file where they take more than half a GiB.

  Raises:
    ValueError: if the folder cannot be written.
  """
  text = json.dumps({'format': _FORMAT, **key}, sort_keys=True)
  folder = pathlib.Path(cache_dir) / hashlib.sha256(text.encode()).hexdigest()[:24]
  was_there = folder.exists()
  source = _restore(folder)
  if source is not None:
    return source
  with _writing(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(folder.parent)
    spool = pathlib.Path(tempfile.mkdtemp(prefix=_DECODING, dir=folder.parent))
  try:
    with _base.spooled_in(spool):
      source = _read(read, folder)
    with _writing(folder):
      _store(folder, source, key)
  finally:
    shutil.rmtree(spool, ignore_errors=True)
  source = _restore(folder) or source
  if not was_there:
    return source
  note = f'decoded again, since what was kept in {folder} was damaged'
  return dataclasses.replace(source, notes=(*source.notes, note))


def _read(read, folder):
  """Decodes; a disk that is full of it is the cache's."""
  try:
    return read()
  except OSError as error:
    if error.errno != errno.ENOSPC:
      raise
    with _writing(folder):
      raise


def _remove_left(place: pathlib.Path) -> None:
  """Removes what processes left that were killed while they decoded, a day ago or before."""
  for folder in place.glob(f'{_DECODING}*'):
    try:
      changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
      continue  # it has just gone
    if time.time() - changed > _IDLE_SECONDS:
      shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _writing(folder):
  """Says which flag names the folder that cannot be written to."""
  try:
    yield
  except OSError as error:
    raise errors.InputError(
      f'cannot write the decoded images to {folder} ({error}); name a folder with room to write to',
      argument='cache_dir',
    ) from error


def cache_state(name: str) -> str | None:
  """What a folder of this name is, in a place of caches.

  Args:
    name: of the folder.

  Returns:
    'finished', 'decoding' for one that is being made, or None: it is somebody else's.
  """
  if name.startswith(_DECODING):
    return 'decoding'
  return 'finished' if re.fullmatch('[0-9a-f]{24}', name) else None


def drop_cached(cache_dir: str | pathlib.Path, content: str) -> int:
  """Deletes what is cached of a data set, since a cache would outlive samples that are deleted.

  Args:
    cache_dir: folder of all caches.
    content: the set's `content_hash`.

  Returns:
    How many copies there were.
  """
  dropped = 0
  for path in pathlib.Path(cache_dir).glob('*/source.json'):
    try:
      is_it = json.loads(path.read_text())['content_hash'] == content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      continue
    if is_it:
      shutil.rmtree(path.parent)
      dropped += 1
  return dropped


def _restore(folder: pathlib.Path) -> _base.Source | None:
  """The source stored there, or None if it is missing or not what was stored."""
  try:
    meta = json.loads((folder / 'source.json').read_text())
    images = _images(folder / 'images.npy')
    rest: dict[str, Any] = {
      name: np.load(folder / f'{name}.npy', allow_pickle=False) if name in meta['arrays'] else None
      for name in ('labels', 'ids', 'group')
    }
    dataset = types.Dataset(images, **rest)
    if content_hash(dataset) != meta['content_hash']:
      return None
    group_names = None if meta['group_names'] is None else tuple(meta['group_names'])
    names, splits, notes = (tuple(meta[name]) for name in ('class_names', 'splits', 'notes'))
    left_out = tuple(_taken.LeftOut(*kind) for kind in meta['left_out'])
    return _base.Source(
      dataset, names, group_names, splits, notes, left_out, meta['name'], meta['split']
    )
  except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
    return None


def _images(path: pathlib.Path) -> Any:
  """The images of a file: in memory, or left there where they are many."""
  if path.stat().st_size <= _base.IN_MEMORY:
    return np.load(path, allow_pickle=False)
  return image_rows.ImageRows([image_rows.ImageFile(path)])


def _store(folder: pathlib.Path, source: _base.Source, key: dict) -> None:
  """Writes a temporary folder and renames it: other processes see all of it or nothing."""
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=_DECODING, dir=folder.parent))
  try:
    dataset = source.dataset
    arrays = {'images': dataset.images, 'labels': dataset.labels, 'ids': dataset.ids}
    if dataset.group is not None:
      arrays['group'] = dataset.group
    for name, array in arrays.items():
      if isinstance(array, image_rows.ImageRows):
        image_rows.save(temporary / f'{name}.npy', array)
      else:
        np.save(temporary / f'{name}.npy', array, allow_pickle=False)
    meta = {
      'key': key,
      'arrays': sorted(arrays),
      'content_hash': content_hash(dataset),
      'class_names': source.class_names,
      'group_names': source.group_names,
      'splits': source.splits,
      'notes': source.notes,
      'left_out': source.left_out,
      'name': source.name,
      'split': source.split,
    }
    (temporary / 'source.json').write_text(json.dumps(meta, indent=1))
    if folder.exists() and _restore(folder) is None:
      shutil.rmtree(folder, ignore_errors=True)
    try:
      os.replace(temporary, folder)
    except OSError as error:  # another process was first: its folder is as good as ours
      if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)

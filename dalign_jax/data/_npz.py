"""One npz file of arrays: looked at before memory is taken, and put into the usual form."""

import os
import pathlib
import zipfile

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _arrays, _base, _files

_SUSPICIOUS = 1 << 30  # bytes from which a file of 1/1000 of its content is taken for a bomb
_FAULTS = (ValueError, OSError, EOFError, TypeError, AttributeError, KeyError, zipfile.BadZipFile)


def npz(request: _base.Request) -> _base.Opened:
  """A file of arrays `images`, `labels` and perhaps `ids` and `group`; see `_arrays`."""
  _base.require_defaults(request)
  path = pathlib.Path(request.path).expanduser()
  if not path.is_file():
    raise errors.InputError(f'{request.name}: there is no file {path}; give npz:PATH')

  def read(progress):
    arrays, notes = _arrays.usual_form(request, _read_arrays(request, path))
    images, labels, ids, group = arrays
    is_known = labels != -1 if labels.dtype.kind in 'iu' else np.ones(len(labels), bool)
    known = np.flatnonzero(is_known)
    stack, white = _base.ImageStack(request, len(known)), _arrays.white(images)
    for block in _base.blocks(len(known), progress):
      for row in block:
        stack.append(f'row {known[row]}', _arrays.pixels(images[known[row]], white))
    unknown = ids[~is_known]
    return _base.build(
      request,
      stack.array(),
      labels[known],
      ids[known],
      None if group is None else group[known],
      notes=notes,
      left_out=_base.note_unknown('labels', len(labels), unknown),
    )

  return _base.Opened(_files.fingerprint(path, [path]), read)


def _read_arrays(request, path):
  try:
    _check_sizes(request, path)
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except errors.InputError:
    raise
  except (*_FAULTS, MemoryError) as error:
    raise errors.InputError(
      f'{request.name} is not a readable npz file of plain arrays ({error}); write it with '
      'np.savez(PATH, images=..., labels=...)'
    ) from error


def _check_sizes(request, path):
  """Raises for arrays that claim more than there is, by their headers, before they are read."""
  total = 0
  with zipfile.ZipFile(path) as archive:
    for entry in archive.infolist():
      with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
          (1, 0): np.lib.format.read_array_header_1_0,
          (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
          raise ValueError(f'{entry.filename} is of the npy version {version}')
        shape, _, dtype = read_header(file)
        claimed = dtype.itemsize
        for size in shape:
          claimed *= int(size)  # as Python's integers, which do not overflow
        held = entry.file_size - file.tell()
      if not dtype.hasobject and claimed != held:
        raise errors.InputError(
          f'{request.name}: {entry.filename} claims {claimed:,} bytes in its header and holds '
          f'{held:,}; the file is damaged or made to fill the memory'
        )
      if held > _SUSPICIOUS and held > 1000 * entry.compress_size:
        raise errors.InputError(
          f'{request.name}: {entry.filename} packs {held:,} bytes into {entry.compress_size:,}, '
          'which no pictures do; write it with np.savez, which packs nothing, if it is meant'
        )
      total += held
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if total > memory:
    raise errors.InputError(
      f'{request.name} holds {total:,} bytes, this machine has {memory:,} of memory; use a '
      'prepared TFDS data set or a folder'
    )

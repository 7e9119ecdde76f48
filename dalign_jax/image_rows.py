"""Images that stay in files: rows that are read when they are used, and never as a whole.

`types.Dataset.images` is an array, or the `ImageRows` that stand for one: they have its shape and
its type, are indexed along the first axis, and choosing or joining rows copies nothing.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
from typing import Any
import weakref

import numpy as np

from dalign_jax import errors

_BLOCK = 512  # rows that an iteration reads at a time


class ImageFile:
  """The images of an .npy file, read from it row by row.

  The file is not memory-mapped, since mapped pages count as the process's own memory.

  Attributes:
    shape: `[N, H, W, C]`.
  """

  def __init__(self, path: str | os.PathLike):
    """Opens a file of uint8 images `[N, H, W, C]`; raises InputError for anything else."""
    self.path = pathlib.Path(path)
    with open(self.path, 'rb') as file:
      version = np.lib.format.read_magic(file)
      read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
      self.shape, is_fortran, dtype = read_header(file)
      self._start = file.tell()
    if dtype != np.uint8 or len(self.shape) != 4 or is_fortran:
      raise errors.InputError(f'{path} must hold uint8 [N, H, W, C], got {dtype} {self.shape}')
    self._row_bytes = int(np.prod(self.shape[1:]))
    wanted, held = self._start + self.shape[0] * self._row_bytes, self.path.stat().st_size
    if held != wanted:
      raise errors.InputError(f'{path} claims {wanted:,} bytes in its header and holds {held:,}')
    self._descriptor = os.open(self.path, os.O_RDONLY)  # so that it can be read when it is deleted
    weakref.finalize(self, os.close, self._descriptor)

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    """The images `[len(rows), H, W, C]`; neighbours are read at once."""
    found = np.empty((len(rows), *self.shape[1:]), np.uint8)
    for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
      if len(run):
        self._read(found[run[0] : run[-1] + 1], int(rows[run[0]]))
    return found

  def _read(self, into: np.ndarray, row: int) -> None:
    view, offset = memoryview(into).cast('B'), self._start + row * self._row_bytes
    while len(view):
      count = os.preadv(self._descriptor, [view], offset)
      if not count:
        raise OSError(f'{self.path} ends before row {row + len(into)}')
      view, offset = view[count:], offset + count


class ImageRows:
  """Rows of one or more arrays or files of images, in any order.

  Attributes:
    shape: `(N, H, W, C)`.
    dtype: uint8.
    ndim: 4.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(
    self,
    sources: Sequence[np.ndarray | ImageFile],
    source_of: np.ndarray | None = None,
    row_of: np.ndarray | None = None,
  ):
    """The rows `row_of[i]` of `sources[source_of[i]]`; by default all, one source after the other.

    Args:
      sources: uint8 images of one shape `[N_s, H, W, C]`.
      source_of: int `[N]`.
      row_of: int `[N]`.
    """
    self._sources = tuple(sources)
    sizes = [len(source) for source in sources]
    if source_of is None or row_of is None:
      source_of = np.repeat(np.arange(len(sizes)), sizes)
      row_of = np.concatenate([np.arange(size) for size in sizes])
    self._source_of, self._row_of = np.asarray(source_of, np.int32), np.asarray(row_of, np.int64)
    self.shape = (len(self._row_of), *self._sources[0].shape[1:])

  @property
  def nbytes(self) -> int:
    return int(np.prod(self.shape))

  @property
  def whole_file(self) -> pathlib.Path | None:
    """The file of which these are all the rows, in order, if there is one."""
    source = self._sources[0]
    is_whole = len(self._sources) == 1 and np.array_equal(self._row_of, np.arange(len(source)))
    return source.path if is_whole and isinstance(source, ImageFile) else None

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, key) -> np.ndarray:
    """The images of one row, of a slice or of an array of rows, read now."""
    source_of, rows = self._source_of[key], self._row_of[key]
    if np.ndim(rows) == 0:
      return self._read(source_of[None], rows[None])[0]
    return self._read(source_of, rows)

  def __iter__(self) -> Iterator[np.ndarray]:
    for start in range(0, len(self), _BLOCK):
      yield from self[start : start + _BLOCK]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """All images in memory, for what cannot do with less."""
    del copy
    return self[:] if dtype is None else self[:].astype(dtype)

  def take(self, rows: np.ndarray) -> 'ImageRows':
    """Some of the rows; nothing is read."""
    return ImageRows(self._sources, self._source_of[rows], self._row_of[rows])

  def join(self, others: 'ImageRows') -> 'ImageRows':
    """These rows, then the others; nothing is read."""
    sources = list(self._sources)
    numbers = []
    for source in others._sources:
      same = [k for k, mine in enumerate(sources) if mine is source]
      numbers.append(same[0] if same else len(sources))
      sources += [] if same else [source]
    source_of = np.concatenate([self._source_of, np.array(numbers, np.int32)[others._source_of]])
    return ImageRows(sources, source_of, np.concatenate([self._row_of, others._row_of]))

  def _read(self, source_of, rows) -> np.ndarray:
    found = np.empty((len(rows), *self.shape[1:]), np.uint8)
    for number, source in enumerate(self._sources):
      here = np.flatnonzero(source_of == number)
      here = here[np.argsort(rows[here], kind='stable')]  # a file is read from front to back
      if len(here):
        found[here] = source[rows[here]]
    return found


class ImageWriter:
  """Writes images one by one into an .npy file, whose number need not be known before.

  Args:
    path: the new file.
    shape: of an image, `(H, W, C)`.
  """

  def __init__(self, path: str | os.PathLike, shape: tuple[int, ...]):
    self._path, self._shape, self._count = pathlib.Path(path), tuple(shape), 0
    self._file = open(path, 'wb')  # closed by `finish`
    self._write_header()

  def append(self, images: np.ndarray) -> None:
    """Adds images, uint8 `[H, W, C]` or `[n, H, W, C]`."""
    self._file.write(np.ascontiguousarray(images, np.uint8))
    self._count += images.size // int(np.prod(self._shape))

  def finish(self) -> ImageFile:
    """Closes the file; returns it for reading."""
    self._file.seek(0)
    self._write_header()
    self._file.close()
    return ImageFile(self._path)

  def _write_header(self):
    """The header, which leaves room for any number of images (NumPy pads the first axis)."""
    header = {'descr': '|u1', 'fortran_order': False, 'shape': (self._count, *self._shape)}
    np.lib.format.write_array_header_1_0(self._file, header)


def save(path: str | os.PathLike, images: ImageRows) -> None:
  """Puts rows into an .npy file, block by block; a link to their file where they are all of it."""
  if (whole := images.whole_file) is not None:
    with contextlib.suppress(OSError):  # another file system
      os.link(whole, path)
      return
  writer = ImageWriter(path, images.shape[1:])
  for start in range(0, len(images), _BLOCK):
    writer.append(images[start : start + _BLOCK])
  writer.finish()


def take(images: Any, rows: np.ndarray) -> Any:
  """Some rows of an array, copied, or of `ImageRows`, not read."""
  return images.take(rows) if isinstance(images, ImageRows) else images[rows]


def concatenate(first: Any, second: Any) -> Any:
  """The rows of both: an array where both are in memory."""
  if not isinstance(first, ImageRows) and not isinstance(second, ImageRows):
    return np.concatenate([first, second])
  as_rows = lambda images: images if isinstance(images, ImageRows) else ImageRows([images])
  return as_rows(first).join(as_rows(second))

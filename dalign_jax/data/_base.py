"""Requests to sources, their results, and the steps that sources share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from dalign_jax import errors, image_rows, types
from dalign_jax.data import _taken

IN_MEMORY = 1 << 29  # bytes of decoded images up to which they are held in memory
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set with the names that its numbers stand for.

  Attributes:
    dataset: the rows.
    class_names: name of each label.
    group_names: name of each group, None where the rows have no groups.
    splits: the splits that `load` can be asked for.
    notes: what a report should say about the reading, such as rows that were left out.
    left_out: what was not taken, by kind; the notes say it as well.
    name: what was read.
    split: the split, and where it came from.
  """

  dataset: types.Dataset
  class_names: tuple[str, ...]
  group_names: tuple[str, ...] | None = None
  splits: tuple[str, ...] = ('train',)
  notes: tuple[str, ...] = ()
  left_out: tuple[_taken.LeftOut, ...] = ()
  name: str = ''
  split: str = 'train'

  @property
  def taken(self) -> _taken.Taken:
    """Account of the data as read, for a run to print and record."""
    dataset = self.dataset
    if dataset.is_multi_label:
      counts = dataset.labels.sum(0).tolist()
    else:
      counts = np.bincount(dataset.labels, minlength=len(self.class_names)).tolist()
    said = {str(kind) for kind in self.left_out}
    return _taken.Taken(
      name=self.name,
      split=self.split,
      splits=self.splits,
      classes=tuple(zip(self.class_names, counts, strict=True)),
      image=f'{" x ".join(map(str, dataset.images.shape[1:]))} {dataset.images.dtype}',
      rows=len(dataset),
      people=None if dataset.group is None else len(np.unique(dataset.group)),
      left_out=self.left_out,
      notes=tuple(note for note in self.notes if note not in said),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """The arguments of `load`; `path` is the name without a prefix such as `npz:`."""

  name: str
  path: str
  data_dir: str | None = None
  split: str = 'train'
  label_key: str = 'label'
  group_key: str | None = None
  id_key: str | None = None
  image_key: str = 'image'
  image_size: int | None = None
  skip_unreadable: bool = False
  channels: int | None = None  # of pictures


class Opened(NamedTuple):
  """A source that was found: what its content depends on, and how to decode it.

  Attributes:
    fingerprint: gives what JSON can hold; equal fingerprints mean equal content. It may read all
      files, so it is asked for only where decoded images are kept. None: there is nothing to keep.
    read: decodes everything; calls its argument with `(rows done, total rows)`.
  """

  fingerprint: Callable[[], dict] | None
  read: Callable[[Callable[[int, int], None]], Source]


def require_defaults(
  request: Request, splits: Iterable[str] = ('train',), allowed: Sequence[str] = ()
) -> None:
  """Raises where keys or a split were asked for that this kind of source does not have."""
  for field in dataclasses.fields(Request):
    value = getattr(request, field.name)
    if field.name.endswith('_key') and field.name not in allowed and value != field.default:
      raise errors.InputError(
        f'{value!r} names a feature of a TFDS data set; {request.name} has none: leave it out',
        argument=field.name,
      )
  require_split(request, request.split, splits)


def require_group(request: Request, row: Any, key: str, group: Any) -> None:
  """Raises where a row of a table has no group."""
  if group in (None, ''):
    raise errors.InputError(
      f'{request.name}: {row} has no {key}; give every row one, or leave the column out',
      argument='group_key',
    )


def require_split(request: Request, split: str, splits: Iterable[str]) -> None:
  """Raises unless the split is one of `splits`."""
  if split not in splits:
    known = ', '.join(splits)
    raise errors.InputError(f'{request.name} has no split {request.split!r}; it has: {known}')


def blocks(count: int, progress: Callable[[int, int], None]) -> Iterable[range]:
  """Row numbers in blocks; calls `progress` after each block."""
  for start in range(0, count, _BLOCK):
    stop = min(count, start + _BLOCK)
    yield range(start, stop)
    progress(stop, count)


_spools: list[pathlib.Path] = []  # folders for images that are being decoded, the last one in use


@contextlib.contextmanager
def spooled_in(folder: pathlib.Path) -> Iterator[None]:
  """Image stacks that would not fit into memory well are written into files of a folder."""
  _spools.append(folder)
  try:
    yield
  finally:
    _spools.pop()


class ImageStack:
  """Gathers images of one shape, in memory, or in a file where there is a folder for many."""

  def __init__(self, request: Request, capacity: int):
    self._request, self._capacity, self._size = request, capacity, 0
    self._images = np.empty((0, 0, 0, 0), np.uint8)
    self._writer: image_rows.ImageWriter | None = None

  def append(self, row: str, image: np.ndarray) -> None:
    """Adds an image, resized where the request says so; `row` names it in errors."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.dtype != np.uint8:
      raise errors.InputError(
        f'{self._request.name}: images must be uint8 [H, W, C], {row} is '
        f'{image.dtype} {list(image.shape)}'
      )
    if self._request.image_size is not None:
      image = resize(image, self._request.image_size)
    if self._size == 0:
      self._start(image)
    if image.shape != self._shape:
      raise errors.InputError(
        f'{self._request.name}: images must have one shape, {row} is '
        f'{list(image.shape)} and those before it {list(self._shape)}; '
        'image_size=N makes all of them N x N'
      )
    if self._writer:
      self._writer.append(image)
    else:
      self._images[self._size] = image
    self._size += 1

  def _start(self, image):
    self._shape = image.shape
    if _spools and self._capacity * image.size > IN_MEMORY:
      handle, path = tempfile.mkstemp(suffix='.npy', dir=_spools[-1])
      os.close(handle)
      self._writer = image_rows.ImageWriter(path, image.shape)
    else:
      self._images = np.empty((self._capacity, *image.shape), np.uint8)

  def array(self) -> Any:
    """The images added so far, `[N, H, W, C]`."""
    if self._writer:
      return image_rows.ImageRows([self._writer.finish()])
    return self._images[: self._size]


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """The uint8 `[H, W, C]` image as `[size, size, C]`: bilinear, antialiased."""
  if image.shape[:2] == (size, size):
    return image
  channels = [PIL.Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0)]
  bilinear = PIL.Image.Resampling.BILINEAR
  return np.stack([np.asarray(c.resize((size, size), bilinear)) for c in channels], axis=-1)


def index(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
  """Numbers the values in sorted order.

  Args:
    values: `[N]` integers or strings.

  Returns:
    `[N]` int32 indices and the names of the distinct values.
  """
  distinct, indices = np.unique(values, return_inverse=True)
  return indices.astype(np.int32), tuple(str(value) for value in distinct)


def note_unknown(label_key: str, count: int, unknown: Sequence[str]) -> list[_taken.LeftOut]:
  """Note that `unknown` of `count` rows have the label -1; nothing if none have."""
  if not len(unknown):
    return []
  what = f'of {count} rows with {label_key} -1 (unknown)'
  return [_taken.LeftOut(what, len(unknown), str(unknown[0]))]


def build(
  request: Request,
  images: Any,
  labels: np.ndarray,
  ids: np.ndarray,
  group: np.ndarray | None = None,
  *,
  class_names: tuple[str, ...] | None = None,
  group_names: tuple[str, ...] | None = None,
  splits: tuple[str, ...] = ('train',),
  notes: Sequence[str] = (),
  left_out: Sequence[_taken.LeftOut] = (),
  split: str | None = None,
) -> Source:
  """Checks the arrays and numbers labels and groups that have no names yet."""
  if not len(labels):
    raise errors.InputError(f'{request.name} has no labelled row in split {request.split!r}')
  if class_names is None:
    labels, class_names = index(labels)
  if group is not None and group_names is None:
    group, group_names = index(group)
  distinct, counts = np.unique(ids, return_counts=True)
  if len(distinct) < len(ids):
    repeated = distinct[counts > 1]
    raise errors.InputError(
      f'{request.name}: ids must be unique, {len(repeated)} occur more than once, '
      f'such as {str(repeated[0])!r}'
    )
  group = None if group is None else np.asarray(group, np.int32)
  dataset = types.Dataset(images, np.asarray(labels, np.int32), ids, group)
  if split is None:
    split = request.split if len(splits) > 1 else f'{request.split} (the only one)'
  return Source(
    dataset,
    tuple(class_names),
    group_names,
    tuple(splits),
    (*map(str, left_out), *notes),
    tuple(left_out),
    request.name,
    split,
  )

"""The table of sources, and `load`, which reads any of them by name."""

from collections.abc import Callable, Sequence
import dataclasses
import importlib.util
import os
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _base, _cache, _csv, _embedded, _faces, _folder, _hf, _npy, _npz


def _tfds(request: _base.Request) -> _base.Opened:
  if importlib.util.find_spec('tensorflow_datasets') is None:
    raise errors.InputError(
      f"{request.name}: TFDS names need tensorflow-datasets: pip install 'dalign-jax[data]'"
    )
  from dalign_jax.data import _tfds as tfds_source  # half a second that only TFDS names pay

  return tfds_source.tfds(request)


class Reader(NamedTuple):
  """A kind of source.

  Attributes:
    open: finds what the request names.
    path: what follows the kind and a colon in its name; empty where the kind is the whole name.
  """

  open: Callable[[_base.Request], _base.Opened]
  path: str = ''


SOURCES: dict[str, Reader] = {
  'mnist5k': Reader(_embedded.mnist5k),
  'digits': Reader(_embedded.digits),
  'npz': Reader(_npz.npz, 'FILE'),
  'npy': Reader(_npy.npy, 'PATH'),
  'folder': Reader(_folder.folder, 'PATH'),
  'csv': Reader(_csv.table, 'FILE'),
  'hf': Reader(_hf.hf, 'PATH'),
  'mufac': Reader(_faces.mufac, 'PATH'),
  'mucac': Reader(_faces.mucac, 'PATH'),
  'celeba': Reader(_faces.celeba, 'PATH'),
  'lfw': Reader(_faces.lfw, 'PATH'),
  'tfds': Reader(_tfds, 'NAME'),
}


def load(
  name: str,
  *,
  data_dir: str | pathlib.Path | None = None,
  split: str = 'train',
  label_key: str = 'label',
  group_key: str | None = None,
  id_key: str | None = None,
  image_key: str = 'image',
  image_size: int | None = None,
  cache_dir: str | pathlib.Path | None = None,
  class_names: Sequence[str] | None = None,
  skip_unreadable: bool = False,
  channels: int = 0,
  progress: Callable[[int, int], None] | None = None,
) -> _base.Source:
  """Reads a data set: `mnist5k`, `digits`, any TFDS name, or `npz:`, `folder:`, `csv:FILE` ...

  The two embedded sets need no network. TFDS names are read without TensorFlow, from data prepared
  in the array_record format. An npz file holds `images`, `labels` and perhaps `ids` and `group`;
  a folder of such .npy files (`npy:`) may be larger than memory.
  A folder holds one folder of images a class, or such folders inside `train`, `valid`, `Test` or
  other usual names; ids are the relative paths. A table (`csv:`) has the columns `file` and `label`
  and perhaps `group` and `split`. `hf:` reads Parquet or Arrow files of a Hugging Face data set.
  The face sets `mufac:`, `mucac:`, `celeba:` and `lfw:` are read as they are distributed, with
  people as groups. What was taken, left out and understood is in the source's `taken`. Pictures are
  turned as their EXIF orientation says, laid on white where transparent, and scaled to 8 bits.

  Args:
    name: what to read; a TFDS name may end in a configuration and a version (`name/config:1.0.0`).
    data_dir: where TFDS data lies, None for the default of TFDS.
    split: which split; TFDS takes slices such as `train[:1000]`.
    label_key: TFDS feature with one integer a row, `outer/inner` where nested; of `mucac:` and
      `celeba:` an attribute, or several with commas between; of `lfw:` identity or gender; of a
      folder age, gender, race or prefix, where the names of files say it.
    group_key: TFDS feature that says to which group (person) a row belongs.
    id_key: TFDS feature that names the row; None takes `id`, else split and position.
    image_key: TFDS feature with the image.
    image_size: side in pixels to which all images are resized (bilinear, antialiased; not
      cropped); None keeps them, and they must then have one shape.
    cache_dir: where decoded arrays are kept, to be memory-mapped from then on; None keeps none.
    class_names: the classes in order, so that a test split gets the numbers of its training split.
    skip_unreadable: leave pictures out that cannot be read, and list them; else they are errors.
    channels: read picture files as grey (1) or in colour (3); 0: grey where all are. Arrays are
      taken as they are.
    progress: called with `(rows done, total rows)` while images are decoded.

  Returns:
    The data set, with the names of classes and groups.

  Raises:
    ValueError: for anything unknown, missing, unreadable or of the wrong shape.

  Example:
    >>> source = load('digits')
    >>> source.dataset.images.shape, source.class_names[-1], str(source.dataset.ids[0])
    ((1797, 8, 8, 1), '9', 'digits_00000')
  """
  if image_size is not None and (int(image_size) != image_size or image_size < 1):
    raise errors.InputError(
      f'must be a number of pixels, 1 or more, got {image_size}', argument='image_size'
    )
  kind, path = _parse(name)
  request = _base.Request(
    name=name,
    path=path,
    data_dir=os.path.expanduser(data_dir) if data_dir else None,
    split=split,
    label_key=label_key,
    group_key=group_key,
    id_key=id_key,
    image_key=image_key,
    image_size=None if image_size is None else int(image_size),
    skip_unreadable=skip_unreadable,
    channels=channels or None,
  )
  opened = SOURCES[kind].open(request)
  read = lambda: opened.read(progress or (lambda done, total: None))
  if cache_dir and opened.fingerprint is not None:
    key = dataclasses.asdict(request) | opened.fingerprint()
    source = _cache.cached(os.path.expanduser(cache_dir), key, read)
  else:
    source = read()
  return source if class_names is None else _renumber(source, tuple(class_names), name)


def _parse(name: str) -> tuple[str, str]:
  """The kind of source and the rest of the name."""
  prefix, _, path = name.partition(':')
  if prefix in SOURCES and SOURCES[prefix].path:
    if not path:
      raise errors.InputError(f'{name} needs a name or path: {prefix}:{SOURCES[prefix].path}')
    return prefix, path
  return (name, '') if name in SOURCES else ('tfds', name)


def _renumber(source: _base.Source, class_names: tuple[str, ...], name: str) -> _base.Source:
  """The source with labels that follow `class_names`."""
  if source.dataset.is_multi_label:
    if source.class_names != class_names:
      raise errors.InputError(f'{name}: attributes must be {class_names}')
    return source
  present = np.unique(source.dataset.labels)
  unknown = [source.class_names[k] for k in present if source.class_names[k] not in class_names]
  if unknown:
    raise errors.InputError(
      f'{name}: {len(unknown)} classes are not among the {len(class_names)} known ones, '
      f'such as {unknown[0]!r}; known: {", ".join(class_names[:10])}'
    )
  numbers = np.zeros(len(source.class_names), np.int32)
  numbers[present] = [class_names.index(source.class_names[k]) for k in present]
  dataset = dataclasses.replace(source.dataset, labels=numbers[source.dataset.labels])
  return dataclasses.replace(source, dataset=dataset, class_names=class_names)

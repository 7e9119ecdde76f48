"""Any TensorFlow Datasets name, read as a random-access data source without TensorFlow."""

import importlib.util
import io
import pathlib

from absl import logging
import numpy as np
import PIL.Image
import tensorflow_datasets

from dalign_jax import errors
from dalign_jax.data import _base, _files

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}


def tfds(request: _base.Request) -> _base.Opened:
  """A data set prepared in the array_record format, or one that can be prepared here."""
  builder = _prepared(request, _builder(request))
  splits = tuple(builder.info.splits)
  _base.require_split(request, request.split.partition('[')[0], splits)
  features = _flatten(builder.info.features)
  for flag in ('image_key', 'label_key', 'group_key', 'id_key'):
    key = getattr(request, flag)
    if key is not None and key not in features:
      raise errors.InputError(
        f'{key!r} is not a feature of {request.name}; it has: {", ".join(features)}',
        argument=flag,
      )
  integers = [key for key, feature in features.items() if _is_integer(feature)]
  if request.label_key not in integers:
    raise errors.InputError(
      f'{request.label_key!r} must name a feature with one integer a row; '
      f'{request.name} has: {", ".join(integers)}',
      argument='label_key',
    )
  pixels = features[request.image_key]
  if isinstance(pixels, tensorflow_datasets.features.Image) and pixels.np_dtype != np.uint8:
    raise errors.InputError(
      f'{request.image_key!r} of {request.name} has pixels of {np.dtype(pixels.np_dtype)}; uint8 '
      'is needed',
      argument='image_key',
    )
  folder = pathlib.Path(builder.data_path)

  def fingerprint():
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {'path': str(folder), 'files': _files.digest(folder, files)}

  def read(progress):
    try:
      return _read(request, builder, features, progress)
    except errors.InputError:
      raise
    except Exception as error:  # damaged records and images raise many types
      raise errors.InputError(
        f'{request.name}: the records in {folder} cannot be read ({_shorten(error)}); '
        'prepare them again'
      ) from error

  return _base.Opened(fingerprint, read)


def _builder(request):
  try:
    return tensorflow_datasets.builder(request.path, data_dir=request.data_dir)
  except Exception as error:  # tfds raises many types
    reason = _shorten(error)
    not_found = isinstance(error, tensorflow_datasets.core.DatasetNotFoundError)
    if not_found or reason.startswith('Parsing builder name'):
      raise errors.InputError(
        f'unknown data set {request.name}: give mnist5k, digits or a TFDS name, npz:PATH, '
        f'folder:PATH{_list_prepared(request.data_dir)}'
      ) from error
    raise errors.InputError(f'cannot open {request.name} with TFDS: {reason}') from error


def _shorten(error: Exception) -> str:
  return ' '.join(str(error).split())[:200] or type(error).__name__


def _list_prepared(data_dir) -> str:
  if data_dir is None:
    return ' (no data_dir was given)'
  infos = pathlib.Path(data_dir).glob('*/**/dataset_info.json')
  names = sorted({info.relative_to(data_dir).parts[0] for info in infos})
  return f'; prepared in data_dir={data_dir}: {", ".join(names) or "nothing"}'


def _prepared(request, builder):
  """The builder once its data is there; prepares it where that can work."""
  wanted = f'{request.name}'
  if not builder.is_prepared():
    from_catalogue = type(builder).__module__.startswith('tensorflow_datasets.')
    if from_catalogue and importlib.util.find_spec('tensorflow') is None:
      raise errors.InputError(
        f'{wanted} is not prepared in {builder.data_path}{_list_prepared(request.data_dir)}. '
        'Name the folder that holds it as data_dir, or pip install tensorflow, which TFDS '
        'needs to download and prepare it the first time'
      )
    builder = _prepare(request, builder.data_path)
  if builder.info.file_format.value != 'array_record':
    raise errors.InputError(
      f'{wanted} is prepared in {builder.data_path} as {builder.info.file_format.value}, which '
      "needs TensorFlow to read; prepare it with tfds.builder(..., file_format='array_record') "
      'in another folder and name that as data_dir'
    )
  return builder


def _prepare(request, folder):
  logging.info('%s: downloading and preparing into %s', request.name, folder)
  try:
    builder = tensorflow_datasets.builder(
      request.path, data_dir=request.data_dir, file_format='array_record'
    )
    builder.download_and_prepare()
  except Exception as error:  # a builder is foreign code
    raise errors.InputError(
      f'{request.name} could not be prepared in {folder} ({_shorten(error)}); name a '
      'folder that holds it prepared as data_dir'
    ) from error
  return builder


def _flatten(features, prefix=''):
  """All features by name, those inside a nested dictionary as `outer/inner`."""
  flat = {}
  for name, feature in features.items():
    nested = isinstance(feature, tensorflow_datasets.features.FeaturesDict)
    flat.update(_flatten(feature, f'{prefix}{name}/') if nested else {prefix + name: feature})
  return flat


def _is_integer(feature):
  return feature.shape == () and np.dtype(feature.np_dtype).kind in 'iub'


def _read(request, builder, features, progress):
  image_feature = features[request.image_key]
  encoded = isinstance(image_feature, tensorflow_datasets.features.Image)
  encoded = encoded and '/' not in request.image_key  # TFDS itself decodes what lies deeper
  skip = {request.image_key: tensorflow_datasets.decode.SkipDecoding()} if encoded else None
  try:
    source = builder.as_data_source(split=request.split, decoders=skip)
  except ValueError as error:
    raise errors.InputError(
      f'{request.name} has no rows for the split {request.split!r} ({_shorten(error)}); '
      'splits look like train, train[:1000] or train[:10%]'
    ) from error
  mode = _MODES.get(image_feature.shape[-1]) if encoded else None
  id_key = request.id_key or ('id' if 'id' in features else None)
  stack = _base.ImageStack(request, len(source))
  labels, ids, group, unknown = [], [], [], []
  for block in _base.blocks(len(source), progress):
    for row, record in zip(block, source.__getitems__(block), strict=True):
      label = int(_get(record, request.label_key))
      name = _text(_get(record, id_key)) if id_key else f'{request.split}_{row:05d}'
      if label == -1:
        unknown.append(name)
        continue
      image = _get(record, request.image_key)
      stack.append(name, _decode(image, mode) if encoded else np.asarray(image))
      labels.append(label)
      ids.append(name)
      if request.group_key is not None:
        group.append(_text(_get(record, request.group_key)))
  group, group_names = _group(group, features.get(request.group_key))
  return _base.build(
    request,
    stack.array(),
    np.array(labels, np.int64),
    np.array(ids, dtype=str),
    group,
    class_names=_names(features[request.label_key]),
    group_names=group_names,
    splits=tuple(builder.info.splits),
    split=f'{request.split} (of the prepared data set)',
    left_out=_base.note_unknown(request.label_key, len(source), unknown),
  )


def _group(values, feature):
  """Group numbers and names: those of a class feature, else the distinct values in order."""
  if feature is None:
    return None, None
  if _is_integer(feature):
    return np.array(values).astype(np.int64), _names(feature)
  return np.array(values, dtype=str), None


def _names(feature):
  names = getattr(feature, 'names', None)
  return None if names is None else tuple(names)


def _get(record, key):
  for part in key.split('/'):
    record = record[part]
  return record


def _text(value):
  return value.decode() if isinstance(value, bytes) else str(value)


def _decode(data, mode):
  with PIL.Image.open(io.BytesIO(data)) as image:
    return np.asarray(image if mode is None else image.convert(mode))

"""Image data sets of Hugging Face in a local folder: Parquet files, or those of `save_to_disk`."""

import importlib.util
import json
import pathlib
import re

from dalign_jax import errors
from dalign_jax.data import _base, _files, _pictures, _words

_SHARD = re.compile(r'(?P<split>.+?)(-\d{5}-of-\d{5}.*)?$')


def hf(request: _base.Request) -> _base.Opened:
  """Files such as `data/train-00000-of-00002.parquet`, or `train/data-00000-of-00001.arrow`."""
  if importlib.util.find_spec('pyarrow') is None:
    raise errors.InputError(
      f"{request.name}: Parquet and Arrow files need pyarrow: pip install 'dalign-jax[hf]'"
    )
  root = _files.existing_folder(request)
  shards: dict[str, list[pathlib.Path]] = {}
  for file in sorted(root.rglob('*')):
    if file.suffix in ('.parquet', '.arrow') and not file.name.startswith(('.', 'cache-')):
      is_arrow = file.suffix == '.arrow'
      split = file.parent.name if is_arrow and file.parent != root else _split_name(root, file)
      shards.setdefault(split, []).append(file)
  if not shards:
    raise errors.InputError(f'{request.name}: {root} holds no .parquet and no .arrow file')
  splits = tuple(shards)
  split = _words.find_split(request, splits)
  files = shards[split]
  _check_one_place(request, root, split, files)

  def read(progress):
    rows, names, unknown = _rows(request, _read(request, files), split)
    left_out = _base.note_unknown(request.label_key, len(rows) + len(unknown), unknown)
    more = {'class_names': names, 'splits': splits, 'left_out': left_out}
    said = f'{split} (the names of the files)'
    return _pictures.source(request, rows, progress, split=said, **more)

  return _base.Opened(_files.fingerprint(root, files, splits=splits), read)


def _check_one_place(request, root, split, files):
  """Raises where the files of a split may be two data sets."""
  folders = sorted({file.parent.relative_to(root).as_posix() for file in files})
  if len(folders) > 1:
    raise errors.InputError(
      f'{request.name}: the files of the split {split} lie in {len(folders)} folders '
      f'({", ".join(map(_words.show, folders[:4]))}), as configurations of a data set do; name '
      f'the folder of one, such as hf:{_words.show(root / folders[-1])}'
    )
  if len({file.suffix for file in files}) > 1:
    raise errors.InputError(
      f'{request.name}: the split {split} has .parquet and .arrow files, which may hold the same '
      'rows; move one kind elsewhere'
    )


def _split_name(root, file):
  name = _SHARD.match(file.stem)['split']
  if _words.role(name) is None and _words.role(file.parent.name) and file.parent != root:
    return file.parent.name
  return 'train' if name == 'data' else name


def _read(request, files):
  import pyarrow
  from pyarrow import ipc, parquet

  asked = {request.image_key, request.label_key, request.group_key, request.id_key} - {None}
  tables = []
  for file in files:
    try:
      if file.suffix == '.parquet':
        opened = parquet.ParquetFile(file)
        there = opened.schema_arrow.names
        known = [name for name in there if name in {*asked, 'img'}]
        is_whole = asked <= {*known, *(['image'] if 'img' in known else [])}
        tables.append(opened.read(columns=known if is_whole else None))  # all for the error
      else:
        with pyarrow.memory_map(str(file)) as mapped:
          tables.append(ipc.open_stream(mapped).read_all())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
      raise errors.InputError(
        f'{request.name}: {_words.show(file)} cannot be read ({" ".join(str(error).split())[:200]})'
      ) from error
  try:
    return pyarrow.concat_tables(tables)
  except pyarrow.ArrowInvalid as error:
    raise errors.InputError(f'{request.name}: the files have different columns') from error


def _rows(request, table, split):
  """Rows `(id, picture, label, group)`, the names of the classes, and ids without a label."""
  columns = table.column_names
  keys = {argument: getattr(request, argument) for argument in ('label_key', 'group_key', 'id_key')}
  keys['image_key'] = request.image_key
  if request.image_key == 'image' and 'image' not in columns and 'img' in columns:
    keys['image_key'] = 'img'
  for argument, key in keys.items():
    if key is not None and key not in columns:
      raise errors.InputError(
        f'{key!r} is not a column of {request.name}; it has: {", ".join(columns)}',
        argument=argument,
      )
  pick = lambda key: [None] * len(table) if key is None else table[key].to_pylist()
  images, labels, groups = (pick(keys[k]) for k in ('image_key', 'label_key', 'group_key'))
  ids = pick(keys['id_key']) if keys['id_key'] else [f'{split}_{k:05d}' for k in range(len(table))]
  names = _names(table, request.label_key)
  _check_labels(request.label_key, labels, names)
  rows, unknown = [], []
  for name, image, label, group in zip(ids, images, labels, groups, strict=True):
    if label is None or label == -1:
      unknown.append(str(name))
      continue
    content = image.get('bytes') if isinstance(image, dict) else image
    if not isinstance(content, bytes):
      raise errors.InputError(
        f'{keys["image_key"]!r} must be a column of encoded pictures; {name} has none inside the '
        'file',
        argument='image_key',
      )
    if keys['group_key'] is not None:
      _base.require_group(request, name, keys['group_key'], group)
    rows.append((str(name), content, label, None if group is None else str(group)))
  return rows, names, unknown


def _check_labels(key, labels, names):
  """Raises where known labels are neither numbers nor names, or no numbers of `names`."""
  known = [label for label in labels if label is not None and label != -1]
  is_known = lambda x: isinstance(x, int) and 0 <= x < len(names or ())
  if names is None and not all(isinstance(label, (int, str)) for label in known):
    raise errors.InputError(
      f'{key!r} must be a column of whole numbers or names', argument='label_key'
    )
  if names is not None and not all(map(is_known, known)):
    raise errors.InputError(
      f'{key!r} must hold numbers from 0 to {len(names) - 1}, of the {len(names)} classes that the '
      f'data set names, got {next(x for x in known if not is_known(x))!r}',
      argument='label_key',
    )


def _names(table, label_key):
  """The names of the classes by what the data set says of its columns; None where it does not."""
  try:
    described = json.loads((table.schema.metadata or {})[b'huggingface'])
    return tuple(described['info']['features'][label_key]['names'])
  except (KeyError, ValueError, TypeError):
    return None

"""A CSV table that names picture files and their labels."""

import csv
import pathlib

from dalign_jax import errors
from dalign_jax.data import _base, _files, _pictures, _words


def table(request: _base.Request) -> _base.Opened:
  """A table with the columns `file` and `label`, and perhaps `group`, `split` and `id`.

  Files are relative to the table. `image_key`, `label_key`, `group_key` and `id_key` name other
  columns. The ids are the files as written, where there is no column of ids.
  """
  path = pathlib.Path(request.path).expanduser()
  lines = _read(request, path)
  columns = list(lines[0])
  file_key = 'file' if request.image_key == 'image' else request.image_key
  for argument, key in (
    ('image_key', file_key),
    ('label_key', request.label_key),
    ('group_key', request.group_key),
    ('id_key', request.id_key),
  ):
    if key is not None and key not in columns:
      raise errors.InputError(
        f'{path.name} has no column {key!r}; it has: {", ".join(columns)}', argument=argument
      )
  group_key = request.group_key or ('group' if 'group' in columns else None)
  id_key = request.id_key or ('id' if 'id' in columns else file_key)
  splits: tuple[str, ...] = ('train',)
  split = 'train'
  if 'split' in columns:
    splits = tuple(dict.fromkeys(line['split'] for line in lines))
    split = _words.find_split(request, splits)
    lines = [line for line in lines if line['split'] == split]
  else:
    _base.require_split(request, request.split, splits)
  gathered, rows = _files.Gathered(), []
  for line in lines:
    label = line[request.label_key]
    if label in ('', '-1'):
      gathered.add('rows without a label', line[file_key])
      continue
    group = None if group_key is None else line[group_key]
    rows.append((line[id_key], path.parent / line[file_key], label, group))
  missing = [file for _, file, _, _ in rows if not file.is_file()]
  if missing and not request.skip_unreadable:
    raise errors.InputError(
      f'{request.name}: {len(missing)} of {len(rows)} files are missing, such as '
      f'{_words.show(missing[0])}'
    )
  rows, names = _numbered(rows)
  said = f'{split} (the column split)' if 'split' in columns else f'{split} (no column split)'

  def read(progress):
    more = {'class_names': names, 'splits': splits, 'split': said}
    return _pictures.source(request, rows, progress, left_out=gathered.left_out(), **more)

  files = [path, *(file for _, file, _, _ in rows)]
  return _base.Opened(
    lambda: {'path': str(path.resolve()), 'files': _files.digest(path.parent, files)}, read
  )


def _numbered(rows):
  """The rows with labels as numbers: of numbers by value, of names by the alphabet."""
  distinct = {label for _, _, label, _ in rows}
  is_number = all(label.lstrip('-').isdecimal() for label in distinct)
  names = tuple(sorted(distinct, key=int if is_number else None))
  number = {name: k for k, name in enumerate(names)}
  return [(name, file, number[label], group) for name, file, label, group in rows], names


def _read(request, path) -> list[dict[str, str]]:
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file, restval='')
      lines = [{k: (v or '').strip() for k, v in line.items() if k} for line in reader]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(f'{request.name}: cannot read {path} ({error})') from error
  if not lines:
    raise errors.InputError(
      f'{request.name}: {path} must hold a header with the columns file and label, and rows'
    )
  return lines

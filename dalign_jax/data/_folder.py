"""A folder of pictures: folders of classes, such folders in each split, or labels in names."""

from collections.abc import Sequence
import pathlib
import re

from dalign_jax import errors
from dalign_jax.data import _base, _files, _pictures, _words

_AGE_NAME = re.compile(r'(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+')  # as UTKFace's
_PREFIX = re.compile(r'(?P<prefix>[^\W\d_]+)[\W\d_]')
_NAME_KEYS = ('age', 'gender', 'race', 'prefix')


def folder(request: _base.Request) -> _base.Opened:
  """Pictures in folders; the ids are their paths."""
  path = _files.existing_folder(request)
  gathered = _files.Gathered()
  splits = _splits(request, path)
  _base.require_defaults(request, (request.split,), allowed=('label_key',))
  if splits is None:
    _base.require_split(request, request.split, ('train',))
    root, splits = path, ('train',)
    said = f'{request.split} (all: there are no folders of splits)'
  else:
    name = _words.find_split(request, splits)
    root, said = _inner(path / name), f'{request.split} (the folder {name})'
    for entry in _files.subfolders(path):
      if entry.name not in splits:
        gathered.add('folders other than the splits', entry)
  if request.label_key == 'label':
    class_names, rows = _by_folder(request, path, root, gathered)
  else:
    class_names, rows = None, _by_name(request, path, root, gathered)

  def read(progress):
    names = {'class_names': class_names, 'splits': splits, 'split': said}
    return _pictures.source(request, rows, progress, left_out=gathered.left_out(), **names)

  files = [file for _, file, _, _ in rows]
  account = {'splits': splits, 'left_out': gathered.left_out()}
  return _base.Opened(_files.fingerprint(path, files, **account), read)


def _splits(request, path: pathlib.Path) -> tuple[str, ...] | None:
  """The names of the folders that are splits, None where the folders are classes."""
  entries = _files.subfolders(path)
  classes_in = lambda split: [c.name for c in _files.subfolders(split) if _files.has_pictures(c)]
  nested = {entry.name: classes_in(_inner(entry)) for entry in entries}
  with_classes = [e.name for e in entries if nested[e.name]]
  if request.label_key != 'label':  # names say the classes: pictures lie in the splits themselves
    with_classes = [e.name for e in entries if _files.has_pictures(e)]
  usual = [name for name in with_classes if _words.role(name)]
  if request.split in with_classes and request.split not in usual:
    usual += [name for name in with_classes if nested[name] == nested[request.split]]
  others = [e.name for e in entries if e.name not in usual]
  if usual:
    order = {'train': 0, 'validation': 1, 'test': 2, None: 3}
    classes = set(nested[usual[0]])
    if len(usual) == 1 and any(
      _files.has_pictures(path / name) and not classes & set(nested[name]) and not _is_aside(name)
      for name in others
    ):
      raise errors.InputError(
        f'{request.name}: {usual[0]} may be a split or a class next to {", ".join(others)}; move '
        'what does not belong to the classes elsewhere'
      )
    return tuple(sorted(usual, key=lambda name: (order[_words.role(name)], name)))
  flat = [entry.name for entry in entries if not nested[entry.name] and _files.has_pictures(entry)]
  if len(flat) > 1 and all(map(_words.role, flat)) and request.label_key == 'label':
    raise errors.InputError(
      f'{request.name}: the folders {", ".join(flat)} are called like splits and hold pictures '
      'without folders of classes; say where labels are: --label_key=prefix takes them from names '
      'such as cat.0.jpg, and csv:PATH from a table with the columns file and label',
      argument='label_key',
    )
  alike = [name for name in with_classes if len(nested[name]) > 1]
  alike = [name for name in alike if nested[name] == nested[alike[0]]]
  if len(alike) > 1 and request.label_key == 'label':
    raise errors.InputError(
      f'{request.name}: the folders {", ".join(alike)} hold the same folders '
      f'({", ".join(nested[alike[0]][:4])}), as splits do; say which to train on',
      argument='train_split',
    )
  return None


def _is_aside(name):
  """Whether pictures in such a folder are usually no class."""
  return any(word in name.lower() for word in ('unlabel', 'pred', 'extra', 'sample', 'log'))


def _inner(split: pathlib.Path) -> pathlib.Path:
  """The folder itself, or the only one inside that is called like it (`seg_train/seg_train`)."""
  inside = _files.subfolders(split)
  if len(inside) == 1 and _words.role(inside[0].name) == _words.role(split.name) is not None:
    return inside[0]
  return split


def _row(path, file, label):
  return _words.show(file.relative_to(path).as_posix()), file, label, None


def _by_folder(request, path, root, gathered):
  class_names = [entry.name for entry in _files.subfolders(root)]
  files = _files.list_images(root, class_names, gathered)
  kept = tuple(sorted({name for name, _ in files}))
  for name in class_names:
    if name not in kept:
      gathered.add('folders without pictures', root / name)
  beside = [file for file in sorted(root.iterdir()) if _pictures.is_picture(file)]
  for file in beside:
    gathered.add('pictures outside the folders of classes', file)
  if len(kept) < 2:
    raise errors.InputError(
      f'{request.name}: {root} must hold two folders or more, one a class, with images '
      f'({" ".join(_pictures.SUFFIXES)}); found {len(files)} images in {len(class_names)} folders'
      f'{_advice(beside)}'
    )
  shown = tuple(_words.show(name) for name in kept)
  return shown, [_row(path, file, kept.index(name)) for name, file in files]


def _advice(beside: Sequence[pathlib.Path]) -> str:
  """Advice that fits a flat folder of pictures."""
  if not beside:
    return ''
  if all(_AGE_NAME.match(file.name) for file in beside):
    return (
      f'. The {len(beside)} pictures next to them are named AGE_GENDER_RACE_DATE: label_key=age, '
      'gender or race takes their labels from the names'
    )
  return (
    f'. The {len(beside)} pictures next to them have labels in their names (label_key=prefix for '
    'cat.0.jpg) or in a table (csv:PATH with the columns file and label)'
  )


def _by_name(request, path, root, gathered):
  """Rows of pictures whose names say their labels."""
  if request.label_key not in _NAME_KEYS:
    raise errors.InputError(
      f'{request.label_key!r} must be one of {", ".join(_NAME_KEYS)} for labels in the names of '
      'files, or left out for a folder a class',
      argument='label_key',
    )
  pattern = _PREFIX if request.label_key == 'prefix' else _AGE_NAME
  rows = []
  for file in _files.pictures_in(root, gathered):
    found = pattern.match(file.name)
    if found is None:
      gathered.add(f'pictures without {request.label_key} in their names', file)
      continue
    label = found.group(request.label_key)
    rows.append(_row(path, file, label if pattern is _PREFIX else int(label)))
  if not rows:
    raise errors.InputError(
      f'{request.name}: no file is named so that {request.label_key} can be read',
      argument='label_key',
    )
  return rows

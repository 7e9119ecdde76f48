"""Sources in the user's own files: one npz file, or a folder of class folders."""

import hashlib
import pathlib
import zipfile

import numpy as np
import PIL.Image

from dalign_jax import errors
from dalign_jax.data import _base

_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
_SPLITS = ('train', 'validation', 'val', 'test')


def npz(request: _base.Request) -> _base.Opened:
  """A file of arrays `images` (uint8), `labels` (integers) and perhaps `ids` and `group`."""
  _base.require_defaults(request)
  path = pathlib.Path(request.path)
  if not path.is_file():
    raise errors.InputError(f'--dataset={request.name}: there is no file {path}; give npz:PATH')
  stat = path.stat()
  fingerprint = {'path': str(path.resolve()), 'mtime': stat.st_mtime_ns, 'size': stat.st_size}

  def read(progress):
    images, labels, ids, group = _check_arrays(request, _read_arrays(request, path))
    known = np.flatnonzero(labels != -1)
    stack = _base.ImageStack(request, len(known))
    for block in _base.blocks(len(known), progress):
      for row in block:
        stack.append(f'row {known[row]}', images[known[row]])
    group = None if group is None else group[known]
    notes = _base.note_unknown('labels', len(labels), len(known))
    return _base.build(request, stack.array(), labels[known], ids[known], group, notes=notes)

  return _base.Opened(fingerprint, read)


def _read_arrays(request, path):
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
    raise errors.InputError(
      f'--dataset={request.name} is not a readable npz file of plain arrays ({error}); write it '
      'with np.savez(PATH, images=..., labels=...)'
    ) from error


def _check_arrays(request, arrays):
  def wrong(name, want):
    array = arrays[name]
    got = f'{array.dtype} {list(array.shape)}'
    return ValueError(f'--dataset={request.name}: {name} must be {want}, got {got}')

  for name in ('images', 'labels'):
    if name not in arrays:
      raise errors.InputError(
        f'--dataset={request.name} must hold the arrays images and labels (and may hold ids and '
        f'group), it has: {", ".join(sorted(arrays)) or "none"}'
      )
  images, labels = arrays['images'], arrays['labels']
  if images.dtype != np.uint8 or images.ndim not in (3, 4):
    raise wrong('images', 'uint8 [N, H, W, C] or [N, H, W] with values 0 to 255')
  count = len(images)
  if labels.dtype.kind not in 'iu' or labels.shape != (count,):
    raise wrong('labels', f'integers [{count}] like images')
  for name in ('ids', 'group'):
    if name in arrays and (arrays[name].dtype.kind not in 'iuU' or arrays[name].shape != (count,)):
      raise wrong(name, f'strings or integers [{count}] like images')
  ids = arrays.get('ids', np.array([f'row_{row:05d}' for row in range(count)], dtype=str))
  return images, labels, ids.astype(str), arrays.get('group')


def folder(request: _base.Request) -> _base.Opened:
  """A folder with a folder of images for each class, or with such folders for each split."""
  path = pathlib.Path(request.path)
  if not path.is_dir():
    raise errors.InputError(
      f'--dataset={request.name}: there is no folder {path}; give folder:PATH'
    )
  subfolders = [entry.name for entry in sorted(path.iterdir()) if _is_visible_folder(entry)]
  by_split = 'train' in subfolders and set(subfolders) <= set(_SPLITS)
  splits = tuple(name for name in _SPLITS if name in subfolders) if by_split else ('train',)
  _base.require_defaults(request, splits)
  root = path / request.split if by_split else path
  class_names = tuple(entry.name for entry in sorted(root.iterdir()) if _is_visible_folder(entry))
  files, others = list_images(root, class_names)
  if len({name for name, _ in files}) < 2:
    raise errors.InputError(
      f'--dataset={request.name}: {root} must hold two folders or more, one a class, with images '
      f'({" ".join(_SUFFIXES)}); found {len(files)} images in {len(class_names)} folders'
    )
  notes = (f'{others} files that are not images left out',) if others else ()

  def read(progress):
    modes = {_mode(request, file) for _, file in files}
    mode = 'L' if modes <= {'1', 'L'} else 'RGB'
    stack = _base.ImageStack(request, len(files))
    for block in _base.blocks(len(files), progress):
      for row in block:
        stack.append(str(files[row][1]), decode(request, files[row][1], mode))
    ids = np.array([file.relative_to(path).as_posix() for _, file in files])
    kept = tuple(sorted({name for name, _ in files}))
    labels = np.array([kept.index(name) for name, _ in files])
    return _base.build(
      request, stack.array(), labels, ids, class_names=kept, splits=splits, notes=notes
    )

  return _base.Opened(
    {'path': str(path.resolve()), 'files': digest(path, [file for _, file in files])}, read
  )


def _is_visible_folder(entry):
  return entry.is_dir() and not entry.name.startswith('.')


def list_images(root, class_names):
  """The images as sorted `(class, path)`, and the number of other files."""
  found = [
    (name, file)
    for name in class_names
    for file in sorted((root / name).rglob('*'))
    if file.is_file() and not file.name.startswith('.')
  ]
  images = [pair for pair in found if pair[1].suffix.lower() in _SUFFIXES]
  return images, len(found) - len(images)


def digest(root, files):
  """A hash over the name, size and time of every file."""
  found = hashlib.sha256()
  for file in files:
    stat = file.stat()
    found.update(f'{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\0'.encode())
  return found.hexdigest()


def _mode(request, file):
  try:
    with PIL.Image.open(file) as image:
      mode = image.mode
  except (OSError, SyntaxError, ValueError) as error:
    raise errors.InputError(f'--dataset={request.name}: {file} is not a readable image') from error
  if mode.startswith(('I', 'F')):
    raise errors.InputError(f'--dataset={request.name}: images must have 8 bits, {file} is {mode}')
  return mode


def decode(request, file, mode):
  """The file's pixels in a mode of Pillow's."""
  try:
    with PIL.Image.open(file) as image:
      return np.asarray(image.convert(mode))
  except (OSError, SyntaxError, ValueError) as error:
    raise errors.InputError(f'--dataset={request.name}: {file} is damaged ({error})') from error

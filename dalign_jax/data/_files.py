"""The files of a folder: found, sorted into pictures and others, and named by their content."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import hashlib
import os
import pathlib
from typing import Any

from dalign_jax import errors
from dalign_jax.data import _base, _pictures, _taken, _words

STRANGE = ('__MACOSX', '@eaDir', '$RECYCLE.BIN')  # folders that systems leave behind


class Gathered:
  """Counts of skipped files by kind, with the first of each kind as the example."""

  def __init__(self) -> None:
    self._kinds: dict[str, list] = {}

  def add(self, what: str, example: str | os.PathLike) -> None:
    kind = self._kinds.setdefault(what, [0, _words.show(example)])
    kind[0] += 1

  def left_out(self) -> tuple[_taken.LeftOut, ...]:
    return tuple(_taken.LeftOut(what, *kind) for what, kind in self._kinds.items())


def existing_folder(request: _base.Request) -> pathlib.Path:
  """The folder that the request names."""
  root = pathlib.Path(request.path).expanduser()
  if not root.is_dir():
    kind = request.name.partition(':')[0]
    raise errors.InputError(f'{request.name}: there is no folder {root}; give {kind}:PATH')
  return root


def is_hidden(name: str) -> bool:
  """Whether a file or folder is nobody's data."""
  return name.startswith('.') or name in STRANGE


def subfolders(path: pathlib.Path) -> list[pathlib.Path]:
  """The visible folders inside, sorted."""
  return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not is_hidden(entry.name)]


def pictures_in(path: pathlib.Path, gathered: Gathered | None = None) -> list[pathlib.Path]:
  """The pictures at any depth, sorted, through links; what is none of them goes to `gathered`."""
  gathered = gathered or Gathered()
  found = []
  for file in sorted(_walk(path, gathered)):
    if file.name.startswith('.'):
      continue
    if not file.exists():
      gathered.add('broken links', file)
    elif not file.is_file():
      gathered.add('entries that are no files', file)
    elif _pictures.is_picture(file):
      found.append(file)
    else:
      gathered.add('files that are not images', file)
  return found


def has_pictures(path: pathlib.Path) -> bool:
  """Whether there is any picture below."""
  files = _walk(path, Gathered())
  return any(
    _pictures.is_picture(file) and file.is_file() for file in files if not file.name.startswith('.')
  )


def list_images(
  root: pathlib.Path, class_names: Sequence[str], gathered: Gathered | None = None
) -> list[tuple[str, pathlib.Path]]:
  """The pictures in the folders of classes, as sorted `(class, path)`."""
  return [(name, file) for name in class_names for file in pictures_in(root / name, gathered)]


def _walk(path, gathered, above=()) -> Iterator[pathlib.Path]:
  """All files below, into linked folders too but never round in a circle."""
  real = os.path.realpath(path)
  if real in above:
    gathered.add('links back to a folder above', path)
    return
  for entry in path.iterdir():
    if not entry.is_dir():
      yield entry
    elif not is_hidden(entry.name):
      yield from _walk(entry, gathered, (*above, real))
    elif any(map(_pictures.is_picture, entry.iterdir())):
      gathered.add('hidden folders with pictures', entry)


def fingerprint(
  root: pathlib.Path, files: Iterable[pathlib.Path], **more: Any
) -> Callable[[], dict[str, Any]]:
  """What a source depends on: where it is, its files, decoders, and `more` that its account tells.

  Args:
    root: the folder, or the file that was named.
    files: all that are read.
    **more: what JSON can hold.
  """
  folder = root if root.is_dir() else root.parent
  return lambda: {
    'path': str(root.resolve()),
    'files': digest(folder, files),
    'decoders': _pictures.decoders(),
    **more,
  }


def digest(root: pathlib.Path, files: Iterable[pathlib.Path]) -> str:
  """A hash over the name and the content of every file: times can stay when content changes."""
  found = hashlib.sha256()
  for file in files:
    found.update(os.fsencode(os.path.relpath(file, root)) + b'\0')
    try:
      with open(file, 'rb') as content:
        found.update(hashlib.file_digest(content, 'sha256').digest())
    except OSError as error:
      found.update(f'unreadable {error.errno}'.encode())
  return found.hexdigest()

"""Which checkpoint a path means: the one that was named, or the newest of a row of steps.

Where two could be meant, none is taken.
"""

import pathlib
import re
from typing import NamedTuple

from dalign_jax import errors

_STEP = re.compile(r'(?P<prefix>.*?)(?P<number>\d+)', re.DOTALL)
_NOT_STEPS = re.compile(  # numbered folders that are other models, and not later states of one
  r'(seed|fold|run|trial|member|model|request|replica|split|gold|shadow)s?[-_=.]?', re.IGNORECASE
)
_UNFINISHED = ('.orbax-checkpoint-tmp', '.tmp')
_SHOWN = 8


class Checkpoint(NamedTuple):
  """A checkpoint.

  Attributes:
    path: the file, or the folder with its arrays.
    form: `orbax`, `msgpack`, `safetensors` or `npz`.
    step: the name of the step that was taken, empty where the path itself was named.
    others: number of other steps.
  """

  path: pathlib.Path
  form: str
  step: str = ''
  others: int = 0

  def __str__(self) -> str:
    if not self.step:
      return f'{self.path} ({self.form})'
    return f'step {self.step} of {self.others + 1}, the newest by number: {self.path} ({self.form})'


def find(path: str | pathlib.Path, item: str = '') -> Checkpoint:
  """The checkpoint that a path means.

  Args:
    path: a file, an Orbax checkpoint, an item of one, or a folder of steps. Steps are numbered, by
      any scheme of Orbax: `9`, `step_9`, `step_00000009`, `step=9`, `checkpoint_9`; the
      highest number is the newest.
    item: the item to take, where a checkpoint has several.

  Raises:
    errors.InputError: if there is none, or several that could be meant; lists them.

  Example:
    >>> import tempfile
    >>> place = pathlib.Path(tempfile.mkdtemp())
    >>> for number in (9, 10):
    ...   (place / f'step_{number}').mkdir()
    ...   (place / f'step_{number}' / '_METADATA').touch()
    >>> find(place).step
    'step_10'
  """
  path = pathlib.Path(path).expanduser().absolute()
  if path.is_file():
    return Checkpoint(path, _form_of_file(path))
  if not path.is_dir():
    raise errors.InputError(f'there is no file or folder {str(path)!r}')
  if _is_request(path) and (path / 'model').is_dir():
    return find(path / 'model', item)
  here = _in_folder(path, item)
  if here:
    return Checkpoint(here, _form(here))
  steps = _steps(path)
  if steps:
    newest = steps[-1]
    return Checkpoint(_inside(newest, item), _form(newest), newest.name, len(steps) - 1)
  raise _several(path, below(path))


def below(path: pathlib.Path) -> list[pathlib.Path]:
  """All that could be meant below a folder."""
  records = [p.parent for p in path.rglob('record.json') if not _is_hidden(p, path)]
  arrays = [p.parent for p in path.rglob('_METADATA') if not _is_hidden(p, path)]
  found = records + [p for p in arrays if not any(r in p.parents for r in records)]
  return sorted(found, key=lambda p: [_natural(part) for part in p.relative_to(path).parts])


def _is_hidden(path, root) -> bool:
  return any(part.startswith('.') or _is_unfinished(part) for part in path.relative_to(root).parts)


def _natural(name: str) -> list:
  """`step_9` before `step_10`."""
  return [(int(p), '') if p.isdigit() else (-1, p) for p in re.split(r'(\d+)', name)]


def _is_unfinished(name: str) -> bool:
  return any(mark in name for mark in _UNFINISHED)


def _is_arrays(path: pathlib.Path) -> bool:
  """Whether the arrays of one pytree are right here, as Orbax lays them out."""
  return any((path / name).exists() for name in ('_METADATA', 'manifest.ocdbt'))


def _items(path: pathlib.Path) -> list[pathlib.Path]:
  inside = (p for p in path.iterdir() if p.is_dir() and not _is_unfinished(p.name))
  return sorted(p for p in inside if _is_arrays(p) and not _is_step(p))


def _is_step(path) -> bool:
  found = _parts(path.name)
  return found is not None and not _NOT_STEPS.fullmatch(found[0])


def _is_request(path) -> bool:
  """Whether this is what a deletion request left: a model of its own, and not a step of a row."""
  return (path / 'record.json').is_file()


def _parts(name: str) -> tuple[str, int] | None:
  """Prefix and number of a name that ends in one."""
  found = _STEP.fullmatch(name)
  return (found['prefix'], int(found['number'])) if found else None


def _in_folder(path, item) -> pathlib.Path | None:
  """The arrays in a checkpoint's own folder, None if it is not one."""
  if _is_arrays(path):
    return path
  if not _items(path):
    return None
  if _steps(path):
    raise _several(path, [*_items(path), *_steps(path)])
  return _inside(path, item)


def _inside(path, item) -> pathlib.Path:
  """The arrays of a step: its own, or those of its one item."""
  if path.is_file() or _is_arrays(path):
    return path
  items = _items(path)
  named = [p for p in items if p.name == item]
  if named or len(items) == 1:
    return (named or items)[0]
  raise _several(path, items, '--item=' if items else '')


def _steps(path: pathlib.Path) -> list[pathlib.Path]:
  """The numbered checkpoints in a folder, the newest last.

  Raises:
    errors.InputError: if they are of several rows, or two have one number.
  """
  if (path / 'problem.json').is_file():
    return []
  found = [p for p in path.iterdir() if _is_step(p) and not _is_unfinished(p.name)]
  found = [p for p in found if not _is_request(p)]
  steps = [p for p in found if (_is_arrays(p) or _items(p) if p.is_dir() else _is_flax_step(p))]
  parts = {p: _parts(p.name) or ('', 0) for p in steps}
  number = lambda p: parts[p][1]
  numbers = {number(p) for p in steps}
  if len({prefix for prefix, _ in parts.values()}) > 1 or len(numbers) < len(steps):
    raise _several(path, sorted(steps, key=lambda p: _natural(p.name)))
  return sorted(steps, key=number)


def _is_flax_step(path) -> bool:
  """A file of `flax.training.checkpoints`, which are named checkpoint_9."""
  found = _parts(path.name)
  return found is not None and found[0].endswith('checkpoint_') and path.is_file()


def _several(path, found, flag='') -> errors.InputError:
  if not found:
    return errors.InputError(
      f'no checkpoint in {path}: neither an Orbax checkpoint nor a folder of numbered ones'
    )
  shown = ', '.join(f'{flag}{p.name if flag else p}' for p in found[:_SHOWN])
  more = f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
  what = 'several checkpoints that could be meant' if len(found) > 1 else 'no checkpoint, but one'
  return errors.InputError(f'in {path} there are {what} below it; name one of {shown}{more}')


def _form(path: pathlib.Path) -> str:
  return _form_of_file(path) if path.is_file() else 'orbax'


def _form_of_file(path: pathlib.Path) -> str:
  """The form of a file, by its content."""
  with open(path, 'rb') as file:
    start = file.read(9)
  if start[:4] == b'PK\x03\x04':
    return 'npz'
  if len(start) == 9 and start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 2**32:
    return 'safetensors'
  if start and (start[0] & 0xF0 == 0x80 or start[0] in (0xDE, 0xDF)):  # a map
    return 'msgpack'
  raise errors.InputError(
    f'{path} is no checkpoint: it must be an Orbax folder, or a file of Flax (msgpack), '
    'safetensors or npz'
  )

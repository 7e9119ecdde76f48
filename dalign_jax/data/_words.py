"""The usual names of splits, and how paths are shown."""

from collections.abc import Iterable
import os
import re

from dalign_jax import errors
from dalign_jax.data import _base

_ROLES = {
  'train': ('train', 'training'),
  'validation': ('validation', 'valid', 'val', 'dev'),
  'test': ('test', 'testing'),
}
_AROUND = {'seg', 'set', 'split', 'data', 'dataset', 'image', 'images', 'img', 'imgs'}


def role(name: str) -> str | None:
  """`train`, `validation` or `test` where a name usually means that.

  Example:
    >>> role('seg_train'), role('Valid'), role('testing'), role('train station')
    ('train', 'validation', 'test', None)
  """
  words = re.findall('[a-z]+', name.lower())
  meant = [word for word in words if word not in _AROUND]
  if len(meant) != 1:
    return None
  return next((role for role, known in _ROLES.items() if meant[0] in known), None)


def find_split(request: _base.Request, names: Iterable[str]) -> str:
  """The one of the split's names that the request means.

  Raises:
    InputError: if none has that name or is usually called so, or several are.
  """
  names = tuple(names)
  if request.split in names:
    return request.split
  wanted = role(request.split) if request.split.isalpha() else None
  found = [name for name in names if wanted and role(name) == wanted]
  if len(found) > 1:
    raise errors.InputError(
      f'{request.name}: the split {request.split!r} may be any of {", ".join(found)}; name one'
    )
  if not found:
    raise errors.InputError(
      f'{request.name} has no split {request.split!r}; it has: {", ".join(names)}'
    )
  return found[0]


def show(path: str | os.PathLike) -> str:
  r"""A path as text that can be printed, whatever bytes its name has.

  Example:
    >>> show('a/b.png'), show(os.fsdecode(b'caf\xe9.png'))
    ('a/b.png', 'caf\\xe9.png')
  """
  return os.fsencode(path).decode('utf-8', 'backslashreplace')

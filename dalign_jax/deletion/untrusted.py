"""Files that somebody else wrote: nothing but regular files of some size is read, and strictly."""

from collections.abc import Callable
import io
import json
import os
import pathlib
import stat
from typing import Any

import numpy as np

from dalign_jax import errors
from dalign_jax.store import files

_LARGEST = 2**28  # bytes of a file


def load_json(content: bytes) -> Any:
  """JSON from bytes, strictly: no NaN, and no key twice.

  Raises:
    errors.InputError: if it is not.
  """

  def pairs(found):
    if len({key for key, _ in found}) < len(found):
      raise ValueError('a key is there twice')
    return dict(found)

  def constant(text):
    raise ValueError(f'{text} is no number of JSON')

  try:
    return json.loads(content, object_pairs_hook=pairs, parse_constant=constant)
  except (ValueError, RecursionError) as error:
    raise errors.InputError(f'it is no JSON ({error})') from None


def read_json(path: pathlib.Path) -> Any:
  """Reads JSON that somebody else wrote.

  Raises:
    errors.InputError: if it is no regular file, too large, or no JSON.
  """
  return named(path, load_json, read_bytes(path))


def read_bytes(path: pathlib.Path) -> bytes:
  """Reads a file that somebody else wrote; as `read_json`."""
  try:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb') as file:  # a pipe does not block
      found = os.fstat(file.fileno())
      if not stat.S_ISREG(found.st_mode):
        raise errors.InputError(f'{path} is no regular file')
      if found.st_size > _LARGEST:
        raise errors.InputError(f'{path} has {found.st_size:,} bytes, which is too large')
      return file.read(_LARGEST + 1)
  except FileNotFoundError:
    raise errors.InputError(f'there is no {path}; bring back a copy of it') from None
  except OSError as error:
    raise errors.InputError(f'{path} cannot be read: {error.strerror}') from None


def named(path: pathlib.Path, work: Callable, *arguments: Any) -> Any:
  """The result of some work, whose errors name a file and what to do with it."""
  try:
    return work(*arguments)
  except errors.InputError as error:
    remedy = '' if str(error).endswith(files.BRING_BACK) else f'; {files.BRING_BACK}'
    raise errors.InputError(f'{path}: {error}{remedy}') from None


def read_text(path: pathlib.Path) -> str:
  """Reads a text that somebody else wrote.

  Raises:
    errors.InputError: if it is no regular file, too large, or no UTF-8.
  """
  try:
    return read_bytes(path).decode()
  except UnicodeDecodeError:
    raise errors.InputError(f'{path} is no text; {files.BRING_BACK}') from None


def load_array(path: pathlib.Path) -> np.ndarray:
  """Reads an array of an .npy file that somebody else wrote.

  Raises:
    errors.InputError: if it is none.
  """
  try:
    return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise errors.InputError(f'{path} is no array in .npy: {error}; {files.BRING_BACK}') from None

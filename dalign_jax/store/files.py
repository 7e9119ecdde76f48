"""Files of a work folder: nothing is ever half-written, and only one process works in a folder."""

from collections.abc import Collection, Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import time
from typing import IO, Any
import zipfile
import zlib

import numpy as np

from dalign_jax import errors, parallel

LOCK_SECONDS = 2.0  # that `lock` waits for another process to end


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file so that it is there whole or not at all."""
  _replace(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + '\n')


MADE_AGAIN = 'delete it to have it made again'
BRING_BACK = 'bring back a copy of it'


class DamagedError(errors.InputError):
  """A file is not as it was written; the message names it and says what to do."""

  def __init__(self, path: pathlib.Path, why: object, remedy: str = MADE_AGAIN):
    super().__init__(f'{path} is damaged ({" ".join(str(why).split())[:200]}); {remedy}')


def read_text(path: pathlib.Path, *, remedy: str = MADE_AGAIN) -> str:
  """Reads text; raises `DamagedError` if the file is none."""
  try:
    return path.read_text(encoding='utf-8')
  except ValueError as error:
    raise DamagedError(path, error, remedy) from None


def read_json_lines(
  path: pathlib.Path, *, keys: Collection[str] = (), remedy: str = MADE_AGAIN
) -> tuple[list[dict], DamagedError | None]:
  """Reads a log of JSON objects, one a line: those that are whole, and what is wrong with others.

  Args:
    path: of the file.
    keys: that each line must have.
    remedy: what the error advises.
  """
  found, error = [], None
  for number, line in enumerate(path.read_bytes().splitlines(), start=1):
    try:
      record = json.loads(line)
      if not isinstance(record, dict) or not set(keys) <= record.keys():
        raise ValueError('it is no record')
      found.append(record)
    except (ValueError, RecursionError) as why:
      error = error or DamagedError(path, f'line {number}: {why}', remedy)
  return found, error


def read_json(path: pathlib.Path, *, keys: Collection[str] = (), remedy: str = MADE_AGAIN) -> Any:
  """Reads JSON.

  Args:
    path: of the file.
    keys: that the file must have, as an object.
    remedy: what the error advises.

  Raises:
    DamagedError: if the file is not JSON, or not such an object.
  """
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise DamagedError(path, error, remedy) from None
  missing = [key for key in keys if not isinstance(found, dict) or key not in found]
  if missing:
    raise DamagedError(path, f'it has no {missing[0]!r}', remedy)
  return found


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes an .npz, whole or not at all."""

  def write(temporary):
    with open(temporary, 'wb') as file:
      np.savez_compressed(file, **arrays)

  _replace(path, write)


def read_arrays(
  path: pathlib.Path, *, keys: Collection[str] = (), remedy: str = MADE_AGAIN
) -> dict[str, np.ndarray]:
  """Reads an .npz.

  Args:
    path: of the file.
    keys: arrays that the file must have.
    remedy: what the error advises.

  Raises:
    DamagedError: if the file cannot be read, or lacks one of them.
  """
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
      found = dict(arrays)
  except FileNotFoundError:
    raise
  except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
    raise DamagedError(path, error, remedy) from None
  except (zlib.error, MemoryError, NotImplementedError, AttributeError) as error:
    raise DamagedError(path, error, remedy) from None
  missing = [key for key in keys if key not in found]
  if missing:
    raise DamagedError(path, f'it has no {missing[0]!r}', remedy)
  return found


def _replace(path, write):
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    write(temporary)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: pathlib.Path, *, is_shared: bool = False) -> Iterator[None]:
  """Holds the folder for this process; the lock dies with the process.

  A folder that was made here goes again if an error comes before anything is written in it.

  Args:
    folder: made if missing.
    is_shared: hold it together with others that share it.

  Raises:
    errors.BusyError: if another process holds it.
    errors.InputError: if the folder cannot be written.
  """
  made = [path for path in (folder, *folder.parents) if not path.exists()]
  with _locked_file(folder, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX):
    try:
      yield
    except BaseException:
      _remove_unused(made)
      raise


def _locked_file(folder, kind) -> IO:
  """The folder's lock file, locked as long as it is open."""
  while True:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      file = open(folder / '.lock', 'a')
    except OSError as error:
      raise errors.InputError(
        f'cannot write in {folder}: {error.strerror}', argument='workdir'
      ) from None
    if not _get_lock(file, kind):
      file.close()
      raise errors.BusyError(
        f'another process is at work in {folder}; wait for it or use another --problem',
        argument='workdir',
      )
    if os.fstat(file.fileno()).st_nlink:
      return file
    file.close()  # the process that had it has removed it (`_remove_unused`)


def _remove_unused(made) -> None:
  """Removes a folder that holds nothing but its lock, and then its parents; the innermost first."""
  with contextlib.suppress(OSError):  # another process came in between: it stays
    if made and [path.name for path in made[0].iterdir()] == ['.lock']:
      (made[0] / '.lock').unlink()
      for folder in made:
        folder.rmdir()


def try_lock(path: pathlib.Path) -> IO | None:
  """Locks a file for as long as it stays open, at once; None if another process holds it."""
  file = open(path, 'a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  return file


def _get_lock(file, kind) -> bool:
  """Tries for some seconds: a process whose parent has died takes so long to end."""
  end = time.monotonic() + LOCK_SECONDS
  while True:
    try:
      fcntl.flock(file, kind | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      if time.monotonic() > end:
        return False
      time.sleep(0.1)


def locked_by_writer(
  folder: pathlib.Path, *, is_shared: bool = False
) -> contextlib.AbstractContextManager:
  """`lock` for runs of several processes: the one that writes holds it for all."""
  is_writer = parallel.is_main_process()
  return lock(folder, is_shared=is_shared) if is_writer else contextlib.nullcontext()

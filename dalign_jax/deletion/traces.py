"""Traces of forgotten samples: what is removed after a request, and what stays to be named."""

from collections.abc import Iterable
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import time

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, types
from dalign_jax import settings as settings_lib
from dalign_jax.store import files

KEPT = (  # of a request; the envelope where it is signed, the page where Jinja2 is installed
  *('record.json', 'record.intoto.jsonl', 'record.html', 'history.json', 'members.json'),
  *('model', 'train.jsonl'),
)
LOCK = '.request'  # in the hidden folder of a request at work
SCRATCH = 'dalign_jax_verify_'  # folders of replays, where the system keeps temporary ones
_IDLE_SECONDS = 600  # after which a decoding that writes nothing is taken for dead
_DROPPED = 'dropped_'


def hidden_folder(out: pathlib.Path, key: str) -> pathlib.Path:
  """The folder in which a request works until it is done."""
  return out.with_name(f'.{out.name}.{key[:12]}')


def tidy(folder: pathlib.Path, kept: Iterable[str]) -> None:
  """Removes all but what a request leaves, training states and half-written files included.

  Args:
    folder: the hidden folder.
    kept: names to keep, besides `KEPT`.
  """
  names = {*KEPT, *kept}
  for path in folder.iterdir():
    if path.name not in names:
      _remove(path)
  steps = [p for p in (folder / 'model').iterdir() if p.name.isdecimal()]
  newest = max(steps, key=lambda p: int(p.name))
  for path in (folder / 'model').iterdir():
    if path != newest and path.is_dir():
      _remove(path)


def drop_paths(folder: pathlib.Path) -> None:
  """Takes the path of the folder of work out of the marks of success that Orbax leaves.

  They are read by their presence alone.

  Args:
    folder: the hidden folder.
  """
  for path in folder.rglob('commit_success.txt'):
    files.write_text(path, 'committed\n')


def remove_stopped(out: pathlib.Path, own: pathlib.Path) -> tuple[int, list[str]]:
  """Removes hidden folders of requests for the same `--out` that were stopped.

  They can never be finished: the folder is there now.

  Returns:
    How many were removed, and those that another process is at work in.
  """
  form = re.compile(re.escape(f'.{out.name}.') + '[0-9a-f]{12}')
  there = [p for p in _folders(out.parent) if form.fullmatch(p.name) and p != own]
  return _remove_free(there)


def remove_scratch() -> tuple[int, list[str]]:
  """Removes temporary folders of replays that were killed; as `remove_stopped`."""
  there = [p for p in _folders(pathlib.Path(tempfile.gettempdir())) if p.name.startswith(SCRATCH)]
  return _remove_free(p for p in there if os.access(p, os.W_OK))


def drop_caches(
  cache_dir: str, name: str, content: str, forgotten: types.Dataset
) -> tuple[int, list[str]]:
  """Removes caches of decoded images that hold what is forgotten.

  That are caches of the same data set, in whatever size it was decoded, caches with equal content,
  and caches of any other data set with an image that equals a forgotten one.

  Args:
    cache_dir: folder of all caches.
    name: of the data set.
    content: its content hash.
    forgotten: the forgotten samples.

  Returns:
    How many were removed, and those that another process seems to be writing.
  """
  wanted = {_digest(image) for image in forgotten.images}
  dropped, busy = 0, []
  for folder in _folders(pathlib.Path(cache_dir).expanduser()):
    state = data_lib.cache_state(folder.name.removeprefix(_DROPPED))
    if state is None:
      continue  # somebody else's
    if folder.name.startswith(_DROPPED):
      pass  # of a removal that was killed
    elif state == 'decoding':
      if time.time() - _last_change(folder) < _IDLE_SECONDS:
        busy.append(str(folder))
        continue
    elif not _is_to_go(folder, name, content, wanted):
      continue
    _remove(folder)
    dropped += 1
  return dropped, busy


def elsewhere(
  request: settings_lib.Request, config: settings_lib.Settings, problem: pathlib.Path | None
) -> list[str]:
  """Places that may still hold forgotten samples, which the command does not look into."""
  places = [
    f'the data: {request.data or config.dataset}, and backups of them',
    f'the model before, and every earlier checkpoint of it: {request.checkpoint}',
    'hidden folders of stopped requests for another --out, and copies of this one',
  ]
  if problem:
    places.append(f'other models, training states and reports of the run: {problem}')
  if config.data_dir:
    places.append(f'what TFDS keeps: {config.data_dir}')
  default = os.path.expanduser(settings_lib.Settings().cache_dir)
  if os.path.expanduser(config.cache_dir) != default and os.path.isdir(default):
    places.append(f'decoded images in the default cache: {default}')
  places.append('caches in other folders or of other programs and users')
  return places


def _folders(place: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in place.iterdir() if p.is_dir()) if place.is_dir() else []


def _remove(path: pathlib.Path) -> None:
  """Removes a file or a folder; a folder that is removed in part has a name that says so."""
  if path.is_dir() and not path.is_symlink():
    if not path.name.startswith(_DROPPED):
      target = path.with_name(f'{_DROPPED}{path.name.lstrip(".")}')
      if target.exists():  # of an earlier removal that was killed
        shutil.rmtree(target)
      path = path.rename(target)
    shutil.rmtree(path)
  else:
    path.unlink()


def _remove_free(folders) -> tuple[int, list[str]]:
  count, busy = 0, []
  for folder in folders:
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(files.lock(folder / LOCK))
      except errors.InputError:
        busy.append(str(folder))
        continue
      _remove_whole(folder)
      count += 1
  return count, busy


def _remove_whole(folder) -> None:
  """Removes a folder that another process may be removing at the same time, its replay over."""
  while folder.exists():
    with contextlib.suppress(FileNotFoundError):
      shutil.rmtree(folder)


def _last_change(folder: pathlib.Path) -> float:
  return max(p.stat().st_mtime for p in (folder, *folder.iterdir()))


def _is_to_go(folder, name, content, wanted) -> bool:
  """Whether a cache is of the data set, or holds one of the images."""
  try:
    meta = json.loads((folder / 'source.json').read_text(encoding='utf-8'))
    if meta['content_hash'] == content or meta['key']['name'] == name:
      return True
    path = os.path.realpath(os.path.expanduser(name.partition(':')[2]))
    if ':' in name and meta['key'].get('path') == path:  # under another spelling
      return True
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    if not (folder / 'images.npy').is_file():
      return False  # there are no images in it
  try:
    images = np.load(folder / 'images.npy', mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError, EOFError):
    return True  # damaged: it cannot be said what is in it, and it is decoded again when needed
  return any(_digest(image) in wanted for image in images)


def _digest(image: np.ndarray) -> bytes:
  head = repr(image.shape).encode()
  return hashlib.blake2b(head + np.ascontiguousarray(image).tobytes(), digest_size=16).digest()

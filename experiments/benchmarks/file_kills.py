"""Kills of a deletion request at its file operations, and a search for what they left behind.

python -m experiments.benchmarks.file_kills AT FOLDER COMMAND ...

runs `python -m COMMAND ...` and kills its own process (SIGKILL) before the AT-th operation that
changes a file below FOLDER; with AT = 0 it counts them, into FOLDER/count. Used by
`experiments.benchmarks.forget_kills`.
"""

from collections.abc import Callable, Iterator
import functools
import os
import pathlib
import runpy
import signal
import sys
import zipfile

import numpy as np

FORGOTTEN = 4  # rows of the training data
_CHANGES = ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'shutil.rmtree', 'os.truncate')
BUILD = {'num_classes': 10, 'image_shape': (8, 8, 1), 'width_multiplier': 0.125}


def is_change(event: str, args: tuple, folder: str) -> bool:
  """Whether an audit event changes a file below a folder."""
  if event == 'open':
    path, mode, flags = args
    writes = (isinstance(mode, str) and set(mode) & set('wax+')) or (flags & os.O_CREAT)
    return bool(writes) and folder in str(path)
  return event in _CHANGES and folder in str(args[0])


def digits(rows: slice):
  """Some of the embedded digits."""
  from dalign_jax import data as data_lib

  source = data_lib.load('digits').dataset
  return source.take(np.arange(len(source))[rows])


@functools.cache
def trained(rows: int):
  """The library's `cnn`, small, trained on the first digits."""
  import jax

  from dalign_jax import models, training, types

  apply_fn, init_fn = models.build('cnn', **BUILD)
  recipe = types.Recipe(num_epochs=12, batch_size=20, learning_rate=0.1)
  start, key, devices = init_fn(jax.random.key(0)), jax.random.key(1), jax.devices()[:1]
  fitted = training.fit(apply_fn, start, digits(slice(rows)), recipe, key, devices=devices)
  return jax.tree.map(np.asarray, fitted)


def write_place(folder: pathlib.Path, rows: int = 120) -> None:
  """Data and a model of one's own in a folder, and a request for the first rows."""
  import jax

  parts = {'train': digits(slice(0, rows)), 'held_out': digits(slice(200, 300))}
  for name, part in parts.items():
    np.savez(folder / f'{name}.npz', images=part.images, labels=part.labels, ids=part.ids)
  leaves = jax.tree_util.tree_leaves_with_path(trained(rows)._asdict())
  named = {'/'.join(p.key for p in path): np.asarray(leaf) for path, leaf in leaves}
  np.savez(folder / 'mine.npz', **named)
  ids = parts['train'].ids[:FORGOTTEN].tolist()
  (folder / 'request.txt').write_text('\n'.join(ids), encoding='utf-8')


def write_caches(place: pathlib.Path, cache: pathlib.Path) -> None:
  """Caches of the same data, of another file with a forgotten image, of an unrelated file."""
  from dalign_jax import data as data_lib

  image = images(place)[2]
  data_lib.load(f'npz:{place}/train.npz', cache_dir=cache)
  for name, one in (('shares', image), ('unrelated', image // 2)):
    path = place / f'{name}.npz'
    if not path.exists():
      np.savez(path, images=np.stack([one, 255 - one]), labels=np.arange(2))
    data_lib.load(f'npz:{path}', cache_dir=cache)


def images(place: pathlib.Path) -> np.ndarray:
  """The images to forget."""
  with np.load(place / 'train.npz') as arrays:
    return arrays['images'][:FORGOTTEN]


_FORMS: tuple[Callable, ...] = (
  lambda image: image,
  lambda image: image.astype(np.float32),
  lambda image: image.astype(np.float32) / 255,
  lambda image: image.astype(np.float32) / np.float32(127.5) - 1,
)


def patterns(place: pathlib.Path, rows: int = 120) -> list[bytes]:
  """Bytes of what is to be forgotten: pixels in several forms, thumbnails, features, outputs."""
  import jax

  from dalign_jax import models, prediction
  from dalign_jax.deletion import copies

  there = images(place)
  apply_fn, _ = models.build('cnn', **BUILD)
  outputs = prediction.predict(apply_fn, trained(rows), there, devices=jax.devices()[:1])
  rows_of = [*copies.thumbnails(there), *outputs.features, *outputs.logits]
  found = [form(image).tobytes() for image in there for form in _FORMS]
  return found + [np.asarray(row, np.float32).tobytes() for row in rows_of]


def holding(folder: pathlib.Path, wanted: list[bytes]) -> list[str]:
  """Files below a folder that hold one of the patterns, also packed or in a checkpoint."""
  found = [str(path) for path, content in _contents(folder) if any(p in content for p in wanted)]
  return sorted(set(found))


def _contents(folder) -> Iterator[tuple[pathlib.Path, bytes]]:
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    yield path, path.read_bytes()
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as packed:
        yield from ((path, packed.read(name)) for name in packed.namelist())
  for state in sorted(folder.rglob('_METADATA')):
    if 'orbax-checkpoint-tmp' not in str(state):  # cut off half way
      yield from _arrays(state.parent)


def _arrays(state) -> Iterator[tuple[pathlib.Path, bytes]]:
  """The arrays of a checkpoint, which its files hold compressed."""
  import jax

  from dalign_jax import checkpoints

  for leaf in jax.tree.leaves(checkpoints.load_tree(state)):
    yield state, np.ascontiguousarray(leaf).tobytes()


def command(place: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """A request whose method keeps training states and shows images of its work."""
  return [
    *('experiments.forget', f'--checkpoint={place}/mine.npz', f'--ids={place}/request.txt'),
    *(f'--out={folder}/out', f'--data=npz:{place}/train.npz'),
    *(f'--held_out=npz:{place}/held_out.npz', '--method=dlfd', '--hparam=dlfd.num_steps=1'),
    *('--hparam=dlfd.num_epochs=2', '--hparam=dlfd.batch_size=32', '--width_multiplier=0.125'),
    *('--num_devices=1', f'--cache_dir={folder}/cache', f'--compilation_cache_dir={place}/xla'),
    '--accept=no_effect,worse,destroyed,incomplete',
  ]


def record_of(folder: pathlib.Path) -> dict:
  """What two runs of one request must agree on."""
  from dalign_jax.deletion import record_files

  record = record_files.read(folder / 'out' / record_files.RECORD)
  same = {name: record[name] for name in ('model', 'metrics', 'verdict')}
  counts = ('count_before', 'count_after')  # the roots are under a key, which is made at random
  return same | {role: [said[c] for c in counts] for role, said in record['samples'].items()}


def main(argv: list[str]) -> None:
  """Counts or kills; see the module."""
  at, folder, module, arguments = int(argv[0]), argv[1], argv[2], argv[3:]
  count = 0

  def hook(event, args):
    nonlocal count
    if is_change(event, args, folder):
      count += 1
      if count == at:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)
  sys.argv = [module, *arguments]
  try:
    runpy.run_module(module, run_name='__main__')
  finally:
    if not at:
      total = count
      pathlib.Path(folder, 'count').write_text(str(total), encoding='utf-8')


if __name__ == '__main__':
  main(sys.argv[1:])

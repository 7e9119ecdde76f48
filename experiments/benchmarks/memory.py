"""Peak memory of a whole run on data that stay in files: it does not grow with their number.

python -m experiments.benchmarks.memory

A run prepares a problem of random images, trains an original for a few hundred steps, unlearns by
MUDA and evaluates, in a process of its own, whose peak resident memory is what the system says. The
images are nearly all black: the file is sparse, and takes hardly any disk.

python -m experiments.benchmarks.memory --cifar10=DIR

does the same on real images in their place: all 50,000 training images of CIFAR-10, from a folder
of TensorFlow Datasets, enlarged to 100x100 pixels (1.5 GB).
"""

import pathlib
import subprocess
import sys
import tempfile

from absl import flags
import numpy as np
import PIL.Image

from dalign_jax import data, image_rows
from experiments.benchmarks import harness

FLAGS = flags.FLAGS
_SHAPE, _CLASSES = (128, 128, 3), 10
_SIDE = 100  # of the real images
_RUN = """
import resource, sys
from experiments import config, stages
from dalign_jax import training
training.keep_data_on_device(sys.argv[2])
stages.run(config.Config(
  dataset='npy:' + sys.argv[1] + '/data', workdir=sys.argv[1] + '/runs', forget='random:0.05',
  model='cnn', width_multiplier=0.25, batch_size=int(sys.argv[5]), num_epochs=1,
  max_examples=int(sys.argv[3]), validation_fraction=0.02, test_fraction=0.02, cache_dir='',
  compilation_cache_dir='', check_duplicates=sys.argv[4], methods=('muda',),
  hparam=('muda.rounds=1', 'muda.retain_fraction=0.02'),
))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each size: seconds, peak memory in MB, and number of images."""
  if FLAGS.cifar10:
    return [_real_case(place, 1000 if quick else 50_000) for place in FLAGS.places]
  sizes = [FLAGS.gib / 4, FLAGS.gib] if not quick else [0.02, 0.04]
  return [_sparse_case(size, place) for size in sizes for place in FLAGS.places]


def _sparse_case(gib, place):
  count = int(gib * 2**30) // int(np.prod(_SHAPE))
  with tempfile.TemporaryDirectory() as folder:
    _write(pathlib.Path(folder) / 'data', count)
    return _case(f'{gib:g} GiB', folder, place, count, 'off', 64)  # all black images are equal


def _real_case(place, count):
  with tempfile.TemporaryDirectory() as folder:
    _write_cifar10(pathlib.Path(folder) / 'data', count)
    return _case(f'CIFAR-10 at {_SIDE}x{_SIDE}', folder, place, count, 'warn', 32)


def _case(name, folder, place, count, check_duplicates, batch_size):
  settings = place, FLAGS.examples, check_duplicates, batch_size
  command = [sys.executable, '-c', _RUN, folder, *map(str, settings)]
  found = []
  run = lambda: found.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True))
  seconds = harness.timed(run)
  return {
    'name': f'{name}, data_on_device={place}',
    'seconds': {'run': seconds},
    'first_call_seconds': {},
    'ratios': {},
    'images': count,
    'peak_megabytes': int(found[0].stdout.split()[-1]),
  }


def _write_cifar10(folder: pathlib.Path, count: int) -> None:
  """The first training images of CIFAR-10, enlarged, and their labels."""
  source = data.load('cifar10', data_dir=FLAGS.cifar10, split='train').dataset
  folder.mkdir()
  writer = image_rows.ImageWriter(folder / 'images.npy', (_SIDE, _SIDE, 3))
  for image in source.images[:count]:
    picture = PIL.Image.fromarray(image).resize((_SIDE, _SIDE), PIL.Image.Resampling.BILINEAR)
    writer.append(np.asarray(picture))
  writer.finish()
  np.save(folder / 'labels.npy', source.labels[:count])


def _write(folder: pathlib.Path, count: int) -> None:
  """Images that are nearly all holes of a sparse file: black, but for the first pixels of each."""
  folder.mkdir()
  header = {'descr': '|u1', 'fortran_order': False, 'shape': (count, *_SHAPE)}
  with open(folder / 'images.npy', 'wb') as file:
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    file.truncate(start + count * int(np.prod(_SHAPE)))
    rng = np.random.default_rng(0)
    for row in rng.permutation(count)[:20_000]:  # some have content
      file.seek(start + int(row) * int(np.prod(_SHAPE)))
      file.write(rng.integers(0, 256, 512, np.uint8))
  np.save(folder / 'labels.npy', np.arange(count) % _CLASSES)


def _define() -> None:
  flags.DEFINE_float('gib', 40.0, 'Size of the larger set in GiB; the smaller is a quarter of it.')
  flags.DEFINE_integer('examples', 20_000, 'Images that a run trains on, of all: --max_examples.')
  flags.DEFINE_string('cifar10', '', 'TFDS folder with cifar10, to measure real images instead.')
  flags.DEFINE_list('places', ['no'], 'Values of --data_on_device to compare.')


if __name__ == '__main__':
  _define()
  harness.run(measure)

"""Peak memory of a whole run on data that stay in files: it does not grow with their number.

python -m experiments.benchmarks.memory

A run prepares a problem of random images, trains an original for a few hundred steps, unlearns by
MUDA and evaluates, in a process of its own, whose peak resident memory is what the system says. The
images are nearly all black: the file is sparse, and takes hardly any disk.
"""

import pathlib
import subprocess
import sys
import tempfile

from absl import flags
import numpy as np

from experiments.benchmarks import harness

FLAGS = flags.FLAGS
_SHAPE, _CLASSES = (128, 128, 3), 10
_RUN = """
import resource, sys
from experiments import config, stages
from dalign_jax import training
training.keep_data_on_device(sys.argv[2])
stages.run(config.Config(
  dataset='npy:' + sys.argv[1] + '/data', workdir=sys.argv[1] + '/runs', forget='random:0.05',
  model='cnn', width_multiplier=0.25, batch_size=64, num_epochs=1, max_examples=int(sys.argv[3]),
  validation_fraction=0.02, test_fraction=0.02, cache_dir='', compilation_cache_dir='',
  check_duplicates='off', methods=('muda',), hparam=('muda.rounds=1', 'muda.retain_fraction=0.02'),
))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each size: seconds, peak memory in MB, and bytes of images."""
  sizes = [FLAGS.gib / 4, FLAGS.gib] if not quick else [0.02, 0.04]
  return [_case(size, place) for size in sizes for place in FLAGS.places]


def _case(gib, place):
  with tempfile.TemporaryDirectory() as folder:
    count = int(gib * 2**30) // int(np.prod(_SHAPE))
    _write(pathlib.Path(folder) / 'data', count)
    command = [sys.executable, '-c', _RUN, folder, place, str(FLAGS.examples)]
    found = []
    run = lambda: found.append(
      subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    )
    seconds = harness.timed(run)
  return {
    'name': f'{gib:g} GiB, data_on_device={place}',
    'seconds': {'run': seconds},
    'first_call_seconds': {},
    'ratios': {},
    'images': count,
    'peak_megabytes': int(found[0].stdout.split()[-1]),
  }


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
  flags.DEFINE_list('places', ['no'], 'Values of --data_on_device to compare.')


if __name__ == '__main__':
  _define()
  harness.run(measure)

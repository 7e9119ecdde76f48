"""Process start and first training step, with and without the persistent compilation cache.

python -m experiments.benchmarks.startup
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from dalign_jax import parallel, types
from experiments.benchmarks import harness, training_step

NETWORKS = {'cnn': (28, 28, 1), 'resnet18': (32, 32, 3)}


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each network; each figure comes from a process of its own."""
  networks = {'cnn': (8, 8, 1)} if quick else NETWORKS
  return [_network(*item, rounds=1 if quick else 3) for item in networks.items()]


def _network(network, shape, *, rounds):
  """Processes without a cache, with an empty one and with the one that the last has filled."""
  parts = ('whole process', 'initial parameters', 'first step')
  seconds = {way: {part: [] for part in parts} for way in ('no cache', 'empty cache', 'full cache')}
  losses = set()
  for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
      for way, cache in zip(seconds, ('', folder, folder), strict=True):
        command = [sys.executable, '-m', __spec__.name, 'child', network, cache, *map(str, shape)]
        start = time.perf_counter()
        found = _output(command)
        found['whole process'] = time.perf_counter() - start
        losses.add(round(found['loss'], 4))
        for part in parts:
          seconds[way][part].append(found[part])
  timings = {
    f'{way}: {part}': harness.Timing(values[0], values)
    for way, lists in seconds.items()
    for part, values in lists.items()
  }
  pairs = [
    (f'{way}: {part}', f'no cache: {part}')
    for part in ('whole process', 'first step')
    for way in ('empty cache', 'full cache')
  ]
  return harness.row(network, timings, pairs, different_losses=len(losses))


def _output(command):
  root = pathlib.Path(__file__).parents[2]
  run = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(run.stdout)


def _child(network, cache, *shape):
  jax.config.update('jax_platforms', 'cpu')
  parallel.tune_cpu()
  if cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  start = time.perf_counter()
  shape = tuple(map(int, shape))
  rng = np.random.default_rng(0)
  dataset = types.Dataset(
    images=rng.integers(0, 256, (8, *shape), dtype=np.uint8),
    labels=rng.integers(0, 10, 8).astype(np.int32),
    ids=np.arange(8).astype(str),
  )
  _, step = training_step.our_step(network, dataset, np.arange(8, dtype=np.int32))
  initialised = time.perf_counter()
  loss = step()
  done = time.perf_counter()
  found = {
    'initial parameters': initialised - start,
    'first step': done - initialised,
    'loss': loss,
  }
  print(json.dumps(found))


if __name__ == '__main__':
  if sys.argv[1:2] == ['child']:
    _child(*sys.argv[2:])
  else:
    harness.run(measure)

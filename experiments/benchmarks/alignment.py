"""Dimensional alignment by streamed second moments, compared with an SVD of all features.

Each result comes from a separate process, so that peak memory is that of one method.

python -m experiments.benchmarks.alignment
"""

from collections.abc import Iterator
import json
import pathlib
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import losses, metrics
from experiments.benchmarks import harness

BATCH, ENERGY, FORGET_ROWS = 500, 0.95, 1000
SIZES = ((512, 5_000), (512, 50_000), (2048, 5_000), (2048, 50_000))  # features D, rows N


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each size: seconds and peak megabytes of both ways, and how far the values differ."""
  return [_size(*size) for size in (((32, 1_000), (32, 3_000)) if quick else SIZES)]


def _size(dimensions, rows):
  found = {way: _in_subprocess(way, dimensions, rows) for way in WAYS}
  timings = {way: harness.Timing(f['first_call_seconds'], f['seconds']) for way, f in found.items()}
  others = [way for way in WAYS if way != 'streamed']
  values = [f['value'] for f in found.values()]
  return harness.row(
    f'D = {dimensions}, N = {rows}',
    timings,
    [('streamed', other) for other in others],
    peak_megabytes={way: f['peak_megabytes'] for way, f in found.items()},
    ranks={way: f['rank'] for way, f in found.items()},
    largest_value_difference=max(values) - min(values),
  )


def _in_subprocess(way, dimensions, rows):
  command = [sys.executable, '-m', __spec__.name, way, str(dimensions), str(rows)]
  root = pathlib.Path(__file__).parents[2]
  run = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(run.stdout)


def batches(dimensions: int, rows: int, *, seed: int) -> Iterator[np.ndarray]:
  """Features `[BATCH, D]` with a decaying spectrum, as a network would hand them out."""
  rng = np.random.default_rng(seed)
  scales = (1 / np.arange(1, dimensions + 1)).astype(np.float32)
  for _ in range(rows // BATCH):
    yield rng.standard_normal((BATCH, dimensions), np.float32) * scales


def streamed(dimensions: int, rows: int) -> tuple[metrics.Alignment, float]:
  """The alignment from moments summed over batches, and the seconds without making the batches."""
  moment_of = jax.jit(lambda total, features: total + losses.second_moment(features))
  seconds, moments = 0.0, []
  for count, seed in ((FORGET_ROWS, 1), (rows, 0)):
    total = jnp.zeros((dimensions, dimensions))
    moment_of(total, jnp.zeros((BATCH, dimensions)))  # compiles
    for features in batches(dimensions, count, seed=seed):
      start = time.perf_counter()
      total = jax.block_until_ready(moment_of(total, features))
      seconds += time.perf_counter() - start
    moments.append(total)
  basis_of = jax.jit(lambda moment: losses.principal_basis(moment, energy=ENERGY))
  basis_of(jnp.eye(dimensions))  # compiles
  start = time.perf_counter()
  basis = basis_of(moments[1])
  value = jnp.sum(basis * (moments[0] @ basis)) / jnp.trace(moments[0])
  result = metrics.Alignment(float(value), int(losses.basis_rank(basis)))
  return result, seconds + time.perf_counter() - start


def svd(dimensions: int, rows: int) -> tuple[metrics.Alignment, float]:
  """The alignment from NumPy's SVD of all features at once, and the seconds for it."""
  forget, retain = _all(dimensions, rows)
  start = time.perf_counter()
  _, singular, vectors = np.linalg.svd(retain, full_matrices=False)
  return _from_svd(forget, singular, vectors), time.perf_counter() - start


def jax_svd(dimensions: int, rows: int) -> tuple[metrics.Alignment, float]:
  """As `svd`, with JAX's SVD."""
  forget, retain = _all(dimensions, rows)
  start = time.perf_counter()
  _, singular, vectors = jnp.linalg.svd(retain, full_matrices=False)
  result = _from_svd(forget, np.asarray(singular), np.asarray(vectors))
  return result, time.perf_counter() - start


def _all(dimensions, rows):
  features = []
  for count, seed in ((FORGET_ROWS, 1), (rows, 0)):
    features.append(np.empty((count, dimensions), np.float32))
    for index, batch in enumerate(batches(dimensions, count, seed=seed)):
      features[-1][index * BATCH : (index + 1) * BATCH] = batch
  return features


def _from_svd(forget, singular, vectors):
  held = np.cumsum(singular**2) / np.sum(singular**2)
  rank = int(np.searchsorted(held, ENERGY)) + 1
  return metrics.Alignment(
    float(np.sum((forget @ vectors[:rank].T) ** 2) / np.sum(forget**2)), rank
  )


WAYS = {'streamed': streamed, 'svd': svd, 'jax svd': jax_svd}


def peak_megabytes() -> float:
  """The largest resident size of this process so far."""
  status = pathlib.Path('/proc/self/status')
  for line in status.read_text().splitlines() if status.exists() else ():
    if line.startswith('VmHWM'):  # ru_maxrss would start at the parent's size
      return int(line.split()[1]) / 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if _IS_MAC else 1024)


_IS_MAC = sys.platform == 'darwin'


def _child(way, dimensions, rows):
  jax.config.update('jax_platforms', 'cpu')
  _, first = WAYS[way](dimensions, 2 * BATCH)  # starts threads and libraries
  before = peak_megabytes()
  result, seconds = WAYS[way](dimensions, rows)
  found = {
    'value': result.value,
    'rank': result.rank,
    'seconds': [seconds],
    'first_call_seconds': first,
    'peak_megabytes': peak_megabytes() - before,
  }
  print(json.dumps(found))


if __name__ == '__main__':
  if len(sys.argv) > 3 and sys.argv[1] in WAYS:
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
  else:
    harness.run(measure)

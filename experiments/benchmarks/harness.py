"""Shared parts of the benchmarks: interleaved rounds, ratios with their spread, JSON, a table."""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from typing import NamedTuple

from absl import app, flags
import jax
import numpy as np

from dalign_jax import errors, parallel, types

_QUICK = flags.DEFINE_bool('quick', False, 'Tiny sizes: shows that it works, not how fast it is.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write the JSON; empty: nowhere.')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'torch')
_ALLOCATOR = ('MALLOC_ARENA_MAX', 'MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES')


class Timing(NamedTuple):
  """Seconds of the first call, which compiles, and of each round after the warm-up."""

  first: float
  rounds: list[float]

  @property
  def median(self) -> float:
    return statistics.median(self.rounds)


def interleave(
  functions: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1
) -> dict[str, Timing]:
  """Times functions in turn: a, b, a, b ..., so that other load on the machine meets all alike.

  Args:
    functions: by name; each blocks until its work is done.
    rounds: rounds that count.
    warm_up: rounds before them that do not, the first call apart.

  Returns:
    The timing of each function.
  """
  first = {name: timed(function) for name, function in functions.items()}
  timings = {name: Timing(seconds, []) for name, seconds in first.items()}
  for index in range(warm_up + rounds):
    for name, function in functions.items():
      seconds = timed(function)
      if index >= warm_up:
        timings[name].rounds.append(seconds)
  return timings


@functools.cache
def random_dataset(image_shape: tuple[int, ...], rows: int) -> types.Dataset:
  """Noise with random labels of ten classes; the same at each call."""
  rng = np.random.default_rng(0)
  return types.Dataset(
    images=rng.integers(0, 256, (rows, *image_shape), dtype=np.uint8),
    labels=rng.integers(0, 10, rows).astype(np.int32),
    ids=np.arange(rows).astype(str),
  )


def timed(function: Callable[[], object]) -> float:
  """Seconds that one call takes."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def ratio(ours: Timing, other: Timing) -> dict[str, float]:
  """Quotient ours / other, round by round: its median and quartiles. Below 1: ours is faster."""
  quotients = [a / b for a, b in zip(ours.rounds, other.rounds, strict=True)]
  low, median, high = quotients[0], quotients[0], quotients[0]
  if len(quotients) > 1:
    low, median, high = statistics.quantiles(quotients, n=4, method='inclusive')
  return {'median': median, 'low': low, 'high': high}


def row(name: str, timings: Mapping[str, Timing], pairs: Sequence[tuple[str, str]], **more) -> dict:
  """One line of a benchmark's results: medians, first calls, the ratios of `pairs`, and more."""
  return {
    'name': name,
    'seconds': {key: timing.median for key, timing in timings.items()},
    'first_call_seconds': {key: timing.first for key, timing in timings.items()},
    'ratios': {f'{a} / {b}': ratio(timings[a], timings[b]) for a, b in pairs},
    **more,
  }


def environment() -> dict:
  """Environment of the results: processor, versions, compiler, allocator, the machine's load."""
  return {
    'processor': _processor(),
    'cores': os.cpu_count(),
    'system': f'{platform.system()} {platform.machine()}',
    'python': platform.python_version(),
    'versions': {name: version for name in _PACKAGES if (version := _version(name))},
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'allocator': {name: os.environ[name] for name in _ALLOCATOR if name in os.environ},
    'load_average': os.getloadavg()[0],
  }


def run(measure: Callable[..., list[dict]]) -> None:
  """Runs a benchmark as a program, on JAX's CPU backend with the settings of `experiments.run`.

  Args:
    measure: called with `quick`; returns rows as `row` makes them. A `UserError` is shown in one
      line.
  """

  def main(argv):
    del argv
    jax.config.update('jax_platforms', 'cpu')
    parallel.tune_cpu()
    before = environment()  # with the flags of tune_cpu
    try:
      rows = measure(quick=_QUICK.value)
    except errors.InputError as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)
    print_rows(rows)
    after = {'load_average_after': environment()['load_average']}
    result = {'command': _command(), 'environment': {**before, **after}, 'rows': rows}
    if _OUTPUT.value:
      pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')

  app.run(main)


def print_rows(rows: Sequence[Mapping]) -> None:
  """Prints milliseconds and ratios, one quantity a line."""
  for entry in rows:
    print(entry['name'])
    for name, seconds in entry['seconds'].items():
      print(f'  {name:<44} {1e3 * seconds:10.2f} ms')
    for name, value in entry['ratios'].items():
      print(f'  {name:<44} {value["median"]:10.3g} x  ({value["low"]:.3g} to {value["high"]:.3g})')
    for name in sorted(entry.keys() - {'name', 'seconds', 'ratios', 'first_call_seconds'}):
      print(f'  {name}: {entry[name]}')


def import_torch():
  """PyTorch, with as many threads as there are cores.

  Its OpenMP threads sleep while they wait: where other processes want the cores,
  threads that spin make a small step 5 to 10 times slower.

  Raises:
    UserError: if it is not installed.
  """
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(
      "this benchmark compares with PyTorch, which is not installed: pip install '.[bench]'"
    ) from error
  torch.set_num_threads(os.cpu_count() or 1)
  return torch


def _command() -> str:
  module = f'experiments.benchmarks.{pathlib.Path(sys.argv[0]).stem}'
  return ' '.join(['python', '-m', module, *sys.argv[1:]])


def _processor() -> str:
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text(encoding='utf-8').splitlines() if info.exists() else []
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  return names[0] if names else platform.processor()


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ''

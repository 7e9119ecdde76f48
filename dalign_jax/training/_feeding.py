"""Where the rows of a step come from: from the devices, or from the host, batch by batch."""

import collections
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
import itertools
import os

import jax
import numpy as np

from dalign_jax import errors, parallel, types

PLACES = ('auto', 'yes', 'no')
_SHARE = 0.25  # of a device's memory, or of the machine's, that data may take in 'auto'
_AHEAD = 2  # calls whose rows are gathered, or whose results are awaited, ahead
_chosen = ['auto']

Indices = Mapping[str, np.ndarray]


class HostData:
  """Data that stay on the host: each call of a step is sent the rows that it uses.

  A call gets its rows, in order, as if they were the whole set: the same program, the same bits.
  """

  def __init__(self, fields: Mapping[str, Mapping[str, np.ndarray]]):
    self._fields = fields

  def gather(self, indices: Indices) -> tuple[dict, dict]:
    """The rows `[local devices, n, ...]` of each set, and their numbers in the indices' shape."""
    data, numbers = {}, {}
    for name, rows in indices.items():
      devices, count = len(rows), rows[0].size
      data[name] = {
        field: np.asarray(values[rows.ravel()]).reshape(devices, count, *values.shape[1:])
        for field, values in self._fields[name].items()
      }
      own = np.arange(count, dtype=np.int32).reshape(rows.shape[1:])
      numbers[name] = np.broadcast_to(own, rows.shape)
    return data, numbers

  def feed(self, calls: Iterable[Indices]) -> Iterator[tuple[dict, dict]]:
    """What `gather` gives for each call; a thread gathers the next ones meanwhile."""
    waiting: collections.deque[futures.Future] = collections.deque()
    calls = iter(calls)
    with futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix='rows') as pool:
      waiting.extend(pool.submit(self.gather, call) for call in itertools.islice(calls, _AHEAD))
      while waiting:
        ready = waiting.popleft().result()
        waiting.extend(pool.submit(self.gather, call) for call in itertools.islice(calls, 1))
        yield ready


def keep_data_on_device(choice: str) -> None:
  """Chooses where training data are kept from now on, for the whole process.

  Args:
    choice: 'yes' (on every device, as bytes), 'no' (on the host: each step is sent its rows) or
      'auto' (on the device where they take a quarter of its memory or less). Results are equal to
      the bit.

  Raises:
    errors.InputError: for another choice.
  """
  if choice not in PLACES:
    raise errors.InputError(f'data_on_device must be one of {", ".join(PLACES)}, got {choice!r}')
  _chosen[0] = choice


def put_data(datasets: Mapping[str, types.Dataset], devices: parallel.Devices = None, **extra):
  """Datasets as the rows of training steps: `{set: {'images', 'labels', ...}}`.

  Args:
    datasets: by name.
    devices: devices that will run the steps, None for all.
    **extra: `set={field: [N, ...]}`, further per-example arrays of a set.

  Returns:
    What `run_steps` takes: the fields on every device, or `HostData`; see `keep_data_on_device`.
  """
  fields = {
    name: {'images': d.images, 'labels': d.labels, **extra.get(name, {})}
    for name, d in datasets.items()
  }
  if not _fits(fields, devices):
    return HostData(fields)
  return parallel.replicate(jax.tree.map(np.ascontiguousarray, fields), devices)


def _fits(fields, devices) -> bool:
  if _chosen[0] != 'auto':
    return _chosen[0] == 'yes'
  local = parallel.local_devices(devices)
  size = sum(values.nbytes for of_set in fields.values() for values in of_set.values())
  memory = (local[0].memory_stats() or {}).get('bytes_limit')
  if memory is None:  # a CPU, whose devices share the machine's memory
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(local)
  return size <= _SHARE * memory

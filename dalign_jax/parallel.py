"""The one place that knows devices and processes.

One SPMD program runs on every device with the axis name `'devices'`, mapped by `jax.pmap` or, after
`use('shard_map')`, by `jax.jit` of `jax.shard_map` over one mesh. The global batch is cut along
that axis, states and data are replicated: one device and many give the same result to rounding.
"""

from collections.abc import Callable, Sequence
import ctypes
import functools
import os
import sys

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from dalign_jax import errors, flop, types

AXIS = 'devices'

Devices = Sequence[jax.Device] | None

# Training steps compile to faster code on the CPU backend with these (measured by
# experiments/benchmarks/training_step.py): the first keeps optimization barriers until fusion, the
# second leaves convolutions to Eigen.
CPU_FLAGS = (
  '--xla_disable_hlo_passes=cse_barrier_expander',
  '--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE',
)


# glibc's malloc gives large blocks back to the system at every free, and each call of a compiled
# step then takes a page fault for every 4 KiB of its temporary memory: a third of a small network's
# step. So it keeps them (mallopt's names are those of malloc.h): the process holds its peak memory.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def tune_cpu() -> None:
  """Compiler and allocator settings for training on the CPU; before the first use of a device.

  Puts `CPU_FLAGS` into XLA_FLAGS and, with glibc, lets malloc keep freed memory. XLA aborts the
  process on a flag that it does not know, so the flags are for versions of JAX that are known to
  have them (0.10 to 0.12); the caller must know that the backend will be the CPU.
  """
  _keep_freed_memory()
  if not (0, 10) <= jax.__version_info__[:2] <= (0, 12):
    return
  present = os.environ.get('XLA_FLAGS', '').split()
  os.environ['XLA_FLAGS'] = ' '.join(present + [f for f in CPU_FLAGS if f not in present])


def _keep_freed_memory() -> None:
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
  if mallopt:
    mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads cannot grow beyond 64 MiB
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def initialize(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins a run of several processes; every process then runs the same program.

  Without arguments, JAX detects the processes that SLURM, MPI or a cloud TPU started.

  Args:
    coordinator_address: `host:port` of process 0.
    num_processes: how many processes take part.
    process_id: this process's index, from 0.
  """
  jax.distributed.initialize(coordinator_address, num_processes, process_id)


def is_main_process() -> bool:
  """Whether this process is the one that writes files and prints."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has reached this call."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agree(value: bool) -> bool:
  """Process 0's value, on every process."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def num_devices(devices: Devices = None) -> int:
  """Number of devices that share a global batch, over all processes."""
  return len(devices) if devices else jax.device_count()


def use(mapping: str) -> None:
  """Chooses how programs are mapped from now on, for the whole process: a name of `MAPPINGS`.

  Raises:
    errors.InputError: for another name.
  """
  if mapping not in MAPPINGS:
    raise errors.InputError(f'mapping must be one of {", ".join(MAPPINGS)}, got {mapping!r}')
  _chosen[0] = mapping


def mapping() -> str:
  """The name of the mapping in use; compiled programs are kept by it."""
  return _chosen[0]


def spmd(fn: Callable, *, devices: Devices = None, donate_argnums: Sequence[int] = ()) -> Callable:
  """Maps a program over `devices` (None: all) with the axis name `'devices'`.

  Args:
    fn: of pytrees; it sees one device's part of each, without the leading axis.
    devices: devices to run on.
    donate_argnums: arguments whose buffers may be reused.

  Returns:
    A function of pytrees with a leading axis of this process's devices.
  """
  program, place = MAPPINGS[_chosen[0]](
    fn, tuple(devices) if devices else None, tuple(donate_argnums)
  )
  placed = lambda *args: program(*jax.tree.map(place, args))
  return flop.counted(placed if place else program, fn, AXIS, num_devices(devices))


def _pmap(fn, devices, donate_argnums):
  devices = list(devices) if devices else None
  return jax.pmap(fn, axis_name=AXIS, devices=devices, donate_argnums=donate_argnums), None


def _shard_map(fn, devices, donate_argnums):
  by_device = NamedSharding(_mesh(devices), PartitionSpec(AXIS))

  def block(*args):
    result = fn(*jax.tree.map(lambda x: x[0], args))
    return jax.tree.map(lambda x: x[None], result)

  mapped = jax.jit(
    jax.shard_map(
      block,
      mesh=by_device.mesh,
      in_specs=by_device.spec,
      out_specs=by_device.spec,
      check_vma=False,  # programs average their gradients themselves, as under pmap
    ),
    donate_argnums=donate_argnums,
  )

  def place(x):
    is_placed = isinstance(x, jax.Array) and x.sharding == by_device
    return x if is_placed else jax.make_array_from_process_local_data(by_device, np.asarray(x))

  return mapped, place


MAPPINGS = {'pmap': _pmap, 'shard_map': _shard_map}
_chosen = ['pmap']


def _mesh(devices) -> Mesh:
  return Mesh(np.array(devices if devices else jax.devices()), (AXIS,))


def replicate(tree: types.PyTree, devices: Devices = None) -> types.PyTree:
  """Copies a host pytree to each of this process's devices: leaves get a leading device axis.

  Each device is sent the one host copy; none is made for each of them.
  """
  whole = NamedSharding(_mesh(local_devices(devices)), PartitionSpec())
  by_device = NamedSharding(_mesh(devices), PartitionSpec(AXIS))

  def spread(x):
    x = jax.device_put(np.asarray(x)[None], whole)
    shape = (by_device.mesh.size, *x.shape[1:])
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(shape, by_device, shards)

  return jax.tree.map(spread, tree)


def fetch(tree: types.PyTree) -> types.PyTree:
  """A replicated pytree back on the host: NumPy leaves without the device axis."""
  first = jax.tree.map(lambda x: x.addressable_shards[0].data, tree)
  return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(first))


def shard(batch: np.ndarray, devices: Devices = None) -> np.ndarray:
  """Cuts a host array `[..., B]` of the global batch into `[local devices, ..., B / devices]`.

  Raises:
    ValueError: if the batch cannot be cut into equal parts.
  """
  total = num_devices(devices)
  if batch.shape[-1] % total:
    raise errors.InputError(
      f'batch_size must be a multiple of the {total} devices, got {batch.shape[-1]}'
    )
  return np.stack(_mine(np.split(batch, total, axis=-1), devices))


def padded_members(num_members: int, devices: Devices = None) -> int:
  """The number of members that are computed: `num_members`, or the next multiple of the devices."""
  total = num_devices(devices)
  return -(-num_members // total) * total


def shard_members(values: np.ndarray, devices: Devices = None) -> np.ndarray:
  """Divides the members `[K, ...]` of an ensemble: `[local devices, K / devices, ...]`.

  Where K is no multiple of the devices, the last member is repeated.
  """
  rows = np.minimum(np.arange(padded_members(len(values), devices)), len(values) - 1)
  return np.asarray(values)[np.stack(_mine(np.split(rows, num_devices(devices)), devices))]


def place_members(tree: types.PyTree, devices: Devices = None) -> types.PyTree:
  """A host pytree of leaves `[K, ...]` on the devices, divided as by `shard_members`."""
  by_device = NamedSharding(_mesh(devices), PartitionSpec(AXIS))
  place = functools.partial(jax.make_array_from_process_local_data, by_device)
  return jax.tree.map(lambda x: place(shard_members(x, devices)), tree)


def fetch_members(tree: types.PyTree, *, num_members: int) -> types.PyTree:
  """The members of `place_members` back on the host, of all processes: leaves `[K, ...]`."""
  merge = lambda x: np.concatenate([np.asarray(s.data)[0] for s in x.addressable_shards])
  tree = jax.tree.map(merge, tree)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    tree = multihost_utils.process_allgather(tree, tiled=True)
  return jax.tree.map(lambda x: np.asarray(x)[:num_members], tree)


def example_keys(key: jax.Array, local_batch: int) -> jax.Array:
  """A key for each example of this device's batch, the same however the global batch is cut.

  To be called inside a function mapped by `spmd`.
  """
  start = jax.lax.axis_index(AXIS) * local_batch
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jnp.arange(local_batch))


def steps_per_call() -> int:
  """Number of training steps that one compiled call should scan over on this backend.

  Many steps spare the dispatch on accelerators; on the CPU backend a convolution inside a loop is
  slower than the loop saves.
  """
  return 1 if jax.default_backend() == 'cpu' else 16


def _mine(parts, devices):
  """Of a part for each device, those of this process's devices."""
  everyone = list(devices) if devices else jax.devices()
  return [p for p, d in zip(parts, everyone, strict=True) if d.process_index == jax.process_index()]


def must_block(devices: Devices = None) -> bool:
  """Whether each step must be awaited before the next is queued.

  Queued collectives of several CPU devices can deadlock (seen on jax 0.10.2).
  """
  return jax.default_backend() == 'cpu' and num_devices(devices) > 1


def local_devices(devices: Devices = None) -> list[jax.Device]:
  """This process's part of the devices."""
  everyone = devices if devices else jax.devices()
  return [d for d in everyone if d.process_index == jax.process_index()]

"""The folder of a model: made once, whole, with a record of how; interrupted work resumes."""

from collections.abc import Callable
import importlib.metadata
import os
import pathlib
from typing import Any

import jax

from dalign_jax import checkpoints, digests, errors, parallel, training, types
from dalign_jax.store import files, progress, timing

digest = digests.of_model
_PACKAGES = ('dalign-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def make_model(
  folder: pathlib.Path,
  name: str,
  compute: Callable[[types.Monitor], types.ModelState],
  record: dict,
  title: str,
  *,
  devices: parallel.Devices,
  is_one_of_many: bool = False,
  tensorboard: bool = False,
) -> None:
  """Computes a model and saves it with a record of how it was made, unless it is there.

  Args:
    folder: the model's own folder.
    name: of the checkpoint in it.
    compute: makes the model under a monitor.
    record: what the model must have been made with, if it is there.
    title: for people.
    devices: that `compute` uses, None for all.
    is_one_of_many: show progress, but say no line when done.
    tensorboard: write event files.

  Raises:
    errors.InputError: if a model is there that was made with another record.
    errors.DivergedError: if the loss became NaN.
    errors.BusyError: if another process is at work in the folder.
  """
  made_with = {**record, **environment(devices)}
  said = '' if is_one_of_many else title
  if _is_there(folder, name, record, said):  # whoever measures it may hold the folder
    return
  with files.locked_by_writer(folder):  # held before it looks again: no two make the same model
    if _is_there(folder, name, record, said):
      return
    model, spent, monitor = watch(folder, compute, made_with, title, tensorboard=tensorboard)
    if parallel.is_main_process():
      save(folder / name, model, {**made_with, **spent})
    monitor.close()
  parallel.barrier(str(folder))
  if not is_one_of_many:
    say_spent(title, spent)


def _is_there(folder, name, record, title) -> bool:
  """Whether the model is there, made as it must be; says so under its title."""
  if not parallel.agree(checkpoints.exists(folder / name)):
    return False
  found = checkpoints.read_record(folder / name)
  _check_record(folder, {k: found.get(k) for k in record}, record)
  if title:
    progress.say(f'{title}: done before ({found["seconds"]:.1f} s)')
  return True


def watch(
  folder: pathlib.Path,
  compute: Callable,
  made_with: dict,
  title: str,
  *,
  tensorboard: bool = False,
) -> tuple[Any, dict[str, float], progress.RunMonitor]:
  """Computes under a monitor: the result, the seconds, and the monitor."""
  with progress.bar(title) as shown:
    monitor = progress.RunMonitor(folder, shown, timing.compile_seconds, made_with, tensorboard)
    try:
      result = compute(monitor)
    except training.NonFiniteLossError as error:
      last = checkpoints.latest_epoch(folder / 'training')
      kept = f'the state after epoch {last} is kept' if last else 'no epoch was finished'
      raise errors.DivergedError(
        f'{title}: {error}; {kept} in {folder}. Try a lower learning rate.'
      ) from None
    return result, monitor.seconds(), monitor


def save(path: pathlib.Path, model: types.ModelState, record: dict) -> None:
  """Saves a model with its record and its digest."""
  checkpoints.save(path, model, {**record, 'digest': digest(model)})


def say_spent(title: str, spent: dict[str, float]) -> None:
  """Says how long it took."""
  progress.say(
    f'{title}: {spent["seconds"]:.1f} s, and {spent["compile_seconds"]:.1f} s of compilation'
  )


def _check_record(folder, there, now):
  changed = [k for k in now if there[k] != now[k]]
  if changed:
    lines = [f'{k}: {there[k]!r} there, {now[k]!r} now' for k in changed]
    raise errors.InputError(
      f'{folder} was made with other settings ({"; ".join(lines)}); use another '
      '--problem or --workdir, or delete the folder',
      argument='workdir',
    )


def environment(devices: parallel.Devices) -> dict:
  """The environment of a model made on `devices`, on which its bits and its seconds depend."""
  return {
    'devices': f'{parallel.num_devices(devices)} x {jax.devices()[0].device_kind}',
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'versions': versions(),
  }


def versions() -> dict[str, str]:
  """Versions of the packages that a result depends on."""
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'
  return found

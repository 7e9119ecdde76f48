"""Makes models and keeps them: each once, whole, with a record of how; interrupted work resumes."""

from collections.abc import Callable, Mapping
import hashlib
import os
import pathlib
import shutil

import jax
import numpy as np

from dalign_jax import checkpoints, parallel, training, types
from experiments import errors, files, problems, progress, timing

_ROLES = ('original', 'gold', 'unlearn', 'shadow', 'memorisation')


def make_model(
  folder: pathlib.Path,
  name: str,
  compute: Callable[[types.Monitor], types.ModelState],
  record: dict,
  title: str,
  *,
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
    is_one_of_many: show progress, but say no line when done.
    tensorboard: write event files.

  Raises:
    errors.UserError: if there is a model that was made with another record, or the loss became NaN.
  """
  made_with = {**record, **environment()}
  if parallel.agree(checkpoints.exists(folder / name)):
    _, found = checkpoints.restore(folder / name)
    _check_record(folder, {k: found.get(k) for k in record}, record)
    if not is_one_of_many:
      progress.say(f'{title}: done before ({found["seconds"]:.1f} s)')
    return
  with files.locked_by_writer(folder):
    model, spent, monitor = _watch(folder, compute, made_with, title, tensorboard)
    if parallel.is_main_process():
      _save(folder / name, model, {**made_with, **spent})
    monitor.close()
  parallel.barrier(str(folder))
  if not is_one_of_many:
    _say_spent(title, spent)


def make_ensemble(
  job: problems.Job,
  role: str,
  folders: Mapping[int, pathlib.Path],
  keys: Mapping[int, jax.Array],
  dataset: types.Dataset,
  subsets: Mapping[int, np.ndarray],
) -> None:
  """Trains those models of a role that are missing, some at a time in one program.

  A group that was interrupted is finished first, from the last epoch it reached.

  Args:
    job: the problem.
    role: 'original', 'gold' or 'shadow', the name of the folder.
    folders: seed -> where the model goes.
    keys: seed -> key of initialisation and training.
    dataset: what `subsets` picks from.
    subsets: seed -> rows of the training set, equally many for each.
  """
  folder = job.folder / role / 'ensemble'
  while group := _next_group(job, folder, folders):
    title = f'train {role}: {len(group)} models'
    made_with = {'seeds': group, 'examples': len(subsets[group[0]]), **environment()}

    def compute(monitor, group=group):
      pairs = [jax.random.split(keys[seed]) for seed in group]
      return training.fit_ensemble(
        job.apply_fn,
        [job.init_fn(init_key) for init_key, _ in pairs],
        dataset,
        job.recipe,
        [fit_key for _, fit_key in pairs],
        subsets=np.stack([subsets[seed] for seed in group]),
        devices=job.devices,
        monitor=monitor,
      )

    members, spent, _ = _watch(folder, compute, made_with, title, False)
    if parallel.is_main_process():
      each = {name: seconds / len(group) for name, seconds in spent.items()}
      for seed, model in zip(group, members, strict=True):
        record = {**made_with, **each, 'seed': seed, 'trained_together': len(group)}
        shutil.copy(folder / 'train.jsonl', _made(folders[seed]) / 'train.jsonl')
        _save(folders[seed] / 'model', model, record)
      shutil.rmtree(folder)
    parallel.barrier(title)
    _say_spent(title, spent)


def _next_group(job, folder, folders) -> list[int]:
  """The seeds of the next group to train, agreed on by all processes; empty when all are there."""
  path = folder / 'members.json'
  if parallel.is_main_process():
    missing = [seed for seed, f in folders.items() if not checkpoints.exists(f / 'model')]
    if not missing or (path.exists() and not set(files.read_json(path)) <= folders.keys()):
      shutil.rmtree(folder, ignore_errors=True)  # nothing to do, or of a run with more models
    if missing and not path.exists():
      files.write_json(path, missing[: job.config.ensemble_size])
  parallel.barrier('ensemble')
  return files.read_json(path) if path.exists() else []


def _made(folder):
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _watch(folder, compute, made_with, title, tensorboard):
  """Computes under a monitor: the result, the seconds, and the monitor."""
  with progress.bar(title) as shown:
    monitor = progress.RunMonitor(folder, shown, timing.compile_seconds, made_with, tensorboard)
    try:
      result = compute(monitor)
    except training.NonFiniteLossError as error:
      last = checkpoints.latest_epoch(folder / 'training')
      kept = f'the state after epoch {last} is kept' if last else 'no epoch was finished'
      raise errors.UserError(
        f'{title}: {error}; {kept} in {folder}. Try a lower learning rate.'
      ) from None
    return result, monitor.seconds(), monitor


def _save(path, model, record):
  checkpoints.save(path, model, {**record, 'digest': digest(model)})


def _say_spent(title, spent):
  progress.say(
    f'{title}: {spent["seconds"]:.1f} s, and {spent["compile_seconds"]:.1f} s of compilation'
  )


def _check_record(folder, there, now):
  changed = [k for k in now if there[k] != now[k]]
  if changed:
    lines = [f'{k}: {there[k]!r} there, {now[k]!r} now' for k in changed]
    raise errors.UserError(
      f'--workdir: {folder} was made with other settings ({"; ".join(lines)}); use another '
      '--problem or --workdir, or delete the folder'
    )


def stream(seed: int, role: str) -> jax.Array:
  """A stream for each role: equal seeds of original, gold and method have nothing in common."""
  return jax.random.fold_in(jax.random.key(seed), _ROLES.index(role))


def digest(model: types.ModelState) -> str:
  """SHA-256 of a model's bytes: an evaluation says which models it is of."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(model):
    digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()


def environment() -> dict:
  """Where a model was made: what its bits and its seconds depend on."""
  return {
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'versions': problems.versions(),
  }

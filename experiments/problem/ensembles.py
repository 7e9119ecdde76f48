"""Several models of a role from one program, each kept in its own folder."""

from collections.abc import Mapping
import pathlib
import shutil

import jax
import numpy as np

from dalign_jax import checkpoints, fresh, parallel, training, types
from dalign_jax.store import files, model_folder
from experiments.problem import preparation


def make_ensemble(
  job: preparation.Job,
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
    made_with = {'seeds': group, 'examples': len(subsets[group[0]])}
    made_with |= model_folder.environment(job.devices)

    def compute(monitor, group=group):
      pairs = [jax.random.split(keys[seed]) for seed in group]
      start = lambda seed, key: fresh.model(job.init_fn, key, dataset.take(subsets[seed]))
      return training.fit_ensemble(
        job.apply_fn,
        [start(seed, init_key) for seed, (init_key, _) in zip(group, pairs, strict=True)],
        dataset,
        job.recipe,
        [fit_key for _, fit_key in pairs],
        subsets=np.stack([subsets[seed] for seed in group]),
        devices=job.devices,
        monitor=monitor,
      )

    members, spent, _ = model_folder.watch(folder, compute, made_with, title)
    if parallel.is_main_process():
      each = {name: value / len(group) for name, value in spent.items()}
      if 'flop' in spent:
        each['flop'] = spent['flop'] / parallel.padded_members(len(group), job.devices)
      for seed, model in zip(group, members, strict=True):
        if checkpoints.exists(folders[seed] / 'model'):
          continue  # by this group, which was stopped while it saved
        record = {**made_with, **each, 'seed': seed, 'trained_together': len(group)}
        shutil.copy(folder / 'train.jsonl', _existing(folders[seed]) / 'train.jsonl')
        model_folder.save(folders[seed] / 'model', model, record)
      shutil.rmtree(folder)
    parallel.barrier(title)
    model_folder.say_spent(title, spent)


def _next_group(job, folder, folders) -> list[int]:
  """The seeds of the next group to train, agreed on by all processes; empty when all are there."""
  path = folder / 'members.json'
  if parallel.is_main_process():
    missing = [seed for seed, f in folders.items() if not checkpoints.exists(f / 'model')]
    wanted = missing[: job.config.ensemble_size]
    group = _members(path) if path.exists() else wanted
    is_ours = set(group) <= folders.keys() and not set(group).isdisjoint(missing)
    is_begun = checkpoints.latest_epoch(folder / 'training') is not None
    if not is_ours or not (is_begun or group == wanted):  # done, or of other models, or too large
      shutil.rmtree(folder, ignore_errors=True)
    if missing and not path.exists():
      files.write_json(path, wanted)
  parallel.barrier('ensemble')
  return _members(path) if path.exists() else []


def _members(path) -> list[int]:
  found = files.read_json(path)
  if not isinstance(found, list) or not found or not all(isinstance(s, int) for s in found):
    raise files.DamagedError(path, 'it must be a list of seeds')
  return found


def _existing(folder):
  folder.mkdir(parents=True, exist_ok=True)
  return folder

"""Memorisation scores of training images, from models trained without a part of them."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import checkpoints, errors, metrics, parallel, prediction, seeds
from dalign_jax.store import files, problem_folder, progress
from experiments import config as config_lib
from experiments.problem import ensembles, preparation

_FILE = 'scores.npz'
_PARTS = 3  # each model is trained without one of so many parts
_NOT_ASKED = ('forget', 'original_seed', 'gold_seed')  # settings that scores do not depend on


class Scores(NamedTuple):
  """Scores `[N]` of all rows (not a number for those not trained on), and of what data."""

  values: np.ndarray
  data_hash: str


def scores(config: config_lib.Config) -> Scores:
  """The scores of a configuration's training images; trains the models that they need once.

  They are kept in `<workdir>/memorisation/`, for all requests and seeds on one training set.

  Raises:
    errors.InputError: if `--memorisation_models` is not a multiple of 3.
  """
  check_count(config)
  return stored(config, _FILE, 'memorisation', _compute)


def check_count(config: config_lib.Config) -> None:
  """Raises InputError unless the number of models is a multiple of the parts."""
  if config.memorisation_models < 1 or config.memorisation_models % _PARTS:
    raise errors.InputError(
      f'must be a multiple of {_PARTS}, got {config.memorisation_models}',
      argument='memorisation_models',
    )


def is_kept(config: config_lib.Config) -> bool:
  """Whether memorisation scores of a configuration's training images have been computed."""
  return (folder_of(config) / _FILE).exists()


def kept(config: config_lib.Config) -> Scores | None:
  """The memorisation scores, if they have been computed."""
  return _read(folder_of(config) / _FILE) if is_kept(config) else None


def check_network(job: preparation.Job) -> None:
  """Raises InputError where the models of subsets are of another network than a problem's."""
  place = folder_of(job.config)
  if not (place / 'problem.json').is_file():
    return
  now = preparation.identity(job)
  there = preparation.identity_there(place, now)
  for name, argument in (('network_hash', 'model'), ('pretrained_hash', 'pretrained')):
    if there.get(name) != now.get(name):
      raise errors.InputError(
        f'it is not what it was when the models of subsets were made; delete {place}',
        argument=argument,
      )


def stored(config: config_lib.Config, file: str, title: str, compute: Callable) -> Scores:
  """Scores from a file, or computed and kept there.

  Args:
    config: of the run.
    file: name of the file, beside the models.
    title: for people.
    compute: `(job, folder)` to the scores of retain and forget rows, in this order; None on
      processes other than the first.
  """
  path = folder_of(config) / file
  if not parallel.agree(path.exists()):
    _make(config, path, title, compute)
  return _read(path)


def _read(path):
  found = files.read_arrays(path, keys=['scores', 'data_hash'])
  if found['scores'].ndim != 1 or found['data_hash'].ndim:
    raise files.DamagedError(path, f'scores are {list(found["scores"].shape)}')
  return Scores(found['scores'], str(found['data_hash']))


def folder_of(config: config_lib.Config) -> pathlib.Path:
  """Folder of the scores and their models."""
  settings = config.problem_settings()
  asked = json.dumps({k: v for k, v in settings.items() if k not in _NOT_ASKED})
  name = hashlib.sha256(asked.encode()).hexdigest()[:12]
  return pathlib.Path(os.path.expanduser(config.workdir)) / 'memorisation' / name


@contextlib.contextmanager
def prepared(config: config_lib.Config, title: str) -> Iterator[preparation.Job]:
  """The problem of the models of subsets, its folder held; title is for processes that wait."""
  folder = folder_of(config)
  # held-out rows are the same for every request that chooses among the training rows
  config = dataclasses.replace(
    config, forget='random:0.5', evaluation='standard', num_seeds=1, num_gold=2, member=-1
  )
  there = problem_folder.read_identity(folder) if (folder / 'problem.json').is_file() else {}
  for name in ('original_seed', 'gold_seed'):  # nothing here depends on them
    first = there.get(name, getattr(config_lib.Config(), name))
    config = dataclasses.replace(config, **{name: first})
  with files.locked_by_writer(folder):
    job = preparation.prepare(config, folder)
    if job.is_multi_label:
      raise errors.InputError(
        f'--label_key={job.config.label_key} are several attributes: scores are of classes',
        argument='forget',
      )
    preparation.fix(job)
    parallel.barrier(title)
    yield job


def _make(config, path, title, compute):
  with prepared(config, title) as job:
    found = compute(job, job.folder)
    if parallel.is_main_process():
      rows = np.concatenate([job.split.retain, job.split.forget])
      values = np.full(sum(len(rows) for rows in vars(job.split).values()), np.nan, np.float32)
      values[rows] = found
      files.write_arrays(path, {'scores': values, 'data_hash': np.array(job.data_hash)})
      progress.say(
        f'{title}: mean {found.mean():.3g}, 90th percentile {np.quantile(found, 0.9):.3g}'
      )
    parallel.barrier('scores')


def _compute(job, folder) -> np.ndarray | None:
  folders, is_trained = models(job, folder)
  return _measure(job, folders, is_trained) if parallel.is_main_process() else None


def models(job: preparation.Job, folder: pathlib.Path) -> tuple[list[pathlib.Path], np.ndarray]:
  """Trains the models that are missing, each on two thirds of the training set.

  Args:
    job: the problem of these models, that of `folder`.
    folder: of `folder_of`.

  Returns:
    Their folders, and bool `[K, N]`, which rows of `job.training_set` each was trained on.
  """
  config, size = job.config, len(job.training_set)
  subsets = {k: _subset(config, k, size) for k in range(config.memorisation_models)}
  folders = {k: folder / 'memorisation' / f'seed_{k}' for k in subsets}
  keys = {k: seeds.stream(k, 'memorisation') for k in subsets}
  ensembles.make_ensemble(job, 'memorisation', folders, keys, job.training_set, subsets)
  is_trained = np.stack([np.isin(np.arange(size), rows) for rows in subsets.values()])
  return list(folders.values()), is_trained


def _subset(config, index, size) -> np.ndarray:
  """Training rows of a model: all but a third; every row is left out by one model in three."""
  rng = np.random.default_rng([config.split_seed, 9, index // _PARTS])
  permutation, count = rng.permutation(size), -(-size // _PARTS)
  start = min(index % _PARTS * count, size - count)
  return np.sort(np.delete(permutation, np.arange(start, start + count)))


def _measure(job, folders, is_trained) -> np.ndarray:
  dataset = job.training_set
  probabilities = []
  for folder in folders:
    model, _ = checkpoints.restore(folder / 'model', job.template)
    outputs = prediction.predict(job.apply_fn, model, dataset.images, devices=job.devices)
    loss = metrics.cross_entropy_scores(outputs.logits, dataset.labels)
    probabilities.append(np.exp(-loss))
  return metrics.memorisation_scores(np.stack(probabilities), is_trained)

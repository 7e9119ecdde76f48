"""Originals of another problem that was trained on the same data."""

import pathlib
import shutil

import numpy as np

from dalign_jax import checkpoints, errors, parallel
from dalign_jax import data as data_lib
from dalign_jax.store import files, problem_folder, progress
from experiments.problem import preparation

# An original does not depend on these: they say what is forgotten, or belong to other models.
_MAY_DIFFER = ('forget', 'split_hash', 'unseen', 'gold_seed', 'memorisation_models')


def check(job: preparation.Job) -> None:
  """Raises InputError unless the problem to take from has the same training data and settings."""
  source = job.folder.parent / job.config.originals_of
  if not (source / 'problem.json').is_file():
    raise errors.InputError(f'there is no problem in {source}', argument='originals_of')
  here = preparation.identity(job)
  there = preparation.identity_there(source, here)
  names = sorted((there.keys() | here.keys()) - set(_MAY_DIFFER))
  differing = [name for name in names if there.get(name) != here.get(name)]
  if differing:
    lines = [f'{n}: {there.get(n)!r} there, {here.get(n)!r} here' for n in differing]
    raise errors.InputError(
      f'{source.name} is not the same but for what is forgotten ({"; ".join(lines)})',
      argument='originals_of',
    )
  kind = data_lib.parse_forget(there.get('forget', 'ids:')).kind
  is_poisoned = kind in data_lib.SCENARIOS and data_lib.SCENARIOS[kind].poison is not None
  if is_poisoned or job.poison is not None:
    which = source.name if is_poisoned else job.folder.name
    raise errors.InputError(
      f'{which} is trained on other labels or images than those of the data',
      argument='originals_of',
    )
  splits = problem_folder.read_split(source), job.split
  rows = [np.union1d(split.retain, split.forget) for split in splits]
  if not np.array_equal(*rows):
    raise errors.InputError(
      f'{source.name} is trained on other examples ({len(rows[0])} there, {len(rows[1])} here)',
      argument='originals_of',
    )


def take(job: preparation.Job) -> None:
  """Copies the originals that are missing from the problem `job.config.originals_of`.

  An original is trained on the retain and the forget set, so it is the same for whatever will be
  forgotten of them, but for the order in which the rows lie, which decides its batches.

  Raises:
    errors.InputError: if the other problem lacks a model.
  """
  source = job.folder.parent / job.config.originals_of
  for seed in job.original_seeds:
    target = job.original_folder(seed)
    found = source / target.relative_to(job.folder)
    if parallel.agree(checkpoints.exists(target / 'model')):
      continue
    if not checkpoints.exists(found / 'model'):
      raise errors.InputError(
        f'there is no model in {found}; run train_original there first', argument='originals_of'
      )
    if parallel.is_main_process():
      with files.locked_by_writer(target):
        _copy(found / 'model', target / 'model')
    parallel.barrier(str(target))
    progress.say(f'original (seed {seed}): taken from {source.name}')


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a folder: it is there as a whole or not at all."""
  unfinished = target.with_name(f'{target.name}.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  shutil.copytree(source, unfinished)
  unfinished.rename(target)

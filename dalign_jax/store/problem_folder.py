"""The folder of a problem of `experiments.run`, as its readers see it."""

import pathlib

from dalign_jax import data as data_lib
from dalign_jax import digests, errors
from dalign_jax.store import files


def read_split(folder: str | pathlib.Path) -> data_lib.Split:
  """The split of a problem, checked against the hash that its `problem.json` keeps.

  Args:
    folder: with `problem.json` and `splits.npz`.

  Raises:
    errors.InputError: if a file is missing or damaged, or the split is another one.
  """
  folder = pathlib.Path(folder).expanduser()
  if not (folder / 'problem.json').is_file():
    raise errors.InputError(f'there is no {folder / "problem.json"}')
  wanted = read_identity(folder)['split_hash']
  split = data_lib.load_split(folder / 'splits.npz')
  found = digests.of_split(split)
  if found != wanted:
    raise errors.InputError(
      f'{folder / "splits.npz"} has the digest {found}, and problem.json says {wanted}: it was '
      'changed or is damaged; run prepare to have it made again, or bring back a copy'
    )
  return split


def read_identity(folder: pathlib.Path) -> dict:
  """The settings and hashes that name a problem, from its `problem.json`."""
  path = folder / 'problem.json'
  found = files.read_json(path, keys=['identity'])['identity']
  if not isinstance(found, dict) or 'split_hash' not in found:
    raise files.DamagedError(path, 'its identity is no record of a problem')
  return found

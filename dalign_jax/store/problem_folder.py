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
  wanted = files.read_json(folder / 'problem.json', keys=['identity'])['identity']['split_hash']
  split = data_lib.load_split(folder / 'splits.npz')
  found = digests.of_split(split)
  if found != wanted:
    raise errors.InputError(
      f'{folder / "splits.npz"} has the digest {found}, and problem.json says {wanted}: it was '
      'changed or is damaged'
    )
  return split

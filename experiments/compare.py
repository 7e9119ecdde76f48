"""Puts runs side by side: one page with their tables and differences.

python -m experiments.compare runs/PROBLEM runs/OTHER --comparison=comparison
"""

import dataclasses
import os
import pathlib

from dalign_jax import command, errors
from experiments import config as config_lib

_COMPARISON = dataclasses.fields(config_lib.Comparison)


def main(arguments: list[str]) -> None:
  """Reads the folders of problems and writes the page."""
  settings = config_lib.Comparison(**command.values(_COMPARISON))
  if len(arguments) < 2:
    raise errors.InputError(
      f'two folders of problems or more are compared, got {len(arguments)}: '
      'python -m experiments.compare FOLDER FOLDER'
    )
  folders = [pathlib.Path(os.path.expanduser(name)) for name in arguments]
  for i, folder in enumerate(folders):
    if not (folder / 'rows.json').exists():
      raise errors.InputError(f'{folder} has no rows.json; run the stage report first')
    if folder.resolve() in [other.resolve() for other in folders[:i]]:
      raise errors.InputError(f'{folder} stands there twice; compare it with another one')
  from experiments.report import side_by_side  # imports JAX, but uses no device

  out = pathlib.Path(os.path.expanduser(settings.comparison))
  side_by_side.write(out, side_by_side.read(folders))
  print(f'report: {out / "compare.html"}')


command.define(_COMPARISON)

if __name__ == '__main__':
  command.launch(main, 'comparison')

"""Folders of the models of a problem, by role and seed."""

import dataclasses
import os
import pathlib

from experiments import config as config_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folders:
  """The folders of a problem, known before anything is loaded."""

  config: config_lib.Config
  folder: pathlib.Path

  @property
  def original_seeds(self) -> list[int]:
    return [self.config.original_seed + i for i in range(self.config.seeds)]

  @property
  def members(self) -> list[int]:
    """Numbers of the originals that this run unlearns from."""
    member = self.config.member
    return list(range(self.config.seeds)) if member < 0 else [member]

  @property
  def gold_seeds(self) -> list[int]:
    """Seeds of the gold models; the first half is the reference, the other the noise floor."""
    return [self.config.gold_seed + i for i in range(self.config.golds)]

  def original_folder(self, seed: int) -> pathlib.Path:
    """Folder of the original of a seed."""
    return self.folder / 'original' / f'seed_{seed}'

  def gold_folder(self, seed: int) -> pathlib.Path:
    """Folder of the gold model of a seed."""
    return self.folder / 'gold' / f'seed_{seed}'

  def shadow_folder(self, index: int) -> pathlib.Path:
    """Folder of a model trained on half of the forget set."""
    return self.folder / 'shadow' / f'seed_{index}'

  def run_folders(self, label: str, unlearn_seed: int | None = None) -> list[pathlib.Path]:
    """Folders of a method's results, one for each original."""
    first = self._run_folder(label, unlearn_seed)
    others = [first.with_name(f'{first.name}-original_{s}') for s in self.original_seeds[1:]]
    return [first, *others]

  def run_shadow_folders(self, label: str, unlearn_seed: int | None = None) -> list[pathlib.Path]:
    """Folders of a method's results on the shadows."""
    first = self._run_folder(label, unlearn_seed)
    return [first.with_name(f'{first.name}-shadow_{k}') for k in range(self.config.shadows)]

  def _run_folder(self, label, unlearn_seed):
    seed = self.config.unlearn_seed if unlearn_seed is None else unlearn_seed
    return self.folder / 'runs' / label / f'seed_{seed}'


def problem_folder(config: config_lib.Config) -> pathlib.Path:
  """The folder of a configuration's problem."""
  return pathlib.Path(os.path.expanduser(config.workdir)) / config.problem_name()

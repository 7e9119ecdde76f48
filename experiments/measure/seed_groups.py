"""The models of a problem in groups: a line of the table is models that differ in their seeds."""

import dataclasses
import pathlib

from dalign_jax import hparams
from dalign_jax.store import files
from experiments import config as config_lib
from experiments.problem import preparation


@dataclasses.dataclass(frozen=True)
class Model:
  """A folder and the checkpoint in it."""

  folder: pathlib.Path
  checkpoint: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Group:
  """Models that differ in their seeds.

  Attributes:
    name: what the table calls it.
    kind: original, gold, second gold, unlearned or control.
    key: of its file: its name, for a run with its `--unlearn_seed`.
    members: one for each seed.
    shadows: the same procedure from models trained on half of the forget set; for gold, golds.
  """

  name: str
  kind: str
  key: str
  members: list[Model]
  shadows: list[Model]

  def file(self, job: preparation.Job, ending: str) -> pathlib.Path:
    """File of the measurements of the group as a whole."""
    return job.folder / 'evaluation' / f'{self.key}{ending}'


def standing(job: preparation.Job) -> list[Group]:
  """Original, gold and second gold."""
  trained = lambda folders: [Model(f, f / 'model') for f in folders]
  golds = trained(job.gold_folder(seed) for seed in job.gold_seeds)
  half = len(golds) // 2
  shadows = trained(job.shadow_folder(k) for k in range(job.config.shadows))
  originals = trained(job.original_folder(seed) for seed in job.original_seeds)
  return [
    Group('original', 'original', 'original', originals, shadows),
    Group('gold', 'gold', 'gold', golds[:half], golds),
    Group('second gold', 'second gold', 'second gold', golds[half:], golds[half:] + golds[:half]),
  ]


def runs(job: preparation.Job) -> list[Group]:
  """Every evaluated run, named by its label, and by its seed where there are several."""
  folders = sorted(path.parent for path in (job.folder / 'runs').glob('*/*/evaluation.json'))
  folders = [f for f in folders if '-' not in f.name]  # the first member of its group
  labels = [folder.parent.name for folder in folders]
  found = []
  for folder, label in zip(folders, labels, strict=True):
    seed = int(folder.name.removeprefix('seed_'))
    name = label if labels.count(label) == 1 else f'{label} (seed {seed})'
    found.append(of_run(job, label, name, seed))
  return found


def of_run(job: preparation.Job, label: str, name: str, seed: int | None = None) -> Group:
  """The results of a method, by default those of this run's `--unlearn_seed`."""
  models = lambda folders: [Model(f, f / 'unlearned') for f in folders]
  members = models(job.run_folders(label, seed))
  method = hparams.method_of(label)
  is_asked = method in job.config.methods or _was_asked(members[0].folder)
  is_control = method == config_lib.CONTROL or (method == config_lib.HIDING and not is_asked)
  kind = 'control' if is_control else 'unlearned'
  key = f'{label}-seed_{job.config.unlearn_seed if seed is None else seed}'
  return Group(name, kind, key, members, models(job.run_shadow_folders(label, seed)))


def _was_asked(folder: pathlib.Path) -> bool:
  """Whether a run was evaluated as one that somebody asked for."""
  try:
    found = files.read_json(folder / 'evaluation.json', keys=['kind'])
  except (FileNotFoundError, files.DamagedError):
    return False  # it will be measured
  return found['kind'] == 'unlearned'

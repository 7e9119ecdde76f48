"""The problem of a run: its data, splits and network, fixed in a folder of its own."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np

from dalign_jax import (
  checkpoints,
  digests,
  errors,
  from_settings,
  parallel,
  pretrained,
  seeds,
  training,
  types,
)
from dalign_jax import data as data_lib
from dalign_jax.store import files, hashing, model_folder, problem_folder, progress
from experiments import config as config_lib
from experiments.problem import folders, sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(folders.Folders):
  """A problem and the run's settings: what every stage works on."""

  data_hash: str
  test_hash: str
  split: data_lib.Split
  sets: dict[str, types.Dataset]  # retain, forget, validation, test; unseen where people are
  watched: types.Dataset | None  # further unseen people, whom methods may watch
  class_names: tuple[str, ...]
  notes: tuple[str, ...]
  forgets_classes: tuple[int, ...]  # classes without retain examples
  apply_fn: types.ApplyFn
  init_fn: object
  recipe: types.Recipe
  devices: tuple[jax.Device, ...] | None
  poison: sets.Poison | None = (
    None  # what is done to held-out rows, where the forget set is poisoned
  )
  forgets_subclass: int | None = None  # its group
  taken: tuple[data_lib.Taken, ...] = ()  # what the readers took of the data
  digests: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)  # of finished models

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def is_multi_label(self) -> bool:
    """Whether the labels are several binary attributes."""
    return self.sets['retain'].is_multi_label

  @property
  def training_set(self) -> types.Dataset:
    return types.concatenate(self.sets['retain'], self.sets['forget'])

  @property
  def template(self) -> types.ModelState:
    """A state of the problem's network, to check checkpoints against."""
    return self.init_fn(seeds.stream(0, 'template'))

  def problem(self, original: types.ModelState, **changes) -> types.Problem:
    """The problem that a method sees; `changes` replace fields."""
    fields = {
      'apply_fn': self.apply_fn,
      'init_fn': self.init_fn,
      'retain': self.sets['retain'],
      'forget': self.sets['forget'],
      'validation': self.sets['validation'],
      'num_classes': self.num_classes,
      'recipe': self.recipe,
      'devices': self.devices,
      'unseen': self.watched,
    }
    return types.Problem(original=original, **{**fields, **changes})

  def shadow_forget_rows(self, index: int) -> np.ndarray:
    """The half of the forget set that a shadow was trained on; shadows 2j and 2j + 1 share none.

    Of an odd number of examples the last of the permutation is in neither.
    """
    rng = np.random.default_rng([self.config.split_seed, index // 2])
    half = len(self.sets['forget']) // 2
    permutation = rng.permutation(len(self.sets['forget']))
    return np.sort(permutation[:half] if index % 2 == 0 else permutation[half : 2 * half])


def prepare(
  config: config_lib.Config, folder: pathlib.Path, scores: np.ndarray | None = None
) -> Job:
  """Loads the data, makes the splits, and checks the settings; writes nothing."""
  made = sets.make(config, scores)
  source = made.source
  apply_fn, init_fn = from_settings.network(
    config, source.dataset.images.shape[1:], len(source.class_names)
  )
  job = Job(
    config=config,
    folder=folder,
    data_hash=data_lib.content_hash(made.source.dataset),
    test_hash=data_lib.content_hash(made.sets['test']),
    split=made.split,
    sets=made.sets,
    watched=made.watched,
    class_names=made.source.class_names,
    notes=made.notes,
    forgets_classes=made.forgets_classes,
    poison=made.poison,
    forgets_subclass=made.forgets_subclass,
    taken=made.taken,
    apply_fn=apply_fn,
    init_fn=init_fn,
    recipe=from_settings.recipe(config),
    devices=from_settings.devices(config),
  )
  _check(job)
  return job


def _check(job):
  """Checks that need the data as well as the settings."""
  from_settings.check_batch_size('batch_size', job.recipe.batch_size, job.devices)
  with errors.blame('model'):
    checkpoints.check_state(job.template)
    training.check_labels(job.apply_fn, job.template, job.sets['retain'])
  if job.recipe.label_smoothing and job.is_multi_label:
    raise errors.InputError(
      f'must be 0 for attributes, got {job.recipe.label_smoothing}', argument='label_smoothing'
    )
  if job.config.has_recovery and job.is_multi_label:
    raise errors.InputError(
      f'{job.config.evaluation} is for one label an image, not for attributes',
      argument='evaluation',
    )
  if job.config.is_full and len(job.sets['forget']) < 10:
    raise errors.InputError(
      'full needs at least 10 forget examples, since its attacks train on half of '
      f'them, got {len(job.sets["forget"])}',
      argument='evaluation',
    )


def fix(job: Job) -> None:
  """Writes `problem.json` and `splits.npz`, or compares with what is there.

  Raises:
    errors.InputError: if the folder is of another problem; shows the difference.
  """
  wanted = identity(job)
  path = job.folder / 'problem.json'
  if path.exists():
    there = identity_there(job.folder, wanted)
    differing = [n for n in sorted(wanted.keys() | there.keys()) if wanted.get(n) != there.get(n)]
    if differing:
      lines = [f'{n}: {there.get(n)!r} there, {wanted.get(n)!r} now' for n in differing]
      raise errors.InputError(
        f'{job.folder} holds another problem ({"; ".join(lines)}); '
        'use another --problem or --workdir',
        argument='workdir',
      )
    _restore_split(job)
    return
  if parallel.is_main_process():
    data_lib.save_split(job.folder / 'splits.npz', job.split)
    files.write_json(
      path,
      {
        'identity': wanted,
        'sizes': {name: len(d) for name, d in job.sets.items()},
        'class_names': list(job.class_names),
        'taken': [taken.lines() for taken in job.taken],
        'versions': model_folder.versions(),
      },
    )


def _restore_split(job) -> None:
  """Writes the split again where its file is damaged: that it is this one is known by its hash."""
  try:
    problem_folder.read_split(job.folder)
  except errors.InputError as error:
    progress.say(f'made again: {error}')
    if parallel.is_main_process():
      data_lib.save_split(job.folder / 'splits.npz', job.split)


def identity_there(folder: pathlib.Path, wanted: dict) -> dict:
  """The identity that a problem's folder keeps, with what an earlier version did not keep yet.

  Args:
    folder: of the problem.
    wanted: an identity of today. A setting that the folder lacks had its default's meaning, and a
      network's hash that it lacks is taken as wanted.
  """
  defaults = {n: v for n, v in config_lib.Config().problem_settings().items() if n in wanted}
  hashes = {n: v for n, v in wanted.items() if n == 'network_hash'}
  there = defaults | hashes | problem_folder.read_identity(folder)
  for name in {'forget', 'unseen'} & there.keys():  # group:2 was what people:2 is now
    there[name] = re.sub(r'^group:(\d+)$', r'people:\1', there[name])
  return there


def identity(job: Job) -> dict:
  """Settings, data and splits that original and gold depend on, as JSON returns them."""
  settings = job.config.problem_settings()
  if job.config.forget.startswith('ids:'):
    del settings['forget']  # the hash of the split says which ids, the file's path does not
  identity = {
    **settings,
    'data_hash': job.data_hash,
    'test_hash': job.test_hash,
    'split_hash': digests.of_split(job.split),
  }
  if ':' in job.config.model:
    identity['network_hash'] = hashing.of_module(job.config.model.partition(':')[0])
  if job.config.pretrained:
    identity['pretrained_hash'] = pretrained.digest_of(job.init_fn)
  return json.loads(json.dumps(identity))

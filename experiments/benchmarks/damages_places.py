"""Tiny work folders, finished or stopped on the way, whose files `damages` damages."""

from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
from typing import NamedTuple
from unittest import mock

import numpy as np
import PIL.Image

from dalign_jax import data, settings, stopping
from dalign_jax.deletion import carry_out, replay
from dalign_jax.store import problem_folder, progress
from experiments import config as config_lib
from experiments import stages, sweep_cells
from experiments.report import sweep_report
from experiments.tuning import search

TINY = {
  'dataset': 'digits',
  'max_examples': 300,
  'width_multiplier': 0.125,
  'num_epochs': 2,
  'batch_size': 64,
  'num_devices': 1,
  'methods': ('head_only',),
  'cache_dir': '',
  'compilation_cache_dir': '',
}
_MODELS = ('prepare', 'train_original', 'train_gold', 'unlearn', 'evaluate')


class Place(NamedTuple):
  """A folder of files, and the commands that read them.

  Attributes:
    name: in the table.
    folder: of the files.
    commands: by name.
    only_new: whether kinds of files that an earlier place has too are left to that one.
  """

  name: str
  folder: pathlib.Path
  commands: dict[str, Callable[[], None]]
  only_new: bool = False


def _config(workdir: pathlib.Path, **changes) -> config_lib.Config:
  return config_lib.Config(**{**TINY, 'workdir': str(workdir), **changes})


@contextlib.contextmanager
def _stopped(epoch: int):
  """Stops what trains inside after an epoch, its state saved."""
  on_epoch = progress.RunMonitor.on_epoch

  def on_epoch_and_stop(self, number, *arguments):
    on_epoch(self, number, *arguments)
    if number + 1 == epoch:
      raise stopping.Stopped(15)

  with mock.patch.object(progress.RunMonitor, 'on_epoch', on_epoch_and_stop):
    with contextlib.suppress(stopping.Stopped):
      yield


def finished(root: pathlib.Path) -> Place:
  """A finished run: once more, measured once more, and reported once more."""
  config = _config(root)
  folder = root / config.problem_name()
  stages.run(config)

  def measure():
    for path in folder.rglob('evaluation.json'):
      path.unlink()
    stages.run(dataclasses.replace(config, stages=_MODELS))

  commands = {
    'run': lambda: stages.run(dataclasses.replace(config, stages=_MODELS)),
    'evaluate': measure,
    'report': lambda: stages.run(dataclasses.replace(config, stages=('report',))),
  }
  return Place('run', root, commands)


def predicted(root: pathlib.Path) -> Place:
  """A finished run of a method that predicts what gold knows."""
  config = _config(root, methods=('tmu',), forget='random:0.1', hparam=('tmu.num_epochs=1',))
  stages.run(config)
  return Place('run of tmu', root, {'run': lambda: stages.run(config)}, only_new=True)


def full(root: pathlib.Path) -> Place:
  """A finished run of several seeds with its shadows, measured in full."""
  config = _config(
    root,
    evaluation='full',
    num_seeds=2,
    num_gold=4,
    num_shadows=6,
    relearn_epochs=1,
    num_epochs=1,
  )
  stages.run(config)
  return Place('full run', root, {'run': lambda: stages.run(config)}, only_new=True)


def interrupted(root: pathlib.Path) -> Place:
  """A run that was stopped while its original was trained."""
  config = _config(root, stages=('prepare', 'train_original'))
  with _stopped(1):
    stages.run(config)
  return Place('stopped run', root, {'run': lambda: stages.run(config)})


def ensemble(root: pathlib.Path) -> Place:
  """A run that was stopped while several originals were trained in one program."""
  config = _config(
    root, stages=('prepare', 'train_original'), num_seeds=3, num_gold=6, ensemble_size=3
  )
  with _stopped(1):
    stages.run(config)
  return Place('stopped ensemble', root, {'run': lambda: stages.run(config)})


def memorised(root: pathlib.Path) -> Place:
  """A run that forgets what is memorised, with the scores of the training images."""
  config = _config(
    root, methods=(), forget='memorised:0.1', memorisation_models=3, stages=('prepare',)
  )
  stages.run(config)
  return Place('memorisation', root, {'run': lambda: stages.run(config)}, only_new=True)


def cached(root: pathlib.Path) -> Place:
  """Decoded images of a folder of pictures."""
  rng = np.random.default_rng(0)
  for number in range(40):
    path = root.parent / 'pictures' / 'ab'[number % 2] / f'{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
  config = _config(
    root.parent / 'of_pictures',
    dataset=f'folder:{root.parent / "pictures"}',
    cache_dir=str(root),
    stages=('prepare',),
    forget='random:0.2',
    methods=(),
    max_examples=0,
    problem='pictures',
  )
  stages.run(config)
  return Place('decoded images', root, {'run': lambda: stages.run(config)})


def tuned(root: pathlib.Path) -> Place:
  """A finished search."""
  config = _config(root, methods=('finetune',), num_epochs=1)
  tuning = config_lib.Tuning(num_trials=2, num_tuning_seeds=1)
  search.run(config, tuning)
  return Place('search', root, {'tune': lambda: search.run(config, tuning)})


def swept(root: pathlib.Path) -> Place:
  """A finished sweep of one scenario; its cells run in this process."""
  config = _config(root)
  scenario = sweep_cells.Scenario(config.problem_name(), config)

  def run():
    cells = [sweep_cells.preparation(scenario)]
    cells += sweep_cells.unlearning(scenario, split_seeds=False)
    cells += [sweep_cells.reporting(scenario, config.methods)]
    for cell in cells:
      sweep_cells.write_command(cell, root / 'sweep')
      if not cell.done:
        stages.run(cell.config)
    sweep_report.write(root / 'sweep', [sweep_report.gather(scenario)], [])

  run()
  return Place('sweep', root, {'sweep': run}, only_new=True)


def _request(run: pathlib.Path, out: pathlib.Path, checkpoint: pathlib.Path, ids: list[str]):
  """The settings of a deletion request."""
  path = run.parent / f'{out.name}.csv'
  path.write_text('id\n' + '\n'.join(ids) + '\n', encoding='utf-8')
  return settings.Request(
    checkpoint=str(checkpoint),
    ids=str(path),
    out=str(out),
    method='finetune',
    hparam=('finetune.num_epochs=2',),
    verdict='quick',
    accept=('no_effect', 'worse', 'destroyed', 'incomplete'),  # a tiny model can be any of them
  )


def _original(root: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
  """A trained original outside the place, and ids that it was trained on."""
  run = root.parent / f'of_{root.name}'
  config = _config(run, stages=('prepare', 'train_original'))
  stages.run(config)
  root.mkdir(parents=True, exist_ok=True)
  folder = run / config.problem_name()
  rows = problem_folder.read_split(folder).retain[:4]
  return folder / 'original' / 'seed_0', data.load('digits').dataset.ids[rows].tolist()


def forgotten(root: pathlib.Path) -> Place:
  """A request that was carried out: the next one, and the check of its record."""
  original, ids = _original(root)
  base = settings.Settings(cache_dir='', compilation_cache_dir='', num_devices=1)
  carry_out.forget(_request(original, root / 'one', original, ids[:2]), base)

  def again():
    carry_out.forget(_request(original, root / 'two', root / 'one', ids[2:]), base)

  def verify():
    names = ('checkpoint', 'data', 'held_out', 'ids', 'model', 'keys')
    places = dict.fromkeys(names, '')
    replay.verify(root / 'one' / 'record.json', places=places, settings={}, replay=False)

  return Place('request', root, {'forget': again, 'verify': verify})


def stopped_request(root: pathlib.Path) -> Place:
  """A request that was stopped on the way."""
  original, ids = _original(root)
  base = settings.Settings(cache_dir='', compilation_cache_dir='', num_devices=1)
  run = lambda: carry_out.forget(_request(original, root / 'one', original, ids[:2]), base)
  with _stopped(1):
    run()
  return Place('stopped request', root, {'forget': run})


MAKERS: dict[str, Callable[[pathlib.Path], Place]] = {
  'run': finished,
  'predicted': predicted,
  'full': full,
  'interrupted': interrupted,
  'ensemble': ensemble,
  'memorised': memorised,
  'cached': cached,
  'tuned': tuned,
  'swept': swept,
  'forgotten': forgotten,
  'stopped_request': stopped_request,
}

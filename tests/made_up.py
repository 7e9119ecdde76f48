"""A problem and rows with made-up numbers, for tests of reports: nothing is trained."""

import pathlib

import numpy as np

from dalign_jax import types
from dalign_jax.store import files
from experiments import config as config_lib
from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from tests import tiny

METHODS = ('finetune,num_epochs=3', 'muda', 'head_only')
_VALUES = {  # forget, retain, test, DA, AD of gold and of the original
  'gold': (0.0, 0.99, 0.96, 0.95, 0.0),
  'original': (1.0, 1.0, 0.97, 0.54, 1.31),
}
_FLAGS = '# python -m experiments.run\n--workdir={}\n--methods={}\n'


def job(folder: pathlib.Path, *, num_classes: int = 10, **settings) -> preparation.Job:
  """A problem of the tiny network's images, with any number of class names."""
  problem = tiny.problem()
  config = config_lib.Config(**{'forget': 'class:3', 'methods': (), 'num_devices': 1, **settings})
  folder.mkdir(parents=True, exist_ok=True)
  return preparation.Job(
    config=config,
    folder=folder,
    data_hash='data',
    test_hash='test',
    split=None,
    sets={
      'retain': problem.retain,
      'forget': problem.forget,
      'validation': problem.validation,
      'test': problem.validation,
    },
    watched=None,
    class_names=tuple(f'class {k}' for k in range(num_classes)),
    notes=(),
    forgets_classes=(3,),
    apply_fn=tiny.apply_fn,
    init_fn=tiny.init_fn,
    recipe=types.Recipe(num_epochs=8, batch_size=64),
    devices=problem.devices,
  )


def rows(job: preparation.Job, methods=METHODS) -> rows_lib.Results:
  """Original, two golds and some methods, each somewhere between original and gold."""
  rng = np.random.default_rng(0)
  named = [
    ('original', 'original', 0.0),
    ('gold', 'gold', 1.0),
    ('second gold', 'second gold', 0.97),
  ]
  ways = np.linspace(0.1, 0.95, len(methods))
  named += [(name, 'unlearned', way) for name, way in zip(methods, ways, strict=True)]
  return rows_lib.Results(_row(job, rng, *row) for row in named)


def _row(job, rng, name, kind, way):
  forget, retain, test, alignment, distance = (
    way * g + (1 - way) * o for g, o in zip(*_VALUES.values(), strict=True)
  )
  values = {
    'forget_accuracy': forget,
    'retain_accuracy': retain,
    'test_accuracy': test + 0.003 * rng.normal(),
    'test_forget_accuracy': forget,
    'attack': 0.5 + 0.1 * (1 - way),
    'dimensional_alignment': alignment,
    'linear_probe': 0.97,
    'linear_probe_forget': 0.9,
    'nmi': 0.85,
    'f1': 0.8,
    'changed': 1.0,
    'finite': 1.0,
    'moved': way,
  }
  if kind != 'gold':
    values |= {'activation_distance': distance, 'js_divergence': distance / 3}
  record = {
    'seconds': 4.0,
    'compile_seconds': 1.0,
    'sees': 'all retain, forget',
    'devices': 'a cpu',
    'versions': {'jax': 'x'},
  }
  folder = job.folder / 'models' / name
  files.write_text(folder / 'train.jsonl', '{"epoch": 1, "loss": 0.9}\n{"epoch": 2, "loss": 0.4}\n')
  if kind == 'unlearned':
    files.write_text(folder / 'flags.txt', _FLAGS.format(job.folder, name))
  classes = np.clip(np.full(job.num_classes, 0.95) + 0.03 * rng.normal(size=job.num_classes), 0, 1)
  classes[3] = forget
  arrays = {
    'margin_forget': rng.normal(4 - 6 * way, 1, 80),
    'margin_unseen': rng.normal(3, 1, 80),
    'spectrum': np.sort(rng.dirichlet(np.ones(16)))[::-1],
    'energies': np.linspace(0.5, 0.99, 9),
    'alignment': np.linspace(0.3, alignment, 9),
    'class_accuracy': classes,
    'projection': rng.normal(size=(120, 2)),
    'projection_labels': np.arange(120) % job.num_classes,
    'projection_is_forget': np.arange(120) < 20,
    **_predictions(job, rng, way),
  }
  return rows_lib.Row(name, kind, (values,), record, arrays, folder, folders=(folder,))


def _predictions(job, rng, way):
  found = {}
  for name in ('test', 'forget'):
    labels = job.sets[name].labels
    is_lost = (labels == 3) & (rng.uniform(size=len(labels)) < way)
    found[f'predicted_{name}'] = np.where(is_lost, rng.integers(0, 3, len(labels)), labels)
    found[f'predicted_{name}_rows'] = np.arange(len(labels))
  return found

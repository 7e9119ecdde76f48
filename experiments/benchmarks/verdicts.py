"""Verdicts of every method: one class, ten images, a tenth at random; with what gold says.

python -m experiments.benchmarks.verdicts --workdir=runs/verdicts

Two originals of the embedded digits: one of the data as they are, which it hardly memorises, and
one of data with a third of their labels drawn at random, which it learns by heart. Each method has
its default hyper-parameters. The same command resumes. Writes `verdicts.csv` and `verdicts.md`.
"""

from collections.abc import Sequence
import csv
import io
import pathlib
from typing import Any

from absl import app, flags, logging
import jax
import numpy as np

from dalign_jax import checkpoints, command, errors, evaluation, methods, training, types
from dalign_jax import data as data_lib
from dalign_jax import models as models_lib
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import carry_out, starting_point, verdict
from dalign_jax.store import files

FLAGS = flags.FLAGS
TRAINED, CLASS = 1200, 3
NOISE = {'as they are': 0.0, 'a third of the labels random': 1 / 3}
REQUESTS = ('one class', 'ten images', 'a tenth')
WIDTH, EPOCHS = 0.5, {'as they are': 20, 'a third of the labels random': 60}
_SHOWN = ('forget_accuracy', 'retain_accuracy', 'test_accuracy', 'attack', 'attack_floor', 'moved')


def settings(variant: str) -> settings_lib.Settings:
  """Network and recipe of the originals, which retraining uses too."""
  return settings_lib.Settings(
    width_multiplier=WIDTH,
    num_epochs=EPOCHS[variant],
    batch_size=64,
    weight_decay=0.0 if NOISE[variant] else 5e-4,
    num_devices=1,
    cache_dir='',
  )


def prepare(folder: pathlib.Path, variant: str) -> None:
  """Data, requests and the original of a variant, unless they are there."""
  source = data_lib.load('digits').dataset
  rng = np.random.default_rng(0)
  noisy = rng.random(len(source)) < NOISE[variant]
  labels = np.where(noisy, rng.integers(0, 10, len(source)), source.labels).astype(np.int32)
  dataset = types.Dataset(source.images, labels, source.ids)
  order = rng.permutation(len(source))
  parts = {'train': order[:TRAINED], 'held_out': order[TRAINED:]}
  sets = {name: dataset.take(np.sort(rows)) for name, rows in parts.items()}
  train = sets['train']
  asked = {
    'one class': np.flatnonzero(train.labels == CLASS),
    'ten images': rng.permutation(TRAINED)[:10],
    'a tenth': rng.permutation(TRAINED)[: TRAINED // 10],
  }
  folder.mkdir(parents=True, exist_ok=True)
  for name, one in sets.items():
    np.savez(folder / f'{name}.npz', images=one.images, labels=one.labels, ids=one.ids)
  for name, rows in asked.items():
    files.write_text(folder / f'{name}.txt', '\n'.join(train.ids[np.sort(rows)]) + '\n')
  if checkpoints.exists(folder / 'original'):
    return
  found = settings(variant)
  build = {'num_classes': 10, 'image_shape': (8, 8, 1), 'width_multiplier': WIDTH}
  apply_fn, init_fn = models_lib.build('cnn', **build)
  recipe = types.Recipe(
    num_epochs=found.num_epochs, batch_size=found.batch_size, weight_decay=found.weight_decay
  )
  init_key, fit_key = jax.random.split(jax.random.key(0))
  devices = jax.devices()[:1]
  model = training.fit(apply_fn, init_fn(init_key), train, recipe, fit_key, devices=devices)
  checkpoints.save(folder / 'original', jax.tree.map(np.asarray, model), {})


def request_of(folder: pathlib.Path, request: str, method: str) -> settings_lib.Request:
  """A request of a variant."""
  return settings_lib.Request(
    checkpoint=str(folder / 'original'),
    ids=str(folder / f'{request}.txt'),
    out=str(folder / request / method),
    data=f'npz:{folder}/train.npz',
    held_out=f'npz:{folder}/held_out.npz',
    method=method,
    copies='keep',
    near_copies=False,
    accept=verdict.ACCEPTABLE,
  )


def references(folder: pathlib.Path, request: str, variant: str):
  """The problem of a request, its held-out data, and two retrained models."""
  asked = request_of(folder, request, 'finetune')
  basis = starting_point.read(asked, settings(variant))
  ids = (folder / f'{request}.txt').read_text(encoding='utf-8').split()
  rows = np.flatnonzero(np.isin(basis.sets['train'].ids, ids))
  problem, _ = carry_out.problem_of(basis, asked, rows)
  return problem, basis.sets['test'], carry_out.golds(problem, basis.config, 2)


def row(folder, request, variant, method, gold) -> dict[str, Any]:
  """One method on one request: its verdict, its metrics, and those beside gold."""
  found = {'data': variant, 'request': request, 'method': method}
  asked = request_of(folder, request, method)
  try:
    record = carry_out.forget(asked, settings(variant))
  except verdict.NotForgottenError as error:  # nothing can be signed of outputs that are not finite
    return found | {'verdict': error.verdict['word'], 'why': ' '.join(error.verdict['reasons'])}
  except errors.InputError as error:
    return found | {'verdict': 'refused', 'why': str(error)}
  judged, measured = record['verdict'], record['verdict']['measured']
  found |= {'verdict': judged['word'], 'why': ' '.join(judged['reasons'])}
  found |= {key: record['metrics']['unlearned'].get(key) for key in _SHOWN}
  found['moved_dummy'] = measured['moved'].get('dummy')
  problem, test, golds = gold
  model, _ = checkpoints.restore(folder / request / method / 'model')
  beside = evaluation.compare(problem, model, test, golds=golds)
  found['gold_forget_accuracy'] = beside['gold']['forget_accuracy']
  for name in ('original', 'unlearned', 'second gold'):
    found[f'distance_{name.replace(" ", "_")}'] = beside[name]['activation_distance']
  return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
  """The verdicts as a table: a line for each method."""
  columns = list(dict.fromkeys((r['data'], r['request']) for r in rows))
  cells = {(r['method'], r['data'], r['request']): r['verdict'] for r in rows}
  names = list(dict.fromkeys(r['method'] for r in rows))
  lines = ['| method | ' + ' | '.join(f'{request}, {data}' for data, request in columns) + ' |']
  lines.append('|---' * (1 + len(columns)) + '|')
  for name in names:
    lines.append(f'| {name} | ' + ' | '.join(cells.get((name, *c), '-') for c in columns) + ' |')
  return '\n'.join(lines) + '\n'


def write(folder: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  """Writes the table and all numbers."""
  names = list(dict.fromkeys(name for one in rows for name in one))
  text = io.StringIO()
  writer = csv.DictWriter(text, names, lineterminator='\n')
  writer.writeheader()
  round_ = lambda v: round(v, 4) if isinstance(v, float) else v
  writer.writerows({k: round_(v) for k, v in one.items()} for one in rows)
  files.write_text(folder / 'verdicts.csv', text.getvalue())
  files.write_text(folder / 'verdicts.md', markdown(rows))


def main(_) -> None:
  """Fills the table, cell by cell."""
  logging.set_verbosity(logging.FATAL)
  command.start_platform(settings(next(iter(NOISE))))
  workdir = pathlib.Path(FLAGS.workdir).expanduser().resolve()
  path = workdir / 'rows.json'
  rows = files.read_json(path) if path.is_file() else []
  done = {(r['data'], r['request'], r['method']) for r in rows}
  for variant in FLAGS.variants:
    folder = workdir / variant.replace(' ', '_')
    prepare(folder, variant)
    for request in FLAGS.requests:
      left = [m for m in FLAGS.methods if (variant, request, m) not in done]
      gold = references(folder, request, variant) if left else None
      for method in left:
        rows.append(row(folder, request, variant, method, gold))
        files.write_json(path, rows)
        write(workdir, rows)
        print(f'{variant}, {request}: {method}: {rows[-1]["verdict"]}', flush=True)
  print(markdown(rows))


def _define() -> None:
  flags.DEFINE_string('workdir', 'runs/verdicts', 'Where everything is kept.')
  flags.DEFINE_list('methods', sorted(methods.METHODS), 'Methods.')
  flags.DEFINE_list('variants', list(NOISE), 'Originals.')
  flags.DEFINE_list('requests', list(REQUESTS), 'Requests.')


if __name__ == '__main__':
  _define()
  app.run(main)

"""Streams of requests: 20 requests of ten images of MNIST-5k, one by one and batched.

python -m experiments.benchmarks.streams --workdir=runs/streams

Trains an original, writes the requests, and runs `forget --requests` with each method and batch.
The same command resumes. Writes `streams.md`, a line for each stream, next to their reports.
"""

import pathlib
from typing import Any

from absl import app, flags, logging
import numpy as np

from dalign_jax import command, data
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import streams, verdict
from dalign_jax.store import files
from experiments import config as config_lib
from experiments import stages

FLAGS = flags.FLAGS
HPARAM = ('finetune.num_epochs=3',)
_COLUMNS = {  # of streams.md: head -> from the rows of a stream
  'times unlearned': lambda rows: str(len(rows)),
  'seconds': lambda rows: f'{sum(r["seconds"] for r in rows):.1f}',
  'seconds a request': lambda rows: f'{sum(r["seconds"] for r in rows) / rows[-1]["requests"]:.2f}',
  'verdicts': lambda rows: _verdicts(rows),
  'forgotten %': lambda rows: f'{100 * rows[-1]["forget_accuracy_so_far"]:.1f}',
  'attack (floor)': lambda rows: (
    f'{rows[-1]["attack_so_far"]:.3f} ({rows[-1]["attack_floor_so_far"]:.3f})'
  ),
  'kept %': lambda rows: f'{100 * rows[-1]["retain_accuracy"]:.1f}',
  'held out %': lambda rows: f'{100 * rows[-1]["test_accuracy"]:.1f}',
  'to gold (second gold)': lambda rows: (
    f'{rows[-1]["distance_gap"]:.3f} ({rows[-1]["distance_floor"]:.3f})'
  ),
}


def _verdicts(rows) -> str:
  words = [row['verdict'] for row in rows]
  return ', '.join(f'{words.count(word)} {word}' for word in dict.fromkeys(words))


def original(workdir: pathlib.Path) -> pathlib.Path:
  """The original's folder, trained unless it is there."""
  config = config_lib.Config(
    dataset='mnist5k',
    width_multiplier=FLAGS.width_multiplier,
    num_epochs=8,
    forget='random:0.1',
    workdir=str(workdir),
    num_devices=1,
    stages=('prepare', 'train_original'),
  )
  stages.run(config)
  return workdir / config.problem_name()


def write_requests(problem: pathlib.Path, folder: pathlib.Path) -> None:
  """A file of ids for each request, drawn from the training data."""
  split = data.load_split(problem / 'splits.npz')
  trained = np.union1d(split.retain, split.forget)
  rows = np.random.default_rng(0).permutation(trained)[: FLAGS.num_requests * FLAGS.images]
  ids = data.load('mnist5k').dataset.ids
  for number, part in enumerate(np.split(rows, FLAGS.num_requests), start=1):
    files.write_text(folder / f'{number}.txt', '\n'.join(ids[part]) + '\n')


def stream(problem, requests, method: str, batch: str, out: pathlib.Path) -> list[dict[str, Any]]:
  """One stream, or what it had left."""
  if (out / streams.ROWS).is_file() and not (out / streams.PLAN).is_file():
    return files.read_json(out / streams.ROWS)
  request = settings_lib.Request(
    checkpoint=str(problem / 'original' / 'seed_0'),
    out=str(out),
    method=method,
    hparam=HPARAM,
    copies='keep',
    near_copies=False,
    verdict=FLAGS.verdict,
    accept=verdict.ACCEPTABLE,
  )
  points = (str(FLAGS.num_requests),)
  plan = settings_lib.Stream(requests=str(requests), batch=batch, gold_at=points)
  return streams.run(plan, request, settings_lib.Settings(num_devices=1, cache_dir=''))


def markdown(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
  """A line for each stream."""
  lines = [f'| method | batch | {" | ".join(_COLUMNS)} |', '|---' * (2 + len(_COLUMNS)) + '|']
  for (method, batch), rows in found.items():
    cells = ' | '.join(cell(rows) for cell in _COLUMNS.values())
    lines.append(f'| {method} | {batch} | {cells} |')
  return '\n'.join(lines) + '\n'


def main(_) -> None:
  """Runs all streams."""
  logging.set_verbosity(logging.FATAL)
  command.start_platform(settings_lib.Settings())
  workdir = pathlib.Path(FLAGS.workdir).expanduser().resolve()
  problem, requests = original(workdir), workdir / 'requests'
  if not requests.is_dir():
    write_requests(problem, requests)
  found = {}
  for batch in FLAGS.batches:
    for method in FLAGS.methods:
      out = workdir / f'{method}_{batch}'
      found[method, batch] = stream(problem, requests, method, batch, out)
      files.write_text(workdir / 'streams.md', markdown(found))
  print(markdown(found))


def _define() -> None:
  flags.DEFINE_string('workdir', 'runs/streams', 'Where everything is kept.')
  flags.DEFINE_list('methods', ['muda', 'finetune', 'retrain'], 'Methods.')
  flags.DEFINE_list('batches', ['all', '5', '1'], 'Requests carried out together.')
  flags.DEFINE_integer('num_requests', 20, 'Number of requests.')
  flags.DEFINE_integer('images', 10, 'Images of each request.')
  flags.DEFINE_float('width_multiplier', 0.25, "The network's.")
  flags.DEFINE_enum('verdict', 'full', ['full', 'quick'], 'As of forget.')


if __name__ == '__main__':
  _define()
  app.run(main)

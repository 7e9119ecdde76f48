"""Streams of deletion requests: many files, one after another or in batches, with a report."""

from collections.abc import Collection, Sequence
import dataclasses
import hashlib
import pathlib
import re
import time
from typing import Any

import numpy as np

from dalign_jax import checkpoints, errors, evaluation, from_settings
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  carry_out,
  record_files,
  record_keys,
  request_rows,
  starting_point,
  stream_report,
)
from dalign_jax.store import files, progress, timing

PLAN = '.stream.json'  # digests of the files; removed when all are done
ROWS = 'rows.json'
_SHOWN = {  # key of a metric after a request -> of the row
  **{name: name for name in ('forget_accuracy', 'retain_accuracy', 'test_accuracy')},
  **{name: name for name in ('attack', 'attack_floor', 'moved', 'dimensional_alignment')},
}


def run(
  stream: settings_lib.Stream,
  request: settings_lib.Request,
  config: settings_lib.Settings,
  *,
  given: Collection[str] | None = None,
) -> list[dict[str, Any]]:
  """Carries all requests of a folder out; the same command goes on where it was stopped.

  Each request, or batch of requests, is a folder in `--out`, and starts from the model of the one
  before it. `report.md`, `report.csv` and, with matplotlib, `report.svg` follow the metrics along
  the sequence.

  Args:
    stream: the folder of requests, the size of a batch, where gold models are trained.
    request: the flags of each request; `ids` is empty.
    config: those shared with `experiments.run`.
    given: as of `carry_out.forget`.

  Returns:
    The rows of the report.

  Raises:
    errors.InputError: as `carry_out.forget`; what was done before stays.
    verdict.NotForgottenError: if a request is not to be signed.
  """
  if request.ids:
    raise errors.InputError('name either --ids or --requests', argument='requests')
  paths = request_files(stream.requests)
  groups, gold_at = batches(paths, stream.batch), _gold_at(stream, len(paths))
  out = pathlib.Path(request.out).expanduser()
  _check_out(out, request)
  plan = _plan(stream, request, paths)
  earlier = record_files.request_folder(pathlib.Path(request.checkpoint).expanduser())
  request = dataclasses.replace(request, keys=str(record_keys.folder(request.keys, out, earlier)))
  progress.say(f'{len(paths)} requests in {len(groups)} parts, from {paths[0].name} on')
  with files.lock(out):
    _check_plan(out, plan, request)
    first = starting_point.read(request, config, given=given)
    if gold_at:
      devices = from_settings.devices(first.config)
      from_settings.check_batch_size('batch_size', first.config.batch_size, devices)
    _check_files(groups[_done(out) :], first, request)
    rows = files.read_json(out / ROWS) if (out / ROWS).is_file() else []
    done = 0
    for number, group in enumerate(groups, start=1):
      folder, start = out / f'{number:04d}', time.monotonic()
      done += len(group)
      if not folder.exists():
        progress.say(f'request {done - len(group) + 1} to {done} of {len(paths)}')
        before = request.checkpoint if number == 1 else str(out / f'{number - 1:04d}')
        one = dataclasses.replace(
          request, checkpoint=before, out=str(folder), item=request.item if number == 1 else ''
        )
        carry_out.forget(one, config, tuple(map(str, group)), given=given)
      if len(rows) < number:
        seconds = time.monotonic() - start
        with_gold = any(done - len(group) < point <= done for point in gold_at)
        rows.append(_row(first, request, folder, done, seconds, with_gold))
        files.write_json(out / ROWS, rows)
        stream_report.write(out, rows, request)
  for name in (PLAN, '.lock'):
    (out / name).unlink(missing_ok=True)
  return rows


def _done(out: pathlib.Path) -> int:
  """Number of parts that are carried out."""
  number = 0
  while (out / f'{number + 1:04d}').exists():
    number += 1
  return number


def _check_files(groups, first, request):
  """Reads all files that are left, so that a bad one is found before any work."""
  earlier: set[str] = set()
  for group in groups:
    ids = request_rows.ids_of([str(path) for path in group], first, request.id_column).ids
    request_rows.rows_of(ids, first)
    if earlier.issuperset(ids):
      raise errors.InputError(
        f'{", ".join(path.name for path in group)}: all ids are those of earlier files; take it '
        'out of the folder',
        argument='requests',
      )
    earlier.update(ids)


def request_files(folder: str) -> list[pathlib.Path]:
  """The files of a folder of requests by name, numbers in names by value: 2.csv before 10.csv.

  Raises:
    errors.InputError: if there are none.
  """
  place = pathlib.Path(folder).expanduser()
  if not place.is_dir():
    raise errors.InputError(f'there is no folder {folder!r}', argument='requests')
  found = [p for p in place.iterdir() if p.is_file() and not p.name.startswith('.')]
  if not found:
    raise errors.InputError(f'there is no file in {folder!r}', argument='requests')
  parts = lambda name: [
    (int(p), '') if p.isdecimal() else (-1, p) for p in re.split(r'(\d+)', name)
  ]
  return sorted(found, key=lambda path: (parts(path.name), path.name))


def batches(paths: Sequence[pathlib.Path], batch: str) -> list[list[pathlib.Path]]:
  """Requests that are carried out together.

  Example:
    >>> [len(group) for group in batches([pathlib.Path('a')] * 5, '2')]
    [2, 2, 1]
  """
  size = len(paths) if batch == 'all' else int(batch)
  return [list(paths[i : i + size]) for i in range(0, len(paths), size)]


def _gold_at(stream, count) -> list[int]:
  try:
    points = [int(point) for point in stream.gold_at]
  except ValueError:
    points = [0]
  if any(not 1 <= point <= count for point in points):
    raise errors.InputError(
      f'must be numbers of requests, 1 to {count}, such as 5,20; got {",".join(stream.gold_at)}',
      argument='gold_at',
    )
  return points


def _plan(stream, request, paths) -> dict[str, Any]:
  content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
  same = {'hparam': list(request.hparam), 'gold_at': list(stream.gold_at), 'requests': content}
  named = ('checkpoint', 'method', 'verdict', 'copies', 'near_copies', 'compare_gold')
  return {**same, 'batch': stream.batch, **{name: getattr(request, name) for name in named}}


def _check_out(out, request):
  """Raises if a folder holds anything but a stream that was stopped."""
  there = {path.name for path in out.iterdir()} if out.is_dir() else set()
  if not request.out or (out.exists() and PLAN not in there and there != {'.lock'}):
    what = 'is there already; name a new one' if request.out else 'must be named'
    raise errors.InputError(f'the folder {request.out!r} {what}', argument='out')


def _check_plan(out, plan, request):
  """Begins a stream, or checks that one that was stopped goes on as it began."""
  _check_out(out, request)  # again: it is locked now
  path = out / PLAN
  if not path.is_file():
    files.write_json(path, plan)
    return
  there = files.read_json(path, keys=['requests', 'batch'])
  done = _done(out) * (len(there['requests']) if plan['batch'] == 'all' else int(plan['batch']))
  begun = lambda of_plan: {**of_plan, 'requests': of_plan['requests'][:done]}  # others may change
  changed = [name for name in plan if begun(there).get(name) != begun(plan)[name]]
  if changed:
    raise errors.InputError(
      f'the stream in {request.out} was begun with other {", ".join(changed)}; go on with those, '
      'or name a new folder',
      argument='out',
    )
  files.write_json(path, plan)


def _row(first, request, folder, done, seconds, with_gold) -> dict[str, Any]:
  """What the report says after a request: of it, and of all requests so far."""
  record = record_files.read(folder / record_files.RECORD)
  train = record['samples']['train']
  metrics = record['metrics']['unlearned']
  row: dict[str, Any] = {
    'number': int(folder.name),
    'requests': done,
    'samples': record['read']['ids_forgotten'] + record['read'].get('ids_requested', 0),
    'remaining': train['count_after'],
    'verdict': record['verdict']['word'],
    'seconds': round(record['seconds'], 3),
    'wall_seconds': round(seconds, 3),
    **{name: metrics[key] for key, name in _SHOWN.items() if key in metrics},
  }
  so_far = _so_far(first, request, folder, with_gold)
  row |= {f'{key}_so_far': so_far['unlearned'].get(key) for key in stream_report.SO_FAR}
  row |= {
    'first_retain_accuracy': so_far['original']['retain_accuracy'],
    'first_test_accuracy': so_far['original'].get('test_accuracy'),
    'chance': record['verdict']['measured']['chance'],
    'held_out': so_far['held_out'],
  }
  if 'gold' in so_far:
    row |= _gaps(so_far) | {'gold_seconds': so_far['seconds']}
  return row


def _so_far(first, request, folder, with_gold) -> dict[str, Any]:
  """Metrics on the samples of all requests so far, of the first model and the newest."""
  now = starting_point.read(
    dataclasses.replace(request, checkpoint=str(folder), item=''), first.config
  )
  names = now.sets['train'].ids.tolist()
  waiting = audit_record.pending(now.chain, names, now.key)
  kept = [name for name in names if name not in waiting]
  rows = np.flatnonzero(~np.isin(first.sets['train'].ids, kept))
  problem, _ = carry_out.problem_of(first, request, rows, of_several=True)
  start = time.monotonic() - timing.compile_seconds()
  try:
    golds = carry_out.golds(problem, first.config, 2 if with_gold else 0)
  except errors.DivergedError as error:  # the request is done: its row goes without
    progress.say(f'no gold in row {folder.name}: {error}')
    golds = []
  seconds = (time.monotonic() - timing.compile_seconds() - start) / 2
  model, _ = checkpoints.restore(folder / 'model', first.model)
  test = carry_out.of_known_classes(first.sets['test'], problem)
  found = evaluation.compare(
    problem,
    model,
    test,
    golds=golds,
    energy=first.config.da_energy,
    seed=first.config.evaluation_seed,
  )
  return {**found, 'seconds': round(seconds, 3), 'held_out': len(test)}


def _gaps(so_far) -> dict[str, float]:
  """Distances from gold, and those of a second gold."""
  gold, found = so_far['gold'], {}
  for key in ('forget_accuracy', 'retain_accuracy', 'test_accuracy'):
    if key in gold:
      for name, model in (('gap', 'unlearned'), ('floor', 'second gold')):
        found[f'{key}_{name}'] = round(abs(so_far[model][key] - gold[key]), 6)
  distance = lambda model: so_far[model]['activation_distance']
  return found | {
    'distance_gap': distance('unlearned'),
    'distance_floor': distance('second gold'),
    'distance_original': distance('original'),
  }

"""Deletion requests: the check of the ids, the unlearning, and the written files."""

import dataclasses
import os
import pathlib
import shutil
from typing import NamedTuple

import jax
import numpy as np

from dalign_jax import (
  checkpoints,
  errors,
  evaluation,
  foreign,
  fresh,
  from_settings,
  hparams,
  methods,
  seeds,
  training,
  types,
)
from dalign_jax import data as data_lib
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import audit_record, copies, request_file, starting_point
from dalign_jax.store import files, hashing, model_folder, progress

STREAMS = 2  # how keys are made of seeds: 1 shared keys with originals, records of it still replay


class Outcome(NamedTuple):
  """Result of a request."""

  hparams: dict
  digest_before: str
  digest_after: str
  metrics: dict[str, dict[str, float]]
  sets: dict[str, types.Dataset]  # the remaining samples
  seconds: float
  streams: int = STREAMS


def forget(request: settings_lib.Request, config) -> dict:
  """Carries a request out and writes the checkpoint and its record; returns the record.

  Everything is made in a hidden folder next to `--out` and renamed at the end: a killed run leaves
  nothing half-written, and the same command goes on where it stopped.

  Args:
    request: the flags.
    config: those shared with `experiments.run`.

  Raises:
    errors.InputError: in one line, before any work where that can be.
  """
  out = pathlib.Path(request.out).expanduser()
  if not request.out or out.exists():
    what = 'is there already; name a new one' if request.out else 'must be named'
    raise errors.InputError(f'the folder {request.out!r} {what}', argument='out')
  basis = starting_point.read(request, config)
  rows, asked = read_request(request.ids, basis, request.id_column)
  named = len(rows)
  rows, found = copies.apply(request.copies, basis.sets['train'], rows)
  _check_left(basis.sets['train'], rows)
  request_file.check_sum(asked.counts, forgotten=len(rows), copies=len(rows) - named)
  asked.counts.update(copies_found=len(found), copies_forgotten=len(rows) - named)
  problem, method_hparams = problem_of(basis, request, rows)
  start = [model_folder.digest(basis.model), basis.data_hash, rows.tolist()]
  how = [request.method, method_hparams, config.unlearn_seed]
  folder = out.with_name(f'.{out.name}.{hashing.of_json([start, how])[:12]}')
  with files.lock(folder / '.request'):  # the model in it has a lock of its own
    outcome = carry_out(basis, request, rows, problem, method_hparams, folder)
    record = audit_record.make(basis, request, rows, asked, outcome, model_folder.environment())
    files.write_json(folder / 'history.json', basis.chain)
    files.write_json(folder / 'ids.json', audit_record.ids_of(outcome.sets))
    files.write_json(folder / 'record.json', record)
    for shown in folder.glob('*.npz'):  # images or features that a method shows of its work
      shown.unlink()
    if basis.file is not None:  # in the form that it came in, beside the checkpoint
      model, _ = checkpoints.restore(folder / 'model', basis.model)
      arrays = basis.file.arrays_of(model)
      foreign.write(folder / f'model.{basis.form}', arrays, basis.form)
    shutil.rmtree(folder / '.request')
    (folder / '.lock').unlink()
    os.replace(folder, out)
  if config.cache_dir:
    data_lib.drop_cached(os.path.expanduser(config.cache_dir), basis.data_hash)
  return record


def read_request(
  path: str, basis: starting_point.StartingPoint, id_column: str = 'id'
) -> tuple[np.ndarray, request_file.Asked]:
  """Rows of the training set that the request names, and how it was read.

  Args:
    path: of the request; see `id_file.read`.
    basis: the model and its data.
    id_column: the column of ids.

  Raises:
    errors.InputError: for ids that are unknown, held out, or forgotten already.
  """
  earlier = [(n, set(record['request']['ids'])) for n, record in enumerate(basis.chain, start=1)]
  known = {name for dataset in basis.sets.values() for name in dataset.ids.tolist()}
  with errors.blame('ids'):
    asked = request_file.read(path, id_column, known.union(*(ids for _, ids in earlier)))
  for note in asked.notes:
    progress.say(note)
  for (number, ids), record in zip(earlier, basis.chain, strict=True):
    _refuse(
      asked.ids, ids, f'are forgotten already, by request {number} of {record["created"][:10]}'
    )
  trained = set(basis.sets['train'].ids.tolist())
  for role in ('validation', 'test'):
    held = set(basis.sets[role].ids.tolist()) - trained
    _refuse(asked.ids, held, f'were never trained on ({role} data)')
  return rows_of(asked.ids, basis), asked


def _refuse(wanted, bad, why):
  found = [name for name in wanted if name in bad]
  if found:
    raise errors.InputError(
      f'{len(found)} of {len(wanted)} ids {why}, such as {found[0]!r}', argument='ids'
    )


def rows_of(wanted: list[str], basis: starting_point.StartingPoint) -> np.ndarray:
  """Rows of the training set.

  Raises:
    errors.InputError: for ids that are repeated or unknown, or all there are.
  """
  train = basis.sets['train']
  with errors.blame('ids'):
    rows = data_lib.id_rows(wanted, train.ids, 'ids')
  _check_left(train, rows)
  return rows


def _check_left(train, rows):
  left = np.delete(train.labels, rows, axis=0)
  if len(np.unique(left, axis=0)) < 2:
    raise errors.InputError('the request leaves less than two classes to keep', argument='ids')


def carry_out(basis, request, rows, problem, method_hparams, folder, streams=STREAMS) -> Outcome:
  """Unlearns in a folder, and measures; `streams` is the record's way of making keys."""
  config = basis.config
  before = model_folder.digest(basis.model)
  record = {
    'method': request.method,
    'hparams': method_hparams,
    'seed': config.unlearn_seed,
    'original': before,
    'request': hashing.of_json(rows.tolist()),
  }
  key = _key(config.unlearn_seed, 'request', len(basis.chain), streams)

  def compute(monitor):
    unlearn = methods.METHODS[request.method].make(**method_hparams)
    try:
      return unlearn(dataclasses.replace(problem, monitor=monitor), key)
    except types.DataError as error:
      raise errors.InputError(f'{request.method}: {error}', argument='method') from error

  model_folder.make_model(folder, 'model', compute, record, f'unlearn: {request.method}')
  model, made = checkpoints.restore(folder / 'model', basis.model)
  values = evaluation.compare(
    problem,
    model,
    basis.sets['test'],
    golds=_golds(problem, config, request.compare_gold, streams),
    energy=config.da_energy,
    seed=config.evaluation_seed,
  )
  left = {**basis.sets, 'train': problem.retain}
  return Outcome(
    method_hparams, before, model_folder.digest(model), values, left, made['seconds'], streams
  )


def problem_of(basis, request, rows):
  """The problem and the hyper-parameters of the method, checked."""
  config, train = basis.config, basis.sets['train']
  retain = train.take(np.delete(np.arange(len(train)), rows))
  values = hparams.resolve((request.method,), request.hparam, 'method')[request.method]
  method, forgotten = methods.METHODS[request.method], train.take(rows)
  if method.class_only and not len(np.setdiff1d(forgotten.labels, retain.labels)):
    raise errors.InputError(
      f'{request.method} forgets whole classes, not single samples', argument='method'
    )
  if train.is_multi_label and not method.multi_label:
    raise errors.InputError(
      f'{request.method} needs classes, not several attributes', argument='method'
    )
  if request.compare_gold not in (0, 1, 2):
    raise errors.InputError(
      f'must be 0, 1 or 2, got {request.compare_gold}', argument='compare_gold'
    )
  devices = from_settings.devices(config)
  if 'batch_size' in values:
    from_settings.check_batch_size(
      f'hparam={request.method}.batch_size', values['batch_size'], devices
    )
  with errors.blame('hparam'):
    method.make(**values)
  return types.Problem(
    apply_fn=basis.apply_fn,
    init_fn=basis.init_fn,
    original=basis.model,
    retain=retain,
    forget=forgotten,
    validation=basis.sets['validation'],
    num_classes=len(basis.class_names),
    recipe=from_settings.recipe(config),
    devices=devices,
  ), values


def _golds(problem, config, count, streams) -> list[types.ModelState]:
  """Models retrained without the forgotten samples."""
  golds = []
  for number in range(count):
    key = _key(config.gold_seed + number, 'request_gold', 0, streams)
    init_key, fit_key = jax.random.split(key)
    progress.say(f'retrain: model {number + 1} of {count}')
    golds.append(
      training.fit(
        problem.apply_fn,
        fresh.model(problem.init_fn, init_key, problem.retain),
        problem.retain,
        problem.recipe,
        fit_key,
        devices=problem.devices,
      )
    )
  return golds


def _key(seed, role, number, streams):
  """The key of a role, as records of that time made it."""
  if streams == 1:
    key = jax.random.key(seed)
    return jax.random.fold_in(key, number) if role == 'request' else key
  return seeds.stream(seed, role, number)

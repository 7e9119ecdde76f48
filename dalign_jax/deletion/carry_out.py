"""Deletion requests: the check of the ids, the unlearning, and the written files."""

import dataclasses
import os
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from dalign_jax import (
  checkpoints,
  errors,
  evaluation,
  fresh,
  from_settings,
  hparams,
  methods,
  seeds,
  training,
  types,
)
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  model_source,
  request_rows,
  starting_point,
  traces,
  without_gold,
)
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
  wanted = request_rows.read(request, basis)
  problem, method_hparams = problem_of(basis, request, wanted.rows)
  start = [model_folder.digest(basis.model), basis.data_hash, wanted.rows.tolist()]
  how = [request.method, method_hparams, config.unlearn_seed]
  folder = traces.hidden_folder(out, hashing.of_json([start, how]))
  with files.lock(folder / traces.LOCK):  # the model in it has a lock of its own
    outcome = carry_out(basis, request, wanted.rows, problem, method_hparams, folder)
    hints = without_gold.measure(
      problem,
      checkpoints.restore(folder / 'model', basis.model)[0],
      basis.sets['test'],
      seed=config.evaluation_seed,
    )
    written = basis.taken.described()['written']
    traces.tidy(folder, [traces.LOCK])
    model_source.write(folder, basis.taken, checkpoints.restore(folder / 'model')[0])
    left = _clean(request, config, basis, problem.forget, out, folder)
    environment = model_folder.environment()
    record = audit_record.make(basis, request, wanted, outcome, environment, left, hints)
    files.write_json(folder / 'history.json', basis.chain)
    files.write_json(folder / 'ids.json', audit_record.ids_of(outcome.sets))
    files.write_json(folder / 'record.json', record)
    traces.tidy(folder, [written] if written else [])
    os.replace(folder, out)
  return record


def _clean(request, config, basis, forgotten, out, folder) -> dict:
  """Removes what holds forgotten samples elsewhere; the words of the record."""
  removed, busy = {}, []
  removed['stopped requests'], held = traces.remove_stopped(out, folder)
  busy += held
  removed['folders of replays'], held = traces.remove_scratch()
  busy += held
  if config.cache_dir:
    name = basis.config.dataset
    dropped = traces.drop_caches(config.cache_dir, name, basis.data_hash, forgotten)
    removed['caches'], held = dropped
    busy += held
  left = [f'in use by another process: {place}' for place in busy]
  return {
    'removed': removed,
    'not_looked_into': left + traces.elsewhere(request, basis.config, basis.problem),
  }


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

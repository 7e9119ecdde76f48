"""Deletion requests: the check of the ids, the unlearning, and the written files."""

from collections.abc import Collection
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

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
from dalign_jax import data as data_lib
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  assess,
  audit_record,
  commitments,
  evidence,
  model_source,
  page,
  receipts,
  record_files,
  record_keys,
  refusals,
  request_rows,
  signing,
  starting_point,
  traces,
  verdict,
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
  verdict: dict | None = None


def forget(
  request: settings_lib.Request,
  config: settings_lib.Settings,
  paths: tuple[str, ...] = (),
  *,
  given: Collection[str] | None = None,
) -> dict:
  """Carries a request out and writes the checkpoint and its record; returns the record.

  Everything is made in a hidden folder next to `--out` and renamed at the end: a killed run leaves
  nothing half-written, and the same command goes on where it stopped.

  Args:
    request: the flags.
    config: those shared with `experiments.run`.
    paths: files of ids that are one request together; empty for `request.ids`.
    given: names of the settings that somebody gave; None for those that are not at their defaults.

  Raises:
    errors.InputError: in one line, before any work where that can be.
    verdict.NotForgottenError: if the result is neither that the model forgot nor accepted; the
      same command with `accept` signs it.
  """
  out = pathlib.Path(request.out).expanduser()
  if not request.out or out.exists():
    what = 'is there already; name a new one' if request.out else 'must be named'
    raise errors.InputError(f'the folder {request.out!r} {what}', argument='out')
  refusals.check_settings(request)
  _signer(request)  # refused before any work if there is none
  earlier = record_files.request_folder(pathlib.Path(request.checkpoint).expanduser())
  keys = record_keys.folder(request.keys, out, earlier)
  basis = starting_point.read(request, config, keys, given=given)
  wanted = request_rows.read(request, basis, paths)
  problem, method_hparams = problem_of(basis, request, wanted.rows)
  refusals.check_model(problem)
  refusals.check_start(problem, request)
  refusals.check_held_out(basis.sets, wanted.rows)
  audit_record.said_of(request)
  start = [model_folder.digest(basis.model), basis.data_hash, wanted.rows.tolist()]
  how = [request.method, method_hparams, config.unlearn_seed, _training(basis)]
  folder = traces.hidden_folder(out, hashing.of_json([start, how]))
  record_keys.check_kept(keys, folder)
  basis = basis._replace(key=record_keys.make(keys))
  with files.lock(folder / traces.LOCK):  # the model in it has a lock of its own
    if out.exists():  # by the same command, while this one read the data
      raise errors.InputError(f'the folder {request.out!r} is there already', argument='out')
    outcome = carry_out(
      basis, request, wanted.rows, problem, method_hparams, folder, mode=request.verdict
    )
    _check_signed(outcome.verdict, request.accept, folder)
    _say_without_gold(config, basis, problem, folder)
    return _finish(request, config, basis, wanted, outcome, (folder, out, keys), paths)


def _say_without_gold(config, basis, problem, folder):
  """Says what measures without gold give, those that predicted the gap to gold in benchmarks."""
  model = checkpoints.restore(folder / 'model', basis.model)[0]
  held_out, seed = of_known_classes(basis.sets['test'], problem), config.evaluation_seed
  for line in without_gold.sentences(without_gold.measure(problem, model, held_out, seed=seed)):
    progress.say(line)


def _finish(request, config, basis, wanted, outcome, places, paths) -> dict:
  """Writes what a request leaves, and gives the folder its name; the record."""
  folder, out, keys = places
  written = basis.taken.described()['written']
  traces.tidy(folder, [traces.LOCK])
  model_source.write(folder, basis.taken, checkpoints.restore(folder / 'model')[0])
  traces.drop_paths(folder)
  forgotten = basis.sets['train'].take(wanted.rows)
  left = _clean(request, config, basis, forgotten, out, folder)
  before = record_files.request_folder(pathlib.Path(request.checkpoint).expanduser())
  history = record_files.entries(record_files.chain_of(before), basis.key) if before else []
  more = {'files': record_files.model_files(folder), 'history': history}
  environment = model_folder.environment(from_settings.devices(config))
  record = audit_record.make(basis, request, wanted, outcome, environment, left, more=more)
  files.write_json(folder / record_files.MEMBERS, audit_record.members(outcome.sets, basis.key))
  record_files.write(folder, record, history, _signer(request))
  page.write(folder, record, is_signed=bool(request.signing_key))
  own = record_keys.own_folder(keys, out, folder.name)
  receipts.write(own, record, basis, wanted.rows, outcome.sets['train'])
  record_keys.write_places(own, record, request, basis, paths, left)
  traces.tidy(folder, [written] if written else [])
  record_keys.close(own)
  os.replace(folder, out)
  return record


def _signer(request):
  """The private key that signs the record, None where it is not signed."""
  if not request.signing_key:
    return None
  with errors.blame('signing_key'):
    return signing.read_private(request.signing_key)


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


def _check_signed(found, accepted, folder):
  try:
    verdict.check_signed(found, accepted)
  except verdict.NotForgottenError:  # the same command that accepts it need not unlearn again
    traces.tidy(folder, [traces.LOCK, assess.RESULT])
    raise


def carry_out(
  basis, request, rows, problem, method_hparams, folder, streams=STREAMS, mode=None
) -> Outcome:
  """Unlearns in a folder, and measures.

  Args:
    basis: where the request starts.
    request: its flags.
    rows: of the training set.
    problem: of `problem_of`.
    method_hparams: all of the method's.
    folder: to work in.
    streams: the record's way of making keys.
    mode: of the verdict, `full` or `quick`; None for none.
  """
  config, test = basis.config, basis.sets['test']
  if mode:  # records without a verdict were made with all held-out samples
    test = of_known_classes(test, problem)
    validation = of_known_classes(problem.validation, problem)
    problem = dataclasses.replace(problem, validation=validation)
  before = model_folder.digest(basis.model)
  record = {
    'method': request.method,
    'hparams': method_hparams,
    'seed': config.unlearn_seed,
    'original': before,
    'request': _identity(basis.key, rows),
    **_training(basis),
  }
  key = _key(config.unlearn_seed, 'request', len(basis.chain), streams)

  def compute(monitor):
    unlearn_fn = from_settings.method(config, request.method, method_hparams)
    try:
      return unlearn_fn(dataclasses.replace(problem, monitor=monitor), key)
    except types.DataError as error:
      raise errors.InputError(f'{request.method}: {error}', argument='method') from error

  title = f'unlearn: {request.method}'
  model_folder.make_model(folder, 'model', compute, record, title, devices=problem.devices)
  model, made = checkpoints.restore(folder / 'model', basis.model)
  if mode and not evidence.is_finite(problem, model):
    raise verdict.not_finite()
  retrained = golds(problem, config, request.compare_gold, streams)
  values = evaluation.compare(
    problem,
    model,
    test,
    golds=retrained,
    energy=config.da_energy,
    seed=config.evaluation_seed,
  )
  after, found = model_folder.digest(model), None
  if mode:
    models = {'before': basis.model, 'after': model}
    models |= {'gold': retrained[0]} if retrained else {}
    found = assess.verdict_of(problem, models, values, basis, test, record, folder, mode)
  train = basis.sets['train']
  if found is None or found['counts_as'] == verdict.FORGOTTEN:
    train = train.take(np.delete(np.arange(len(train)), rows))
  left = {**basis.sets, 'train': train}
  return Outcome(method_hparams, before, after, values, left, made['seconds'], streams, found)


def of_known_classes(dataset: types.Dataset, problem: types.Problem) -> types.Dataset:
  """Held-out samples without those of classes that earlier requests have forgotten whole."""
  if dataset.is_multi_label:
    return dataset
  known = np.union1d(problem.retain.labels, problem.forget.labels)
  return dataset.take(np.flatnonzero(np.isin(dataset.labels, known)))


def _training(basis) -> dict[str, Any]:
  """What decides the model besides the request and the method: settings, and unseen samples."""
  config = basis.config
  return {
    **from_settings.restriction(config),
    'recipe': dataclasses.asdict(from_settings.recipe(config)),
    'compute_dtype': config.compute_dtype,
    'validation': data_lib.content_hash(basis.sets['validation']),
  }


def _identity(key, rows) -> str:
  """What tells one request from another beside a model; under a key where there is one."""
  if key is None:
    return hashing.of_json(rows.tolist())
  return commitments.of_json(key, 'rows', rows.tolist())


def problem_of(basis, request, rows, values: dict | None = None, *, of_several: bool = False):
  """The problem and the hyper-parameters of the method, checked.

  Args:
    basis: what the request starts from.
    request: of the samples.
    rows: of the samples in the training data.
    values: the hyper-parameters; those that the request sets, and defaults, if None.
    of_several: whether these are the samples of several requests, which is measured and not carried
      out: it may be larger than the method takes at once.
  """
  config, train = basis.config, basis.sets['train']
  asked = np.flatnonzero(
    np.isin(train.ids, sorted(audit_record.pending(basis.chain, train.ids.tolist(), basis.key)))
  )
  retain = train.take(np.delete(np.arange(len(train)), np.union1d(rows, asked)))
  if values is None:
    values = hparams.resolve((request.method,), request.hparam, 'method')[request.method]
  method, forgotten = methods.METHODS[request.method], train.take(rows)
  from_settings.method(config, request.method, values)  # refused before any work if it cannot be
  single = int(np.isin(forgotten.labels, retain.labels).sum())
  if method.class_only and single:
    of = '' if single == len(forgotten) else f'; {single} of these are of classes that stay'
    raise errors.InputError(
      f'{request.method} forgets whole classes, not single samples{of}', argument='method'
    )
  if not of_several:
    with errors.blame('method'):
      of_people = methods.forgets_people(forgotten, retain)
      methods.check_range(request.method, forgotten.labels, retain.labels, of_people=of_people)
  if train.is_multi_label and not method.multi_label:
    raise errors.InputError(
      f'{request.method} needs classes, not several attributes', argument='method'
    )
  if request.compare_gold not in (0, 1, 2):
    raise errors.InputError(
      f'must be 0, 1 or 2, got {request.compare_gold}', argument='compare_gold'
    )
  devices = from_settings.devices(config)
  if request.compare_gold:
    from_settings.check_batch_size('batch_size', config.batch_size, devices)
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


def golds(problem, config, count: int, streams: int = STREAMS) -> list[types.ModelState]:
  """Models retrained without the forgotten samples.

  Args:
    problem: of the request.
    config: of it, with the seed.
    count: number of models.
    streams: the record's way of making keys.

  Raises:
    errors.DivergedError: if a training does not stay finite.
  """
  found = []
  for number in range(count):
    key = _key(config.gold_seed + number, 'request_gold', 0, streams)
    init_key, fit_key = jax.random.split(key)
    title = f'retrain: model {number + 1} of {count}'
    progress.say(title)
    try:
      model = training.fit(
        problem.apply_fn,
        fresh.model(problem.init_fn, init_key, problem.retain),
        problem.retain,
        problem.recipe,
        fit_key,
        devices=problem.devices,
      )
    except training.NonFiniteLossError as error:
      raise _diverged(f'{title}: {error}') from None
    if not evidence.is_finite(problem, model):
      raise _diverged(f'{title}: its outputs are not finite')
    found.append(model)
  return found


def _diverged(what: str) -> errors.DivergedError:
  """The error of a gold model; what was unlearned before it is kept."""
  return errors.DivergedError(
    f'{what}. The unlearned model is kept, and the command goes on from it with 0; or try a lower '
    'learning rate',
    argument='compare_gold',
  )


def _key(seed, role, number, streams):
  """The key of a role, as records of that time made it."""
  if streams == 1:
    key = seeds.key(seed)
    return jax.random.fold_in(key, number) if role == 'request' else key
  return seeds.stream(seed, role, number)

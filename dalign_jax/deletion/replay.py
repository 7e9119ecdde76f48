"""Verification of an audit record: its chain, the remaining samples, and a replay."""

import dataclasses
import pathlib
import tempfile

import jax
import numpy as np

from dalign_jax import checkpoints, errors, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import audit_record, carry_out, request_rows, starting_point, traces
from dalign_jax.store import files, hashing, model_folder, progress


def verify(path: pathlib.Path, *, places: dict, settings: dict, replay: bool) -> None:
  """Checks a record: reports each check, and stops at the first failure.

  Args:
    path: of the record.
    places: `checkpoint`, `data`, `held_out`: where they are now, empty for where they were.
    settings: of the configuration that differ now, such as `data_dir`.
    replay: repeat the request; this needs the forgotten samples and the model before it.

  Raises:
    errors.InputError: that names what is wrong.
  """
  chain = audit_record.read_chain(path.parent)
  record = audit_record.read(path)
  progress.say(f'record: request {record["number"]}, unchanged: {record["hash"][:16]}')
  progress.say(f'chain: unbroken, {len(chain)} long')
  _check_model(path.parent, record)
  config = dataclasses.replace(audit_record.config_of(record), cache_dir='', **settings)
  if not replay:
    _check_left(path, record, config, places)
    progress.say('not replayed: it is not checked that this request made this model')
    return
  configuration = record['configuration']
  request = settings_lib.Request(
    checkpoint=places['checkpoint'] or _checkpoint_of(configuration),
    item=configuration.get('item', ''),
    data=places['data'] or configuration['settings']['dataset'],
    held_out=places['held_out'] or configuration['held_out'],
    method=record['method']['name'],
    hparam=tuple(configuration['hparam']),
    compare_gold=configuration['compare_gold'],
    accept=tuple(configuration.get('accept', ())),
  )
  basis = starting_point.read(request, config)
  _check_before(basis, record)
  rows = request_rows.rows_of(record['request']['ids'], basis)
  problem, hparams = carry_out.problem_of(basis, request, rows)
  traces.remove_scratch()
  with tempfile.TemporaryDirectory(prefix=traces.SCRATCH) as scratch:
    folder = pathlib.Path(scratch)
    lock = files.lock(folder / traces.LOCK)  # that of a killed replay is free, and can be removed
    streams = record['seeds'].get('streams', 1)
    with lock:
      mode = (record.get('verdict') or {}).get('mode')
      outcome = carry_out.carry_out(
        basis, request, rows, problem, hparams, folder, streams, mode=mode
      )
      replayed = checkpoints.restore(folder / 'model')[0]
  copies = request_rows.copies_again(record, basis.sets['train'], rows)
  contents = audit_record.contents(basis, request, rows, outcome, copies)
  _compare(record, contents, path.parent, replayed)
  progress.say('replay: the same model, samples, metrics and summary')
  progress.say('verified')


def _checkpoint_of(configuration: dict) -> str:
  """The very step that was taken, where it is still there; what was named otherwise."""
  taken = configuration.get('taken', {}).get('path', '')
  return taken if taken and pathlib.Path(taken).exists() else configuration['checkpoint']


def _check_model(folder, record):
  """Checks that the checkpoint next to the record is the one that the record names."""
  with errors.blame('checkpoint'):
    model, _ = checkpoints.restore(folder / 'model')
  if model_folder.digest(model) != record['model']['after']:
    raise errors.InputError(f'the model in {folder / "model"} is not the one of the record')
  progress.say(f'model: the one of the record: {record["model"]["after"][:16]}')


def _check_left(path, record, config, places):
  """Checks the remaining samples, wherever the forgotten ones are."""
  dataset = places['data'] or config.dataset
  config = dataclasses.replace(config, dataset=dataset)
  held_out = places['held_out'] or record['configuration']['held_out']
  starting_point.sets_by_ids(config, record, held_out, path.parent)
  progress.say('samples: the remaining ones are those of the record')


def _check_before(basis, record):
  found = {
    'model': (model_folder.digest(basis.model), record['model']['before'], 'checkpoint'),
    **{
      role: (hashing.samples_root(basis.sets[role]), hashes['before'], 'data')
      for role, hashes in record['samples'].items()
    },
  }
  for name, (now, then, argument) in found.items():
    if now != then:
      what = 'the model' if name == 'model' else f'the {name} samples'
      raise errors.InputError(
        f'{what} before the request hashed to {then[:16]} and now to {now[:16]}: '
        'changed since, or other ones',
        argument=argument,
      )
  previous = basis.chain[-1]['hash'] if basis.chain else None
  if previous != record['previous']:
    raise errors.InputError(
      'its record is not the one that this record follows', argument='checkpoint'
    )
  progress.say('before: samples and model are those of the record')


def _compare(record, replayed, folder, model):
  """Raises unless the replay reproduced the record."""
  changed = audit_record.differences(record, replayed)
  if not changed:
    return
  message = f'the replay gives another {", ".join(changed)} than the record'
  if 'model' in changed:
    there, _ = checkpoints.restore(folder / 'model')
    message += f' (weights differ by up to {_largest_difference(there, model):.2g})'
  elsewhere = {k: v for k, v in model_folder.environment().items() if record['environment'][k] != v}
  if record['code'] != hashing.of_code(audit_record.own_module(audit_record.config_of(record))):
    elsewhere['code'] = 'changed'
  if elsewhere:
    message += f'; it was made with other {", ".join(elsewhere)}, which may be why'
  raise errors.InputError(message)


def _largest_difference(first: types.ModelState, second: types.ModelState) -> float:
  leaves = [jax.tree.leaves(model) for model in (first, second)]
  if [x.shape for x in leaves[0]] != [x.shape for x in leaves[1]]:
    return float('inf')
  return max(float(np.max(np.abs(a - b), initial=0)) for a, b in zip(*leaves, strict=True))

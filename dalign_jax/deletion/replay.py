"""Verification of an audit record with a replay: the request is carried out again and compared."""

from collections.abc import Collection
import dataclasses
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from dalign_jax import checkpoints, errors, stopping, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  carry_out,
  commitments,
  earlier,
  record_checks,
  record_keys,
  refusals,
  request_rows,
  starting_point,
  traces,
  verification,
)
from dalign_jax.store import files, model_folder, progress


def verify(
  path: pathlib.Path,
  *,
  places: dict[str, Any],
  settings: dict,
  replay: bool,
  public_keys: Collection[str] = (),
  may_differ: Collection[str] = (),
  max_minutes: float = 60.0,
) -> list[str]:
  """Checks a record: reports each check, and stops at the first failure.

  Args:
    path: of the record, or its folder.
    places: what whoever verifies names: `checkpoint`, `data`, `held_out`, `ids`, `model`,
      `pretrained`, `keys`; what is empty is taken from the private folder `keys`, and never from
      the record.
    settings: of the configuration that differ now, such as `data_dir`.
    replay: repeat the request; this needs the forgotten samples and the model before it.
    public_keys: keys that must have signed.
    may_differ: fields of `verification.MAY_DIFFER` in which the replay may differ.
    max_minutes: after which a replay is given up.

  Returns:
    The levels that were verified, for a verification summary.

  Raises:
    errors.InputError: that names what is wrong.
  """
  chain = verification.chain_of(path)
  folder = path if path.is_dir() else path.parent
  record = chain[-1][0]
  verification.check_alone(folder, chain, public_keys)
  levels = ['DALIGN_JAX_RECORD'] + ['DALIGN_JAX_SIGNED'] * bool(public_keys)
  config = record_checks.settings_of(record)
  config = dataclasses.replace(config, cache_dir='', **settings)
  if not replay:
    _check_left(folder, record, config, places)
    verification.say_fields(record, replayed=False)
    progress.say('not replayed: it is not checked that this request made this model')
    return levels
  too_long = errors.InputError(
    f'the replay was given up after {max_minutes:g} minutes', argument='max_minutes'
  )
  with stopping.time_limit(max_minutes * 60, too_long):
    differing = _replay(folder, record, config, places, may_differ)
  verification.say_fields(record, replayed=True, differing=differing)
  progress.say(f'verified, except {", ".join(differing)}' if differing else 'verified')
  return levels if differing else [*levels, 'DALIGN_JAX_REPLAYED']


def _replay(folder, record, config, places, may_differ) -> list[str]:
  """Carries the request out again; the fields in which it differs, and may."""
  _check_network(config, places)
  keys, kept = _private(record, places)
  given = places.get('pretrained') or ''
  start = earlier.pretrained_at(config.pretrained, given, kept)
  config = earlier.with_data_dir(dataclasses.replace(config, pretrained=start), kept)
  request = _request(record, places, kept)
  basis = starting_point.read(request, config, keys, trusts_records=False, given=earlier.MAY_CHANGE)
  _check_before(basis, record)
  wanted = _wanted(record, request, basis, places, kept)
  hparams = record_checks.hparams_of(record)
  problem, hparams = carry_out.problem_of(basis, request, wanted.rows, hparams)
  if record['format'] == 2:
    refusals.check_start(problem, request)
    refusals.check_held_out(basis.sets, wanted.rows)
  traces.remove_scratch()
  with tempfile.TemporaryDirectory(prefix=traces.SCRATCH, ignore_cleanup_errors=True) as scratch:
    work = pathlib.Path(scratch)
    lock = files.lock(work / traces.LOCK)  # that of a killed replay is free, and can be removed
    streams = record['seeds'].get('streams', 1)
    mode = (record.get('verdict') or {}).get('mode')
    with lock:
      outcome = carry_out.carry_out(
        basis, request, wanted.rows, problem, hparams, work, streams, mode=mode
      )
      replayed = checkpoints.restore(work / 'model')[0]
  key = basis.key if record['format'] == 2 else None
  found = audit_record.contents(basis, request, wanted.rows, outcome, wanted.copies, key)
  around = audit_record.circumstances(
    basis, wanted, outcome, model_folder.environment(problem.devices)
  )
  if record['format'] == 1:
    del around['read']  # its file need not be there: the record names the ids
  differing = _compare(record, {**found, **around}, may_differ, folder, replayed)
  progress.say('replay: the same model, samples, metrics and summary')
  return differing


def _check_network(config, places):
  """Code that a record names is imported only if whoever verifies names it."""
  if ':' in config.model and places.get('model') != config.model:
    raise errors.InputError(
      f'the record says that {config.model!r} makes the network; its code is not imported unless '
      f'you pass --model={config.model}',
      argument='model',
    )


def _private(record, places) -> tuple[pathlib.Path, dict]:
  """The private folder that was named, and what it says of the record."""
  named = places.get('keys') or ''
  if not named and record['format'] == 1:
    return pathlib.Path(), {}
  keys = pathlib.Path(named).expanduser().absolute()
  key = record_keys.read(keys) if named else None
  if record['format'] == 2:
    record_keys.check(key, record, keys if named else None)
  return keys, record_keys.places(keys, record)


def _request(record, places, kept) -> settings_lib.Request:
  """The flags of the request, with places that the record does not say."""
  configuration = record['configuration']
  checkpoint = places.get('checkpoint') or kept.get('checkpoint')
  if not checkpoint:
    raise errors.InputError('name the model before the request', argument='checkpoint')
  place = lambda name, said: earlier.place_of(name, said, places.get(name) or '', kept)
  return settings_lib.Request(
    checkpoint=str(checkpoint),
    item=configuration.get('item', ''),
    data=place('data', configuration['settings']['dataset']),
    held_out=place('held_out', configuration['held_out']),
    method=record['method']['name'],
    hparam=tuple(configuration['hparam']),
    compare_gold=configuration['compare_gold'],
    accept=tuple(configuration.get('accept', ())),
    copies=record.get('copies', {}).get('policy', 'refuse'),
    near_copies=record.get('copies', {}).get('near', True),
    id_column=str(places.get('id_column') or kept.get('id_column') or 'id'),
  )


def _wanted(record, request, basis, places, kept) -> request_rows.Wanted:
  """The rows of the request: from its file, or from the ids in a record of format 1."""
  if record['format'] == 1:
    rows = request_rows.rows_of(record['request']['ids'], basis)
    copies = request_rows.copies_again(record, basis.sets['train'], rows)
    return request_rows.Wanted(rows, {'notes': [], 'ids_forgotten': len(rows)}, copies or {})
  paths = places.get('ids') or kept.get('ids') or ()
  paths = (paths,) if isinstance(paths, str) else tuple(map(str, paths))
  if not paths:
    raise errors.InputError(
      'name the file of the request: the record holds commitments, and no ids', argument='ids'
    )
  return request_rows.read(request, basis, paths)


def _check_left(folder, record, config, places):
  """Checks the remaining samples, wherever the forgotten ones are, if key and data are named."""
  keys, kept = pathlib.Path(), {}
  if record['format'] == 2:
    if not places.get('keys'):
      progress.say('samples: not compared with the data: name the key by --keys')
      return
    keys, kept = _private(record, places)
  try:
    said = record['configuration']
    data = earlier.place_of('data', config.dataset, places.get('data') or '', kept)
    held_out = earlier.place_of('held_out', said['held_out'], places.get('held_out') or '', kept)
  except errors.InputError as error:
    progress.say(f'samples: not compared with the data: --{error}')
    return
  config = earlier.with_data_dir(dataclasses.replace(config, dataset=data), kept)
  earlier.sets_by_ids(config, record, held_out, folder, keys)
  progress.say('samples: the remaining ones are those of the record')


def _check_before(basis, record):
  key = basis.key if record['format'] == 2 else None
  found = {
    'model': (model_folder.digest(basis.model), record['model']['before'], 'checkpoint'),
    **{
      role: (commitments.root(basis.sets[role], key), hashes['before'], 'data')
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


def _compare(record, replayed, may_differ, folder, model) -> list[str]:
  """Raises unless the replay reproduced the record; the fields that differ and may."""
  changed = audit_record.differences(record, replayed)
  wrong = [name for name in changed if name not in may_differ]
  if not wrong:
    return changed
  message = f'the replay gives another {", ".join(wrong)} than the record'
  if 'model' in wrong:
    there, _ = checkpoints.restore(folder / 'model')
    message += f' (weights differ by up to {_largest_difference(there, model):.2g})'
  around = [name for name in changed if name in ('code', 'environment')]
  if around and set(wrong) - set(around):
    message += f'; it was made with other {", ".join(around)}, which may be why'
  elif around:
    message += f'; all else is equal, and --may_differ={",".join(around)} leaves it at that'
  raise errors.InputError(message)


def _largest_difference(first: types.ModelState, second: types.ModelState) -> float:
  leaves = [jax.tree.leaves(model) for model in (first, second)]
  if [x.shape for x in leaves[0]] != [x.shape for x in leaves[1]]:
    return float('inf')
  return max(float(np.max(np.abs(a - b), initial=0)) for a, b in zip(*leaves, strict=True))

"""The audit record of a deletion request: its contents, its chain, and reading it."""

import dataclasses
import datetime
import pathlib
import platform

from dalign_jax import errors, methods, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import summary
from dalign_jax.store import files, hashing

FORMAT = 1
_NOT_KEPT = ('compilation_cache_dir', 'cache_dir')  # of this machine alone
_OLD_NAMES = {  # of metrics in records of version 0.1.0
  'forget': 'forget_accuracy',
  'retain': 'retain_accuracy',
  'test': 'test_accuracy',
  'attack': 'attack',
  'attack_floor': 'attack_floor',
  'alignment': 'dimensional_alignment',
  'moved': 'moved',
  'to_gold': 'activation_distance',
}
_RECOMPUTED = ('request', 'samples', 'model', 'method', 'seeds', 'metrics', 'summary')
_RECOMPUTED_LATER = ('copies', 'guarantee')  # not in records of version 0.1.0


def contents(basis, request, rows, outcome, copies: dict | None) -> dict:
  """Contents that a replay must reproduce, from a `StartingPoint` and an `Outcome`."""
  config, train = basis.config, basis.sets['train']
  before = basis.sets
  roots = {
    role: {
      'count_before': len(before[role]),
      'count_after': len(outcome.sets[role]),
      'before': hashing.samples_root(before[role]),
      'after': hashing.samples_root(outcome.sets[role]),
    }
    for role in before
  }
  found = {
    'request': {'ids': sorted(train.ids[rows].tolist())},
    'samples': roots,
    'model': {'before': outcome.digest_before, 'after': outcome.digest_after},
    'method': {
      'name': request.method,
      'hparams': outcome.hparams,
      'sees': methods.in_words(methods.sees(request.method, outcome.hparams, has_unseen=False)),
    },
    'seeds': {
      'unlearn': config.unlearn_seed,
      'evaluation': config.evaluation_seed,
      'gold': [config.gold_seed + i for i in range(request.compare_gold)],
      'split': config.split_seed,
      **({'streams': outcome.streams} if outcome.streams > 1 else {}),
    },
    'metrics': outcome.metrics,
  }
  if copies is not None:  # None in records of version 0.1.0
    found['copies'] = copies
  guarantee = methods.METHODS[request.method].guarantee
  if guarantee:
    found['guarantee'] = guarantee(outcome.hparams)
  return {**found, 'summary': summary.sentences(found)}


def make(basis, request, wanted, outcome, environment: dict, left: dict, hints: dict) -> dict:
  """The record of a request that was carried out."""
  fields = dataclasses.fields(settings_lib.Settings)
  record = {
    'format': FORMAT,
    'number': len(basis.chain) + 1,
    'previous': basis.chain[-1]['hash'] if basis.chain else None,
    'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    **contents(basis, request, wanted.rows, outcome, wanted.copies),
    'read': wanted.read,
    'traces': left,
    'without_gold': hints,
    'configuration': {
      'checkpoint': request.checkpoint,
      'item': request.item,
      'taken': basis.taken.described(),
      'held_out': basis.held_out,
      'hparam': list(request.hparam),
      'compare_gold': request.compare_gold,
      'class_names': list(basis.class_names),
      'settings': {
        f.name: getattr(basis.config, f.name) for f in fields if f.name not in _NOT_KEPT
      },
    },
    'code': hashing.of_code(own_module(basis.config)),
    'environment': {**environment, 'python': platform.python_version()},
    'seconds': outcome.seconds,
  }
  return {**record, 'hash': hashing.of_json(record)}


def own_module(config: settings_lib.Settings) -> str | None:
  """The module of the user's own network, None for one of the library."""
  return config.model.partition(':')[0] if ':' in config.model else None


def config_of(record: dict) -> settings_lib.Settings:
  """The configuration that a request was carried out with."""
  return settings_lib.Settings(**record['configuration']['settings'])


def read(path: pathlib.Path) -> dict:
  """Reads a record and compares it with its own hash.

  Raises:
    errors.InputError: if it is missing, damaged, or not as it was written.
  """
  if not path.is_file():
    raise errors.InputError(f'there is no record {path}')
  return _check(files.read_json(path, remedy=files.BRING_BACK), path)


def _check(record, path) -> dict:
  if not isinstance(record, dict) or record.get('format') != FORMAT:
    raise errors.InputError(f'{path} is not a record of format {FORMAT}; {files.BRING_BACK}')
  body = {name: value for name, value in record.items() if name != 'hash'}
  if record.get('hash') != hashing.of_json(body):
    raise errors.InputError(
      f'{path} was changed: its hash is not that of what it says; {files.BRING_BACK}'
    )
  return record


def request_folder(place: pathlib.Path) -> pathlib.Path | None:
  """The `--out` of the request that a checkpoint lies in, None if it lies in none."""
  place = place.resolve()
  return next((p for p in (place, *place.parents) if (p / 'record.json').is_file()), None)


def read_chain(folder: pathlib.Path) -> list[dict]:
  """The records that led to a checkpoint, oldest first; empty where none did.

  Args:
    folder: the --out of a request, or anything in it.

  Raises:
    errors.InputError: if one was changed, or the chain is broken.
  """
  found = request_folder(folder)
  if found is None:
    return []
  folder = found
  path = folder / 'history.json'
  if not path.is_file():
    raise errors.InputError(
      f'there is no {path}: the chain of records is broken; bring back a copy'
    )
  earlier = files.read_json(path, remedy=files.BRING_BACK)
  if not isinstance(earlier, list):
    raise files.DamagedError(path, 'it must be a list of records', files.BRING_BACK)
  chain = [_check(record, path) for record in earlier]
  chain.append(read(folder / 'record.json'))
  for number, record in enumerate(chain, start=1):
    before = chain[number - 2] if number > 1 else None
    _check_link(path, number, before, record)
  return chain


def _check_link(path, number, before, record):
  links = {
    'number': (number, record['number']),
    'previous': (before['hash'] if before else None, record['previous']),
  }
  if before:
    links |= {
      'model': (before['model']['after'], record['model']['before']),
      'samples': (before['samples']['train']['after'], record['samples']['train']['before']),
    }
  for name, (wanted, found) in links.items():
    if wanted != found:
      raise errors.InputError(
        f'{path}: the chain is broken at request {number}: {name} is {found}, and {wanted} follows '
        'from the request before'
      )


def differences(record: dict, replayed: dict) -> list[str]:
  """Names of the parts in which a replay differs from the record."""
  if 'forget' in record['metrics']['original']:
    replayed = _in_old_words(record, replayed)
  later = [n for n in _RECOMPUTED_LATER if record.get(n) != replayed.get(n)]
  return [name for name in _RECOMPUTED if record[name] != replayed[name]] + later


def _in_old_words(record: dict, replayed: dict) -> dict:
  """A replay in the form of records of version 0.1.0: old keys, another order of what is seen.

  A record of that version says `forget, all retain` where later ones say `all retain, forget`.
  """
  seen = [set(found['method']['sees'].split(', ')) for found in (record, replayed)]
  if seen[0] == seen[1]:
    replayed = {**replayed, 'method': {**replayed['method'], 'sees': record['method']['sees']}}
    replayed['summary'] = summary.sentences(replayed)
  metrics = {model: _old_keys(values) for model, values in replayed['metrics'].items()}
  return {**replayed, 'metrics': metrics}


def _old_keys(values: dict) -> dict:
  same = next((values[key] for key in summary.SAME_CLASSES if key in values), None)
  named = {old: values.get(new) for old, new in _OLD_NAMES.items()} | {'test_same_classes': same}
  return {name: value for name, value in named.items() if value is not None}


def ids_of(sets: dict[str, types.Dataset]) -> dict[str, list[str]]:
  """The ids of each set, for the file next to the record."""
  return {role: dataset.ids.tolist() for role, dataset in sets.items()}

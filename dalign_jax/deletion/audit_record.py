"""The audit record of a deletion request: its contents, and what a replay must reproduce."""

from collections.abc import Sequence
import dataclasses
import datetime
import platform

from dalign_jax import methods, pretrained
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  commitments,
  record_checks,
  record_files,
  rights,
  summary,
  verdict,
)
from dalign_jax.store import hashing

FORMAT = 2
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
_RECOMPUTED_LATER = (  # not in all records
  *('copies', 'commitments', 'read', 'configuration', 'verdict', 'guarantee'),
  *('code', 'environment'),
)


def contents(basis, request, rows, outcome, copies: dict | None, key: bytes | None = None) -> dict:
  """Contents that a replay must reproduce, from a `StartingPoint` and an `Outcome`.

  Args:
    basis: the starting point.
    request: the flags.
    rows: of the training set that were forgotten.
    outcome: of the request.
    copies: what was found of copies, None in records of version 0.1.0.
    key: of the commitments; None for the contents of format 1, which names ids.
  """
  config, train = basis.config, basis.sets['train']
  roots = {
    role: {
      'count_before': len(dataset),
      'count_after': len(outcome.sets[role]),
      'before': commitments.root(dataset, key),
      'after': commitments.root(outcome.sets[role], key),
    }
    for role, dataset in basis.sets.items()
  }
  ids = sorted(train.ids[rows].tolist())
  found = {
    'request': {'ids': ids} if key is None else _committed(key, ids),
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
  if copies is not None:
    found['copies'] = copies if key is None else _copies(key, copies)
  if key is not None:
    check = commitments.key_check(key)
    found['commitments'] = {'scheme': commitments.SCHEME, 'key_check': check}
    found['configuration'] = configuration(basis, request, key)
  if outcome.verdict is not None:  # None in records without one
    found['verdict'] = outcome.verdict
  guarantee = methods.METHODS[request.method].guarantee
  if guarantee:
    found['guarantee'] = guarantee(outcome.hparams)
  return {**found, 'summary': summary.sentences(found)}


def _committed(key, ids) -> dict:
  return {'count': len(ids), 'commitments': sorted(commitments.tags(key, ids))}


def _copies(key, said) -> dict:
  """What was found of copies, with tags in place of ids."""
  tag = lambda name: commitments.tag(key, name)
  kept = [
    {'commitment': tag(c['id']), 'of': tag(c['of']), 'kind': c['kind'], 'likeness': c['likeness']}
    for c in said['kept']
  ]
  kept.sort(key=lambda c: c['commitment'])
  return {**said, 'included': sorted(map(tag, said['included'])), 'kept': kept}


def configuration(basis, request, key: bytes) -> dict:
  """How the request was made, without paths and names of classes."""
  left_out = (*record_checks.NOT_KEPT, *record_checks.PRIVATE)
  settings = {
    f.name: _as_json(getattr(basis.config, f.name))
    for f in dataclasses.fields(settings_lib.Settings)
    if f.name not in left_out
  }
  taken = {name: value for name, value in basis.taken.described().items() if name != 'path'}
  names = list(basis.class_names)
  return {
    'item': request.item,
    'taken': taken,
    'held_out': kind_of_data(basis.held_out),
    'hparam': list(request.hparam),
    'compare_gold': request.compare_gold,
    'accept': list(request.accept),
    'classes': {'count': len(names), 'commitment': commitments.of_json(key, 'classes', names)},
    'settings': {
      **settings,
      'dataset': kind_of_data(basis.config.dataset),
      'pretrained': pretrained.digest_of(basis.init_fn),
    },
  }


def _as_json(value):
  return list(value) if isinstance(value, tuple) else value


def kind_of_data(name: str) -> str:
  """A data set without its path: `npz:` of `npz:train.npz`.

  Example:
    >>> kind_of_data('folder:faces'), kind_of_data('mnist5k')
    ('folder:', 'mnist5k')
  """
  kind, colon, _ = name.partition(':')
  return kind + colon


def make(basis, request, wanted, outcome, environment: dict, left: dict, *, more: dict) -> dict:
  """The record of a request that was carried out.

  Args:
    basis: the starting point.
    request: the flags.
    wanted: the rows, how they were read, and copies.
    outcome: of the request.
    environment: in which it was carried out.
    left: traces: what was removed, and what was not looked into.
    more: `files` of the model with their digests, and `history` of the chain.
  """
  record = {
    'format': FORMAT,
    'number': len(basis.chain) + 1,
    'previous': basis.chain[-1]['hash'] if basis.chain else None,
    'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    **contents(basis, request, wanted.rows, outcome, wanted.copies, basis.key),
    **circumstances(basis, wanted, outcome, environment),
    'traces': {**left, 'not_looked_into': [_public(text) for text in left['not_looked_into']]},
    'seconds': outcome.seconds,
    'rights': said_of(request),
    'files': more['files'],
    'history': hashing.of_json(more['history']),
  }
  return {**record, 'hash': hashing.of_json(record)}


def circumstances(basis, wanted, outcome, environment: dict) -> dict:
  """How a request was read, and what carried it out; a replay must have these too."""
  return {
    'read': public_read(verdict.counted(wanted.read, outcome.verdict)),
    'code': hashing.of_code(own_module(basis.config)),
    'environment': {**environment, 'python': platform.python_version()},
  }


def said_of(request: settings_lib.Request) -> dict:
  """The request as an exercise of a right, as its flags say it.

  Raises:
    errors.InputError: if they contradict each other.
  """
  return rights.described(
    received=request.received,
    due=request.due,
    answered=request.answered,
    ground=request.ground,
    decision=request.decision,
  )


def public_read(read: dict) -> dict:
  """How a request was read, without the ids that its notes give as examples."""
  return {**read, 'notes': [note.partition(', such as ')[0] for note in read['notes']]}


def _public(text: str) -> str:
  """A place that was not looked into, without its path."""
  return text.partition(': ')[0]


def own_module(config: settings_lib.Settings) -> str | None:
  """The module of the user's own network, None for one of the library."""
  return config.model.partition(':')[0] if ':' in config.model else None


def config_of(record: dict) -> settings_lib.Settings:
  """The configuration that a request was carried out with."""
  return record_checks.make_settings(record['configuration']['settings'])


def differences(record: dict, replayed: dict) -> list[str]:
  """Names of the parts in which a replay differs from the record."""
  if 'forget' in record['metrics']['original']:
    replayed = _in_old_words(record, replayed)
  must = record if record.get('format') == FORMAT else ()  # format 1 came in several forms
  named = [*_RECOMPUTED, *(n for n in _RECOMPUTED_LATER if n in must or n in replayed)]
  compared = {n: (_comparable(n, record.get(n)), _comparable(n, replayed.get(n))) for n in named}
  return [name for name, (found, again) in compared.items() if found != again]


def _comparable(name: str, value):
  """A field without what a replay need not have: later steps beside a checkpoint, other devices.

  The number of devices that was asked for is a setting; that used is in `environment`.
  """
  if name != 'configuration' or not isinstance(value, dict) or 'taken' not in value:
    return value
  taken = {key: value['taken'][key] for key in ('form', 'part', 'written')}
  settings = {key: said for key, said in value['settings'].items() if key != 'num_devices'}
  return {**value, 'taken': taken, 'settings': settings}


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


def pending(chain: list[dict], names: Sequence[str], key: bytes | None) -> set[str]:
  """Those of some ids that earlier requests named and that count as requested, not as forgotten.

  Args:
    chain: the records of earlier requests.
    names: ids of samples.
    key: of the commitments.
  """
  found: set[str] = set()
  by_tag = record_files.by_tags(names, key) if chain else {}
  for record in chain:
    ids = record_files.named_in(record, names, by_tag)
    found = found - ids if verdict.is_forgotten(record) else found | ids
  return found


def members(sets: dict, key: bytes) -> dict[str, list[str]]:
  """The tags of each set in its order, for the file next to the record."""
  return {role: commitments.tags(key, dataset.ids.tolist()) for role, dataset in sets.items()}

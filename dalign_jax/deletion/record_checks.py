"""What the fields of a record say of each other: checked without data, model or replay."""

import dataclasses
import datetime
from typing import Any

from dalign_jax import errors, hparams, methods
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  commitments,
  copies,
  evidence,
  model_source,
  record_shape,
  request_file,
  rights,
  summary,
  verdict,
  verdict_rules,
)

NOT_KEPT = ('compilation_cache_dir', 'cache_dir')  # settings of one machine alone
PRIVATE = ('data_dir',)  # and those that say where data are
_CLOCKS = datetime.timedelta(days=1)  # by which clocks may differ
_MODELS = ('original', 'unlearned', 'gold', 'second gold')


def check(record: dict) -> None:
  """Checks a record of either format in itself.

  Raises:
    errors.InputError: that names the field.
  """
  settings = settings_of(record)
  _check_seeds(record, settings)
  _check_method(record)
  _check_metrics(record)
  _check_counts(record)
  if record['format'] == 1:
    _equal('request.ids', record['request']['ids'], sorted(set(record['request']['ids'])))
  created = datetime.datetime.fromisoformat(record['created'])
  if created > datetime.datetime.now(datetime.UTC) + _CLOCKS:
    raise errors.InputError(f'its field created is {record["created"]}, which is to come')
  if record['format'] == 2:
    _check_request(record)
    _check_copies(record)
    rights.words(record['rights'])
    _check_verdict(record)
    _equal('commitments.scheme', record['commitments']['scheme'], commitments.SCHEME)
    written = record['configuration']['taken']['written']
    if written not in ('', *model_source.WRITTEN.values()):
      raise errors.InputError(f'its field configuration.taken.written is {written!r}')
  if 'forget' not in record['metrics'].get('original', {}):  # the words of 0.1.0 were others
    _equal('summary', record['summary'], _summary(record))


def settings_of(record: dict) -> settings_lib.Settings:
  """The settings of a record; what they name is not looked at.

  Raises:
    errors.InputError: if one is missing, unknown or impossible.
  """
  said = record['configuration']['settings']
  known = {f.name: f for f in dataclasses.fields(settings_lib.Settings)}
  wanted = [name for name in known if name not in NOT_KEPT]
  if record['format'] == 2:
    wanted = [name for name in wanted if name not in PRIVATE]
    shape: dict[str, Any] = {name: record_shape.SCALAR for name in wanted}
  else:  # of earlier versions, which had fewer
    shape = {name: record_shape.Maybe(record_shape.SCALAR) for name in wanted}
  record_shape.check(said, shape, 'configuration.settings')
  for name, value in said.items():
    kind: Any = known[name].type
    kind = {float: (int, float), tuple[str, ...]: list}.get(kind, kind)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind is list and not all(isinstance(one, str) for one in value)):
      raise errors.InputError(f'its field configuration.settings.{name} is {value!r}')
  try:
    return make_settings(said)
  except errors.InputError as error:
    raise errors.InputError(f'its field configuration.settings.{error}') from None


def hparams_of(record: dict) -> dict:
  """The hyper-parameters of the record's method, whatever the defaults of today are.

  Raises:
    errors.InputError: that names the field.
  """
  said = record['method']
  values, settings = said['hparams'], tuple(record['configuration']['hparam'])
  if record['format'] == 1:  # of versions that had fewer, which were as today's defaults are
    values = {**hparams.defaults(said['name']), **values}
  return hparams.recorded(said['name'], values, settings)


def make_settings(said: dict[str, Any]) -> settings_lib.Settings:
  """Settings from JSON, in which tuples are lists."""
  as_they_were = lambda value: tuple(value) if isinstance(value, list) else value
  found: dict[str, Any] = {name: as_they_were(value) for name, value in said.items()}
  return settings_lib.Settings(**found)


def _check_seeds(record, settings):
  count = record['configuration']['compare_gold']
  wanted = {
    'unlearn': settings.unlearn_seed,
    'evaluation': settings.evaluation_seed,
    'gold': [settings.gold_seed + i for i in range(count)],
    'split': settings.split_seed,
  }
  for name, value in wanted.items():
    _equal(f'seeds.{name}', record['seeds'][name], value)
  if record['seeds'].get('streams', 1) not in (1, 2):
    raise errors.InputError(f'its field seeds.streams is {record["seeds"]["streams"]}')


def _check_method(record):
  said = record['method']
  if said['name'] not in methods.METHODS:
    raise errors.InputError(f'its field method.name is {said["name"]!r}, which is no method')
  if record['format'] == 1:
    return  # earlier versions had fewer hyper-parameters, and other words
  seen = methods.in_words(methods.sees(said['name'], hparams_of(record), has_unseen=False))
  _equal('method.sees', said['sees'], seen)
  promise = methods.METHODS[said['name']].guarantee
  wanted = promise(hparams_of(record)) if promise else None
  _equal('guarantee', record.get('guarantee'), wanted)


def _check_metrics(record):
  count = record['configuration']['compare_gold']
  _equal('metrics', sorted(record['metrics']), sorted(_MODELS[: 2 + count]))
  for model, values in record['metrics'].items():
    for name, value in values.items():
      if ('accuracy' in name or name == 'attack') and not 0 <= value <= 1:
        raise errors.InputError(f'its field metrics.{model}.{name} must be from 0 to 1: {value}')


def _check_counts(record):
  count = summary.count(record) if verdict.is_forgotten(record) else 0
  for role, said in record['samples'].items():
    gone = count if role == 'train' else 0
    _equal(f'samples.{role}.count_after', said['count_after'], said['count_before'] - gone)
    if not gone:
      _equal(f'samples.{role}.after', said['after'], said['before'])
  if (record['previous'] is None) != (record['number'] == 1):
    raise errors.InputError('its field previous does not go with its field number')


def _check_request(record):
  said = record['request']['commitments']
  _equal('request.commitments', said, sorted(set(said)))
  _equal('request.count', record['request']['count'], len(said))
  counts = verdict.counted({'ids_forgotten': len(said)}, record.get('verdict'))
  for name, count in counts.items():
    _equal(f'read.{name}', record['read'].get(name), count)
  request_file.check_sum(record['read'], len(said), len(record['copies']['included']))


def _check_verdict(record):
  """Judges again by the declared rules what the record says was measured."""
  said = record['verdict']
  _check_measured(record, said['measured'])
  again = verdict.make(said['measured'])
  for name, value in again.items():
    _equal(f'verdict.{name}', said[name], value)
  accept = verdict_rules.of_word(said['word']).accept
  if accept and accept not in record['configuration']['accept']:
    raise errors.InputError(f'its verdict is {said["word"]!r}, which was not accepted')


def _check_measured(record, measured):
  """What the verdict was judged by must be what other fields say, as far as they say it."""
  name = lambda field: f'verdict.measured.{field}'
  _equal(name('exact'), measured['exact'], record['method']['name'] == 'retrain')
  _equal(name('count'), measured['count'], record['request']['count'])
  before = {role: said['count_before'] for role, said in record['samples'].items()}
  counts = {
    'retain_accuracy': before['train'] - record['request']['count'],
    'test_accuracy': before['test'],
  }
  for field, wanted in evidence.from_metrics(record['metrics'], counts).items():
    _equal(name(field), measured[field], wanted)
  is_full = measured['exact'] or 'dummy' in measured['moved']
  _equal(name('mode'), measured['mode'], 'full' if is_full else 'quick')
  for field in ('parameters_moved', 'moved'):
    _equal(name(field), 'dummy' in measured[field], 'dummy' in measured['moved'])
  parts = measured['parts']
  _equal(name('parts'), sum(part['count'] for part in parts.values()), measured['count'])
  for kind, part in parts.items():
    _check_part(name(f'parts.{kind}'), part, measured)
  mean = sum(p['count'] * p['accuracy']['after'] for p in parts.values()) / measured['count']
  _near(name('fell.after'), measured['fell']['after'], mean)
  unlearned = record['metrics']['unlearned']
  if 'moved' in unlearned:
    _near(name('moved.after'), measured['moved']['after'], unlearned['moved'])


def _check_part(name, part, measured):
  counts = {'accuracy': part['count'], 'held_out': part['held_out_count']}
  right: dict[tuple[str, str], int] = {}
  for field, count in counts.items():
    for moment, share in part[field].items():
      right[field, moment] = round(share * count)
      _near(f'{name}.{field}.{moment}', share, right[field, moment] / max(count, 1))
  _equal(f'{name}.accuracy', 'dummy' in part['accuracy'], 'dummy' in measured['moved'])
  moments = ['after', 'before'] if counts['held_out'] else []
  for field in ('held_out', 'p'):
    _equal(f'{name}.{field}', sorted(part[field]), moments)
  for moment in moments:
    own, other = (right[field, moment] for field in counts)
    p = evidence.fisher_p(own, counts['accuracy'], other, counts['held_out'])
    _near(f'{name}.p.{moment}', part['p'][moment], p)


def _check_copies(record):
  said, gone = record['copies'], set(record['request']['commitments'])
  allowed = {'refuse': (), 'include': ('included',), 'keep': ('kept',)}[said['policy']]
  for name in ('included', 'kept'):
    if said[name] and name not in allowed:
      raise errors.InputError(f'its field copies.{name} does not go with {said["policy"]!r}')
  wanted = copies.HASH_DISTANCE if said['near'] else None
  _equal('copies.hash_distance', said['hash_distance'], wanted)
  _equal('copies.included', said['included'], sorted(gone.intersection(said['included'])))
  for copy in said['kept']:
    if copy['commitment'] in gone or copy['of'] not in gone:
      raise errors.InputError('its field copies.kept contradicts its request')


def _summary(record) -> list[str] | str:
  try:
    return summary.sentences(record)
  except KeyError as error:
    return f'without {error.args[0]}'


def _near(name, found, wanted):
  """Numbers that are rounded, or summed in another order."""
  if abs(found - wanted) > 1e-4:
    raise _contradiction(name, found, wanted)


def _equal(name, found, wanted):
  if type(found) is not type(wanted) or found != wanted:
    raise _contradiction(name, found, wanted)


def _contradiction(name, found, wanted) -> errors.InputError:
  return errors.InputError(
    f'its field {name} contradicts other fields: it is {_short(found)}, and {_short(wanted)} '
    'follows from them'
  )


def _short(value) -> str:
  text = ascii(value)
  return text if len(text) <= 60 else f'{text[:57]}...'

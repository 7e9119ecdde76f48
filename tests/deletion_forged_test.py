"""Forged and damaged records and histories: none is verified, none hangs, none ends in a traceback.

What contradicts itself is refused without a replay; what is consistent in itself, by the replay, or
by the signature where the key is known.
"""

import base64
import copy
import json
import os
import shutil

import numpy as np
import pytest

from dalign_jax import errors, hparams
from dalign_jax.deletion import (
  model_source,
  record_files,
  signing,
  statement,
  summary,
  verdict,
)
from dalign_jax.store import files, hashing
from tests import deletion_place


@pytest.fixture
def out(asked, tmp_path):
  """A copy of the second request, without its page, which would give forgeries away."""
  shutil.copytree(asked / 'second', tmp_path / 'second')
  (tmp_path / 'second' / 'record.html').unlink()
  return tmp_path / 'second'


def _verify(asked, out, again=True, **more):
  named = {'checkpoint': str(asked / 'first'), 'data': f'npz:{asked}/train.npz'}
  named |= {
    'held_out': f'npz:{asked}/held_out.npz',
    'ids': [str(asked / 'second.txt')],
  }
  return deletion_place.verify(out, again, asked / 'record_keys', places=named, **more)


def _unsign(out):
  (out / record_files.ENVELOPE).unlink()


def _set(*names):
  """A change of one field: `_set('samples', 'train', 'count_after', 5)`."""
  *path, last, value = names

  def change(record):
    for name in path:
      record = record[name]
    record[last] = value(record[last]) if callable(value) else value

  return change


def _drop(*names):
  *path, last = names

  def change(record):
    for name in path:
      record = record[name]
    del record[last]

  return change


def _judged_by(change):
  """A record whose verdict, summary and counts follow from numbers that were made up."""

  def forge(record):
    measured = record['verdict']['measured']
    change(measured)
    record['verdict'] = verdict.make(measured)
    record['summary'] = summary.sentences(record)

  return forge


def _in_parts(**changes):
  """A change of what was measured of each part of the samples."""

  def change(measured):
    for part in measured['parts'].values():
      part.update(changes)

  return change


_HASH = '0' * 64
_UNIT = 'metrics', 'unlearned'
_FLIP = lambda text: ('0' if text[0] != '0' else '1') + text[1:]
INCONSISTENT = {  # with a hash that fits; refused without a replay
  'no format': _drop('format'),
  'format 3': _set('format', 3),
  'format as a text': _set('format', '2'),
  'format true': _set('format', True),
  'no number': _drop('number'),
  'number 0': _set('number', 0),
  'number 3': _set('number', 3),
  'number as a float': _set('number', 2.0),
  'no previous': _drop('previous'),
  'previous null': _set('previous', None),
  'another previous': _set('previous', _HASH),
  'previous in capitals': _set('previous', str.upper),
  'created without a zone': _set('created', '2026-05-01T00:00:00'),
  'created in words': _set('created', 'yesterday'),
  'created to come': _set('created', '2999-01-01T00:00:00+00:00'),
  'created before the first': _set('created', '2001-01-01T00:00:00+00:00'),
  'seconds below zero': _set('seconds', -1.0),
  'seconds as a text': _set('seconds', '3'),
  'seconds null': _set('seconds', None),
  'no request': _drop('request'),
  'request as a list': _set('request', []),
  'fewer samples': _set('request', 'commitments', lambda found: found[1:]),
  'a sample twice': _set('request', 'commitments', lambda found: found[:1] * 2),
  'samples out of order': _set('request', 'commitments', lambda found: found[::-1]),
  'another count': _set('request', 'count', 3),
  'ids in the clear': _set('request', 'ids', ['digits_00010']),
  'samples of the first': 'first',
  'more samples kept': _set('samples', 'train', 'count_after', 120),
  'a negative count': _set('samples', 'train', 'count_before', -1),
  'another root before': _set('samples', 'train', 'before', _HASH),
  'held-out samples changed': _set('samples', 'test', 'after', _HASH),
  'no validation samples': _drop('samples', 'validation'),
  'a root too short': _set('samples', 'train', 'after', 'abc'),
  'another model before': _set('model', 'before', _HASH),
  'another model after': _set('model', 'after', _HASH),
  'no model': _drop('model'),
  'an unknown method': _set('method', 'name', 'magic'),
  'another method': _set('method', 'name', 'retrain'),
  'other hyper-parameters': _set('method', 'hparams', 'num_epochs', 50),
  'hyper-parameters left out': _set('method', 'hparams', {}),
  'it saw less': _set('method', 'sees', 'nothing'),
  'an hparam of another method': _set('configuration', 'hparam', ['muda.rounds=1']),
  'an hparam that is code': _set(
    'configuration', 'hparam', ['finetune.num_epochs=__import__("os")']
  ),
  'another seed': _set('seeds', 'unlearn', 7),
  'a gold seed': _set('seeds', 'gold', [100]),
  'streams of the future': _set('seeds', 'streams', 9),
  'metrics left out': _set('metrics', {}),
  'a gold that was not made': _set('metrics', 'gold', {}),
  'an accuracy above one': _set(*_UNIT, 'forget_accuracy', 1.5),
  'an accuracy as a text': _set(*_UNIT, 'forget_accuracy', '0'),
  'a nicer metric': _set(*_UNIT, 'forget_accuracy', 0.123),
  'a nicer summary': _set('summary', lambda found: [*found, 'All is well.']),
  'no summary': _set('summary', []),
  'a nicer verdict': _set('verdict', 'word', 'forgot'),
  'a verdict of no kind': _set('verdict', 'word', 'perfect'),
  'no verdict': _drop('verdict'),
  'a verdict without measurements': _set('verdict', 'measured', {}),
  'other rules of the verdict': _set('verdict', 'rules', []),
  'other reasons of the verdict': _set('verdict', 'reasons', ['It is gone.']),
  'a mode of no kind': _set('verdict', 'mode', 'none'),
  'counts as forgotten': _set('verdict', 'counts_as', lambda found: f'{found}!'),
  'trained anew by a method that does not': _judged_by(_set('exact', True)),
  'measured on more samples': _judged_by(_set('count', 5000)),
  'movement that is not in the metrics': _judged_by(_set('moved', 'after', 0.9)),
  'an attack that is not in the metrics': _judged_by(
    _set('attack', {'before': 0.9, 'after': 0.5, 'floor': 0.1})
  ),
  'nothing kept': _judged_by(_set('kept', {})),
  'no parts': _judged_by(_set('parts', {})),
  'parts of more samples': _judged_by(_in_parts(count=50)),
  'an accuracy that no number of samples has': _judged_by(
    _in_parts(accuracy={'before': 1.0, 'after': 0.123})
  ),
  'an accuracy of five': _judged_by(_in_parts(accuracy={'before': 1.0, 'after': 5})),
  'a p-value that does not follow': _judged_by(_in_parts(p={'before': 0.001, 'after': 1.0})),
  'a fall that is not one': _judged_by(_set('fell', 'after', 0.0)),
  'a full mode without a dummy': _judged_by(_set('mode', 'full')),
  'a number of 400 digits': _set('copies', 'hash_distance', 10**400),
  'a setting of 400 digits': _set('configuration', 'settings', 'learning_rate', 10**400),
  'a copy kept': _set(
    'copies', 'kept', [{'commitment': _HASH, 'of': _HASH, 'kind': '', 'likeness': 1}]
  ),
  'a copy included': _set('copies', 'included', [_HASH]),
  'copies of another policy': _set('copies', 'policy', 'ignore'),
  'copies at another distance': _set('copies', 'hash_distance', 60),
  'lines that do not add up': _set('read', 'lines_read', 99),
  'more ids than lines': _set('read', 'ids_forgotten', 9),
  'a setting left out': _drop('configuration', 'settings', 'momentum'),
  'a setting of no kind': _set('configuration', 'settings', 'cache_dir', '/'),
  'a setting of the wrong kind': _set('configuration', 'settings', 'num_epochs', 'many'),
  'a setting of a list of numbers': _set('configuration', 'settings', 'trainable', [1]),
  'a setting of a text for a list': _set('configuration', 'settings', 'trainable', 'head'),
  'a setting out of range': _set('configuration', 'settings', 'learning_rate', -1.0),
  'a setting true for 1': _set('configuration', 'settings', 'num_devices', True),
  'a data set with a line break': _set('configuration', 'settings', 'dataset', 'npz:\n'),
  'written elsewhere': _set('configuration', 'taken', 'written', '../../model.npz'),
  'no classes': _drop('configuration', 'classes'),
  'other classes': _set('configuration', 'classes', 'commitment', _HASH),
  'no code': _drop('code'),
  'code in words': _set('code', 'the usual'),
  'an environment without versions': _drop('environment', 'versions'),
  'no processes': _set('environment', 'processes', 0),
  'rights in other words': _set('rights', 'dpv:hasStatus', 'dpv:Whatever'),
  'rights left out': _set('rights', {}),
  'removed less than nothing': _set('traces', 'removed', {'caches': -1}),
  'no commitments': _drop('commitments'),
  'another scheme': _set('commitments', 'scheme', 'none'),
  'another key': _set('commitments', 'key_check', _HASH),
  'no files': _set('files', {}),
  'another file': _set('files', lambda found: {**found, '../x': _HASH}),
  'a file of another digest': _set('files', lambda found: {k: _HASH for k in found}),
  'another history': _set('history', _HASH),
  'a field of no kind': lambda record: record.update(note='trust me'),
}


@pytest.mark.parametrize('case', INCONSISTENT)
def test_what_contradicts_itself_is_refused_without_a_replay(case, asked, out):
  change = INCONSISTENT[case]
  if change == 'first':  # forgotten before
    first = record_files.read(asked / 'first' / 'record.json')
    change = _set('request', 'commitments', first['request']['commitments'])
  _unsign(out)
  _edit_raw(out, change)
  with pytest.raises(errors.InputError) as error:
    _verify(asked, out, again=False)
  assert '\n' not in str(error.value) and len(str(error.value)) < 600


def _edit_raw(out, change):
  """Changes a record, whatever comes of it, and gives it a hash that fits."""
  record = record_files.check(json.loads((out / 'record.json').read_text(encoding='utf-8')))
  change(record)
  record['hash'] = hashing.of_json({k: v for k, v in record.items() if k != 'hash'})
  try:
    found = statement.of_record(record)
  except (KeyError, TypeError):  # it lacks what a statement is made of: leave it out there too
    found = _without(record)
  files.write_text(out / 'record.json', json.dumps(found))


def _without(record):
  filled = copy.deepcopy(record)
  for name in ('request', 'configuration', 'read', 'copies', 'method', 'seeds'):
    filled.setdefault(name, None)
  filled.setdefault('model', {'before': None})
  filled.setdefault('code', None)
  filled.setdefault('previous', None)
  filled['environment'] = {'versions': None} | filled.get('environment', {})
  found = statement.of_record(filled)
  definition = found['predicate']['buildDefinition']
  for part in (definition['externalParameters'], definition['internalParameters']):
    for name in [name for name in part if part[name] is None]:
      del part[name]
  return found


CONSISTENT = {  # nothing in the record gives them away: the replay does
  'a figure nobody reads': (_set(*_UNIT, 'dimensional_alignment', 0.5), 'another metrics'),
  'a verdict that follows from made-up numbers': (
    _judged_by(_set('parameters_moved', 'after', 0.5)),
    'another .*verdict',
  ),
  'the source of another version': (_set('code', _HASH), 'another code'),
  'other versions': (
    _set('environment', 'versions', lambda found: {**found, 'jax': '0.0.1'}),
    'another environment',
  ),
  'another machine': (_set('environment', 'devices', '8 x TPU v5'), 'another environment'),
  'another form': (_set('read', 'form', 'JSON lines'), 'another read'),
  'a note': (_set('read', 'notes', ['asked by mail']), 'another read'),
  'another half of the held-out data': (
    lambda r: (_set('seeds', 'split', 3)(r), _set('configuration', 'settings', 'split_seed', 3)(r)),
    'another .*configuration',
  ),
}


@pytest.mark.parametrize('case', CONSISTENT)
def test_what_is_consistent_is_refused_by_the_replay(case, asked, out, capsys):
  change, message = CONSISTENT[case]
  deletion_place.edit(out, change)
  with pytest.raises(errors.InputError, match='is around another record'):
    _verify(asked, out, again=False)
  _unsign(out)
  with pytest.raises(errors.InputError, match='is not signed'):
    _verify(asked, out, again=False, public_keys=[asked / 'signing' / signing.PUBLIC])
  with pytest.raises(errors.InputError, match=message) as error:
    _verify(asked, out)
  assert '\n' not in str(error.value)
  assert '\nverified' not in capsys.readouterr().out


def _statement(out):
  return json.loads((out / 'record.json').read_text(encoding='utf-8'))


def _rewrite(change):
  """A change of the statement itself."""

  def work(out):
    found = _statement(out)
    change(found)
    (out / 'record.json').write_text(json.dumps(found), encoding='utf-8')

  return work


def _text(change):
  def work(out):
    path = out / 'record.json'
    path.write_text(change(path.read_text(encoding='utf-8')), encoding='utf-8')

  return work


def _history(change):
  def work(out):
    path = out / 'history.json'
    found = change(json.loads(path.read_text(encoding='utf-8')))
    path.write_text(json.dumps(found), encoding='utf-8')

  return work


def _history_and_hash(change):
  """A changed history, and a record that says its hash."""

  def work(out):
    _history(change)(out)
    _unsign(out)
    found = json.loads((out / 'history.json').read_text(encoding='utf-8'))
    _edit_raw(out, _set('history', hashing.of_json(found)))

  return work


def _envelope(change):
  def work(out):
    path = out / record_files.ENVELOPE
    found = json.loads(path.read_text(encoding='utf-8'))
    change(found)
    path.write_text(json.dumps(found), encoding='utf-8')

  return work


def _first_of(change):
  """A change of the first record in the envelope of the history."""

  def work(history):
    inner = json.loads(base64.b64decode(history[0]['payload']))
    record = statement.to_record(inner)
    change(record)
    record['hash'] = hashing.of_json({k: v for k, v in record.items() if k != 'hash'})
    history[0] = statement.of_record(record)
    return history

  return work


def _link(out):
  target = next(p for p in sorted((out / 'model').rglob('*')) if p.is_file())
  content = target.read_bytes()
  target.unlink()
  (out / 'elsewhere').write_bytes(content)
  target.symlink_to(out / 'elsewhere')


def _flip(out):
  target = next(p for p in sorted((out / 'model' / '0' / 'state' / 'd').iterdir()) if p.is_file())
  content = bytearray(target.read_bytes())
  content[len(content) // 2] ^= 1
  target.write_bytes(content)


def _pipe(name):
  def work(out):
    (out / name).unlink()
    os.mkfifo(out / name)

  return work


def _replace(name, content):
  def work(out):
    (out / name).write_bytes(content)

  return work


DAMAGED = {
  'an empty record': _text(lambda text: ''),
  'half a record': _text(lambda text: text[: len(text) // 2]),
  'a record of nothing': _text(lambda text: '{}'),
  'a list': _text(lambda text: f'[{text}]'),
  'a number': _text(lambda text: '2'),
  'nested without an end': _text(lambda text: '[' * 100_000),
  'a number of a million digits': _text(lambda text: '{"format": ' + '9' * 1_000_000 + '}'),
  'NaN': _text(lambda text: text.replace('"seconds": ', '"seconds": NaN, "x": ', 1)),
  'a key twice': _text(lambda text: text.replace('"_type"', '"_type": 1, "_type"', 1)),
  'no UTF-8': _replace('record.json', b'\xff\xfe\x00{'),
  'bytes of zero': _replace('record.json', bytes(4096)),
  'another statement type': _rewrite(_set('_type', 'https://in-toto.io/Statement/v0.1')),
  'another predicate type': _rewrite(_set('predicateType', 'https://slsa.dev/provenance/v1')),
  'no subject': _rewrite(_set('subject', [])),
  'a subject twice': _rewrite(_set('subject', lambda found: [*found, found[0]])),
  'a subject of text': _rewrite(_set('subject', ['model'])),
  'another builder': _rewrite(_set('predicate', 'runDetails', 'builder', 'id', 'me')),
  'other dependencies': _rewrite(_set('predicate', 'buildDefinition', 'resolvedDependencies', [])),
  'a field beside the record': _rewrite(_set('predicate', 'extra', 1)),
  'one figure changed': _text(lambda text: text.replace('"momentum": 0.9', '"momentum": 0.8')),
  'no history': lambda out: (out / 'history.json').unlink(),
  'a history of nothing': _history(lambda found: []),
  'a history of nothing that fits': _history_and_hash(lambda found: []),
  'a history of an object': _history_and_hash(lambda found: {}),
  'a history of itself': _history_and_hash(lambda found: found * 2),
  'a history of numbers': _history_and_hash(lambda found: [1]),
  'a first record that was changed': _history_and_hash(_first_of(_set('seconds', 9.0))),
  'a first record without its hash': _history_and_hash(
    lambda found: [{**found[0], 'payload': base64.b64encode(b'{}').decode()}]
  ),
  'an envelope of no base64': _history_and_hash(lambda found: [{**found[0], 'payload': '!'}]),
  'a first record said to be old': _history_and_hash(
    lambda found: [{'format': 1, 'redacted': True}]
  ),
  'an old record made up': _history_and_hash(
    lambda found: [
      {
        **{'format': 1, 'redacted': True, 'number': 1, 'previous': None, 'hash': _HASH},
        'created': '2020-01-01T00:00:00+00:00',
        'model': {'before': _HASH, 'after': _HASH},
        'request': {'count': 1, 'commitments': [_HASH]},
      }
    ]
  ),
  'half an envelope': _replace(record_files.ENVELOPE, b'{"payload": "'),
  'an envelope of a list': _replace(record_files.ENVELOPE, b'[]'),
  'an envelope without signatures': _envelope(_drop('signatures')),
  'an envelope of another type': _envelope(_set('payloadType', 'text/plain')),
  'an envelope of another payload': _envelope(_set('payload', 'e30=')),
  'an envelope with more': _envelope(_set('signatures', [1])),
  'another page': _replace('record.html', b'<p>All is well.</p>'),
  'a flipped bit of the model': _flip,
  'a model that is a link': _link,
  'one more file of the model': lambda out: (out / 'model' / '0' / 'more').write_text('x'),
  'no model at all': lambda out: shutil.rmtree(out / 'model'),
  'a record that is a pipe': _pipe('record.json'),
  'a history that is a pipe': _pipe('history.json'),
  'an envelope that is a pipe': _pipe(record_files.ENVELOPE),
  'members that are a pipe': _pipe('members.json'),
  'members of nothing': _replace('members.json', b'{"train": [], "validation": [], "test": []}'),
  'members of numbers': _replace('members.json', b'{"train": [1]}'),
  'members of a list': _replace('members.json', b'[]'),
}


@pytest.mark.parametrize('case', DAMAGED)
def test_damaged_files_are_refused_in_one_line(case, asked, out):
  DAMAGED[case](out)
  with pytest.raises(errors.InputError) as error:
    _verify(asked, out, again=False)
  assert '\n' not in str(error.value) and len(str(error.value)) < 800


SIGNATURES = {
  'no signature': _envelope(_set('signatures', [])),
  'another signature': _envelope(
    _set('signatures', 0, 'sig', base64.b64encode(bytes(64)).decode())
  ),
  'a signature too short': _envelope(_set('signatures', 0, 'sig', 'AAAA')),
}


@pytest.mark.parametrize('case', SIGNATURES)
def test_signatures_that_are_none_are_refused_where_the_key_is_known(case, asked, out):
  SIGNATURES[case](out)
  with pytest.raises(errors.InputError, match='no signature is of the key'):
    _verify(asked, out, again=False, public_keys=[asked / 'signing' / signing.PUBLIC])


def test_a_forger_s_own_signature_is_not_the_one_that_is_asked_for(asked, out, tmp_path):
  deletion_place.edit(out, _set(*_UNIT, 'dimensional_alignment', 0.5))
  private, public = signing.keygen(tmp_path / 'forger')
  payload = (out / 'record.json').read_bytes()
  files.write_json(
    out / record_files.ENVELOPE, signing.sign(payload, signing.read_private(private))
  )
  key = asked / 'signing' / signing.PUBLIC
  with pytest.raises(errors.InputError, match='request 2: no signature is of the key'):
    _verify(asked, out, again=False, public_keys=[key])
  with pytest.raises(errors.InputError, match='request 1: no signature is of the key'):
    _verify(asked, out, again=False, public_keys=[public])


def test_a_whole_chain_is_verified_and_says_field_by_field_what_was_checked(asked, out, capsys):
  keys = [asked / 'signing' / signing.PUBLIC]
  levels = _verify(asked, out, public_keys=keys)
  assert levels == ['DALIGN_JAX_RECORD', 'DALIGN_JAX_SIGNED', 'DALIGN_JAX_REPLAYED']
  text = capsys.readouterr().out
  record = record_files.read(out / 'record.json')
  assert all(f'\n  {name}: ' in text for name in record) and text.endswith('\nverified\n')
  _verify(asked, out, again=False)
  text = capsys.readouterr().out
  assert all(f'\n  {name}: ' in text for name in record) and '\nverified' not in text
  assert 'not checked: name the key by --public_key' in text


def test_other_code_may_differ_if_whoever_verifies_says_so(asked, out, capsys):
  _unsign(out)
  deletion_place.edit(out, _set('code', _HASH))
  levels = _verify(asked, out, may_differ=('code',))
  text = capsys.readouterr().out
  assert levels == ['DALIGN_JAX_RECORD'] and text.endswith('\nverified, except code\n')
  assert '  code: differs, as allowed' in text


def test_a_record_outlives_the_defaults_of_its_method(asked, out, monkeypatch):
  usual = hparams.defaults
  monkeypatch.setattr(hparams, 'defaults', lambda name: usual(name) | {'learning_rate': 0.5})
  assert 'DALIGN_JAX_REPLAYED' in _verify(asked, out)
  monkeypatch.setattr(hparams, 'defaults', lambda name: usual(name) | {'strength': 2})
  message = 'method.hparams: finetune has .*strength here and .* in the record: .* another version'
  with pytest.raises(errors.InputError, match=message):
    _verify(asked, out, again=False)


def test_a_replay_without_an_end_is_given_up(asked, out):
  """A million epochs: the record is consistent, and nobody waits for it."""
  _unsign(out)

  def change(record):
    record['configuration']['hparam'] = ['finetune.num_epochs=1000000']
    record['method']['hparams']['num_epochs'] = 1_000_000

  deletion_place.edit(out, change)
  with pytest.raises(errors.InputError, match=r'max_minutes: the replay was given up after 0.05'):
    _verify(asked, out, max_minutes=0.05)


def test_a_file_that_is_not_the_model_of_the_record_is_refused(asked, out):
  """The file that people deploy is the model as before, and every hash and list fits."""
  _unsign(out)
  written = model_source.WRITTEN['npz']
  shutil.copy(asked / 'mine.npz', out / written)
  rehash = lambda record: record.update(files=record_files.model_files(out))
  deletion_place.edit(out, rehash)
  with pytest.raises(errors.InputError, match=f'{written} is not the model of the record'):
    _verify(asked, out, again=False)
  (out / written).unlink()
  deletion_place.edit(out, rehash)
  with pytest.raises(errors.InputError, match=f'must hold {written} beside model/, and holds none'):
    _verify(asked, out, again=False)
  np.savez(out / written, kernel=np.zeros((2, 3), np.float32))  # of another network
  deletion_place.edit(out, rehash)
  with pytest.raises(errors.InputError, match=r'a model in .* cannot be read') as failed:
    _verify(asked, out, again=False)
  assert failed.value.argument is None  # no flag is wrong: a summary says FAILED


def test_no_place_or_module_of_a_record_is_opened(asked, out, tmp_path, monkeypatch):
  """A record that names other data and another network: neither is touched."""
  _unsign(out)
  trap = tmp_path / 'trap.py'
  trap.write_text('raise SystemExit("imported")', encoding='utf-8')
  monkeypatch.syspath_prepend(tmp_path)
  deletion_place.edit(out, _set('configuration', 'settings', 'model', 'trap:make'))
  with pytest.raises(errors.InputError, match='its code is not imported unless'):
    _verify(asked, out)
  for data in ('hf:somewhere', 'cifar10', 'folder:/etc', f'npz:{asked}/train.npz'):
    deletion_place.edit(out, _set('configuration', 'settings', 'model', 'cnn'))
    deletion_place.edit(out, _set('configuration', 'settings', 'dataset', data))
    with pytest.raises(errors.InputError, match='data: say where they are: the record says'):
      deletion_place.verify(
        out, keys=asked / 'record_keys', places={'checkpoint': str(asked / 'first')}
      )


def test_the_unchanged_record_passes_what_refuses_the_forgeries(asked, out):
  """Written again by the same means: what is refused above is refused for what was changed."""
  _unsign(out)
  _edit_raw(out, lambda record: None)
  assert _verify(asked, out, again=False) == ['DALIGN_JAX_RECORD']
  assert len(INCONSISTENT) + len(CONSISTENT) + len(DAMAGED) + len(SIGNATURES) > 140

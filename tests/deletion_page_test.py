"""The page of a record, the words of rights, and records of format 1."""

import copy
import pathlib
import re
import shutil

import html5lib
import pytest

from dalign_jax import errors
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  page,
  record_files,
  rights,
  verification,
)
from dalign_jax.store import files, hashing
from tests import deletion_place

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'record_v1'


def test_rights_are_in_the_words_of_the_vocabulary_and_dates_in_order(record):
  said = record['rights']
  assert said['@type'] == 'dpv:RightExerciseActivity' and said['dpv:hasRight'] == 'eu-gdpr:A17'
  assert said['dct:dateSubmitted'] == '2026-05-01'
  assert said['dpv:hasJustification'] == 'justifications:Objection'
  assert said['dpv:hasDuration']['dct:date'] == '2026-05-31'
  empty = {'received': '', 'due': '', 'answered': '', 'ground': '', 'decision': ''}
  for changes, message in (
    ({'received': '1.5.2026'}, 'received: must be a date such as'),
    ({'received': '2026-02-30'}, 'received: must be a date'),
    ({'received': '2026-05-02', 'due': '2026-05-01'}, 'due: 2026-05-01 is before'),
    ({'received': '2026-05-02', 'answered': '2026-05-01'}, 'answered: 2026-05-01 is before'),
  ):
    with pytest.raises(errors.InputError, match=message):
      rights.described(**{**empty, **changes})
  for ground in ('', *rights.GROUNDS):
    for decision in ('', *rights.DECISIONS):
      given = {**empty, 'received': '2026-05-01', 'ground': ground, 'decision': decision}
      assert rights.words(rights.described(**given)) == given
  fields = {f.name: f for f in settings_lib.Request.__dataclass_fields__.values()}
  assert fields['ground'].metadata['valid'].values == ('', *rights.GROUNDS)
  assert fields['decision'].metadata['valid'].values == ('', *rights.DECISIONS)


def _page(record, is_signed=True):
  text = page.render(record, is_signed=is_signed)
  parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
  return text, parser.parse(text)


def test_page_is_valid_and_says_the_verdict_first_and_the_limits_in_words(asked, record):
  text, tree = _page(record)
  assert text == (asked / 'first' / 'record.html').read_text(encoding='utf-8')
  body = ' '.join(' '.join(tree.find('body').itertext()).split())
  word = record['verdict']['word']
  assert body.startswith(f'Deletion request 1, {record["created"][:10]} {word}')
  for line in (*record['verdict']['reasons'], *record['summary'][1:]):
    assert ' '.join(line.split()) in body
  assert body.index('What this does not say') < body.index('What was measured')
  assert 'no proof that nothing of the samples is left' in body and 'A signature lies' in body
  assert '2026-05-31' in body and 'objection' in body and record['hash'] in body
  assert not re.findall(r'(?:src|href)=|<script|url\(|@import|https?:', text)
  assert '@media print' in text and '@page' in text and 'lang="en"' in text
  unsigned = ''.join(_page(record, is_signed=False)[1].find('body').itertext())
  assert 'It is not signed: anybody can have written it.' in unsigned


def test_page_escapes_what_a_record_says(record):
  evil = copy.deepcopy(record)
  evil['method']['sees'] = '<script>alert(1)</script>'
  evil['traces']['not_looked_into'] = ['"><img src=x onerror=alert(1)>']
  text, tree = _page(evil)
  assert not tree.findall('.//script') and not tree.findall('.//img') and '<script' not in text


def test_format_1_is_read_and_goes_on_as_format_2(tmp_path, capsys):
  place = tmp_path / 'place'
  shutil.copytree(FIXTURE, place)
  named = {'data': f'npz:{place}/train.npz', 'held_out': f'npz:{place}/held_out.npz', 'keys': ''}
  deletion_place.verify(place / '0002', again=False, places=named)
  text = capsys.readouterr().out
  assert 'chain: unbroken, 2 long' in text and 'samples: the remaining ones' in text
  with pytest.raises(errors.InputError, match='checkpoint: name the model before the request'):
    deletion_place.verify(place / '0002', places=named)
  with pytest.raises(errors.InputError, match='data: say where they are'):
    deletion_place.verify(place / '0002', places={'keys': '', 'checkpoint': str(place / '0001')})
  old = record_files.read(place / '0002' / 'record.json')
  (place / 'third.txt').write_text(old['request']['ids'][0], encoding='utf-8')
  after = {'checkpoint': str(place / '0002'), 'ids': str(place / 'third.txt')}
  with pytest.raises(errors.InputError, match='forgotten already, by request 2 of'):
    deletion_place.forget(place, '0003', **after)
  (place / 'third.txt').write_text('digits_00010', encoding='utf-8')
  record = deletion_place.forget(place, '0003', **after)
  assert (record['format'], record['number'], record['previous']) == (2, 3, old['hash'])
  for path, content in deletion_place.everything(place / '0003'):
    assert b'digits_' not in content, path
  deletion_place.verify(place / '0003')
  assert capsys.readouterr().out.endswith('verified\n')


def test_damaged_records_of_format_1_are_refused(tmp_path):
  for change, message in (
    (lambda r: r['request']['ids'].pop(), 'samples.train.count_after contradicts'),
    (lambda r: r.pop('seconds'), 'it has no field seconds'),
    (lambda r: r['metrics']['unlearned'].update(retain_accuracy=2), 'must be from 0 to 1'),
    (lambda r: r['configuration']['settings'].update(cache_dir='/'), 'which no record has'),
    (lambda r: r.update(number=9), 'the chain is broken at request 2: number'),
    (lambda r: r.update(summary=['All is well.']), 'summary contradicts'),
  ):
    shutil.rmtree(tmp_path / 'out', ignore_errors=True)
    shutil.copytree(FIXTURE / '0002', tmp_path / 'out')
    record = files.read_json(tmp_path / 'out' / 'record.json')
    change(record)
    record['hash'] = hashing.of_json({k: v for k, v in record.items() if k != 'hash'})
    files.write_json(tmp_path / 'out' / 'record.json', record)
    with pytest.raises(errors.InputError, match=message):
      verification.chain_of(tmp_path / 'out')

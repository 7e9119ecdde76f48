"""Requests as files: every form, no line lost, and what cannot be read for certain is refused."""

import unicodedata

import numpy as np
import pytest

from dalign_jax import errors, id_file
from dalign_jax.deletion import request_file

IDS = ['#1001.jpg', 'cat/1.jpg', 'Zoë;1, "b".png', 'Ärger/ü.png', '42', ';x', '//y', '--z']


def _csv(delimiter, end='\n'):
  quote = lambda name: '"' + name.replace('"', '""') + '"'
  rows = [f'{quote(name)}{delimiter}"asked{end}twice"' for name in IDS]
  return end.join([f'"why not"{delimiter}note', *rows, ''])


def _with_header(text):
  return text.replace('"why not"', '"ID"', 1)


FORMS = {
  'commas': _with_header(_csv(',')),
  'semicolons': _with_header(_csv(';')),
  'tabs': _with_header(_csv('\t')),
  'CRLF': _with_header(_csv(',', '\r\n')),
  'declared': 'sep=;\n' + _with_header(_csv(';')),
  'list': '\n'.join(IDS) + '\n\n',
  'JSON lines': '\n'.join(
    '{"why": 1, "Id": %s}' % ('"' + name.replace('"', '\\"') + '"') for name in IDS
  ),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_every_form_gives_every_id(form, encoding, tmp_path):
  path = tmp_path / 'request'
  path.write_bytes(FORMS[form].encode(encoding))
  found = id_file.read(path)
  assert list(found.ids) == IDS
  counted = found.header_lines + found.blank_lines + found.further_lines + len(found.ids)
  assert counted == found.lines > 0


def test_random_ids_survive_every_form(tmp_path):
  """Ids of any characters but line ends, without a blank at either end, are read as written."""
  rng = np.random.default_rng(0)
  letters = list('ab#;,"\t\'\\/%\u2028\x85\x1cé{}[]:=- ')
  ids = [f'x{"".join(rng.choice(letters, 6))}x{n}' for n in range(200)]
  quote = lambda name: '"' + name.replace('"', '""') + '"'
  path = tmp_path / 'request'
  for delimiter in ',;\t':
    rows = [f'{n}{delimiter}{quote(name)}' for n, name in enumerate(ids)]
    path.write_text('\n'.join([f'n{delimiter}id', *rows]), encoding='utf-8', newline='')
    assert list(id_file.read(path).ids) == ids
  path.write_text('\n'.join(ids), encoding='utf-8', newline='')
  assert list(id_file.read(path).ids) == ids


BAD = {
  'no id in a row': ('id,why\n,asked\n', 'line 2 has no id'),
  'an unquoted comma': ('name,id\nDoe, John,u1\n', 'line 2 has 3 cells and the header has 2'),
  'an open quote': ('id,why\n"u1,asked\nu2,asked\n', 'row that begins in line 2 cannot be read'),
  'two columns': ('id,ID\na,b\n', "2 columns 'id'"),
  'JSON without the key': ('{"id": "a"}\n{"name": "b"}\n', 'line 2 is not an object'),
  'JSON of a list': ('{"id": ["a"]}\n', 'line 1 is not an object'),
  'twice in one object': ('{"id": "a", "ID": "b"}\n', 'line 1 is not an object'),
  'no text': (b'\xff\xd8\xff\xe0', 'must name a text file'),
}


@pytest.mark.parametrize('case', BAD)
def test_what_cannot_be_read_for_certain_is_refused(case, tmp_path):
  content, message = BAD[case]
  path = tmp_path / 'request'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(errors.InputError, match=message):
    id_file.read(path)


def test_a_missing_column_says_how_the_file_should_look(tmp_path):
  path = tmp_path / 'request'
  path.write_text('id,why\na,b\n', encoding='utf-8')
  with pytest.raises(errors.InputError, match=r"no column 'sample'.* one id a line; or CSV"):
    id_file.read(path, 'sample')


def _read(tmp_path, text, known):
  path = tmp_path / 'request'
  path.write_text(text, encoding='utf-8')
  return request_file.read(str(path), 'id', known)


def test_other_spellings_are_matched_and_said(tmp_path):
  known = ['café/1.png', 'b/2.png', 'c.png']
  text = f'{unicodedata.normalize("NFD", known[0])}\nb\\2.png\n c.png\n./b/2.png\n'
  asked = _read(tmp_path, text, known)
  assert asked.ids == known
  assert asked.counts['ids_found'] == 4 and asked.counts['ids_repeated'] == 1
  notes = ' '.join(asked.notes)
  assert all(word in notes for word in ('Unicode normal form', 'path separator', 'more than once'))
  request_file.check_sum(asked.counts, forgotten=5, copies=2)
  with pytest.raises(errors.InputError, match='does not add up: ids_asked is 3'):
    request_file.check_sum(asked.counts, forgotten=2, copies=0)


def test_an_id_that_fits_two_samples_is_refused(tmp_path):
  known = [unicodedata.normalize(form, 'é') for form in ('NFC', 'NFD')]
  assert _read(tmp_path, known[1], known).ids == [known[1]]
  with pytest.raises(errors.InputError, match='fits 2 samples'):
    _read(tmp_path, ' é', known)


def test_ids_that_a_quote_hides_are_refused(tmp_path):
  text = 'id,why\nu1,"asked\nu2,asked\nu3,"asked\n'
  with pytest.raises(errors.InputError, match=r'inside a cell|cannot be read'):
    _read(tmp_path, text, ['u1', 'u2', 'u3'])
  text = 'id,why\nu1,"asked\nu2,asked\nu3,asked"\n'
  with pytest.raises(errors.InputError, match="ids inside a cell of several lines, such as 'u2'"):
    _read(tmp_path, text, ['u1', 'u2', 'u3'])


def test_ids_that_a_quote_hides_are_found_in_another_spelling(tmp_path):
  text = 'id,why\n0\\a.png,"asked by mail\n1\\b.png,x\n2\\c.png,by phone"\n3\\d.png,x\n'
  known = ['0/a.png', '1/b.png', '2/c.png', '3/d.png']
  with pytest.raises(errors.InputError, match='2 ids inside a cell of several lines'):
    _read(tmp_path, text, known)


def test_a_line_of_json_that_is_too_deep_is_refused(tmp_path):
  text = '{"id": ' + '[' * 200_000 + ']' * 200_000 + '}\n'
  with pytest.raises(errors.InputError, match='line 1 is not an object with one'):
    _read(tmp_path, text, ['u1'])


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'r.txt').write_text('u1\n', encoding='utf-8')
  assert request_file.read('~/r.txt', 'id', {'u1'}).ids == ['u1']


def test_ids_that_are_dealt_with_are_one_request_each():
  counts = {'form': 'lines', 'ids_found': 3, 'ids_repeated': 1, 'ids_asked': 2}
  left = request_file.Asked(['a', 'b'], counts, []).without({'a'}, 'are forgotten')
  assert left.ids == ['b'] and left.notes == ['1 of 2 ids are forgotten: each is one request']
  assert (left.counts['ids_repeated'], left.counts['ids_asked']) == (2, 1)


def test_a_header_that_is_a_sample_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='the name of a column and of a sample'):
    _read(tmp_path, 'id\nu1\n', ['id', 'u1'])

"""Keyed commitments: nothing of a record can be confirmed without its key, or found by grep."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import stat

import jax
import numpy as np
import PIL.Image
import pytest

from dalign_jax import data as data_lib
from dalign_jax import errors, from_settings, models, training, types
from dalign_jax.deletion import (
  audit_record,
  commitments,
  earlier,
  record_files,
  record_keys,
  signing,
  statement,
)
from dalign_jax.store import files, hashing
from tests import deletion_place

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'record_v1'


def _hashes(folder) -> set[str]:
  """All hashes of a request that are of samples."""
  record = record_files.read(folder / 'record.json')
  metadata = files.read_json(folder / 'model' / '0' / 'metadata' / 'metadata')
  kept = {name: record[name] for name in ('request', 'samples', 'copies', 'commitments')}
  kept |= {'classes': record['configuration']['classes'], 'rows': metadata['request']}
  text = json.dumps([kept, files.read_json(folder / 'members.json')])
  return set(re.findall('[0-9a-f]{64}', text))


def test_without_the_key_commitments_are_noise(asked, tmp_path):
  """The same request under another key shares no hash: nothing can be confirmed without the key."""
  deletion_place.forget(asked, 'again', keys=str(tmp_path / 'keys'))
  first, again = (_hashes(asked / name) for name in ('first', 'again'))
  assert len(first) == len(again) > 100 and not first & again
  with pytest.raises(errors.InputError, match='keys: the key there is not the one of the record'):
    deletion_place.verify(asked / 'first', keys=tmp_path / 'keys')
  (tmp_path / 'keys' / record_keys.KEY_FILE).unlink()
  with pytest.raises(errors.InputError, match='if it was destroyed, the commitments are noise'):
    deletion_place.verify(asked / 'again', keys=tmp_path / 'keys')


def test_a_guess_is_confirmed_with_the_key_and_not_without(asked, record):
  key = record_keys.read(asked / record_keys.NAME)
  ids = deletion_place.dataset(asked).ids.tolist()
  assert sorted(commitments.tags(key, ids[:5])) == record['request']['commitments']
  for other in (bytes(32), hashlib.sha256(key).digest(), key[::-1]):
    assert not set(commitments.tags(other, ids)) & set(record['request']['commitments'])
  plain = {hashlib.sha256(name.encode()).hexdigest() for name in ids}
  plain |= {
    hashing.samples_root(deletion_place.dataset(asked)),
    hashing.samples_root(deletion_place.dataset(asked, slice(5, None))),
  }
  assert not any(value in json.dumps(record) for value in plain)


def test_private_files_are_for_their_owner_alone(asked):
  keys = asked / record_keys.NAME
  private = [p for p in keys.rglob('*') if p.is_file()] + [asked / 'signing' / signing.PRIVATE]
  assert len(private) == 1 + 2 + 5 + 5 + 1  # key, places, receipts; the key to sign with
  for path in private:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
  for path in (keys, *(p for p in keys.rglob('*') if p.is_dir())):
    assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
  assert stat.S_IMODE(asked.joinpath('first').stat().st_mode) & 0o055 == 0o055  # to give away
  with pytest.raises(errors.InputError, match=r'keys: .* lies in .* which is given away'):
    deletion_place.forget(asked, 'other', keys=str(asked / 'first' / 'keys'))
  with pytest.raises(errors.InputError, match=r'keys: .* lies in .* which is given away'):
    deletion_place.forget(asked, 'other', keys=str(asked / 'other' / 'keys'))


NAMES = ('anna_example', 'bert_example', 'carla_example')


def _people(folder):
  """Pictures of three people, by name, and a model that tells them apart."""
  source = data_lib.load('digits').dataset
  for part, rows in (('train', slice(0, 25)), ('held_out', slice(25, 45))):
    for digit, name in enumerate(NAMES):
      (folder / part / name).mkdir(parents=True)
      there = source.images[source.labels == digit][rows]
      for number, image in enumerate(there):
        PIL.Image.fromarray(image[..., 0]).save(folder / part / name / f'passport-{number}.png')
  loaded = data_lib.load(f'folder:{folder}/train').dataset
  shape = loaded.images.shape[1:]
  apply_fn, init_fn = models.build('cnn', num_classes=3, image_shape=shape, width_multiplier=0.125)
  recipe = types.Recipe(num_epochs=8, batch_size=25)
  state = training.fit(
    apply_fn,
    init_fn(jax.random.key(0)),
    loaded,
    recipe,
    jax.random.key(1),
    devices=jax.devices()[:1],
  )
  leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, state._asdict()))
  np.savez(folder / 'mine.npz', **{'/'.join(p.key for p in path): leaf for path, leaf in leaves})
  return loaded


def test_no_id_path_or_name_is_found_by_grep(tmp_path):
  folder = tmp_path / 'office_of_people'
  folder.mkdir()
  loaded = _people(folder)
  private, _ = signing.keygen(folder / 'signing')
  copy_of = folder / 'train' / NAMES[0] / 'passport-copy.png'
  shutil.copy(folder / 'train' / NAMES[0] / 'passport-3.png', copy_of)
  asked = [
    'anna_example/passport-3.png',
    'anna_example/passport-3.png',
    r'bert_example\passport-4.png',
  ]
  (folder / 'request.txt').write_text('\n'.join(asked), encoding='utf-8')
  own = {'data': f'folder:{folder}/train', 'held_out': f'folder:{folder}/held_out'}
  common = {**own, 'signing_key': str(private), 'keys': str(folder / 'kept')}
  found = deletion_place.forget(folder, 'out', copies='include', **common)
  assert found['request']['count'] == 3 and len(found['read']['notes']) == 2
  (folder / 'request.txt').write_text('carla_example/passport-1.png', encoding='utf-8')
  after = {'checkpoint': str(folder / 'out'), 'keys': str(folder / 'kept'), 'copies': 'keep'}
  deletion_place.forget(folder, 'next', **own, **after)
  words = [*NAMES, 'passport', 'office_of_people', 'request.txt', str(tmp_path), 'example/']
  words += loaded.ids.tolist()
  for name in ('out', 'next'):
    for path, content in deletion_place.everything(folder / name):
      there = [word for word in words if word.encode() in content]
      assert not there, (path, there)
  deletion_place.verify(folder / 'next', keys=folder / 'kept')
  kept = b''.join(content for _, content in deletion_place.everything(folder / 'kept'))
  assert b'bert_example/passport-4.png' in kept  # the words are what they would be found by


def test_a_key_that_is_damaged_is_no_key(tmp_path):
  for text in ('', '{}', '[]', '{"format": "x", "key": "00"}', 'null'):
    path = tmp_path / record_keys.KEY_FILE
    path.write_text(text, encoding='utf-8')
    with pytest.raises(errors.InputError, match=r'keys: .* is no key of records'):
      record_keys.read(tmp_path)
  os.unlink(path)
  assert record_keys.read(tmp_path) is None
  assert record_keys.make(tmp_path) == record_keys.make(tmp_path)


def test_statement_is_the_record_and_back(record):
  found = json.loads(statement.text(record))
  assert statement.to_record(found) == record and record_files.check(found) == record


def test_what_a_request_left_without_its_record_is_no_start_of_a_chain(tmp_path):
  (tmp_path / 'one' / 'model').mkdir(parents=True)
  assert record_files.request_folder(tmp_path / 'one' / 'model') is None
  (tmp_path / 'one' / record_files.MEMBERS).write_text('{}', encoding='utf-8')
  message = r'/one is of a request, and its record\.json is gone; bring back a copy'
  with pytest.raises(errors.InputError, match=message) as raised:
    record_files.request_folder(tmp_path / 'one' / 'model')
  assert raised.value.argument == 'checkpoint'


def test_a_key_that_is_gone_is_named(record, tmp_path):
  with pytest.raises(errors.InputError, match=r'there is no .*/record\.key: bring back a copy, or'):
    record_keys.check(None, record, tmp_path)
  with pytest.raises(errors.InputError, match=r'^keys: name the folder with the key'):
    record_keys.check(None, record)
  hidden = tmp_path / '.one.123'
  record_keys.check_kept(tmp_path, hidden)  # nothing was begun: a key will be made
  hidden.mkdir()
  with pytest.raises(errors.InputError, match=r'its key .*/record\.key is gone; .* begin anew'):
    record_keys.check_kept(tmp_path, hidden)
  record_keys.make(tmp_path)
  record_keys.check_kept(tmp_path, hidden)


def test_a_guarantee_is_in_the_record_and_must_follow_from_the_method(asked, tmp_path):
  keys = tmp_path / 'keys'
  more = {'method': 'noisy_finetune', 'hparam': ('noisy_finetune.num_epochs=1',)}
  with pytest.raises(errors.InputError, match=r'keys: .* holds the folder of the request'):
    deletion_place.forget(asked, out=str(tmp_path / 'noisy'), keys=str(tmp_path), **more)
  record = deletion_place.forget(asked, out=str(tmp_path / 'noisy'), keys=str(keys), **more)
  assert 'indistinguishable' in record['guarantee']['definition']
  read = record_files.read(tmp_path / 'noisy' / 'record.json')
  assert read == record
  deletion_place.verify(tmp_path / 'noisy', keys=keys)
  (tmp_path / 'noisy' / 'record.html').unlink()
  honest = (tmp_path / 'noisy' / 'record.json').read_bytes()
  for change in (
    lambda record: record['guarantee'].update(definition='(0, 0)-indistinguishable'),
    lambda record: record.pop('guarantee'),
  ):
    deletion_place.edit(tmp_path / 'noisy', change)
    with pytest.raises(errors.InputError, match='guarantee'):
      deletion_place.verify(tmp_path / 'noisy', again=False, keys=keys)
    (tmp_path / 'noisy' / 'record.json').write_bytes(honest)


def test_no_request_takes_the_private_folder_of_another(tmp_path):
  out = tmp_path / 'one'
  folder = record_keys.own_folder(tmp_path, out, '.one.123')
  (folder / 'receipt.json').write_text('{}', encoding='utf-8')
  assert folder == out
  assert record_keys.own_folder(tmp_path, out, '.one.456') == tmp_path / 'one_2'  # at work as well
  assert record_keys.own_folder(tmp_path, out, '.one.123') == folder  # stopped, and goes on
  assert not (folder / 'receipt.json').exists()
  record_keys.close(folder)
  assert record_keys.own_folder(tmp_path, out, '.one.123') == tmp_path / 'one_3'


def test_a_run_with_a_test_split_is_followed_by_several_requests(tmp_path):
  """Its validation samples are of the training split, and its test samples are not."""
  parts = {'train': deletion_place.digits(0, 80), 'test': deletion_place.digits(80)}
  for name, source in parts.items():
    (tmp_path / name).mkdir()
    for field in ('images', 'labels', 'ids'):
      np.save(tmp_path / name / f'{field}.npy', getattr(source, field))
  settings = deletion_place.keep(
    deletion_place.SETTINGS, dataset=f'npy:{tmp_path}', test_split='test', batch_size=20
  )
  source = from_settings.load(settings, 'train')
  split = data_lib.split_dataset(
    source.dataset, validation_fraction=0.1, test_fraction=0.0, forget='random:4', seed=0
  )
  sets = {
    'train': source.dataset.take(split.retain),
    'validation': source.dataset.take(split.validation),
    'test': from_settings.load(settings, 'test', source.class_names).dataset,
  }
  key = record_keys.make(tmp_path / 'keys')
  files.write_json(tmp_path / record_files.MEMBERS, audit_record.members(sets, key))
  names = commitments.of_json(key, 'classes', list(source.class_names))
  record = {
    'format': 2,
    'hash': '',
    'commitments': {'key_check': commitments.key_check(key)},
    'configuration': {'classes': {'commitment': names}},
    'samples': {role: {'after': commitments.root(part, key)} for role, part in sets.items()},
  }
  _, found = earlier.sets_by_ids(settings, record, '', tmp_path, tmp_path / 'keys')
  assert {role: part.ids.tolist() for role, part in found.items()} == {
    role: part.ids.tolist() for role, part in sets.items()
  }

"""Requests that follow others, and what is trained beside them: golds and dummy requests."""

import dataclasses
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
import pytest

from dalign_jax import errors, training
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  carry_out,
  dummy_request,
  earlier,
  find,
  judgement,
  receipts,
  record_files,
  record_keys,
  replay,
  streams,
)
from experiments.benchmarks import file_kills
from tests import deletion_place


@pytest.fixture
def place(tmp_path):
  """Data, a model and a request of one's own, with the ids of the training set."""
  return tmp_path, deletion_place.write(tmp_path)


def _second(folder, ids, **changes):
  (folder / 'second.txt').write_text('\n'.join(ids[10:15]), encoding='utf-8')
  named = {'checkpoint': str(folder / 'first'), 'ids': str(folder / 'second.txt')}
  return deletion_place.forget(folder, 'second', **{**named, 'data': '', 'held_out': '', **changes})


def test_a_later_request_takes_the_recipe_of_the_earlier_or_of_its_flags(place, capsys):
  folder, ids = place
  recipe = deletion_place.keep(deletion_place.SETTINGS, num_epochs=2, learning_rate=0.05)
  deletion_place.forget(folder, settings=recipe)
  other = deletion_place.keep(deletion_place.SETTINGS, num_epochs=3)
  second = _second(folder, ids, method='retrain', hparam=(), settings=other)
  said = second['configuration']['settings']
  assert (said['num_epochs'], said['learning_rate']) == (3, 0.05)
  printed = capsys.readouterr().out
  assert 'settings of request 1: width_multiplier=0.125, learning_rate=0.05' in printed
  assert 'other than there: num_epochs=3' in printed
  deletion_place.verify(folder / 'second')


def test_a_flag_that_contradicts_the_model_is_refused(place):
  folder, ids = place
  deletion_place.forget(folder)
  wrong = deletion_place.keep(deletion_place.SETTINGS, width_multiplier=0.25)
  with pytest.raises(errors.InputError, match=r'^width_multiplier: request 1 has 0.125, .* 0.25'):
    _second(folder, ids, settings=wrong)
  assert not (folder / 'second').exists()


def test_a_flag_that_was_given_counts_at_its_default_too(capsys):
  usual = settings_lib.Settings()
  fixed = {'num_epochs': 50, 'model': 'resnet8', 'gold_seed': 7, 'dataset': 'a', 'pretrained': ''}
  found = earlier.with_fixed(usual, fixed, 'request 1', {'num_epochs'})
  assert (found.num_epochs, found.model, found.gold_seed) == (usual.num_epochs, 'resnet8', 7)
  assert f'other than there: num_epochs={usual.num_epochs}' in capsys.readouterr().out
  with pytest.raises(errors.InputError, match=r"^model: request 1 has 'resnet8', .* got 'cnn'"):
    earlier.with_fixed(usual, fixed, 'request 1', {'model'})
  other = dataclasses.replace(usual, dataset='npz:b', channels=3)
  with pytest.raises(errors.InputError, match='dataset: request 1 has data of its own; say by'):
    earlier.with_fixed(other, fixed, 'request 1', {'dataset'})
  found = earlier.with_fixed(other, fixed | {'channels': 0}, 'request 1', {'channels'})
  assert (found.dataset, found.channels) == ('a', 3)
  found = earlier.with_fixed(usual, fixed, 'request 1')
  assert (found.num_epochs, found.model) == (50, 'resnet8')


def test_the_number_of_devices_is_no_part_of_what_a_replay_compares(place):
  folder, _ = place
  deletion_place.forget(folder)
  places = {'keys': str(folder / record_keys.NAME)}
  for count in (0, 1):
    settings = {'compilation_cache_dir': '', 'num_devices': count}
    if count or jax.device_count() == 1:  # on more, the bits may be others
      replay.verify(folder / 'first', places=places, settings=settings, replay=True)
  record = record_files.read(folder / 'first' / 'record.json')
  again = json.loads(json.dumps(record))
  again['configuration']['settings']['num_devices'] = 7
  assert audit_record.differences(record, again) == []
  again['configuration']['settings']['num_epochs'] = 7
  assert audit_record.differences(record, again) == ['configuration']


def test_names_of_tfds_and_its_folder_are_remembered():
  assert earlier.place_of('data', 'cifar10', '', {'data': 'cifar10'}) == 'cifar10'
  with pytest.raises(errors.InputError, match='data: say where they are'):
    earlier.place_of('data', 'cifar10', '', {'data': 'cifar100'})
  settings = settings_lib.Settings()
  kept = {'data_dir': '/data'}
  assert earlier.with_data_dir(settings, kept).data_dir == '/data'
  given = dataclasses.replace(settings, data_dir='/other')
  assert earlier.with_data_dir(given, kept).data_dir == '/other'
  assert earlier.with_data_dir(settings, {}).data_dir == ''


def test_keys_below_the_working_directory_serve_a_search(place, monkeypatch):
  folder, _ = place
  deletion_place.forget(folder)
  monkeypatch.chdir(folder)
  PIL.Image.fromarray(file_kills.digits(slice(30, 31)).images[0, :, :, 0]).save('photo.png')
  search = settings_lib.Search(image='photo.png', count=3, list_file='found.csv')
  request = settings_lib.Request(
    checkpoint='first', keys=record_keys.NAME, held_out=f'npz:{folder}/held_out.npz'
  )
  found = find.find(search, request, deletion_place.SETTINGS)
  assert len(found) == 3 and found[0].likeness > 0.99
  with pytest.raises(errors.InputError, match=r'keys: .* lies in .*, which is given away'):
    record_keys.folder('first/keys', None, None)


def test_gold_is_refused_before_any_work_or_leaves_what_was_unlearned(place, monkeypatch):
  folder, _ = place
  wrong = deletion_place.keep(deletion_place.SETTINGS, batch_size=21)
  monkeypatch.setattr('dalign_jax.parallel.num_devices', lambda devices: 2)
  with pytest.raises(errors.InputError, match='batch_size: must be a positive multiple of the 2'):
    deletion_place.forget(folder, compare_gold=1, settings=wrong)
  monkeypatch.undo()
  assert not [p for p in folder.iterdir() if p.name.startswith('.first')]

  def diverge(*arguments, **more):
    raise training.NonFiniteLossError('loss is nan')

  with monkeypatch.context() as patch:
    patch.setattr(carry_out.training, 'fit', diverge)
    with pytest.raises(errors.DivergedError, match='compare_gold: retrain: model 1 of 1: loss is'):
      deletion_place.forget(folder, compare_gold=1)
  hidden = next(p for p in folder.iterdir() if p.name.startswith('.first'))
  made = (hidden / 'model' / '0' / 'metadata' / 'metadata').read_bytes()
  deletion_place.forget(folder)  # goes on from it
  assert (folder / 'first' / 'model' / '0' / 'metadata' / 'metadata').read_bytes() == made


def test_a_gold_that_diverges_leaves_the_row_of_a_stream_without_it(place, monkeypatch, capsys):
  folder, ids = place
  (folder / 'requests').mkdir()
  (folder / 'requests' / '1.txt').write_text('\n'.join(ids[:5]), encoding='utf-8')

  def diverge(*arguments, **more):
    raise training.NonFiniteLossError('loss is nan')

  monkeypatch.setattr(carry_out.training, 'fit', diverge)
  request = settings_lib.Request(
    checkpoint=str(folder / 'mine.npz'),
    out=str(folder / 'out'),
    data=f'npz:{folder}/train.npz',
    held_out=f'npz:{folder}/held_out.npz',
    method='finetune',
    hparam=('finetune.num_epochs=1',),
    verdict='quick',
    accept=('no_effect', 'worse', 'destroyed', 'incomplete'),
  )
  stream = settings_lib.Stream(requests=str(folder / 'requests'), gold_at=('1',))
  rows = streams.run(stream, request, deletion_place.SETTINGS)
  assert len(rows) == 1 and 'distance_gap' not in rows[0]
  assert 'no gold in row 0001: ' in capsys.readouterr().out


@pytest.mark.parametrize('how', ['loss', 'last update'])
def test_a_dummy_request_that_diverges_leaves_a_quick_verdict(how, tiny_problem, tmp_path, capsys):
  rows = dummy_request.rows(tiny_problem, class_only=False, seed=0)

  def unlearn(problem, key):
    if how == 'loss':
      raise training.NonFiniteLossError('loss is nan')
    return jax.tree.map(lambda x: np.full_like(x, np.nan), problem.original)

  record = {'method': 'finetune'}
  found = dummy_request.make(tmp_path, tiny_problem, rows, unlearn, jax.random.key(0), record)
  assert found is None
  assert 'not possible, so the verdict is a quick one' in capsys.readouterr().out


def test_damage_is_more_than_a_few_answers_however_much_is_one_class():
  def word(after, count):
    kept = {'held-out samples': {'before': 0.97, 'after': after, 'count': count}}
    found = {'kept': kept, 'chance': 0.95, 'parameters_moved': {'after': 1.0}, 'exact': True}
    found |= {'parts': {}, 'attack': None, 'moved': {'after': 1.0}, 'fell': {'p': 1.0}}
    return judgement.judge(found | {'count': 9, 'mode': 'quick'})[0]

  assert word(0.965, 200) == 'forgot'  # one answer, a quarter of what is above chance
  assert word(0.951, 1000) == 'destroyed'  # nineteen: it names the commonest class
  assert word(0.77, 30) == 'destroyed'
  assert word(0.5, 200) == 'destroyed'


def test_a_checkpoint_of_another_program_with_items_of_our_names_is_read(place):
  folder, _ = place
  state = file_kills.trained(120)._asdict()
  with ocp.CheckpointManager(folder / 'theirs') as manager:
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave({'epoch': 3})
    )
    manager.save(3, args=args)
    manager.wait_until_finished()
  record = deletion_place.forget(folder, checkpoint=str(folder / 'theirs'))
  assert record['configuration']['taken']['form'] == 'orbax'


def test_tags_of_ids_are_made_once_for_a_chain(monkeypatch):
  calls = []
  tags = record_files.commitments.tags
  monkeypatch.setattr(
    record_files.commitments, 'tags', lambda key, names: calls.append(1) or tags(key, names)
  )
  key, names = bytes(32), ['a', 'b', 'c']
  record = lambda *ids: {'request': {'commitments': tags(key, ids)}}
  asked = {'verdict': {'counts_as': 'requested'}}
  chain = [record('a') | asked, record('b') | asked, record('a')]
  assert audit_record.pending(chain, names, key) == {'b'}
  assert len(calls) == 1


def test_receipts_are_written_without_looking_through_their_folder(place, monkeypatch):
  folder, _ = place
  looked = []
  glob = type(folder).glob
  monkeypatch.setattr(
    type(folder), 'glob', lambda self, *more: looked.append(self.name) or glob(self, *more)
  )
  deletion_place.forget(folder)
  assert len(list(glob(folder / record_keys.NAME / 'first' / receipts.FOLDER, '*.json'))) == 5
  assert receipts.FOLDER not in looked

"""Nothing stays: requests killed at any file operation, finished by the same command.

The kill is made in the process: from a chosen file operation on, every operation that changes a
file fails, those of clean-up code too, as if the process were gone. `DALIGN_JAX_KILLS` sets how
many.
"""

import dataclasses
import json
import os
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
import pytest

from dalign_jax import data as data_lib
from dalign_jax import errors, locate
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import carry_out, replay, traces, verdict
from dalign_jax.store import files
from experiments.benchmarks import file_kills

KILLS = int(os.environ.get('DALIGN_JAX_KILLS', '4'))


class Killed(BaseException):
  """The process is gone."""


class Killer:
  """Counts the file operations below a folder, and kills at one of them."""

  def __init__(self, folder):
    self._folder, self.at, self.count, self.is_dead = str(folder), None, 0, False
    self.is_on = False
    sys.addaudithook(self._hook)  # stays for the life of the process: `is_on` silences it

  def run(self, at, work):
    self.at, self.count, self.is_dead, self.is_on = at, 0, False, True
    try:
      work()
    except BaseException:
      if not self.is_dead:
        raise
    finally:
      self.is_on = False
    return self.count

  def _hook(self, event, args):
    if not self.is_on or not file_kills.is_change(event, args, self._folder):
      return
    self.count += 1
    if self.is_dead or self.count == self.at:
      self.is_dead = True
      raise Killed


@pytest.fixture(scope='module')
def killer(tmp_path_factory):
  return Killer(tmp_path_factory.getbasetemp())


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Data and a model of one's own."""
  folder = tmp_path_factory.mktemp('own')
  file_kills.write_place(folder)
  return folder


def _forget(place, out, cache_dir=''):
  request = settings_lib.Request(
    checkpoint=str(place / 'mine.npz'),
    ids=str(place / 'request.txt'),
    out=str(out),
    data=f'npz:{place}/train.npz',
    held_out=f'npz:{place}/held_out.npz',
    method='dlfd',  # keeps states of training, and shows images of its work
    hparam=('dlfd.num_steps=1', 'dlfd.num_epochs=2', 'dlfd.batch_size=32'),
    accept=verdict.ACCEPTABLE,
  )
  shared = settings_lib.Settings(
    width_multiplier=0.125, num_devices=1, cache_dir=str(cache_dir), compilation_cache_dir=''
  )
  return carry_out.forget(request, shared)


def test_killed_requests_are_finished_with_equal_bits_and_nothing_left(place, killer, tmp_path):
  wanted = file_kills.patterns(place)
  whole = tmp_path / 'whole'
  whole.mkdir()
  total = killer.run(None, lambda: _forget(place, whole / 'out', whole / 'cache'))
  expected = file_kills.record_of(whole)
  assert total > 20
  kept = {*traces.KEPT, 'model.npz'} - {'record.intoto.jsonl'}  # nobody signed
  seen = 0  # kills that left an image behind, until the command was run again
  for at in np.unique(np.random.default_rng(0).choice(np.arange(1, total + 1), KILLS)):
    folder = tmp_path / f'killed_{at}'
    folder.mkdir()
    file_kills.write_caches(place, folder / 'cache')
    count = killer.run(at, lambda f=folder: _forget(place, f / 'out', f / 'cache'))
    assert killer.is_dead, (at, count)
    seen += bool(file_kills.holding(folder, wanted))
    if not (folder / 'out').exists():
      _forget(place, folder / 'out', folder / 'cache')
    assert file_kills.holding(folder, wanted) == [], at
    assert {p.name for p in folder.iterdir()} == {'out', 'cache', 'record_keys'}, at
    assert {p.name for p in (folder / 'out').iterdir()} == kept, at
    left = [json.loads(p.read_text()) for p in (folder / 'cache').glob('*/source.json')]
    assert [meta['key']['name'] for meta in left] == [f'npz:{place}/unrelated.npz'], at
    assert file_kills.record_of(folder) == expected, at
  assert seen > 0  # the scan sees what it looks for


def test_what_was_removed_and_what_was_not_looked_into_is_in_the_record(place, tmp_path):
  cache, images = tmp_path / 'cache', file_kills.images(place)
  file_kills.write_caches(place, cache)
  (cache / 'dalign_jax_tmp_dead').mkdir()
  np.save(cache / 'dalign_jax_tmp_dead' / 'images.npy', images)
  long_ago = 1e9
  for path in ((cache / 'dalign_jax_tmp_dead' / 'images.npy'), cache / 'dalign_jax_tmp_dead'):
    os.utime(path, (long_ago, long_ago))
  (cache / 'dalign_jax_tmp_busy').mkdir()
  (cache / 'foreign').mkdir()
  (cache / 'foreign' / 'notes.txt').write_text('not ours', encoding='utf-8')
  np.save(cache / 'foreign' / 'images.npy', np.array([{}]))  # which NumPy does not open
  own = {'foreign', 'tmp_thesis', 'dropped_frames'}
  for name in own:
    (cache / name).mkdir(exist_ok=True)
    os.utime(cache / name, (long_ago, long_ago))
  (cache / f'{traces._DROPPED}{"c" * 24}').mkdir()
  stopped = tmp_path / f'.out.{"a" * 12}'
  (stopped / 'training').mkdir(parents=True)
  np.save(stopped / 'training' / 'state.npy', images)
  busy = tmp_path / f'.out.{"b" * 12}'
  files.LOCK_SECONDS, before = 0.1, files.LOCK_SECONDS
  try:
    with files.lock(busy / traces.LOCK):
      record = _forget(place, tmp_path / 'out', cache)
  finally:
    files.LOCK_SECONDS = before
  removed = record['traces']['removed']
  assert removed['stopped requests'] == 1 and not stopped.exists() and busy.exists()
  assert removed['caches'] == 4
  assert {p.name for p in cache.iterdir()} >= {'dalign_jax_tmp_busy', *own}
  assert not [text for text in record['traces']['not_looked_into'] if str(tmp_path) in text]
  places = json.loads((tmp_path / 'record_keys' / 'out' / 'places.json').read_text('utf-8'))
  named = ' '.join(places['not_looked_into'])
  assert str(busy) in named and str(cache / 'dalign_jax_tmp_busy') in named and 'train.npz' in named
  assert file_kills.holding(tmp_path, file_kills.patterns(place)) == []


def test_killed_replays_leave_nothing_once_a_command_ran(place, tmp_path, monkeypatch):
  monkeypatch.setattr(traces.tempfile, 'gettempdir', lambda: str(tmp_path / 'temporary'))
  dead = tmp_path / 'temporary' / f'{traces.SCRATCH}dead'
  dead.mkdir(parents=True)
  np.save(dead / 'perturbed.npy', file_kills.images(place))
  other = tmp_path / 'temporary' / 'not_ours'
  other.mkdir()
  record = _forget(place, tmp_path / 'out')
  assert record['traces']['removed']['folders of replays'] == 1
  assert not dead.exists() and other.exists()


def _verify(out, keys):
  places = {'keys': str(keys / 'record_keys')}
  replay.verify(out / 'record.json', places=places, settings={}, replay=True)


def test_a_model_goes_on_in_its_form_and_its_chain(place, tmp_path):
  """A second request, from whatever lies in the folder of the first, is number 2 of the chain."""
  first = tmp_path / 'requests' / '0001'
  first.parent.mkdir()
  record = _forget(place, first)
  taken = record['configuration']['taken']
  assert (taken['form'], taken['written']) == ('npz', 'model.npz')
  source = data_lib.load('digits').dataset
  (tmp_path / 'second.txt').write_text(source.ids[10], encoding='utf-8')
  shared = settings_lib.Settings(num_devices=1, cache_dir='', compilation_cache_dir='')
  request = settings_lib.Request(
    ids=str(tmp_path / 'second.txt'),
    method='finetune',
    hparam=('finetune.num_epochs=1',),
    verdict='quick',
    accept=verdict.ACCEPTABLE,
  )
  again = lambda checkpoint, out: carry_out.forget(
    dataclasses.replace(request, checkpoint=str(checkpoint), out=str(tmp_path / out)), shared
  )
  with pytest.raises(errors.InputError, match=rf'checkpoint: .*name one of {first}'):
    again(first.parent, 'above')
  inside = (first, first / 'model', first / 'model' / '0', first / 'model.npz')
  for number, checkpoint in enumerate(inside):
    record = again(checkpoint, f'second_{number}')
    assert record['number'] == 2, checkpoint
    assert (tmp_path / f'second_{number}' / 'model.npz').is_file(), checkpoint
  _verify(tmp_path / 'second_0', first.parent)
  with np.load(place / 'mine.npz') as a, np.load(tmp_path / 'second_0' / 'model.npz') as b:
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


def test_the_step_that_was_taken_is_said_and_replayed_when_newer_ones_came(place, tmp_path, capsys):
  with np.load(place / 'mine.npz') as arrays:
    flat = dict(arrays)
  tree: dict = {}
  for name, array in flat.items():
    *parts, last = name.split('/')
    inner = tree
    for part in parts:
      inner = inner.setdefault(part, {})
    inner[last] = array
  for number in (9, 10):
    with ocp.StandardCheckpointer() as writer:
      writer.save(tmp_path / 'steps' / f'step_{number}', tree)
  request = settings_lib.Request(
    checkpoint=str(tmp_path / 'steps'),
    ids=str(place / 'request.txt'),
    out=str(tmp_path / 'out'),
    data=f'npz:{place}/train.npz',
    held_out=f'npz:{place}/held_out.npz',
    method='finetune',
    hparam=('finetune.num_epochs=1',),
    verdict='quick',
    accept=verdict.ACCEPTABLE,
  )
  shared = settings_lib.Settings(
    width_multiplier=0.125, num_devices=1, cache_dir='', compilation_cache_dir=''
  )
  record = carry_out.forget(request, shared)
  assert 'checkpoint: step step_10 of 2, the newest by number' in capsys.readouterr().out
  taken = record['configuration']['taken']
  assert (taken['step'], taken['other_steps'], taken['written']) == ('step_10', 1, 'orbax')
  assert (tmp_path / 'out' / 'orbax' / '_METADATA').is_file()
  (tmp_path / 'above').mkdir()
  (tmp_path / 'out').rename(tmp_path / 'above' / '0001')
  with pytest.raises(
    errors.InputError, match=r'no checkpoint, but one below it; name one of .*0001'
  ):
    locate.find(tmp_path / 'above')
  (tmp_path / 'above' / '0001').rename(tmp_path / 'out')
  assert locate.find(tmp_path / 'out').path == tmp_path / 'out' / 'model' / '0' / 'state'
  with ocp.StandardCheckpointer() as writer:
    writer.save(tmp_path / 'steps' / 'step_11', jax.tree.map(lambda x: x + 1, tree))
  _verify(tmp_path / 'out', tmp_path)


def test_a_replay_that_ends_while_its_folder_is_removed_is_no_error(tmp_path, monkeypatch):
  """Two processes remove the same folder: files that were there a moment ago are gone."""
  monkeypatch.setattr(traces.tempfile, 'gettempdir', lambda: str(tmp_path))
  dead = tmp_path / f'{traces.SCRATCH}ends'
  (dead / 'model').mkdir(parents=True)
  rmtree, calls = traces.shutil.rmtree, []

  def remove_as_well(path):
    calls.append(path)
    if len(calls) == 1:
      raise FileNotFoundError('_METADATA')
    rmtree(path)

  monkeypatch.setattr(traces.shutil, 'rmtree', remove_as_well)
  assert traces.remove_scratch() == (1, [])
  assert len(calls) == 2 and not dead.exists()


def test_caches_of_the_same_data_go_however_they_were_named(tmp_path, monkeypatch):
  place, cache = tmp_path / 'pictures', tmp_path / 'cache'
  for name in 'ab':
    (place / name).mkdir(parents=True)
    for number in range(3):
      pixels = np.random.default_rng([number, ord(name)]).integers(0, 255, (32, 32, 3), np.uint8)
      PIL.Image.fromarray(pixels).save(place / name / f'{number}.png')
  monkeypatch.chdir(tmp_path)
  names = ('folder:pictures', f'folder:{place}')
  for name in names:
    for spelling in names:
      data_lib.load(spelling, image_size=16, cache_dir=cache)
    assert len(list(cache.iterdir())) == 2
    now = data_lib.load(name, image_size=8).dataset
    found = traces.drop_caches(
      str(cache), name, data_lib.content_hash(now), now.take(np.array([0]))
    )
    assert found == (2, []) and not list(cache.iterdir())


def test_caches_of_one_file_go_however_it_was_named(tmp_path, monkeypatch):
  cache, pixels = tmp_path / 'cache', np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1))
  np.savez(tmp_path / 'a.npz', images=pixels.astype(np.uint8), labels=np.arange(6) % 2)
  monkeypatch.chdir(tmp_path)
  data_lib.load('npz:a.npz', image_size=4, cache_dir=cache)
  name = f'npz:{tmp_path}/a.npz'
  now = data_lib.load(name).dataset
  found = traces.drop_caches(str(cache), name, data_lib.content_hash(now), now.take(np.array([0])))
  assert found == (1, []) and not list(cache.iterdir())

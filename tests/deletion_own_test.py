"""Deletion requests on a checkpoint, data and a network of one's own."""

import dataclasses
import importlib
import pathlib
import re
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dalign_jax import data as data_lib
from dalign_jax import errors, training, types
from dalign_jax.deletion import commitments, record_keys
from dalign_jax.store import files, hashing
from experiments import config
from experiments.benchmarks import file_kills
from tests import deletion_place, deletion_test

ROOT = pathlib.Path(__file__).parents[1]


def _own(tmp_path, rows=200):
  """Data and an Orbax checkpoint of one's own."""
  source = data_lib.load('digits').dataset
  parts = {'train': slice(0, rows), 'held_out': slice(rows, rows + 150)}
  for name, part in parts.items():
    arrays = {k: getattr(source, k)[part] for k in ('images', 'labels', 'ids')}
    np.savez(tmp_path / f'{name}.npz', **arrays)
  state = file_kills.trained(rows)
  with ocp.CheckpointManager(tmp_path / 'mine') as manager:
    manager.save(7, args=ocp.args.StandardSave({**state._asdict(), 'step': np.int32(7)}))
    manager.wait_until_finished()
  return source.ids[:rows].tolist()


def test_own_checkpoint_and_data_that_shrink(tmp_path, capsys):
  ids = _own(tmp_path)
  shared = config.Config(
    width_multiplier=0.125, num_devices=1, cache_dir='', compilation_cache_dir=''
  )
  own = {'data': f'npz:{tmp_path}/train.npz', 'held_out': f'npz:{tmp_path}/held_out.npz'}
  own |= {'method': 'retrain', 'hparam': ()}
  with pytest.raises(errors.InputError, match='held_out: name data'):
    deletion_test.forget(tmp_path / 'first', tmp_path / 'mine', ids[:4], shared, data=own['data'])
  with pytest.raises(errors.InputError, match=r'checkpoint: .*is of another model'):
    deletion_test.forget(tmp_path / 'first', tmp_path / 'mine', ids[:4], **own)
  deletion_test.forget(tmp_path / 'first', tmp_path / 'mine', ids[:4], shared, **own)
  deletion_test.verify(tmp_path / 'first')
  arrays = dict(np.load(tmp_path / 'train.npz'))
  np.savez(tmp_path / 'train.npz', **{k: v[4:] for k, v in arrays.items()})
  with pytest.raises(errors.InputError, match='data: the train samples before the request'):
    deletion_test.verify(tmp_path / 'first')
  deletion_test.verify(tmp_path / 'first', again=False)
  assert 'not replayed' in capsys.readouterr().out
  deletion_test.forget(tmp_path / 'second', tmp_path / 'first', ids[10:12], deletion_test.CONFIG)
  deletion_test.verify(tmp_path / 'second')
  arrays['images'][8] ^= 1
  np.savez(tmp_path / 'train.npz', **{k: v[4:] for k, v in arrays.items()})
  with pytest.raises(errors.InputError, match='data: the train samples are not those'):
    deletion_test.verify(tmp_path / 'second')
  with pytest.raises(errors.InputError, match='data: the train samples are not those'):
    deletion_test.verify(tmp_path / 'second', again=False)


def test_network_of_the_docs(tmp_path, monkeypatch):
  ids = _own(tmp_path)
  text = (ROOT / 'docs' / 'deletion_own.md').read_text(encoding='utf-8')
  code = re.search(r'```python\n(.*?)```', text, flags=re.DOTALL)[1]
  (tmp_path / 'networks.py').write_text(code, encoding='utf-8')
  monkeypatch.syspath_prepend(tmp_path)
  networks = importlib.import_module('networks')
  apply_fn, init_fn = networks.make(10, (8, 8, 1))
  known = file_kills.digits(slice(200))
  recipe = types.Recipe(num_epochs=8, batch_size=20)
  state = training.fit(apply_fn, init_fn(jax.random.key(0)), known, recipe, jax.random.key(1))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'params', state.params)
  shared = dataclasses.replace(deletion_test.CONFIG, model='networks:make')
  own = {'data': f'npz:{tmp_path}/train.npz', 'held_out': f'npz:{tmp_path}/held_out.npz'}
  own |= {'method': 'finetune', 'hparam': ('finetune.num_epochs=1',)}
  record = deletion_test.forget(tmp_path / 'out', tmp_path / 'params', ids[:4], shared, **own)
  assert record['code'] == hashing.of_code('networks') != hashing.of_code()
  with pytest.raises(errors.InputError, match=r'model: the record says .* is not imported unless'):
    deletion_test.verify(tmp_path / 'out')
  deletion_test.verify(tmp_path / 'out', model='networks:make')
  monkeypatch.delitem(sys.modules, 'networks')
  with pytest.raises(errors.InputError, match="model: module networks has no function 'mak'"):
    wrong = dataclasses.replace(shared, model='networks:mak')
    deletion_test.forget(tmp_path / 'other', tmp_path / 'params', ids[:4], wrong, **own)


def test_copies_are_refused_forgotten_too_or_kept_and_said(tmp_path):
  ids = _own(tmp_path)
  arrays = dict(np.load(tmp_path / 'train.npz'))
  arrays['images'][20] = arrays['images'][3]  # the same picture, uploaded twice
  arrays['images'][31] = arrays['images'][3][:, ::-1]  # and mirrored
  np.savez(tmp_path / 'train.npz', **arrays)
  shared = config.Config(
    width_multiplier=0.125, num_devices=1, cache_dir='', compilation_cache_dir=''
  )
  own = {'data': f'npz:{tmp_path}/train.npz', 'held_out': f'npz:{tmp_path}/held_out.npz'}
  own |= {'method': 'retrain', 'hparam': ()}
  shared = dataclasses.replace(shared, num_epochs=1)
  request = lambda name, **more: deletion_test.forget(
    tmp_path / name, tmp_path / 'mine', [ids[3]], shared, **own, **more
  )
  message = (
    f'copies: 2 remaining samples are copies of forgotten ones: {ids[20]} of {ids[3]} .equal'
  )
  with pytest.raises(errors.InputError, match=message):
    request('refused')
  assert not (tmp_path / 'refused').exists()
  record = request('included', copies='include')
  tags = dict(
    zip(ids, commitments.tags(record_keys.read(tmp_path / 'record_keys'), ids), strict=True)
  )
  of = lambda *rows: sorted(tags[ids[row]] for row in rows)
  assert record['request']['commitments'] == of(3, 20, 31)
  assert record['copies']['included'] == of(20, 31) and not record['copies']['kept']
  assert (record['read']['ids_asked'], record['read']['ids_forgotten']) == (1, 3)
  assert 'owes nothing' in ' '.join(record['summary'])
  deletion_test.verify(tmp_path / 'included')
  record = request('kept', copies='keep')
  assert record['request']['commitments'] == of(3)
  kinds = {copy['commitment']: copy['kind'] for copy in record['copies']['kept']}
  assert kinds == {tags[ids[20]]: 'equal pixels', tags[ids[31]]: 'equal pixels, mirrored'}
  assert 'owes nothing' not in ' '.join(record['summary'])
  assert 'copies of forgotten samples (2) included' in ' '.join(record['summary'])
  deletion_test.verify(tmp_path / 'kept')
  (tmp_path / 'kept' / 'record.html').unlink()
  places = files.read_json(tmp_path / 'record_keys' / 'kept' / 'places.json')
  places = {name: places[name] for name in ('checkpoint', 'data', 'held_out', 'ids')}
  forge = lambda found: found['copies']['kept'][0].update(likeness=0.5)
  deletion_place.edit(tmp_path / 'kept', forge)
  with pytest.raises(errors.InputError, match='another copies'):
    deletion_test.verify(tmp_path / 'kept', **places)

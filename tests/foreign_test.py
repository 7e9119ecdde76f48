"""Models of other programs: found by number, fitted by path, written back in their form."""

from flax import serialization
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from dalign_jax import data as data_lib
from dalign_jax import errors, foreign, locate, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import carry_out, verdict
from experiments.benchmarks import file_kills
from tests import deletion_test

MODEL = types.ModelState(
  {
    'hidden': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)},
    'bias': np.ones(3, np.float32),
  },
  {},
)


def _flat(prefix, separator):
  return {
    f'{prefix}hidden{separator}kernel': MODEL.params['hidden']['kernel'],
    f'{prefix}bias': MODEL.params['bias'],
  }


def _npz(path):
  with open(path, 'wb') as file:
    np.savez(file, **_flat('', '/'))


WRITERS = {
  'npz': _npz,
  'safetensors': lambda path: safetensors.save_file(_flat('params.', '.'), str(path)),
  'msgpack': lambda path: path.write_bytes(
    serialization.msgpack_serialize({'params': {'params': MODEL.params}, 'step': np.int32(7)})
  ),
}


@pytest.mark.parametrize('form', WRITERS)
def test_files_are_read_fitted_and_written_back(form, tmp_path):
  path = tmp_path / f'model.{form}'
  WRITERS[form](path)
  found = locate.find(path)
  assert found.form == form
  stored = foreign.read(found)
  fitted = foreign.fit(stored, MODEL)
  jax.tree.map(np.testing.assert_array_equal, fitted.model, MODEL)
  doubled = jax.tree.map(lambda x: 2 * x, MODEL)
  foreign.write(tmp_path / 'again', fitted.arrays_of(doubled), form)
  again = foreign.fit(foreign.read(locate.find(tmp_path / 'again')), MODEL)
  jax.tree.map(np.testing.assert_array_equal, again.model, doubled)


def test_the_first_array_that_does_not_fit_is_named_with_shapes(tmp_path):
  path = tmp_path / 'model.npz'
  _npz(path)
  other = MODEL._replace(params={**MODEL.params, 'bias': np.ones(4, np.float32)})
  with pytest.raises(errors.InputError, match=r'bias.*\[3\].*\[4\]|bias.*\[4\].*\[3\]'):
    foreign.fit(foreign.read(locate.find(path)), other)


@pytest.mark.parametrize('name', ['step_{}', '{}', 'checkpoint-{}', 'epoch={}', 'step_{:08d}'])
def test_the_newest_step_is_that_of_the_highest_number(name, tmp_path):
  for number in (9, 10, 100):
    folder = tmp_path / name.format(number)
    folder.mkdir()
    (folder / '_METADATA').touch()
  assert locate.find(tmp_path).path.name == name.format(100)


def test_what_could_be_meant_twice_is_refused(tmp_path):
  for name in ('params', 'ema_params'):
    (tmp_path / 'checkpoint' / name).mkdir(parents=True)
    (tmp_path / 'checkpoint' / name / '_METADATA').touch()
  with pytest.raises(errors.InputError, match=r'several checkpoints that could be meant.*ema_par'):
    locate.find(tmp_path / 'checkpoint')
  assert locate.find(tmp_path / 'checkpoint', 'ema_params').path.name == 'ema_params'


def test_a_request_on_a_safetensors_file_gives_one_back(tmp_path):
  source = data_lib.load('digits').dataset
  for name, rows in (('train', slice(0, 200)), ('held_out', slice(200, 350))):
    arrays = {k: getattr(source, k)[rows] for k in ('images', 'labels', 'ids')}
    np.savez(tmp_path / f'{name}.npz', **arrays)
  state = file_kills.trained(200)
  leaves = jax.tree_util.tree_leaves_with_path(state._asdict())
  named = {'.'.join(p.key for p in path): np.asarray(leaf) for path, leaf in leaves}
  safetensors.save_file(named, str(tmp_path / 'mine.safetensors'))
  (tmp_path / 'request.txt').write_text('\n'.join(source.ids[:4]), encoding='utf-8')
  request = settings_lib.Request(
    checkpoint=str(tmp_path / 'mine.safetensors'),
    ids=str(tmp_path / 'request.txt'),
    out=str(tmp_path / 'out'),
    data=f'npz:{tmp_path}/train.npz',
    held_out=f'npz:{tmp_path}/held_out.npz',
    method='finetune',
    hparam=('finetune.num_epochs=1',),
    accept=verdict.ACCEPTABLE,
  )
  shared = settings_lib.Settings(
    width_multiplier=0.125, num_devices=1, cache_dir='', compilation_cache_dir=''
  )
  carry_out.forget(request, shared)
  back = safetensors.load_file(str(tmp_path / 'out' / 'model.safetensors'))
  assert back.keys() == named.keys()
  assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in named.items()}
  assert any(np.any(back[name] != named[name]) for name in named)
  deletion_test.verify(tmp_path / 'out')

"""Checkpoints that earlier versions wrote are read to the bit.

`fixtures/checkpoint_v0` was written by `checkpoints.save` and `checkpoints.save_training` as they
were in version 0.1.0 (on `CheckpointManager` of orbax-checkpoint 0.12.8), with the model, the
records and the states of this file.
"""

import pathlib
import shutil

import chex
import jax
import numpy as np
import optax
import pytest

from dalign_jax import checkpoints, training, types

FOLDER = pathlib.Path(__file__).parent / 'fixtures' / 'checkpoint_v0'


def _values(*shape: int) -> np.ndarray:
  """Float32 numbers that have no short decimal form."""
  return (np.arange(1, 1 + np.prod(shape)).reshape(shape) / 7).astype(np.float32)


MODEL = types.ModelState(
  {
    'hidden': {'kernel': _values(4, 3), 'bias': -_values(3)},
    'head': {'kernel': _values(3, 2), 'bias': np.zeros(2, np.float32)},
  },
  {'mean': _values(3), 'var': 1 / _values(3)},
)
RECORD = {'seed': 3, 'names': ['cat', 'düne'], 'nested': {'rate': 0.1, 'none': None}}


def _state(epoch: int) -> types.TrainState:
  tx = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
  state = training.init_state(MODEL, tx)._replace(step=np.int32(10 * epoch))
  return jax.tree.map(lambda x: np.asarray(x + epoch, x.dtype), state)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """A copy, since saving changes what is there."""
  return shutil.copytree(FOLDER, tmp_path / 'earlier')


@pytest.mark.parametrize('template', [None, MODEL])
def test_model_of_an_earlier_version(folder, template):
  model, record = checkpoints.restore(folder / 'model', template)
  chex.assert_trees_all_equal_shapes_and_dtypes(model, MODEL)
  chex.assert_trees_all_equal(model, MODEL)
  assert record == RECORD


def test_training_states_of_an_earlier_version(folder):
  assert checkpoints.latest_epoch(folder / 'training') == 2
  epoch, state, record = checkpoints.restore_training(folder / 'training', _state(0))
  assert (epoch, record) == (2, {'seconds': 1.0})
  chex.assert_trees_all_equal_shapes_and_dtypes(state, _state(2))
  chex.assert_trees_all_equal(state, _state(2))


def test_saving_goes_on_beside_earlier_states(folder):
  checkpoints.save_training(folder / 'training', 3, _state(3), {'seconds': 1.5})
  epoch, state, record = checkpoints.restore_training(folder / 'training', _state(0))
  assert (epoch, record) == (3, {'seconds': 1.5})
  chex.assert_trees_all_equal(state, _state(3))
  assert sorted(path.name for path in (folder / 'training').iterdir()) == ['2', '3']
  other = jax.tree.map(lambda x: x + 1, MODEL)
  checkpoints.save(folder / 'model', other, {'seed': 4})
  model, record = checkpoints.restore(folder / 'model')
  assert record == {'seed': 4}
  chex.assert_trees_all_equal(model, other)


def test_earlier_model_as_a_foreign_checkpoint(folder):
  chex.assert_trees_all_equal(checkpoints.restore_foreign(folder / 'model', MODEL), MODEL)

"""Checkpoints: whole or not at all, of this model or an error."""

import pathlib
import shutil
from typing import NamedTuple

import chex
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as v1
import pytest

from dalign_jax import checkpoints, errors, training, types
from tests import tiny

MODEL = tiny.init_fn(jax.random.key(0))


def _damage(folder: pathlib.Path) -> None:
  """Cuts every data file short."""
  for path in folder.rglob('*'):
    if path.is_file() and path.parent.name == 'd':
      path.write_bytes(path.read_bytes()[:10])


def test_model_comes_back_with_its_metadata(tmp_path):
  checkpoints.save(tmp_path / 'model', MODEL, {'seed': 3})
  restored, metadata = checkpoints.restore(tmp_path / 'model', MODEL)
  chex.assert_trees_all_equal(restored, MODEL)
  assert metadata == {'seed': 3}
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))
  chex.assert_trees_all_equal(checkpoints.restore(tmp_path / 'model')[0], MODEL)


def test_record_is_read_without_the_weights(tmp_path):
  checkpoints.save(tmp_path / 'model', MODEL, {'seed': 3, 'digest': 'abc'})
  _damage(tmp_path / 'model')
  with pytest.raises(checkpoints.CheckpointError, match='unreadable'):
    checkpoints.restore(tmp_path / 'model')
  assert checkpoints.read_record(tmp_path / 'model') == {'seed': 3, 'digest': 'abc'}
  with pytest.raises(checkpoints.CheckpointError, match='no checkpoint'):
    checkpoints.read_record(tmp_path / 'elsewhere')


def test_saving_again_replaces(tmp_path):
  other = jax.tree.map(lambda x: x + 1, MODEL)
  for model in (MODEL, other):
    checkpoints.save(tmp_path, model, {})
  chex.assert_trees_all_equal(checkpoints.restore(tmp_path)[0], other)
  assert len([p for p in tmp_path.iterdir() if p.name.isdigit()]) == 1


def test_exists_only_after_a_finished_save(tmp_path):
  assert not checkpoints.exists(tmp_path / 'model')
  (tmp_path / 'model' / '0.orbax-checkpoint-tmp').mkdir(parents=True)
  assert not checkpoints.exists(tmp_path / 'model')
  checkpoints.save(tmp_path / 'model', MODEL, {})
  assert checkpoints.exists(tmp_path / 'model')


@pytest.mark.parametrize(
  ('template', 'message'),
  [
    (
      types.ModelState({**MODEL.params, 'head': {'kernel': np.zeros((2, 2), np.float32)}}, {}),
      'another model',
    ),
    (MODEL._replace(batch_stats={}), r"\['batch_stats'\]\['mean'\] is float32\[24\] there"),
    (jax.tree.map(lambda x: x.astype(np.float16), MODEL), r'float16\[.*\] in the model'),
  ],
)
def test_checkpoint_of_another_model_is_refused(tmp_path, template, message):
  checkpoints.save(tmp_path, MODEL, {})
  with pytest.raises(checkpoints.CheckpointError, match=message):
    checkpoints.restore(tmp_path, template)


def test_missing_and_damaged_checkpoints_are_named(tmp_path):
  with pytest.raises(checkpoints.CheckpointError, match='no checkpoint in'):
    checkpoints.restore(tmp_path / 'nowhere')
  checkpoints.save(tmp_path / 'model', MODEL, {})
  _damage(tmp_path / 'model')
  with pytest.raises(checkpoints.CheckpointError, match='unreadable checkpoint in'):
    checkpoints.restore(tmp_path / 'model')


def _training_state(step):
  tx = optax.adam(0.1)
  state = training.init_state(MODEL, tx)._replace(step=np.int32(step))
  return jax.tree.map(np.asarray, state)


def test_newest_training_state_comes_back(tmp_path):
  assert checkpoints.restore_training(tmp_path / 'none', _training_state(0)) is None
  for epoch in (1, 2, 3):
    checkpoints.save_training(tmp_path, epoch, _training_state(epoch * 10), {'seconds': epoch})
  epoch, state, metadata = checkpoints.restore_training(tmp_path, _training_state(0))
  assert (epoch, int(state.step), metadata) == (3, 30, {'seconds': 3})
  assert jax.tree.structure(state) == jax.tree.structure(_training_state(0))
  assert checkpoints.latest_epoch(tmp_path) == 3


def test_damaged_newest_state_falls_back_and_is_replaced(tmp_path):
  for epoch in (1, 2):
    checkpoints.save_training(tmp_path, epoch, _training_state(epoch), {})
  _damage(tmp_path / '2')
  assert checkpoints.restore_training(tmp_path, _training_state(0))[0] == 1
  checkpoints.save_training(tmp_path, 2, _training_state(7), {})
  epoch, state, _ = checkpoints.restore_training(tmp_path, _training_state(0))
  assert (epoch, int(state.step)) == (2, 7)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def test_no_file_can_be_lost_or_cut_unnoticed(tmp_path):
  checkpoints.save(tmp_path / 'model', MODEL, {'seed': 3})
  refused = 0
  for number, path in enumerate(_files(tmp_path / 'model')):
    for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:10])):
      copy = shutil.copytree(tmp_path / 'model', tmp_path / f'{number}_{refused}')
      damage(copy / path.relative_to(tmp_path / 'model'))
      try:
        restored, metadata = checkpoints.restore(copy, MODEL)
      except checkpoints.CheckpointError as error:
        assert 'unreadable checkpoint in' in str(error)
        refused += 1
      else:  # a file that only repeats what others say
        chex.assert_trees_all_equal(restored, MODEL)
        assert metadata == {'seed': 3}
      shutil.rmtree(copy)
  assert refused >= 8


def _by_manager(folder, tree):
  with ocp.CheckpointManager(folder) as manager:
    for step in (9, 10):
      manager.save(step, args=ocp.args.StandardSave({**tree, 'step': np.int32(step)}))


def _without_metadata_file(folder, tree):
  """As Orbax wrote before it had that file."""
  ocp.PyTreeCheckpointer().save(folder, tree)
  (folder / '_CHECKPOINT_METADATA').unlink()


FOREIGN = {  # layout -> how another program saves
  'pytree': lambda folder, tree: ocp.PyTreeCheckpointer().save(folder, tree),
  'zarr': lambda folder, tree: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)).save(
    folder, tree
  ),
  'manager': _by_manager,
  'no metadata file': _without_metadata_file,
  'second interface': v1.save,
  'second interface, parts': lambda folder, tree: v1.save_checkpointables(folder, {'mine': tree}),
  'second interface, steps': lambda folder, tree: v1.training.Checkpointer(folder).save(2, tree),
  'with counters and words': lambda folder, tree: ocp.PyTreeCheckpointer().save(
    folder, {**tree, 'epoch': 3, 'rate': 0.1, 'note': 'mine', 'opt_state': [np.ones(2), None]}
  ),
}


@pytest.mark.parametrize('place', ['host', 'one device', 'sharded'])
@pytest.mark.parametrize('layout', FOREIGN)
def test_checkpoint_of_another_program(layout, place, tmp_path):
  tree = MODEL._asdict()
  if place == 'one device':
    tree = jax.device_put(tree, jax.devices()[1])
  if place == 'sharded':
    mesh = jax.make_mesh((2,), ('devices',), axis_types=(AxisType.Auto,))
    tree = jax.device_put(tree, NamedSharding(mesh, PartitionSpec('devices')))
  FOREIGN[layout](tmp_path / 'theirs', tree)
  restored = checkpoints.restore_foreign(tmp_path / 'theirs', MODEL)
  chex.assert_trees_all_equal(restored, MODEL)
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))


def test_states_on_devices_are_kept_as_host_arrays(tmp_path):
  checkpoints.save(tmp_path, jax.device_put(MODEL, jax.devices()[1]), {})
  restored, _ = checkpoints.restore(tmp_path)
  chex.assert_trees_all_equal(restored, MODEL)
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))


def test_unwritable_place_is_named_and_earlier_states_stay(tmp_path, monkeypatch):
  checkpoints.save_training(tmp_path, 1, _training_state(1), {})

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.CheckpointManager, 'save', full)
  with pytest.raises(checkpoints.CheckpointError, match=r'cannot write .* No space left'):
    checkpoints.save_training(tmp_path, 2, _training_state(2), {})
  assert checkpoints.restore_training(tmp_path, _training_state(0))[0] == 1


def test_numpy_scalars_are_kept_as_arrays(tmp_path):
  checkpoints.save_training(tmp_path, 1, {'step': np.int32(7), 'x': np.ones(2)}, {})
  _, state, _ = checkpoints.restore_training(tmp_path, {'step': np.int32(0), 'x': np.zeros(2)})
  assert state['step'] == 7 and state['step'].dtype == np.int32


class _Layer(NamedTuple):
  kernel: np.ndarray


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    ({'hidden': _Layer(np.zeros((2, 2), np.float32))}, 'hidden.* is inside another container'),
    ({0: np.zeros(2, np.float32)}, 'dictionaries, with strings as keys'),
    ({'w': np.zeros(2)}, r"\['w'\] is float64: give float32"),
  ],
)
def test_a_state_that_would_come_back_changed_is_refused(params, message):
  with pytest.raises(errors.InputError, match=message):
    checkpoints.check_state(types.ModelState(params, {}))


def test_a_state_of_dictionaries_and_lists_is_kept(tmp_path):
  state = types.ModelState({'layers': [{'w': np.ones(2, np.float32)}]}, {})
  checkpoints.check_state(state)
  checkpoints.save(tmp_path / 'model', state, {})
  chex.assert_trees_all_equal(checkpoints.restore(tmp_path / 'model', state)[0], state)

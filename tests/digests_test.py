"""Digests of checkpoints and splits: a flipped bit is never restored in silence."""

import shutil

import numpy as np
import pytest

from dalign_jax import checkpoints, data, digests, errors, types
from dalign_jax.store import files, problem_folder

MODEL = types.ModelState(
  {'head': {'kernel': np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)}},
  {'mean': np.arange(30, dtype=np.float32)},
)
RECORD = {'method': 'muda', 'seconds': 1.25, 'hparams': {'rounds': 2}}
FLIPS = 60


def _flip(path, position, bit):
  content = bytearray(path.read_bytes())
  content[position] ^= 1 << bit
  path.write_bytes(content)


def test_no_flipped_bit_is_restored_in_silence(tmp_path):
  """Each of 60 random bits, over all files of a checkpoint: refused, or nothing is changed."""
  checkpoints.save(tmp_path / 'saved', MODEL, RECORD)
  rng, refused = np.random.default_rng(0), 0
  paths = sorted(p for p in (tmp_path / 'saved').rglob('*') if p.is_file() and p.stat().st_size)
  sizes = np.array([p.stat().st_size for p in paths], float)
  for number in range(FLIPS):
    copy = tmp_path / 'copy'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tmp_path / 'saved', copy)
    path = paths[rng.choice(len(paths), p=sizes / sizes.sum())]
    path = copy / path.relative_to(tmp_path / 'saved')
    _flip(path, rng.integers(path.stat().st_size), rng.integers(8))
    try:
      model, record = checkpoints.restore(copy)
    except checkpoints.CheckpointError:
      refused += 1
      continue
    assert digests.of_tree(model) == digests.of_tree(MODEL) and record == RECORD, (number, path)
  assert refused > FLIPS // 4


def test_changed_arrays_and_metadata_name_the_file_and_both_digests(tmp_path):
  checkpoints.save(tmp_path, MODEL, RECORD)
  place = tmp_path / '0' / 'metadata' / 'metadata'
  text = place.read_text(encoding='utf-8')
  place.write_text(text.replace('"rounds":2', '"rounds":3').replace('"rounds": 2', '"rounds": 3'))
  assert place.read_text(encoding='utf-8') != text
  message = r'0/metadata was saved with the digest [0-9a-f]{64} and has now [0-9a-f]{64}'
  with pytest.raises(checkpoints.CheckpointError, match=message):
    checkpoints.restore(tmp_path)
  state = {**MODEL._asdict(), 'batch_stats': {'mean': np.zeros(30, np.float32)}}
  sealed = digests.seal(MODEL._asdict(), RECORD)
  with pytest.raises(errors.InputError, match='0/state was saved with the digest'):
    digests.unseal(state, sealed, tmp_path / '0')
  renamed = {key.replace('saved_digests', 'saved_digestz'): v for key, v in sealed.items()}
  with pytest.raises(errors.InputError, match='has no digests of what was saved'):
    digests.unseal(state, renamed, tmp_path / '0')
  assert digests.unseal(MODEL._asdict(), sealed, tmp_path / '0') == RECORD


def test_models_of_the_first_version_are_checked_by_their_own_digest(tmp_path):
  record = {**RECORD, 'digest': digests.of_model(MODEL)}
  assert digests.unseal(MODEL._asdict(), record, tmp_path) == record
  changed = {**MODEL._asdict(), 'batch_stats': {'mean': np.zeros(30, np.float32)}}
  with pytest.raises(errors.InputError, match='it was changed or is damaged'):
    digests.unseal(changed, record, tmp_path)


def test_damaged_training_states_are_passed_over(tmp_path):
  for epoch in (1, 2):
    checkpoints.save_training(tmp_path, epoch, {'w': np.full(50, epoch, np.float32)}, RECORD)
  template = {'w': np.zeros(50, np.float32)}
  place = tmp_path / '2' / 'metadata' / 'metadata'
  place.write_text(place.read_text(encoding='utf-8').replace('muda', 'mudb'), encoding='utf-8')
  epoch, state, record = checkpoints.restore_training(tmp_path, template)
  assert (epoch, state['w'][0], record) == (1, 1.0, RECORD)


def test_splits_are_checked_against_the_problem(tmp_path):
  rows = [np.arange(k, 100, 5) for k in range(5)]
  split = data.Split(*rows)
  data.save_split(tmp_path / 'splits.npz', split)
  identity = {'split_hash': digests.of_split(split)}
  files.write_json(tmp_path / 'problem.json', {'identity': identity})
  assert problem_folder.read_split(tmp_path).retain.tolist() == rows[0].tolist()
  moved = data.Split(rows[1], rows[0], *rows[2:])
  data.save_split(tmp_path / 'splits.npz', moved)
  with pytest.raises(errors.InputError, match=r'splits.npz has the digest .* it was changed'):
    problem_folder.read_split(tmp_path)


def test_metadata_that_are_an_empty_object_are_damaged(tmp_path):
  """Those of version 0.1.0 have no seal, but they are never empty."""
  checkpoints.save_training(tmp_path, 1, {'w': np.ones(2)}, {})
  (path,) = tmp_path.glob('1/metadata/metadata')
  path.write_text('{}', encoding='utf-8')
  assert checkpoints.restore_training(tmp_path, {'w': np.ones(2)}) is None

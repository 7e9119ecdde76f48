"""Files of a work folder that are zeroed, cut, filled with rubbish or of another shape."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dalign_jax import checkpoints, command, types
from dalign_jax.store import files
from experiments.benchmarks import damages, damages_places

QUICK = ('missing', 'rubbish', 'other shape', 'levels')
KINDS = {  # what must be among the kinds that the walk finds
  'run': {
    'problem/problem.json',
    'problem/splits.npz',
    'problem/original/seed_#/plots.npz',
    'problem/runs/*/seed_#/unlearned/#/metadata/metadata',
  },
  'cached': {'*/source.json', '*/images.npy', '*/labels.npy', '*/ids.npy'},
}


def test_a_finished_run_and_its_damaged_files(tmp_path):
  place = damages_places.MAKERS['run'](tmp_path / 'run')
  assert KINDS['run'] <= damages.kinds(place.folder).keys()
  place = place._replace(commands={'run': place.commands['run']})
  for path in [*place.folder.rglob('*.svg'), *place.folder.rglob('report.*')]:
    path.unlink()  # it does not read them
  found = list(damages.outcomes(place, {'other shape': damages.DAMAGES['other shape']}))
  assert not [outcome for outcome in found if outcome.found == 'wrong']
  by_kind = {outcome.kind: outcome.found for outcome in found}
  root = 'problem/'
  assert by_kind[f'{root}problem.json'] == 'refused'
  assert by_kind[f'{root}splits.npz'] == 'made again'
  assert by_kind[f'{root}original/seed_#/evaluation.json'] == 'made again'
  assert by_kind[f'{root}original/seed_#/plots.npz'] == 'made again'
  assert by_kind[f'{root}original/seed_#/model/#/metadata/metadata'] == 'refused'
  assert 'wrong |' in damages.table(found).splitlines()[0]
  assert damages.table(found).endswith(' 0 |')


def test_decoded_images_that_are_damaged_are_made_again(tmp_path):
  place = damages_places.MAKERS['cached'](tmp_path / 'cached')
  assert damages.kinds(place.folder).keys() == KINDS['cached']
  found = list(damages.outcomes(place, {name: damages.DAMAGES[name] for name in QUICK}))
  assert {outcome.found for outcome in found} == {'made again'} and len(found) == 16


@pytest.mark.parametrize(
  ('act', 'outcome'),
  [
    (lambda path: None, 'other results, and nothing said'),
    (lambda path: path.write_bytes(b'new'), 'made again, but not said'),
    (lambda path: int('x'), "ValueError: invalid literal for int() with base 10: 'x'"),
    (lambda path: files.read_json(path.parent / 'other.json'), 'FileNotFoundError'),
  ],
)
def test_wrong_outcomes_are_found(act, outcome, tmp_path):
  path, table = tmp_path / 'w' / 'x' / 'values.json', tmp_path / 'w' / 'report.csv'
  files.write_json(path, {'a': 1})

  def run():
    table.write_text(f'model,seconds\n{path.read_bytes() == whole},1\n')
    if path.read_bytes() != whole:
      act(path)

  whole = path.read_bytes()
  place = damages_places.Place('w', tmp_path / 'w', {'run': run})
  (found,) = damages.outcomes(place, {'cut': damages.DAMAGES['cut']})
  assert found.found == 'wrong' and outcome in found.why
  assert damages.table([found]).endswith(' 1 |') and path.read_bytes() == whole


@pytest.mark.parametrize('damage', [name for name in damages.DAMAGES if name != 'missing'])
def test_readers_name_the_file(damage, tmp_path):
  change = damages.DAMAGES[damage]
  path = tmp_path / 'arrays.npz'
  files.write_arrays(path, {'a': np.arange(3)})
  path.write_bytes(change(path.read_bytes()))
  if damage != 'other shape':
    with pytest.raises(files.DamagedError, match=r'arrays\.npz is damaged .*; delete it'):
      files.read_arrays(path, keys=['a'])
  path = tmp_path / 'values.json'
  files.write_json(path, {'a': list(range(50))})
  path.write_bytes(change(path.read_bytes()))
  if damage != 'other shape':
    with pytest.raises(files.DamagedError, match=r'values\.json is damaged .*; delete it'):
      files.read_json(path, keys=['a'])
  path = tmp_path / 'log.jsonl'
  path.write_bytes(b'{"epoch": 1}\n' + change(b'{"epoch": 2}') + b'\n{"epoch": 3}\n')
  records, error = files.read_json_lines(path, keys=['epoch'])
  assert records[0] == {'epoch': 1} and records[-1] == {'epoch': 3}
  assert len(records) == 2 + (damage == 'other shape')  # it has its epoch
  if damage not in ('empty', 'other shape'):
    assert 'log.jsonl is damaged (line 2: ' in str(error)


@pytest.mark.parametrize('damage', ['a list', 'other shape', 'levels'])
def test_a_checkpoint_whose_own_description_is_damaged_is_named(damage, tmp_path):
  checkpoints.save(tmp_path / 'm', types.ModelState({'w': np.ones(2)}, {}), {'seed': 1})
  path = tmp_path / 'm' / '0' / '_CHECKPOINT_METADATA'
  path.write_bytes(damages.DAMAGES[damage](path.read_bytes()))
  message = r'unreadable checkpoint in .*/m: .*; delete that folder'
  for read in (checkpoints.restore, checkpoints.read_record):
    with pytest.raises(checkpoints.CheckpointError, match=message):
      read(tmp_path / 'm')


def test_the_reason_is_that_of_the_store_without_its_paths_and_specs(tmp_path):
  checkpoints.save(tmp_path / 'm', types.ModelState({'w': np.ones(2)}, {}), {'seed': 1})
  (tmp_path / 'm' / '0' / 'state' / 'manifest.ocdbt').write_bytes(b'')
  with pytest.raises(checkpoints.CheckpointError) as raised:
    checkpoints.restore(tmp_path / 'm')
  reason = 'Encoded length (0) is less than minimum length (16); delete that folder'
  assert reason in str(raised.value) and 'tensorstore_spec' not in str(raised.value)


def test_late_answers_of_the_store_are_hidden_and_nothing_else(monkeypatch):
  seen = []
  monkeypatch.setattr(sys, 'unraisablehook', lambda found: seen.append(str(found.exc_value)))
  command._hide_late_answers()
  for error in (RuntimeError('Event loop is closed'), RuntimeError('a bug'), OSError('disk')):
    sys.unraisablehook(SimpleNamespace(exc_value=error))
  assert seen == ['a bug', 'disk']

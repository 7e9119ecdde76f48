"""Files of a work folder that are zeroed, cut, filled with rubbish or of another shape."""

import numpy as np
import pytest

from dalign_jax import errors
from dalign_jax.store import files
from experiments import config, stages
from experiments.measure import evaluate
from tests import experiments_test

DAMAGES = {
  'empty': lambda data: b'',
  'zeroed': lambda data: b'\0' * len(data),
  'cut': lambda data: data[: len(data) // 2],
  'rubbish': lambda data: np.random.default_rng(0).bytes(len(data)),
  'a list': lambda data: b'[1, 2]',
  'an empty object': lambda data: b'{}',
  'levels': lambda data: b'[' * 200_000,
}
READ = ('problem.json', 'original/seed_0/evaluation.json', 'original/seed_0/plots.npz')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run that is done, without methods."""
  settings = {**experiments_test.TINY, 'methods': (), 'workdir': str(tmp_path_factory.mktemp('w'))}
  run = config.Config(**settings)
  stages.run(run)
  return run


@pytest.mark.parametrize('damage', ['empty', 'cut', 'rubbish', 'an empty object'])
@pytest.mark.parametrize('name', READ)
def test_damaged_files_are_named_or_made_again(name, damage, finished, capsys):
  folder = stages.folders.problem_folder(finished)
  path = folder / name
  whole = path.read_bytes()
  path.write_bytes(DAMAGES[damage](whole))
  try:
    stages.run(finished)  # what can be made again is made again
    assert 'report:' in capsys.readouterr().out
    assert path.read_bytes() == whole
  except errors.InputError as error:
    assert str(path) in str(error) and '\n' not in str(error)
    assert name == 'problem.json'
  finally:
    path.write_bytes(whole)


def test_a_fresh_evaluation_is_kept(finished, capsys):
  stages.run(finished)
  assert 'evaluate: done before' in capsys.readouterr().out
  assert evaluate.FORMAT > 5


@pytest.mark.parametrize('damage', DAMAGES)
def test_readers_name_the_file(damage, tmp_path):
  path = tmp_path / 'arrays.npz'
  files.write_arrays(path, {'a': np.arange(3)})
  path.write_bytes(DAMAGES[damage](path.read_bytes()))
  with pytest.raises(files.DamagedError, match=r'arrays\.npz is damaged'):
    files.read_arrays(path, keys=['a'])
  path = tmp_path / 'values.json'
  files.write_json(path, {'a': list(range(50))})
  path.write_bytes(DAMAGES[damage](path.read_bytes()))
  with pytest.raises(files.DamagedError, match=r'values\.json is damaged'):
    files.read_json(path, keys=['a'])

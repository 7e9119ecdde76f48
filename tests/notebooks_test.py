"""The notebooks of colab/: thin, without outputs, and they run."""

import json
import pathlib

import matplotlib.pyplot
import numpy as np
import pytest
from sklearn import datasets

FOLDER = pathlib.Path(__file__).parents[1] / 'colab'
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob('*.ipynb'))


def _people():
  """Digits in place of faces: eight 'people'."""
  images, labels = datasets.load_digits(return_X_y=True)
  known = labels < 8
  pictures = (images[known].reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
  return pictures, labels[known], np.array([f'person {k}' for k in range(8)])


SMALL = {
  'quickstart': {'NUM_EPOCHS': 8, 'MAX_EXAMPLES': 1000, 'METHODS': {'head_only': {}}},
  'losses_in_your_loop': {},
  'forgetting_a_person': {'NUM_EPOCHS': 8, 'load_people': _people},
}


def _cells(name):
  notebook = json.loads((FOLDER / f'{name}.ipynb').read_text(encoding='utf-8'))
  for cell in notebook['cells']:
    yield cell, ''.join(cell['source']), cell['metadata'].get('tags', [])


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_is_thin_and_has_no_outputs(name):
  code = [(cell, source) for cell, source, _ in _cells(name) if cell['cell_type'] == 'code']
  assert not [cell for cell, _ in code if cell['outputs'] or cell['execution_count']]
  assert max(len(source.splitlines()) for _, source in code) <= 25
  tags = [tag for _, _, tags in _cells(name) for tag in tags]
  assert sorted(tags) == ['install', 'parameters']
  assert any('TPU' in source for cell, source, _ in _cells(name) if cell['cell_type'] != 'code')


@pytest.mark.slow
@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_runs(name, monkeypatch):
  monkeypatch.setattr(matplotlib.pyplot, 'show', lambda: None)
  matplotlib.use('agg')
  scope = {'__name__': name, 'np': np}
  for cell, source, tags in _cells(name):
    if cell['cell_type'] == 'code' and 'install' not in tags:
      exec(source, scope)
    if 'parameters' in tags:
      scope |= SMALL[name]
  matplotlib.pyplot.close('all')
  if name == 'losses_in_your_loop':
    values = [np.asarray(scope[route][0]) for route in ('pmapped', 'sharded')]
    np.testing.assert_allclose(values, scope['value'], rtol=1e-5)
    for route in ('pmapped', 'sharded'):
      gradient = scope[route][1]
      np.testing.assert_allclose(gradient['hidden'], scope['jitted']['hidden'], atol=1e-5)
  else:
    table = scope['table'] if name == 'quickstart' else scope['figures']
    assert table['original']['forget_accuracy'] > 0.5 > table['gold']['forget_accuracy'] == 0

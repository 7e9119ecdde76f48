"""The notebooks of colab/: thin, one click, and their outputs are those of their code.

`.ci/run` executes them from a wheel in a fresh environment, `python colab/execute.py` makes the
stored outputs.
"""

import ast
import glob
import os
import re
import shutil

import nbformat
import pytest

from colab import execute

NOTEBOOKS = sorted(path.stem for path in execute.FOLDER.glob('*.ipynb'))
EVERY = pytest.mark.parametrize('name', NOTEBOOKS)
SIZE = 150_000  # bytes of a notebook with its outputs


def _code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def _texts(name):
  """What the code printed, and the plain or Markdown text of what it showed."""
  outputs = [output for cell in _code(execute.read(name)) for output in cell.outputs]
  shown = (o.get('text') or o.get('data', {}).get('text/markdown', '') for o in outputs)
  return '\n'.join(shown)


def test_every_notebook_has_a_small_form():
  assert NOTEBOOKS == sorted(execute.SMALL)


@EVERY
def test_notebook_is_thin(name):
  notebook = execute.read(name)
  nbformat.validate(notebook)
  assert max(len(cell.source.splitlines()) for cell in _code(notebook)) <= 25
  assert execute.tagged(notebook, 'install') < execute.tagged(notebook, 'parameters')
  text = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
  assert 'TPU' in text or name == 'your_model_and_a_request'


@EVERY
def test_outputs_are_those_of_the_code(name):
  notebook = execute.read(name)
  assert notebook.metadata.dalign_jax.outputs_of_code == execute.code_digest(notebook)
  assert [cell.execution_count for cell in _code(notebook)] == [*range(1, len(_code(notebook)) + 1)]
  outputs = [output for cell in _code(notebook) for output in cell.outputs]
  assert any('image/png' in output.get('data', {}) for output in outputs)
  for output in outputs:
    assert output.output_type != 'error' and output.get('name') != 'stderr', output
  assert (execute.FOLDER / f'{name}.ipynb').stat().st_size < SIZE


def test_stored_losses_are_equal_under_pmap_and_shard_map():
  routes = re.findall(r'^\(\S+, \{.*\}\)$', _texts('losses_in_your_loop'), flags=re.MULTILINE)
  assert len(routes) == 2
  for route in routes:
    value, gradient = ast.literal_eval(route)
    assert max(value, *gradient.values()) < 1e-5


@pytest.mark.parametrize('name', ['forgetting_a_person', 'quickstart'])
def test_stored_tables_show_that_gold_never_knew(name):
  rows = [
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in _texts(name).splitlines()
    if line.startswith('|')
  ]
  column = rows[0].index('forget_accuracy')
  accuracy = {row[0]: float(row[column]) for row in rows[2:]}
  assert accuracy['original'] > 0.5 > accuracy['gold'] == 0


def test_stored_request_was_signed_off_and_verified():
  text = _texts('your_model_and_a_request')
  assert '- Verdict: forgot.' in text and text.rstrip().endswith('verified')


def _installed(monkeypatch, repository='', missing=True, files=(), gpu=False, checkout=False):
  """What the cell of installation would pass to pip, or None."""
  notebook = execute.read('quickstart')
  code = notebook.cells[execute.tagged(notebook, 'install')].source
  code = code.replace('%pip install -q "$library" "$jax"', 'asked = library, jax')
  code = re.sub(r"^REPOSITORY = '.*'", f'REPOSITORY = {repository!r}', code, flags=re.MULTILINE)
  found = lambda pattern: [f for f in files if glob.fnmatch.fnmatch(f, pattern)]
  monkeypatch.setattr(glob, 'glob', found)
  monkeypatch.setattr(os.path, 'exists', lambda path: checkout)
  monkeypatch.setattr(shutil, 'which', lambda program: program if gpu else None)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None if missing else name)
  scope = {}
  exec(code, scope)
  return scope.get('asked')


WHEEL = 'dalign_jax-0.2.0-py3-none-any.whl'


@pytest.mark.parametrize(
  ('found', 'asked'),
  [
    ({'missing': False}, None),
    ({'files': [WHEEL], 'checkout': True}, (f'./{WHEEL}[notebooks]', 'jax')),
    ({'checkout': True, 'gpu': True}, ('..[notebooks]', 'jax[cuda12]')),
    (
      {'repository': 'https://a.b/c', 'files': ['/dev/accel0']},
      ('dalign-jax[notebooks] @ git+https://a.b/c', 'jax[tpu]'),
    ),
  ],
)
def test_install_takes_what_is_there(monkeypatch, found, asked):
  assert _installed(monkeypatch, **found) == asked


def test_install_says_what_to_do_where_nothing_is_found(monkeypatch):
  with pytest.raises(FileNotFoundError, match='next to this notebook, or set REPOSITORY'):
    _installed(monkeypatch)


def test_install_is_the_same_in_all_and_names_the_repository_of_the_package():
  cells = {
    execute.read(name).cells[execute.tagged(execute.read(name), 'install')].source
    for name in NOTEBOOKS
  }
  [cell] = cells
  assert f"\nREPOSITORY = '{execute.repository()}'" in cell

"""Executes the notebooks of this folder: `python colab/execute.py [--small] [NAME ...]`.

Needs nbclient and ipykernel. Without --small, outputs are stored in the notebooks, with the SHA-256
of the code that they are of. With --small, everything is smaller and nothing is stored: so that CI
can run the notebooks as a stranger would, from a wheel next to them.
"""

import argparse
import hashlib
import pathlib
import tomllib

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent
SMALL = {  # notebook -> what --small runs after its cell of parameters
  'quickstart': "NUM_EPOCHS, MAX_EXAMPLES, METHODS = 2, 1000, {'head_only': {}}",
  'losses_in_your_loop': 'BATCH = 32',
  'forgetting_a_person': 'NUM_EPOCHS = 2',
  'your_model_and_a_request': 'NUM_EPOCHS = 6',
}


def code_digest(notebook: nbformat.NotebookNode) -> str:
  """SHA-256 of all code of a notebook."""
  code = '\0'.join(cell.source for cell in notebook.cells if cell.cell_type == 'code')
  return hashlib.sha256(code.encode()).hexdigest()


def read(name: str) -> nbformat.NotebookNode:
  """The notebook of that name."""
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> int:
  """The number of the one cell with a tag."""
  [number] = [i for i, cell in enumerate(notebook.cells) if tag in cell.metadata.get('tags', ())]
  return number


def execute(name: str, small: bool) -> nbformat.NotebookNode:
  """The notebook with new outputs; raises where a cell fails."""
  notebook = read(name)
  if small:
    cell = nbformat.v4.new_code_cell(SMALL[name])
    notebook.cells.insert(tagged(notebook, 'parameters') + 1, cell)
  resources = {'metadata': {'path': FOLDER}}
  nbclient.NotebookClient(
    notebook, timeout=3600, coalesce_streams=True, record_timing=False, resources=resources
  ).execute()
  return notebook


def without_warnings(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
  """Without what went to stderr: words of the machine, such as a slow compilation."""
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
  return notebook


def repository() -> str:
  """The address of the repository in the package's metadata, or ''."""
  project = tomllib.loads((FOLDER.parent / 'pyproject.toml').read_text(encoding='utf-8'))['project']
  return project.get('urls', {}).get('Repository', '')


def store(name: str) -> None:
  """Executes a notebook and writes it with its outputs, the digest and the repository's address."""
  path = FOLDER / f'{name}.ipynb'
  notebook = read(name)
  cell = notebook.cells[tagged(notebook, 'install')]
  lines = cell.source.splitlines()
  [number] = [i for i, line in enumerate(lines) if line.startswith('REPOSITORY = ')]
  lines[number] = f"REPOSITORY = '{repository()}'  # any git address of the library"
  cell.source = '\n'.join(lines)
  nbformat.write(notebook, path)
  notebook = without_warnings(execute(name, small=False))
  notebook.metadata = {
    'accelerator': 'GPU',
    'colab': {'name': path.name},
    'dalign_jax': {'outputs_of_code': code_digest(notebook)},
    'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
    'language_info': {'name': 'python'},
  }
  nbformat.write(notebook, path)


def main() -> None:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('names', nargs='*', default=list(SMALL), help='notebooks, by default all')
  parser.add_argument('--small', action='store_true', help='run small, store nothing')
  options = parser.parse_args()
  for name in options.names:
    print(name, flush=True)
    if options.small:
      execute(name, small=True)
    else:
      store(name)


if __name__ == '__main__':
  main()

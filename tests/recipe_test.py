"""The recipe of CONTRIBUTING adds a method: in a copy, its steps are followed to the letter."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COPIED = ('dalign_jax', 'experiments', 'tests', 'pyproject.toml')


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
  """A copy of the repository with the method of CONTRIBUTING in it."""
  folder = tmp_path_factory.mktemp('copy')
  for name in COPIED:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    else:
      shutil.copy(ROOT / name, folder / name)
  text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  method, import_line, table_line = re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)[:3]
  path = re.search(r'Write one file, `(.*?)`', text).group(1)
  (folder / path).write_text(method, encoding='utf-8')
  table = folder / 'dalign_jax' / 'methods' / '__init__.py'
  lines = table.read_text(encoding='utf-8').splitlines(keepends=True)
  start = next(i for i, line in enumerate(lines) if line.startswith('METHODS'))
  first = next(i for i, line in enumerate(lines) if line.startswith('from dalign_jax.methods.'))
  changed = [
    *lines[:first],
    import_line,
    *lines[first : start + 1],
    table_line,
    *lines[start + 1 :],
  ]
  table.write_text(''.join(changed), encoding='utf-8')
  return folder


def _run(folder, *arguments):
  result = subprocess.run(
    [sys.executable, '-m', *arguments],
    cwd=folder,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


@pytest.mark.slow
def test_added_method_keeps_the_contract(copy):
  contract = 'tests/methods_contract_test.py'
  out = _run(
    copy, 'pytest', '-q', '-p', 'no:cacheprovider', contract, '-k', 'noisy and not finetune'
  )
  assert re.search(r'5 passed, 3 skipped', out), out


@pytest.mark.slow
def test_added_method_runs_from_the_command_line(copy, tmp_path):
  setting = '--hparam=noisy.scale=0.1'
  assert setting in (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  flags = ('--dataset=digits', '--width_multiplier=0.125', '--num_epochs=2', '--batch_size=64')
  own = ('--methods=noisy', setting, f'--workdir={tmp_path}', '--cache_dir=')
  _run(copy, 'experiments.run', *flags, *own)
  text = (tmp_path / 'digits-cnn-class_3' / 'report.md').read_text(encoding='utf-8')
  assert '| noisy,scale=0.1' in text and '| nothing |' in text

"""What a release claims: versions agree, badges are true, a wheel is the repository."""

import importlib.util
import pathlib
import re
import tomllib
import zipfile

import pytest

import dalign_jax

ROOT = pathlib.Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location('wheel', ROOT / '.ci/wheel.py')
wheel_lib = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(wheel_lib)
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']


def _read(name):
  return (ROOT / name).read_text(encoding='utf-8')


def test_version_is_one():
  version = dalign_jax.__version__
  assert f'\nversion: {version}\n' in _read('CITATION.cff')
  newest = re.search(r'^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$', _read('CHANGELOG.md'), re.M)
  assert newest[1] == version


def test_python_versions_are_those_that_are_tested():
  tested = re.findall(
    r"'(3\.\d+)'", re.search(r'python: \[.*\]', _read('.github/workflows/tests.yml'))[0]
  )
  prefix = 'Programming Language :: Python :: 3.'
  assert tested == [c.split(' :: ')[-1] for c in PROJECT['classifiers'] if c.startswith(prefix)]
  assert PROJECT['requires-python'] == f'>={tested[0]}'
  for page in ('README.md', 'docs/index.md'):
    assert f'Python {tested[0]} to {tested[-1]}' in _read(page)
  assert f'python-{"%20%7C%20".join(tested)}-' in _read('README.md')
  assert PROJECT['license'] == 'Apache-2.0' and 'license-Apache--2.0-' in _read('README.md')


@pytest.fixture
def packed(tmp_path):
  """A folder with two tracked files, and a function that packs a wheel of other contents."""
  (tmp_path / 'dalign_jax').mkdir()
  names = ['dalign_jax/a.py', 'dalign_jax/b.py']
  for name in names:
    (tmp_path / name).write_text(name)

  def pack(**contents):
    with zipfile.ZipFile(tmp_path / 'x.whl', 'w') as archive:
      archive.writestr('dalign_jax-1.dist-info/METADATA', 'Version: 1')
      for name, text in contents.items():
        archive.writestr(f'dalign_jax/{name}.py', text)
    return wheel_lib.differences(tmp_path / 'x.whl', tmp_path, names)

  return pack


def test_wheel_is_compared_with_the_repository(packed):
  assert packed(a='dalign_jax/a.py', b='dalign_jax/b.py') == []
  assert packed(a='edited', c='') == [
    'dalign_jax/b.py: not in the wheel',
    'dalign_jax/c.py: not in the repository',
    'dalign_jax/a.py: other bytes',
  ]


def test_release_needs_its_version_and_a_date(tmp_path):
  for name in ('dalign_jax/__init__.py', 'CITATION.cff', 'CHANGELOG.md'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    text = re.sub(r'\(unreleased\)', '(2030-01-02)', _read(name))
    (tmp_path / name).write_text(text, encoding='utf-8')
  assert wheel_lib.unready(tmp_path, dalign_jax.__version__) == []
  assert len(wheel_lib.unready(tmp_path, '9.9.9')) == 3
  text = _read('CHANGELOG.md').replace(f'{dalign_jax.__version__} (', '9.9.9 (')
  (tmp_path / 'CHANGELOG.md').write_text(text, encoding='utf-8')
  [line] = wheel_lib.unready(tmp_path, dalign_jax.__version__)
  assert line.startswith('CHANGELOG.md: ')

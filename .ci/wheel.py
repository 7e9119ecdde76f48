"""A wheel compared with the repository: `python .ci/wheel.py WHEEL`, or `--tag v0.2.0`.

With --tag, the tag is cloned into a temporary folder and built there, and must carry its version in
the package, in CITATION.cff and in a dated section of CHANGELOG.md. Exit code 1 and a line for each
difference. Needs git and, with --tag, the package build.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).parents[1]


def differences(wheel: pathlib.Path, root: pathlib.Path, tracked: list[str]) -> list[str]:
  """What the wheel lacks, has besides, or has with other bytes than the tracked files."""
  with zipfile.ZipFile(wheel) as archive:
    packed = {n: archive.read(n) for n in archive.namelist() if '.dist-info/' not in n}
  found = [f'{name}: not in the wheel' for name in tracked if name not in packed]
  found += [f'{name}: not in the repository' for name in packed if name not in tracked]
  same = lambda name: packed[name] == (root / name).read_bytes()
  return found + [f'{n}: other bytes' for n in tracked if n in packed and not same(n)]


def unready(root: pathlib.Path, version: str) -> list[str]:
  """Which files of a release do not carry its version."""
  wanted = {
    'dalign_jax/__init__.py': rf"^__version__ = '{re.escape(version)}'$",
    'CITATION.cff': rf'^version: {re.escape(version)}$',
    'CHANGELOG.md': rf'^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$',
  }
  return [
    f'{name}: no line matches {pattern}'
    for name, pattern in wanted.items()
    if not re.search(pattern, (root / name).read_text(encoding='utf-8'), flags=re.MULTILINE)
  ]


def tracked_files(root: pathlib.Path) -> list[str]:
  """The package's files under version control."""
  command = ['git', 'ls-files', 'dalign_jax']
  return subprocess.run(
    command, cwd=root, check=True, capture_output=True, text=True
  ).stdout.split()


def _of_tag(tag: str, folder: pathlib.Path) -> list[str]:
  clone = ['git', '-c', 'advice.detachedHead=false', 'clone', '--quiet', '--depth=1']
  subprocess.run([*clone, f'--branch={tag}', f'file://{ROOT}', folder], check=True)
  build = [sys.executable, '-m', 'build', '--wheel', folder]
  subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
  [wheel] = (folder / 'dist').glob('*.whl')
  return unready(folder, tag.removeprefix('v')) + differences(wheel, folder, tracked_files(folder))


def main() -> int:
  """Parses the command line; 1 where something differs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('wheel', nargs='?', type=pathlib.Path, help='of the working tree')
  parser.add_argument('--tag', help='a tag to clone, build and compare')
  options = parser.parse_args()
  if bool(options.wheel) == bool(options.tag):
    parser.error('pass a wheel or --tag')
  if options.tag:
    with tempfile.TemporaryDirectory() as folder:
      found = _of_tag(options.tag, pathlib.Path(folder))
  else:
    found = differences(options.wheel, ROOT, tracked_files(ROOT))
  print('\n'.join(found) or 'the wheel is the repository')
  return 1 if found else 0


if __name__ == '__main__':
  sys.exit(main())

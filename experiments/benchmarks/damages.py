"""Damaged files: each file that a command leaves, damaged in each way, and the command again.

python -m experiments.benchmarks.damages --output=damages.jsonl

Tiny work folders are made by the commands' own functions: finished ones, and some that were stopped
on the way. Every file in them is tried, one of each kind, so a new kind of file is tried as soon as
a command writes it. An outcome is right if the command refuses in one line that names the file or
its folder and says what to do; if it makes the file again, and says so; if it writes the file
anyway; or if it does not read it and gives the same results. Everything else is wrong: a traceback,
other results, silence. SVG files are written, but not drawn, which takes most of a report's time.

Each outcome is a line of the output file as soon as it is known, and the same command goes on
behind the last line; --only_print shows the table of the file.
"""

import collections
from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
from typing import Any, NamedTuple
from unittest import mock
import zipfile

from absl import app, flags, logging
import jax
import numpy as np

from dalign_jax import checkpoints, errors
from experiments.benchmarks import damages_places
from experiments.report import svg

RIGHT = ('refused', 'made again', 'written anyway', 'not read', 'said')
_TIMES = ('seconds', 'compile_seconds', 'time_ratio')
_REMEDY = re.compile(r'delete|copy|left out|run evaluate')


class Outcome(NamedTuple):
  """What a command did with a damaged file; `why` is what it said, or what was wrong."""

  place: str
  command: str
  kind: str
  damage: str
  found: str
  why: str


def _arrays_of_other_shape(data: bytes) -> bytes:
  """The same arrays, each with another axis."""
  out = io.BytesIO()
  if data[:2] == b'PK':
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      np.savez(out, **{name: np.stack([array] * 2) for name, array in arrays.items()})
  else:
    np.save(out, np.stack([np.load(io.BytesIO(data), allow_pickle=False)] * 2))
  return out.getvalue()


def _other_shape(data: bytes) -> bytes:
  """The same names with other things under them, as far as the file has names."""
  try:
    return _arrays_of_other_shape(data)
  except (ValueError, EOFError, OSError, zipfile.BadZipFile):
    pass
  try:
    value = json.loads(data)
  except ValueError:
    return b'\n'.join(line[: len(line) // 2] for line in data.split(b'\n'))
  return json.dumps({k: [] for k in value} if isinstance(value, dict) else {'0': value}).encode()


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
  'missing': lambda data: None,
  'empty': lambda data: b'',
  'zeroed': lambda data: b'\0' * len(data),
  'cut': lambda data: data[: len(data) // 2],
  'rubbish': lambda data: np.random.default_rng(0).bytes(len(data)),
  'a list': lambda data: b'[1, 2]',
  'an empty object': lambda data: b'{}',
  'other shape': _other_shape,
  'levels': lambda data: b'[' * 200_000 + b']' * 200_000,
}


def kind(path: pathlib.Path) -> str:
  """What a file is, whatever its numbers, hashes and labels are."""
  text = re.sub(r'^digits-cnn-[^/]+/', 'problem/', path.as_posix())
  text = re.sub(r'[0-9a-f]{12,}', '*', text)
  text = re.sub(r'(runs|search)/[^/]+/', r'\1/*/', text)
  return re.sub(r'\d+', '#', text)


def kinds(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """One file of every kind in a folder, by kind."""
  found: dict[str, pathlib.Path] = {}
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    found.setdefault(kind(path.relative_to(folder)), path)
  return found


def outcomes(
  place: damages_places.Place,
  damages: Mapping[str, Callable] = DAMAGES,
  skipped: Collection[str] = (),
  done: Collection[tuple[str, str, str]] = (),
) -> Iterator[Outcome]:
  """Every kind of file of a place, damaged in every way, for every command.

  Args:
    place: is as it was, afterwards.
    damages: by name.
    skipped: kinds that are not tried.
    done: command, kind and damage of outcomes that are known.
  """
  with tempfile.TemporaryDirectory() as aside:
    copy = pathlib.Path(aside) / 'copy'
    shutil.copytree(place.folder, copy)
    for command, run in place.commands.items():
      todo = {
        (name, damage): path
        for name, path in kinds(place.folder).items()
        for damage in damages
        if name not in skipped and (command, name, damage) not in done
      }
      if not todo:
        continue
      before = _contents(place.folder)
      with contextlib.redirect_stdout(io.StringIO()):
        run()
      after = _contents(place.folder)
      written = {p for p in {*before, *after} if before.get(p) != after.get(p)}
      expected = results(place.folder)
      _restore(copy, place.folder)
      for (name, damage), path in todo.items():
        data = damages[damage](path.read_bytes())
        found, why = _try(place, run, path, data, path in written, expected)
        yield Outcome(place.name, command, name, damage, found, why)
        _restore(copy, place.folder)
      jax.clear_caches()  # programs of one command are shared, and kept no longer


def _contents(folder):
  """Files with their time of change, which tells whether they were written."""
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def _restore(copy, folder):
  shutil.rmtree(folder)
  shutil.copytree(copy, folder)


def results(folder: pathlib.Path) -> dict[str, Any]:
  """The numbers of a folder's tables, without times, and the models of its records."""
  found: dict[str, Any] = {}
  for path in sorted(folder.rglob('report.csv')):
    with contextlib.suppress(ValueError, csv.Error):
      rows = csv.DictReader(path.read_text(encoding='utf-8').splitlines())
      name = str(path.relative_to(folder))
      found[name] = [{k: v for k, v in row.items() if k not in _TIMES} for row in rows]
  for path in sorted(p.parent / 'model' for p in folder.rglob('record.json')):
    with contextlib.suppress(errors.InputError):
      found[str(path.relative_to(folder))] = checkpoints.read_record(path).get('digest')
  return found


def _try(place, run, path, data, is_written, expected) -> tuple[str, str]:
  """Damages a file and runs a command: what it did, and why that is right or wrong."""
  if data is None:
    path.unlink()
  else:
    path.write_bytes(data)
  said = io.StringIO()
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      run()
  except errors.InputError as error:
    return _refusal(place, path, str(error))
  except Exception as error:  # what it is about: a traceback
    return 'wrong', f'{type(error).__name__}: {error}'[:300]
  there = path.read_bytes() if path.exists() else None
  names = [line for line in said.getvalue().splitlines() if _names(line, path, place)]
  same = results(place.folder) == expected
  if is_written and same:
    return 'written anyway', ''
  if there != data and not is_written:
    made = data is None or bool(names)  # a file that is missing is made: nothing to be said
    return ('made again' if made else 'wrong'), (names or ['made again, but not said'])[0]
  if same:
    return 'not read', ''
  return ('said' if names else 'wrong'), (names or ['other results, and nothing said'])[0]


def _refusal(place, path, text):
  if '\n' in text:
    return 'wrong', f'several lines: {text}'
  if not _names(text, path, place):
    return 'wrong', f'it does not name the file: {text}'
  return ('refused' if _REMEDY.search(text) else 'wrong'), text


def _names(text, path, place) -> bool:
  """Whether a line names a file, or a folder that holds it and is no whole work folder."""
  folders = [p for p in path.parents if place.folder in p.parents]
  return any(str(p) in text for p in (path, *folders))


def table(found: list[Outcome]) -> str:
  """Kinds and their outcomes, as Markdown; `wrong` is the last column."""
  lines = ['| folder | command | file | ' + ' | '.join((*RIGHT, 'wrong')) + ' |']
  lines += ['|---' * (4 + len(RIGHT)) + '|']
  counts: dict[tuple, collections.Counter] = {}
  for outcome in found:
    of_kind = counts.setdefault(outcome[:3], collections.Counter())
    of_kind[outcome.found] += 1
  for (place, command, name), of_kind in counts.items():
    cells = [str(of_kind[what] or '') for what in RIGHT] + [str(of_kind['wrong'])]
    lines.append(f'| {place} | {command} | `{name}` | ' + ' | '.join(cells) + ' |')
  total = collections.Counter(outcome.found for outcome in found)
  cells = [str(total[what]) for what in (*RIGHT, 'wrong')]
  return '\n'.join([*lines, f'| all | | {len(counts)} | ' + ' | '.join(cells) + ' |'])


def read(path: pathlib.Path) -> list[Outcome]:
  """The outcomes that a file lists; none where there is no file."""
  lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
  return [Outcome(**json.loads(line)) for line in lines]


def define_flags() -> None:
  """Defines the flags: not on import, since other benchmarks have some of the same names."""
  flags.DEFINE_string('output', 'damages.jsonl', 'File of outcomes.')
  flags.DEFINE_boolean('only_print', False, 'Print the table of the output file.')
  flags.DEFINE_list('places', [], 'Work folders to try; empty: all.')
  flags.DEFINE_list('damages', [], 'Damages to try; empty: all.')


def main(argv) -> None:
  """Makes the places, tries everything and prints the table."""
  del argv
  logging.set_verbosity(logging.FATAL)
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  path = pathlib.Path(flags.FLAGS.output)
  found = read(path)
  damages = {name: DAMAGES[name] for name in flags.FLAGS.damages or DAMAGES}
  places = () if flags.FLAGS.only_print else flags.FLAGS.places or tuple(damages_places.MAKERS)
  undrawn = mock.patch.object(svg, 'draw', lambda chart: '<svg/>')
  with undrawn, tempfile.TemporaryDirectory() as root:
    for name in places:
      with contextlib.redirect_stdout(io.StringIO()):
        place = damages_places.MAKERS[name](pathlib.Path(root) / name)
      others = {outcome.kind for outcome in found if outcome.place != place.name}
      done = {outcome[1:4] for outcome in found if outcome.place == place.name}
      for outcome in outcomes(place, damages, others if place.only_new else (), done):
        found.append(outcome)
        with open(path, 'a', encoding='utf-8') as file:
          file.write(json.dumps(outcome._asdict()) + '\n')
        if outcome.found == 'wrong':
          print('wrong:', *outcome, sep=' | ', flush=True)
      print(f'{place.name}: {len(found)} outcomes so far', flush=True)
  print(table(found))
  if any(outcome.found == 'wrong' for outcome in found):
    sys.exit(1)


if __name__ == '__main__':
  define_flags()
  app.run(main)

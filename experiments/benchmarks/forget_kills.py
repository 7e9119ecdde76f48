"""Kills of a deletion request before its file operations: what is left, and how it goes on.

python -m experiments.benchmarks.forget_kills --trials=100 --output=kills.json

Kills `experiments.forget` on a tiny problem before random file operations (`file_kills`), starts it
again, compares model, metrics and verdict with those of a request that nobody killed, and searches
every file for pixels, thumbnails, features and outputs of the forgotten samples. With --output, it
goes on where it was stopped.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from absl import app, flags, logging
import numpy as np

from experiments.benchmarks import file_kills

FLAGS = flags.FLAGS
_MOST_STARTS = 5


def _forget(place, folder, at: int) -> subprocess.CompletedProcess:
  """`experiments.forget`, killed before a file operation; 0: to its end."""
  (folder / 'tmp').mkdir(exist_ok=True)
  module, watched = 'experiments.benchmarks.file_kills', str(folder)
  return subprocess.run(
    [sys.executable, '-m', module, str(at), watched, *file_kills.command(place, folder)],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'TMPDIR': str(folder / 'tmp')},
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )


def trial(place: pathlib.Path, at: int, expected: dict, wanted: list[bytes]) -> tuple[str, bool]:
  """One kill of `forget`: what was wrong, and whether the kill itself had left something behind."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    file_kills.write_caches(place, folder / 'cache')
    killed = _forget(place, folder, at)
    if killed.returncode != -signal.SIGKILL:
      return f'not killed: {killed.returncode}: {killed.stderr[-300:]}', False
    left = bool(file_kills.holding(folder, wanted))
    for _ in range(_MOST_STARTS):
      if (folder / 'out').exists():
        break
      again = _forget(place, folder, 0)
    if not (folder / 'out').exists():
      return f'it does not go on: {again.stderr[-300:]}', left
    (folder / 'count').unlink(missing_ok=True)
    if file_kills.record_of(folder) != expected:
      return 'other bits', left
    found = file_kills.holding(folder, wanted)
    if found:
      return f'left behind: {found}', left
    others = {p.name for p in folder.iterdir()} - {'out', 'cache', 'tmp', 'record_keys'}
    return f'left behind: {sorted(others)}' if others else '', left


def main(argv) -> None:
  """Kills `forget` and prints what came of it."""
  del argv
  logging.set_verbosity(logging.FATAL)
  rng = np.random.default_rng(FLAGS.seed)
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    file_kills.write_place(place)
    wanted = file_kills.patterns(place)
    whole = place / 'whole'
    whole.mkdir()
    file_kills.write_caches(place, whole / 'cache')
    done = _forget(place, whole, 0)
    if done.returncode:
      raise RuntimeError(f'forget: {done.stderr[-500:]}')
    total = int((whole / 'count').read_text(encoding='utf-8'))
    expected = file_kills.record_of(whole)
    print(f'forget: {total} file operations; verdict: {expected["verdict"]["word"]}', flush=True)
    count, path = min(FLAGS.trials, total), pathlib.Path(FLAGS.output or os.devnull)
    said = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    same = said.get('operations') == total and said.get('model') == expected['model']['after']
    trials = said['trials'] if same else []  # of a run that was stopped
    for at in rng.permutation(np.arange(1, total + 1))[:count]:
      if any(done['operation'] == at for done in trials):
        continue
      fault, left = trial(place, int(at), expected, wanted)
      trials.append({'operation': int(at), 'fault': fault, 'left_before': left})
      print(
        f'{len(trials)}/{count} operation {at}: {fault or "same bits, nothing left"}', flush=True
      )
      if FLAGS.output:
        found = {'operations': total, 'model': expected['model']['after'], 'trials': trials}
        path.write_text(json.dumps(found), encoding='utf-8')
  faults = [done for done in trials if done['fault']]
  left = sum(done['left_before'] for done in trials)
  print(f'{len(trials)} kills, {left} left something until the command was run again')
  print(json.dumps(faults, indent=2))
  if faults:
    sys.exit(1)


def _define() -> None:
  flags.DEFINE_integer('trials', 100, 'Kills, before different file operations.')
  flags.DEFINE_string('output', '', 'JSON file for the results; empty: none.')
  flags.DEFINE_integer('seed', 0, 'Seed of the moments.')


if __name__ == '__main__':
  _define()
  app.run(main)

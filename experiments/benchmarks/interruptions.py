"""Interruptions: commands that are stopped at random moments and go on to the same bits.

python -m experiments.benchmarks.interruptions --trials=100 --output=interruptions.json

Each trial starts `experiments.run`, `.tune` or `.sweep` on a tiny problem, sends it SIGINT, SIGTERM
or SIGKILL at a random moment, starts the same command again until it ends, and compares the digests
of all models with those of a run that nobody stopped.

python -m experiments.benchmarks.interruptions --commands=forget --trials=100

kills `experiments.forget` before random file operations (`file_kills`), starts it again, compares
model, metrics and verdict, and searches every file for pixels, thumbnails, features and outputs of
the forgotten samples. With --output, it goes on where it was stopped.
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags, logging
import numpy as np

from experiments.benchmarks import file_kills

_TRIALS = flags.DEFINE_integer('trials', 100, 'Interruptions, over all commands and signals.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file for the results; empty: none.')
_COMMANDS = flags.DEFINE_list('commands', ['run', 'tune', 'sweep'], 'Commands to stop, or forget.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of signals and moments.')

TINY = (
  *('--dataset=digits', '--width_multiplier=0.125', '--num_epochs=6', '--batch_size=64'),
  *('--num_devices=1', '--methods=finetune', '--hparam=finetune.num_epochs=2'),
)
COMMANDS = {
  'run': ('experiments.run', *TINY),
  'tune': ('experiments.tune', *TINY, '--num_trials=2'),
  'sweep': ('experiments.sweep', *TINY, '--scenario=class:1', '--scenario=class:2'),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
CODES = {signal.SIGINT: (130,), signal.SIGTERM: (143,), signal.SIGKILL: (-9,)}
_MOST_STARTS = 5


def start(name: str, folder: pathlib.Path) -> subprocess.Popen:
  """Starts a command that works in a folder."""
  module, *arguments = COMMANDS[name]
  return subprocess.Popen(
    [sys.executable, '-m', module, *arguments, f'--workdir={folder}'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def digests(folder: pathlib.Path) -> dict[str, str]:
  """The digest of every finished model of a folder, by its path."""
  from dalign_jax import checkpoints

  paths = [p for name in ('model', 'unlearned') for p in folder.rglob(name) if p.is_dir()]
  found = {str(p.relative_to(folder)): p for p in paths if checkpoints.exists(p)}
  return {name: checkpoints.restore(path)[1]['digest'] for name, path in sorted(found.items())}


def trial(name: str, number: signal.Signals, seconds: float, expected: dict[str, str]) -> str:
  """One interruption; what was wrong, empty for nothing."""
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    process = start(name, folder)
    time.sleep(seconds)
    process.send_signal(number)
    text, _ = process.communicate(timeout=300)
    if process.returncode not in (0, *CODES[number]):
      return f'exit code {process.returncode} after {number.name}: {text[-300:]}'
    if 'Traceback' in text:
      return f'a traceback after {number.name}: {text[-300:]}'
    for _ in range(_MOST_STARTS):
      process = start(name, folder)
      text, _ = process.communicate(timeout=600)
      if process.returncode == 0:
        break
    else:
      return f'it does not go on: {text[-300:]}'
    return '' if digests(folder) == expected else 'other bits'


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


def forget_trial(
  place: pathlib.Path, at: int, expected: dict, wanted: list[bytes]
) -> tuple[str, bool]:
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


def forget_main(rng: np.random.Generator) -> None:
  """Kills `forget` and prints what came of it."""
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
    count, path = min(_TRIALS.value, total), pathlib.Path(_OUTPUT.value or os.devnull)
    said = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    same = said.get('operations') == total and said.get('model') == expected['model']['after']
    trials = said['trials'] if same else []  # of a run that was stopped
    for at in rng.permutation(np.arange(1, total + 1))[:count]:
      if any(done['operation'] == at for done in trials):
        continue
      fault, left = forget_trial(place, int(at), expected, wanted)
      trials.append({'operation': int(at), 'fault': fault, 'left_before': left})
      print(
        f'{len(trials)}/{count} operation {at}: {fault or "same bits, nothing left"}', flush=True
      )
      if _OUTPUT.value:
        found = {'operations': total, 'model': expected['model']['after'], 'trials': trials}
        path.write_text(json.dumps(found), encoding='utf-8')
  faults = [done for done in trials if done['fault']]
  left = sum(done['left_before'] for done in trials)
  print(f'{len(trials)} kills, {left} left something until the command was run again')
  print(json.dumps(faults, indent=2))
  if faults:
    sys.exit(1)


def main(argv) -> None:
  """Runs the trials and prints a table."""
  del argv
  logging.set_verbosity(logging.FATAL)
  rng = np.random.default_rng(_SEED.value)
  if _COMMANDS.value == ['forget']:
    forget_main(rng)
    return
  expected, lengths = {}, {}
  for name in _COMMANDS.value:
    with tempfile.TemporaryDirectory() as place:
      begin = time.monotonic()
      text, _ = start(name, pathlib.Path(place)).communicate()
      lengths[name] = time.monotonic() - begin
      expected[name] = digests(pathlib.Path(place))
      if not expected[name]:
        raise RuntimeError(f'{name} made no model: {text[-500:]}')
  counts, faults = collections.Counter(), []
  for index in range(_TRIALS.value):
    name = _COMMANDS.value[index % len(_COMMANDS.value)]
    number = SIGNALS[index // len(_COMMANDS.value) % len(SIGNALS)]
    moment = rng.uniform(0.5, lengths[name])
    fault = trial(name, number, moment, expected[name])
    counts[name, number.name] += 1
    if fault:
      faults.append({'command': name, 'signal': number.name, 'after': moment, 'fault': fault})
    print(
      f'{index + 1}/{_TRIALS.value} {name} {number.name} {moment:.1f} s: {fault or "same bits"}'
    )
    sys.stdout.flush()
  table = [{'command': c, 'signal': s, 'trials': n} for (c, s), n in sorted(counts.items())]
  print(json.dumps({'trials': table, 'faults': faults}, indent=2))
  if _OUTPUT.value:
    pathlib.Path(_OUTPUT.value).write_text(json.dumps({'trials': table, 'faults': faults}))
  if faults:
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)

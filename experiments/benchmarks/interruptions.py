"""Interruptions: commands that are stopped at random moments and go on to the same bits.

python -m experiments.benchmarks.interruptions --trials=100 --output=interruptions.jsonl

Each trial starts `experiments.run`, `.tune` or `.sweep` on a tiny problem and stops it at a random
moment: SIGINT goes to all its processes, as a terminal sends it; SIGTERM and SIGKILL to the command
alone. A command that had ended before is started anew and stopped earlier. Then the same command
must end well at its first start, and leave the models, evaluations and files of a run that nobody
stopped. A trial is a line of the output file as soon as it is done: the same command goes on behind
the last line, and a larger --trials adds to them. --only_print shows the table of the file.
"""

import collections
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import app, flags, logging
import numpy as np

TINY = (
  *('--dataset=digits', '--width_multiplier=0.125', '--num_epochs=6', '--batch_size=64'),
  *('--num_devices=1', '--methods=finetune', '--hparam=finetune.num_epochs=2'),
)
COMMANDS = {
  'run': ('experiments.run', *TINY),
  'tune': ('experiments.tune', *TINY, '--num_trials=2', '--num_tuning_seeds=1'),
  'sweep': ('experiments.sweep', *TINY, '--scenario=class:1'),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
_OF_ORBAX = re.compile(r'/(model|unlearned)/\d+/')  # its own files have random names
_LEAST_SECONDS = 0.5  # so long a command has no handler of signals yet


class Stopped(NamedTuple):
  """How a command ended that was sent a signal: its exit code and what it said."""

  code: int
  text: str


def start(name: str, folder: pathlib.Path) -> subprocess.Popen:
  """Starts a command that works in a folder, in a process group of its own."""
  module, *arguments = COMMANDS[name]
  return subprocess.Popen(
    [sys.executable, '-m', module, *arguments, f'--workdir={folder}'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def stop(process: subprocess.Popen, number: signal.Signals, seconds: float) -> Stopped:
  """Sends a signal after some seconds, and waits for the end."""
  try:
    process.wait(seconds)
  except subprocess.TimeoutExpired:
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
  text, _ = process.communicate(timeout=300)
  return Stopped(process.returncode, text)


def results(folder: pathlib.Path) -> dict[str, str]:
  """What a command leaves: digests of models and evaluations, and the names of all files."""
  from dalign_jax import checkpoints

  found = {}
  for path in folder.rglob('*'):
    name = str(path.relative_to(folder))
    if path.name in ('model', 'unlearned') and checkpoints.exists(path):
      found[name] = checkpoints.read_record(path)['digest']
    elif path.name in ('evaluation.json', 'splits.npz', 'plots.npz'):
      found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    elif path.is_file() and not _OF_ORBAX.search(name):
      found[name] = 'a file'
  return found


def trial(
  name: str, number: signal.Signals, seconds: float, expected: dict[str, str]
) -> tuple[float, str]:
  """One interruption: the second at which it came, and what was wrong, empty for nothing."""
  while True:
    with tempfile.TemporaryDirectory() as place:
      folder = pathlib.Path(place)
      stopped = stop(start(name, folder), number, seconds)
      if stopped.code == 0:  # it had ended before
        seconds *= 0.7
        continue
      return seconds, _fault(name, number, folder, stopped, expected)


def _fault(name, number, folder, stopped, expected):
  is_early = not any(folder.iterdir())  # Python itself was starting: the signal's default
  early = (-number, 1) if is_early else ()
  if stopped.code not in (CODES[number], *early):
    return f'exit code {stopped.code} after {number.name}: {stopped.text[-500:]}'
  if 'Traceback' in stopped.text and not is_early:
    return f'a traceback after {number.name}: {stopped.text[-500:]}'
  again = start(name, folder)
  text, _ = again.communicate(timeout=900)
  if again.returncode:
    return f'it does not go on: {text[-500:]}'
  found = results(folder)
  other = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
  return f'other results: {", ".join(other)}' if other else ''


def reference(name: str) -> dict:
  """A command that nobody stops: its results and its seconds."""
  with tempfile.TemporaryDirectory() as place:
    begin = time.monotonic()
    text, _ = start(name, pathlib.Path(place)).communicate()
    seconds, found = time.monotonic() - begin, results(pathlib.Path(place))
  if not any(path.endswith('model') for path in found):
    raise RuntimeError(f'{name} made no model: {text[-500:]}')
  return {'reference': name, 'seconds': seconds, 'results': found}


def read(path: pathlib.Path) -> tuple[dict[str, dict], list[dict]]:
  """The references by command, and the trials that are done."""
  lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
  found = [json.loads(line) for line in lines]
  references = {line['reference']: line for line in found if 'reference' in line}
  return references, [line for line in found if 'trial' in line]


def table(trials: list[dict]) -> str:
  """Trials and faults by command and signal."""
  counts = collections.Counter((t['command'], t['signal']) for t in trials)
  wrong = collections.Counter((t['command'], t['signal']) for t in trials if t['fault'])
  lines = ['| command | signal | interruptions | wrong |', '|---|---|---|---|']
  lines += [f'| {c} | {s} | {n} | {wrong[c, s]} |' for (c, s), n in sorted(counts.items())]
  return '\n'.join([*lines, f'| all | | {len(trials)} | {sum(wrong.values())} |'])


def _write_line(path, line):
  with open(path, 'a', encoding='utf-8') as file:
    file.write(json.dumps(line) + '\n')


def define_flags() -> None:
  """Defines the flags: not on import, since other benchmarks have some of the same names."""
  flags.DEFINE_integer('trials', 100, 'Interruptions, over all commands and signals.')
  flags.DEFINE_string('output', 'interruptions.jsonl', 'File of finished trials.')
  flags.DEFINE_integer('seed', 0, 'Seed of the moments.')
  flags.DEFINE_boolean('only_print', False, 'Print the table of the output file.')


def main(argv) -> None:
  """Runs the trials that the file lacks and prints the table."""
  del argv
  logging.set_verbosity(logging.FATAL)
  path = pathlib.Path(flags.FLAGS.output)
  references, done = read(path)
  for index in range(len(done), 0 if flags.FLAGS.only_print else flags.FLAGS.trials):
    name = list(COMMANDS)[index % len(COMMANDS)]
    number = SIGNALS[index // len(COMMANDS) % len(SIGNALS)]
    if name not in references:
      references[name] = reference(name)
      _write_line(path, references[name])
    last = references[name]['seconds']
    moment = np.random.default_rng([flags.FLAGS.seed, index]).uniform(_LEAST_SECONDS, last)
    moment, fault = trial(name, number, moment, references[name]['results'])
    line = {'trial': index, 'command': name, 'signal': number.name, 'after': moment, 'fault': fault}
    _write_line(path, line)
    done.append(line)
    shown = f'{name} {number.name} {moment:.1f} s: {fault or "same bits"}'
    print(f'{index + 1}/{flags.FLAGS.trials} {shown}', flush=True)
  print(table(done))
  if any(line['fault'] for line in done):
    sys.exit(1)


if __name__ == '__main__':
  define_flags()
  app.run(main)

"""What a run tells while it works: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
import contextlib
import json
import pathlib
import shutil
import sys
import time

from rich import progress

from dalign_jax import checkpoints, parallel, types

_LINE_EVERY_SECONDS = 10.0


def say(text: str = '') -> None:
  """Prints a line, on the main process only."""
  if parallel.is_main_process():
    print(text, flush=True)


class _Quiet:
  def update(self, done: int, total: int, note: str) -> None:
    del done, total, note


class _Lines(_Quiet):
  def __init__(self, title: str):
    self._title, self._start = title, time.monotonic()
    self._next = self._start + _LINE_EVERY_SECONDS

  def update(self, done, total, note):
    now = time.monotonic()
    if now < self._next or not done:
      return
    self._next = now + _LINE_EVERY_SECONDS
    rate = done / (now - self._start)
    left = (total - done) / rate
    say(f'  {self._title}: {done}/{total} {note}, {rate:.1f}/s, {left:.0f} s left')


class _Bar(_Quiet):
  def __init__(self, bars: progress.Progress, title: str):
    self._bars, self._task = bars, bars.add_task(title, total=None, note='')

  def update(self, done, total, note):
    self._bars.update(self._task, completed=done, total=total, note=note)


@contextlib.contextmanager
def bar(title: str) -> Iterator[_Quiet]:
  """Shows progress with rate and remaining time: `update(done, total, note)`."""
  if not parallel.is_main_process():
    yield _Quiet()
  elif not sys.stdout.isatty():
    yield _Lines(title)
  else:
    columns = (
      progress.TextColumn('  {task.description}'),
      progress.BarColumn(),
      progress.MofNCompleteColumn(),
      progress.TextColumn('{task.fields[note]}'),
      progress.TimeElapsedColumn(),
      progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, transient=True) as bars:
      yield _Bar(bars, title)


class RunMonitor(types.Monitor):
  """Shows a run's progress, writes `train.jsonl`, and keeps its states in `training/`.

  A run that was stopped goes on at the last finished epoch; the seconds of its earlier parts are
  counted in.
  """

  def __init__(self, folder: pathlib.Path, shown: _Quiet, compile_seconds: Callable[[], float]):
    self._folder, self._shown = folder, shown
    self._compile_seconds = compile_seconds
    self._compile_start = compile_seconds()
    self._start = time.monotonic()
    self._earlier = {'seconds': 0.0, 'compile_seconds': 0.0}
    self._num_epochs, self._epoch = 1, 0

  def seconds(self) -> dict[str, float]:
    """Wall time so far without compilation, and the time of compilation."""
    compiling = self._compile_seconds() - self._compile_start
    return {
      'seconds': self._earlier['seconds'] + time.monotonic() - self._start - compiling,
      'compile_seconds': self._earlier['compile_seconds'] + compiling,
    }

  def restore(self, template):
    found = checkpoints.restore_training(self._folder / 'training', template)
    finished = found[0] if found else 0
    self._cut_log(finished)
    if not found:
      return None
    self._earlier = found[2]
    say(f'  resuming after epoch {finished}')
    self._epoch = finished
    return finished, found[1]

  def on_start(self, num_epochs):
    self._num_epochs = num_epochs

  def on_step(self, phase, done, total):
    self._shown.update(
      self._epoch * total + done,
      self._num_epochs * total,
      f'steps, epoch {self._epoch + 1}/{self._num_epochs} ({phase})',
    )

  def on_epoch(self, epoch, get_state, metrics):
    self._epoch = epoch + 1
    if not parallel.is_main_process():
      return
    spent = self.seconds()
    record = {'epoch': epoch + 1, **metrics, 'seconds': round(spent['seconds'], 3)}
    with open(self._folder / 'train.jsonl', 'a', encoding='utf-8') as log:
      log.write(json.dumps(record) + '\n')
    checkpoints.save_training(self._folder / 'training', epoch + 1, get_state(), spent)

  def close(self) -> None:
    """Drops the training states: the run is finished and its model saved."""
    if parallel.is_main_process():
      shutil.rmtree(self._folder / 'training', ignore_errors=True)

  def _cut_log(self, finished: int) -> None:
    """Drops the lines of epochs that will be run again."""
    if not parallel.is_main_process():
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / 'train.jsonl'
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
    path.write_text(''.join(f'{line}\n' for line in lines[:finished]), encoding='utf-8')

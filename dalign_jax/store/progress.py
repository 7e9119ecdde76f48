"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
import contextlib
import json
import math
import pathlib
import shutil
import sys
import time

from rich import progress, text

from dalign_jax import checkpoints, errors, flop, parallel, stopping, types
from dalign_jax.store import files, tensorboard

_FIRST_LINE_SECONDS, _LINE_EVERY_SECONDS = 2.0, 10.0
_is_muted = False


def mute() -> None:
  """From now on this process prints results and no progress (`--quiet`)."""
  global _is_muted
  _is_muted = True


def say(line: str = '') -> None:
  """Prints a line of progress, on the main process only."""
  if not _is_muted:
    tell(line)


def tell(line: str) -> None:
  """Prints a line of results or a warning, on the main process only."""
  if parallel.is_main_process():
    print(line, flush=True)


class Quiet:
  """Shows nothing; the interface of what shows progress."""

  def update(self, done: int, total: int, note: str) -> None:
    del done, total, note


class _Muted(Quiet):
  def update(self, done, total, note):
    stopping.check()


class _Lines(Quiet):
  def __init__(self, title: str):
    self._title, self._start = title, time.monotonic()
    self._next = self._start + _FIRST_LINE_SECONDS

  def update(self, done, total, note):
    stopping.check()
    now = time.monotonic()
    if now < self._next or not done:
      return
    self._next = now + _LINE_EVERY_SECONDS
    rate = done / (now - self._start)
    left = (total - done) / rate
    say(f'  {self._title}: {done}/{total} {note}, {rate:.1f}/s, {left:.0f} s left')


class _Rate(progress.ProgressColumn):
  def render(self, task):
    return text.Text(f'{task.speed:.1f}/s' if task.speed else '')


class _Bar(Quiet):
  def __init__(self, bars: progress.Progress, title: str):
    self._bars, self._task = bars, bars.add_task(title, total=None, note='')

  def update(self, done, total, note):
    stopping.check()
    self._bars.update(self._task, completed=done, total=total, note=note)


@contextlib.contextmanager
def bar(title: str) -> Iterator[Quiet]:
  """Shows progress with rate and remaining time: `update(done, total, note)`."""
  if not parallel.is_main_process():
    yield Quiet()
  elif _is_muted:
    yield _Muted()
  elif not sys.stdout.isatty():
    yield _Lines(title)
  else:
    columns = (
      progress.TextColumn('  {task.description}'),
      progress.BarColumn(),
      progress.MofNCompleteColumn(),
      _Rate(),
      progress.TextColumn('{task.fields[note]}'),
      progress.TimeElapsedColumn(),
      progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, transient=True) as bars:
      yield _Bar(bars, title)


def _as_table(made_with: dict) -> str:
  """Settings in two columns of Markdown; those of `hparams` one by one."""
  nested = made_with.get('hparams', {})
  every = {**{k: v for k, v in made_with.items() if k != 'hparams'}, **nested}
  lines = [f'| {key} | {value} |' for key, value in every.items()]
  return '\n'.join(['| setting | value |', '|---|---|', *lines])


class RunMonitor(types.Monitor):
  """Shows a run's progress, writes `train.jsonl`, and keeps its states in `training/`.

  Arrays that a method gives go to `<name>.npz` next to its model.

  A run that was stopped goes on at the last finished epoch; the seconds of its earlier parts are
  counted in. It is refused if it was started with other settings or on other devices, since it
  would not arrive at the same bits. With `tensorboard` it writes event files as well.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    shown: Quiet,
    compile_seconds: Callable[[], float],
    made_with: dict,
    tensorboard: bool = False,
  ):
    self._folder, self._shown, self._made_with = folder, shown, made_with
    self._compile_seconds = compile_seconds
    self._compile_start = compile_seconds()
    self._start, self._flop_start = time.monotonic(), flop.total()
    self._earlier = {'seconds': 0.0, 'compile_seconds': 0.0, 'flop': 0.0}
    self._first, self._epoch, self._num_epochs = 0, 0, 1
    self._totals: dict[str, int] = {}
    self._with_events, self._events = tensorboard, None

  def seconds(self) -> dict[str, float]:
    """Wall time so far without compilation, the time of compilation, and operations (`flop`)."""
    compiling = self._compile_seconds() - self._compile_start
    now = {
      'seconds': time.monotonic() - self._start - compiling,
      'compile_seconds': compiling,
      'flop': flop.total() - self._flop_start,
    }
    return {name: value + now[name] for name, value in self._earlier.items()}  # those known so far

  def restore(self, template):
    place = self._folder / 'training'
    there = checkpoints.training_metadata(place)
    if there:  # first: another optimizer has another state, which would count as damaged
      self._check_settings(there['made_with'])
    found = checkpoints.restore_training(place, template)
    finished = found[0] if found else 0
    if not found and place.is_dir() and any(place.iterdir()):
      say(f'  {place} has no state that can be read; starting over')
      if parallel.is_main_process():
        shutil.rmtree(place)
    if found:
      # What comes before the first epoch is in there, and was done again just now.
      self._earlier = found[2]['spent']
      self._start, self._flop_start = time.monotonic(), flop.total()
      self._compile_start = self._compile_seconds()
      self._first = self._epoch = finished
      say(f'  resuming after epoch {finished}')
    self._cut_log(finished)
    return (finished, found[1]) if found else None

  def on_start(self, num_epochs):
    self._num_epochs = num_epochs

  def on_step(self, phase, done, total):
    stopping.check()
    self._totals[phase] = total  # phases follow one another in this order, in every epoch
    phases = list(self._totals)
    within = sum(self._totals[p] for p in phases[: phases.index(phase)]) + done
    per_epoch = sum(self._totals.values())
    self._shown.update(
      (self._epoch - self._first) * per_epoch + within,
      (self._num_epochs - self._first) * per_epoch,
      f'steps, epoch {self._epoch + 1}/{self._num_epochs} ({phase})',
    )

  def on_arrays(self, name, get_arrays):
    if parallel.is_main_process():
      files.write_arrays(self._folder / f'{name}.npz', get_arrays())

  def on_epoch(self, epoch, get_state, metrics):
    self._epoch = epoch + 1
    if not parallel.is_main_process():
      return
    spent = self.seconds()
    metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
    record = {'epoch': epoch + 1, **metrics, 'seconds': round(spent['seconds'], 3)}
    with open(self._folder / 'train.jsonl', 'a', encoding='utf-8') as log:
      log.write(json.dumps(record) + '\n')
    if self._with_events:
      self._events = self._events or self._open_events()
      self._events.write(epoch + 1, metrics)
    metadata = {'spent': spent, 'made_with': self._made_with}
    checkpoints.save_training(self._folder / 'training', epoch + 1, get_state(), metadata)
    stopping.check()

  def _open_events(self) -> tensorboard.Writer:
    """Event files, with how the model is made as their first text."""
    events = tensorboard.Writer(self._folder, self._first)
    events.write_text('made with', _as_table(self._made_with))
    return events

  def close(self) -> None:
    """Drops the training states: the run is finished and its model saved."""
    if self._events:
      self._events.close()
    if parallel.is_main_process():
      shutil.rmtree(self._folder / 'training', ignore_errors=True)

  def _check_settings(self, there: dict) -> None:
    changed = [k for k, now in self._made_with.items() if there.get(k) != now]
    if changed:
      lines = [f'{k}: {there.get(k)!r} there, {self._made_with[k]!r} now' for k in changed]
      raise errors.InputError(
        f'the interrupted run in {self._folder} was started with other settings '
        f'({"; ".join(lines)}); go on with those, or delete its folder training/',
        argument='workdir',
      )

  def _cut_log(self, finished: int) -> None:
    """Drops the lines of epochs that will be run again."""
    if not parallel.is_main_process():
      return
    path = self._folder / 'train.jsonl'
    records = files.read_json_lines(path, keys=['epoch'])[0] if path.exists() else []
    records = records[:finished]
    if len(records) < finished:
      say(f'  {path} is damaged: it has {len(records)} of the {finished} epochs')
    files.write_text(path, ''.join(f'{json.dumps(record)}\n' for record in records))

"""Hyper-parameter search against a gold model that no table uses, by the rule of `score`.

Trials run in memory. A setting is tried on one original after the other, and successive halving
stops those that fall behind (`study`): after half of the epochs on the first original, and after
each original. The log is whole after each trial; a search that was stopped
goes on, and the same command in a second process takes part in it. The log says which settings no
other beats in both score and seconds (`front`).
"""

from collections.abc import Callable, Mapping
import csv
import dataclasses
import io
import pathlib
import time
from typing import Any

import numpy as np

from dalign_jax import errors, from_settings, hparams, methods, parallel, seeds, training, types
from dalign_jax.store import files, progress, timing
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders, subset_models
from experiments.tuning import ranges as ranges_lib
from experiments.tuning import score, study

_TIMES = ('seconds', 'compile_seconds')
_NAMES = ('method', 'trial', 'search_seed', 'setting', 'status')
_HEADS = (*_NAMES, 'front', 'score', 'scores', *score.METRICS, *_TIMES, 'hparam')

# Every setting is a program of its own. jax.pmap keeps what it compiled until the process ends, 3
# to 6 MiB a setting for the smallest network; with shard_map it goes when our caches drop it.
_MAPPING = 'shard_map'
_NOT_FINITE = 'outputs are not finite, or a measure is not defined'
_WORST = 1e6  # the score of these for the sampler, which does not learn from failures
_WAIT_SECONDS = 5.0  # after which it is tried again

Row = dict[str, str]  # a line of the log


def run(config: config_lib.Config, tuning: config_lib.Tuning) -> None:
  """Searches for every method of the configuration, and writes its log and its best setting.

  Raises:
    errors.InputError: for settings that cannot be followed, or a log of another search.
  """
  _check(config, tuning)
  parallel.use(_MAPPING)
  resolved = hparams.resolve(config.methods, config.hparam)
  judge = prepare_judge(config, tuning)
  job, folder = judge.job, judge.job.folder
  runs = [stages.Run.of(job, *item) for item in resolved.items()]  # raises before any trial
  if any(methods.SUBSETS in r.sees for r in runs):
    _when_free(lambda: subset_models.check(job))  # it has the lock of those that train them
    _when_free(lambda: subset_models.make(job))
  for name, values in judge.references.items():
    progress.say(f'{name}: {_describe(values)}')
  for method, values in resolved.items():
    _search(judge, method, values, tuning)
  with files.lock(folder / 'search'):
    _write_together(folder / 'search')


def tuning_folder(config: config_lib.Config) -> pathlib.Path:
  """Folder of the problem that a search for `config` works on."""
  folder = folders.problem_folder(config)
  return folder.with_name(f'{folder.name}-tuning')


def prepare_judge(config: config_lib.Config, tuning: config_lib.Tuning) -> score.Judge:
  """Trains originals and golds, unless they are there, in a problem folder of their own."""
  folder = tuning_folder(config)
  config = dataclasses.replace(
    config,
    problem=folder.name,
    original_seed=tuning.tuning_seed,
    gold_seed=tuning.tuning_seed,
    num_seeds=tuning.num_tuning_seeds,
    num_gold=2 * tuning.num_tuning_seeds,
    evaluation='standard',
  )
  trained = ('prepare', 'train_original', 'train_gold')
  _when_free(lambda: stages.run(dataclasses.replace(config, methods=(), stages=trained)))
  return score.Judge(stages.prepare(config, folder))


def _when_free(call: Callable[[], None]) -> None:
  """Does what another process of the search may be doing: waits for it, and finds it done."""
  is_said = False
  while True:
    try:
      return call()
    except errors.BusyError as busy:
      if not is_said:
        progress.say(f'waiting: {busy}')
      is_said = True
      time.sleep(_WAIT_SECONDS)


def _check(config, tuning):
  if config.num_processes > 1 or config.distributed != 'off':
    raise errors.InputError(
      'a search runs in one process; start the same command in several, and they share its trials',
      argument='distributed' if config.num_processes == 1 else 'num_processes',
    )
  used = [config.original_seed + i for i in range(config.seeds)]
  used += [config.gold_seed + i for i in range(config.golds)]
  first, last = tuning.tuning_seed, tuning.tuning_seed + 2 * tuning.num_tuning_seeds - 1
  if any(first <= seed <= last for seed in used):
    raise errors.InputError(
      f'{first} to {last} are for the search, and an original or a gold that tables '
      'are made with has one of them; choose another',
      argument='tuning_seed',
    )


def _settings(config) -> dict[str, Any]:
  """What a trial depends on besides its values: nothing of what is as usual."""
  usual = config_lib.Config()
  found = {name: getattr(config, name) for name in ('da_energy', 'evaluation_seed')}
  changed = {name: value for name, value in found.items() if value != getattr(usual, name)}
  return {'settings': from_settings.restriction(config) | changed or None}


def _search(judge, method, values, tuning):
  """Runs the trials of a method that its study lacks."""
  folder = judge.job.folder / 'search' / method
  fixed = hparams.given(method, judge.job.config.hparam)
  names = [name for name in values if name in fixed or name in ranges_lib.of(method)]
  trials = study.Study(folder, method, values, fixed, tuning, _settings(judge.job.config))
  while (trial := trials.next()) is not None:
    row = _trial(judge, method, trial, names, tuning)
    rows = _write_log(folder, trials)
    progress.say(f'{method} {trial.position + 1}: {_describe_row(row)} ({len(rows)} ended)')
  if not trials.rows():
    progress.say(f'{method}: another process is at work on its trials, and none has ended')
    return
  rows = _write_log(folder, trials)
  best = min(rows, key=_order, default=None)
  if best is None or best['status'] != 'ok':
    (folder / 'tuned.flags').unlink(missing_ok=True)
    progress.say(f'warning: no trial of {method} succeeded')
    return
  files.write_text(folder / 'tuned.flags', _flags(method, rows, best))
  progress.say(f'{method}: best {best["setting"]}, score {float(best["score"]):.4f}')
  for row in rows:
    if row['front'] and row is not best:
      progress.say(
        f'  in {float(row["seconds"]):.1f} s {float(row["score"]):.4f}: {row["setting"]}'
      )


def _trial(judge, method, trial, names, tuning) -> Row:
  """One setting: unlearns in memory, measures, and gives a line of the log."""
  row = {
    'method': method,
    'trial': trial.position,
    'search_seed': tuning.search_seed,
    'setting': _label(method, trial.values),
    'hparam': ' '.join(f'{name}={trial.values[name]}' for name in names),
  }
  watch, each, status = timing.Stopwatch(), [], 'ok'
  networks = len(judge.originals)
  try:
    for number in range(networks):
      halfway = _Halfway(judge, trial, watch) if number == 0 else types.Monitor()
      each.append(_measured(judge, method, trial.values, number, tuning, watch, halfway))
      score_ = score.mean(each)['score']
      if not np.isfinite(score_):
        status = _NOT_FINITE
        break
      if trial.falls_behind(score_, number + 1) and number + 1 < networks:
        status = f'stopped after {number + 1} of {networks} originals'
        break
  except _FallsBehindError as behind:
    status, each = 'stopped after half of the epochs', [behind.metrics]
  except training.NonFiniteLossError:
    status, each = _NOT_FINITE, [{'score': float('inf')}]
  except Exception as error:  # whatever it is, the search goes on
    status = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    each = [{'score': float('inf')}]
  values = score.mean(each)
  row |= {'status': status, **values, 'scores': ' '.join(f'{f["score"]:.4f}' for f in each)}
  row |= {name: f'{getattr(watch, name) / len(each):.3f}' for name in _TIMES}
  row = {head: str(row.get(head, '')) for head in _HEADS}
  stopped = status.startswith('stopped')
  told = values['score'] if status == 'ok' or stopped else None  # None: it has failed
  trial.end(row, _WORST if status == _NOT_FINITE else told, is_stopped=stopped)
  return row


class _FallsBehindError(Exception):
  """Successive halving stops a trial inside a run."""

  def __init__(self, metrics):
    super().__init__()
    self.metrics = metrics


class _Halfway(types.Monitor):
  """Measures a run after half of its epochs, and stops a trial that falls behind."""

  def __init__(self, judge: score.Judge, trial: study.Trial, watch: timing.Stopwatch):
    self._judge, self._trial, self._watch, self._epoch = judge, trial, watch, -1

  def on_start(self, num_epochs):
    self._epoch = num_epochs // 2 - 1  # -1 where there is one epoch, or none

  def on_epoch(self, epoch, get_state, metrics):
    del metrics
    if epoch != self._epoch:
      return
    with self._watch.stopped():
      found = self._judge.metrics(get_state().model)
    if self._trial.falls_behind(found['score'], 0):
      raise _FallsBehindError(found)


def _measured(judge, method, values, number, tuning, watch, monitor):
  """Measurements of one original after unlearning."""
  key = seeds.stream(tuning.tuning_seed, 'unlearn', number)
  job, run = judge.job, stages.Run.of(judge.job, method, values)
  needs_subsets = methods.SUBSETS in run.sees
  outputs = subset_models.outputs(job, job.sets['forget']) if needs_subsets else None
  with watch.running():
    problem = job.problem(judge.originals[number], subset_outputs=outputs, monitor=monitor)
    model = run.unlearn_fn(problem, key)
  return judge.metrics(model, number)


def _label(method, values) -> str:
  """A setting by what is not at its default, for variants too."""
  return hparams.label(hparams.method_of(method), values)


def _order(row) -> tuple:
  """Sort key of trials: the best trial has the smallest."""
  number = lambda name: float(row[name] or 'inf')
  return row['status'] != 'ok', number('score'), number('activation_distance'), int(row['trial'])


def _write_log(folder, trials) -> list[Row]:
  """The lines of all trials that have ended, in the log too."""
  with files.lock(folder):  # other processes write theirs
    rows = [{**row, 'front': 'yes' if on else ''} for row, on in _with_front(trials.rows())]
    files.write_text(folder / 'trials.csv', _to_csv(rows))
  return rows


def _with_front(rows) -> list[tuple[Row, bool]]:
  """Each line, and whether no other is better in score or seconds and as good in both."""
  point = lambda row: (float(row['score']), float(row['seconds']))
  points = {point(row) for row in rows if row['status'] == 'ok'}
  beaten = lambda p: any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
  return [(row, row['status'] == 'ok' and not beaten(point(row))) for row in rows]


def _rows(path) -> list[Row]:
  """The lines of a log.

  Raises:
    files.DamagedError: if it is none.
  """
  try:
    rows = list(csv.DictReader(io.StringIO(files.read_text(path))))
    if not rows:
      raise ValueError('it has no trials')
    for row in rows:
      missing = [name for name in _NAMES if row.get(name) is None]
      if missing or None in row:
        raise ValueError(f'a trial has no {missing[0]}' if missing else 'a trial has too much')
      _order(row)
  except (ValueError, KeyError, csv.Error) as error:
    if isinstance(error, files.DamagedError):
      raise
    raise files.DamagedError(path, error) from None
  return rows


def _to_csv(rows) -> str:
  out = io.StringIO()
  writer = csv.DictWriter(out, _HEADS, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


def _flags(method, rows, best) -> str:
  """A flag file for `experiments.run`, with what the search found."""
  defaults = next((f'{float(row["score"]):.4f}' for row in rows if row['trial'] == '0'), 'no score')
  return (
    f'# {method}: score {float(best["score"]):.4f} on validation, {defaults} with the defaults; '
    f'trial {best["trial"]} of {len(rows)}\n'
  ) + ''.join(f'--hparam={method}.{setting}\n' for setting in best['hparam'].split())


def _write_together(folder):
  """Log and flags of all methods that were searched so far."""
  found = sorted(folder.glob('*/trials.csv'))
  if not found:
    return  # the process that is at work on the trials will
  rows = [row for path in found for row in _rows(path)]
  files.write_text(folder / 'trials.csv', _to_csv(rows))
  flags = sorted(folder.glob('*/tuned.flags'))
  files.write_text(folder / 'tuned.flags', ''.join(map(files.read_text, flags)))
  progress.say(f'log: {folder / "trials.csv"}\nbest settings: {folder / "tuned.flags"}')


def _describe(values: Mapping[str, float]) -> str:
  return ', '.join(f'{name} {value:.3f}' for name, value in values.items())


def _describe_row(row) -> str:
  if row['status'] != 'ok':
    return f'{row["status"]}; {row["setting"]}'
  values = {name: float(row[name]) for name in ('score', *score.METRICS) if row[name]}
  return f'{row["seconds"]} s, {_describe(values)}; {row["setting"]}'

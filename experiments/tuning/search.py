"""Hyper-parameter search against a gold model that no table uses, by the rule of `score`.

A method's trials run in one process, in memory; its log is whole after each of them, and a search
that was stopped goes on behind the last.
"""

from collections.abc import Mapping
import csv
import dataclasses
import io
import itertools
import pathlib
import zlib

import numpy as np

from dalign_jax import errors, hparams, parallel, seeds
from dalign_jax.store import files, progress, timing
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders
from experiments.tuning import ranges as ranges_lib
from experiments.tuning import score

_TIMES = ('seconds', 'compile_seconds')
_NAMES = ('method', 'trial', 'search_seed', 'setting', 'status')
_HEADS = (*_NAMES, 'score', 'scores', *score.METRICS, *_TIMES)

# Every setting is a program of its own. jax.pmap keeps what it compiled until the process ends, 3
# to 6 MiB a setting for the smallest network; with shard_map it goes when our caches drop it.
_MAPPING = 'shard_map'

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
  for method, values in resolved.items():
    stages.Run.of(job, method, values)  # raises user errors before any trial
  for name, values in judge.references.items():
    progress.say(f'{name}: {_describe(values)}')
  for method, values in resolved.items():
    with files.lock(folder / 'search' / method):
      _search(judge, method, values, tuning)
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
  stages.run(dataclasses.replace(config, methods=(), stages=trained))
  return score.Judge(stages.prepare(config, folder))


def _check(config, tuning):
  if config.num_processes > 1:
    raise errors.InputError(
      'a search runs in one process; give each its --methods', argument='num_processes'
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


def settings(method: str, values: dict, fixed: set[str], tuning: config_lib.Tuning) -> list[dict]:
  """Settings tried for a method, in order: its defaults, then points of its ranges.

  Args:
    method: its name.
    values: hyper-parameters outside the search, and the first trial.
    fixed: names that are not searched, though they have a range.
    tuning: how many, and how. A smaller number gives the first of those of a larger one.
  """
  space = {n: r for n, r in ranges_lib.of(method).items() if n not in fixed}
  if not space:
    return [values]
  seed = [tuning.search_seed, zlib.crc32(method.encode())]
  if tuning.search == 'grid':
    points = list(itertools.product(*(r.levels() for r in space.values())))
    order = np.random.default_rng(seed).permutation(len(points))[: tuning.num_trials - 1]
    found = [dict(zip(space, points[i], strict=True)) for i in order]
  else:
    rngs = [np.random.default_rng([*seed, trial]) for trial in range(1, tuning.num_trials)]
    found = [{name: r.draw(rng) for name, r in space.items()} for rng in rngs]
  return [values, *({**values, **point} for point in found)]


def _search(judge, method, values, tuning):
  """Runs the trials of a method that its log lacks."""
  folder = judge.job.folder / 'search' / method
  fixed = hparams.given(method, judge.job.config.hparam)
  tried = settings(method, values, fixed, tuning)
  rows = _read_log(folder / 'trials.csv', method, tried, tuning)
  for trial in range(len(rows), len(tried)):
    rows.append(_trial(judge, method, trial, tried[trial], tuning))
    files.write_text(folder / 'trials.csv', _to_csv(rows))
    progress.say(f'{method} {trial + 1}/{len(tried)}: {_describe_row(rows[-1])}')
  best = min(rows, key=_order)
  if best['status'] != 'ok':
    (folder / 'tuned.flags').unlink(missing_ok=True)
    progress.say(f'warning: no trial of {method} succeeded')
    return
  names = [n for n in values if n in fixed or n in ranges_lib.of(method)]
  files.write_text(folder / 'tuned.flags', _flags(method, rows, best, tried, names))
  progress.say(f'{method}: best {best["setting"]}, score {float(best["score"]):.4f}')


def _trial(judge, method, trial, values, tuning) -> Row:
  """One setting: unlearns in memory, measures, and gives a line of the log."""
  row = {
    'method': method,
    'trial': trial,
    'search_seed': tuning.search_seed,
    'setting': _label(method, values),
  }
  watch = timing.Stopwatch()
  try:
    each = [
      _measured(judge, method, values, number, tuning, watch)
      for number in range(len(judge.originals))
    ]
    status = 'ok'
  except Exception as error:  # whatever it is, the search goes on
    status = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    each = [{'score': float('inf')}]
  values = score.mean(each)
  if status == 'ok' and not np.isfinite(values['score']):
    status = 'outputs are not finite'
  row |= {'status': status, **values, 'scores': ' '.join(f'{f["score"]:.4f}' for f in each)}
  row |= {name: f'{getattr(watch, name):.3f}' for name in _TIMES}
  return {head: str(row.get(head, '')) for head in _HEADS}


def _measured(judge, method, values, number, tuning, watch):
  """Measurements of one original after unlearning."""
  key = seeds.stream(tuning.tuning_seed, 'unlearn', number)
  with watch.running():
    run = stages.Run.of(judge.job, method, values)
    model = run.unlearn_fn(judge.job.problem(judge.originals[number]), key)
  return judge.metrics(model, number)


def _label(method, values) -> str:
  """A setting by what is not at its default, for variants too."""
  return hparams.label(hparams.method_of(method), values)


def _order(row) -> tuple:
  """Sort key of trials: the best trial has the smallest."""
  number = lambda name: float(row[name] or 'inf')
  return row['status'] != 'ok', number('score'), number('activation_distance'), int(row['trial'])


def _read_log(path, method, tried, tuning) -> list[Row]:
  """The finished trials of this very search."""
  if not path.exists():
    return []
  rows = _rows(path)
  for row, values in zip(rows, tried, strict=False):
    now = {'search_seed': str(tuning.search_seed), 'setting': _label(method, values)}
    there = {name: row.get(name) for name in now}
    if row.get('status') == 'ok':
      now['num_tuning_seeds'] = str(tuning.num_tuning_seeds)
      there['num_tuning_seeds'] = str(len(row.get('scores', '').split()))
    changed = [f'{k}: {there[k]} there, {v} now' for k, v in now.items() if there[k] != v]
    if changed:
      raise errors.InputError(
        f'{path} is the log of another search (trial {row.get("trial")}: '
        f'{"; ".join(changed)}); use another --problem, or delete it',
        argument='workdir',
      )
  return rows[: len(tried)]


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


def _flags(method, rows, best, tried, names) -> str:
  """A flag file for `experiments.run`, with what the search found."""
  values = tried[int(best['trial'])]
  first = float(rows[0]['score'])
  return (
    f'# {method}: score {float(best["score"]):.4f} on validation, {first:.4f} with the defaults; '
    f'trial {best["trial"]} of {len(rows)}\n'
  ) + ''.join(f'--hparam={method}.{name}={values[name]}\n' for name in names)


def _write_together(folder):
  """Log and flags of all methods that were searched so far."""
  found = sorted(folder.glob('*/trials.csv'))
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

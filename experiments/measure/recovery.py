"""What comes back: curves of every recovery procedure and model, for `--evaluation=recovery`.

Curves are kept next to each model, by the model's digest, after every procedure.
"""

from collections.abc import Sequence
import time

import numpy as np

from dalign_jax import evaluation, metrics
from dalign_jax.store import files, progress
from experiments.measure import models, seed_groups
from experiments.measure import recovery_procedures as procedures
from experiments.problem import preparation

FORMAT = 2  # to be raised when a procedure changes: its curves are made again
MOST_SEEDS = 3  # models of a group that procedures are run on
_FILE = 'recovery.json'


def _column(procedure: procedures.Procedure) -> evaluation.Measure:
  key = f'{procedure.key}_gap'
  return evaluation.Measure(
    key,
    procedure.head,
    f"{procedure.meaning} Area between the forget-accuracy curve and gold's, in units of a second "
    "gold's (mean over seeds; one image counts at least).",
    lambda values: values.get(key),
    digits=1,
    is_distance=True,
    part='recovery',
  )


MEASURES = tuple(map(_column, procedures.PROCEDURES))


def evaluate(job: preparation.Job, chosen: Sequence[seed_groups.Model]) -> None:
  """Runs every procedure on the models that have no curve of it yet, and says what it cost."""
  wanted = [(p, p.settings(job)) for p in procedures.PROCEDURES]
  wanted = [(p, settings) for p, settings in wanted if settings is not None]
  todo = [(m, p, s) for m in chosen for p, s in wanted if p.key not in _curves(job, m)]
  spent: dict[str, float] = {}
  with progress.bar('recovery') as shown:
    for done, (model, procedure, settings) in enumerate(todo):
      shown.update(done, len(todo), procedure.head)
      seconds = _run(job, model, procedure, settings)
      spent[procedure.head] = spent.get(procedure.head, 0.0) + seconds
  costs = ', '.join(f'{name} {seconds:.1f} s' for name, seconds in spent.items())
  progress.say(f'recovery: {len(todo)} curves ({costs})' if todo else 'recovery: done before')


def _run(job, model, procedure, settings) -> float:
  state, start = models.restore(job, model), time.monotonic()
  curve = procedure.run(job, state, **settings)
  seconds = time.monotonic() - start
  found = {'settings': settings, 'seconds': seconds}
  found |= {name: values.tolist() for name, values in curve._asdict().items()}
  curves = {**_curves(job, model), procedure.key: found}
  files.write_json(
    model.folder / _FILE, {'settings': _settings(job, model), 'values': {'curves': curves}}
  )
  return seconds


def _settings(job, model) -> dict:
  return {
    'format': FORMAT,
    'model': models.digest(job, model.checkpoint),
    'evaluation_seed': job.config.evaluation_seed,
  }


def _curves(job, model) -> dict[str, dict]:
  """The valid curves of a model, by procedure."""
  found = models.read_fresh(model.folder / _FILE, _settings(job, model)) or {}
  wanted = {p.key: p.settings(job) for p in procedures.PROCEDURES}
  return {k: c for k, c in found.get('curves', {}).items() if c['settings'] == wanted.get(k)}


def _of_group(job, group) -> list[dict[str, np.ndarray]]:
  """Accuracies of each member that procedures were run on."""
  members = group.members[: min(MOST_SEEDS, job.config.seeds)]
  return [{key: np.array(c['accuracies']) for key, c in _curves(job, m).items()} for m in members]


def read_values(job: preparation.Job, group: seed_groups.Group) -> list[dict[str, float]]:
  """The columns of each member, empty where nothing was run; none for gold itself."""
  _, gold, second = seed_groups.standing(job)
  golds, seconds, own = (_of_group(job, g) for g in (gold, second, group))
  found: list[dict[str, float]] = [{} for _ in group.members]
  if group.kind == 'gold':
    return found
  for procedure in procedures.PROCEDURES:
    key = procedure.key
    if not all(key in curves for curves in (*golds, *seconds, *own)):
      continue
    areas = [metrics.recovery_area(b[key], a[key]) for a, b in zip(golds, seconds, strict=True)]
    floor = max(float(np.mean(areas)), 1 / len(job.sets['forget']))
    for values, curve, of_gold in zip(found, own, golds, strict=False):
      values[f'{key}_gap'] = metrics.recovery_area(curve[key], of_gold[key]) / floor
  return found


def read_arrays(job: preparation.Job, group: seed_groups.Group) -> dict[str, np.ndarray]:
  """For plots: budgets, and accuracies `[seeds, B]`, of each procedure that was run."""
  own = _of_group(job, group)
  first = _curves(job, group.members[0])
  found = {}
  for key in first:
    if all(key in curves for curves in own):
      found[f'recovery_{key}'] = np.stack([curves[key] for curves in own])
      found[f'recovery_{key}_budgets'] = np.array(first[key]['budgets'])
  return found

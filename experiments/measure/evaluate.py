"""Evaluates original, gold and unlearned models, each against gold.

A line of the table is a group of models that differ in their seeds: each member is measured against
the gold of its number, and under `--evaluation=full` the group as a whole (`distributions`).
"""

import functools

import numpy as np

from dalign_jax import checkpoints, digests, errors, evaluation
from dalign_jax.store import files, progress
from experiments.measure import (
  audit,
  datamodel_margins,
  many_seeds,
  models,
  one_model,
  predictions,
  recovery,
  seed_groups,
  verdict,
)
from experiments.measure import rows as rows_lib
from experiments.problem import preparation

FORMAT = 8  # to be raised when a measure changes (a new one is noticed): evaluates again


def evaluate(job: preparation.Job, labels: list[str]) -> None:
  """Measures what has not been measured with the same settings yet.

  Args:
    job: the problem.
    labels: of the methods of this run.

  Raises:
    errors.InputError: if a model is missing.
  """
  found = [*seed_groups.standing(job), *(seed_groups.of_run(job, label, label) for label in labels)]
  is_whole = job.config.member < 0
  chosen = [(g, i) for g in found for i in (range(len(g.members)) if is_whole else job.members)]
  shadows = [m for g in found for m in g.shadows] if is_whole else []
  for model in [*(g.members[i] for g, i in chosen), *shadows]:
    if not checkpoints.exists(model.checkpoint):
      raise errors.InputError(
        f'no model in {model.checkpoint}; run its stage first', argument='stages'
      )
  outputs = functools.lru_cache(maxsize=4)(functools.partial(models.outputs, job))
  todo = [(g, i) for g, i in chosen if not _is_fresh(job, g, i)]
  todo.sort(key=lambda item: item[1])  # members of a number share original and gold
  with progress.bar('evaluate') as shown:
    for done, (group, number) in enumerate(todo):
      shown.update(done, len(todo), group.name)
      _evaluate_member(job, group, number, outputs)
  if job.config.has_recovery:
    audit.evaluate(job, sorted(chosen, key=lambda item: item[1]), outputs)
    recovery.evaluate(job, [g.members[i] for g, i in chosen if i < recovery.MOST_SEEDS])
  logits = _logits_of(job, found)
  whole = found if job.config.is_full and is_whole else []
  wide = [g for g in whole if not _is_group_fresh(job, g)]
  with progress.bar('evaluate groups') as shown:
    for done, group in enumerate(wide):
      shown.update(done, len(wide), group.name)
      _evaluate_group(job, group, logits)
  counts = f'{len(todo)} models' + (f', {len(wide)} groups' if job.config.is_full else '')
  progress.say(f'evaluate: {counts if todo or wide else "done before"}')


def read_rows(job: preparation.Job) -> rows_lib.Results:
  """The evaluated models of the problem: original, golds, then every run, by name.

  Runs whose evaluation is of other models or settings are left out, and said to be.
  """
  found, left_out = [], ''
  for group in [*seed_groups.standing(job), *seed_groups.runs(job)]:
    members = range(len(group.members))
    if not all(_is_fresh(job, group, i) for i in members):
      folder = group.members[0].folder
      left_out = left_out or folder
      progress.say(f'{folder}: evaluated with other settings, left out; run evaluate for it')
      continue
    found.append(_row(job, group))
  if [row.kind for row in found[:2]] != ['original', 'gold']:
    raise errors.InputError(
      f'{left_out or "original and gold"}: not evaluated with these settings; run evaluate first',
      argument='stages',
    )
  one_pass = found[0].record.get('flop', 0.0) / job.recipe.num_epochs
  for row in found:
    if one_pass and 'flop' in row.record:
      row.record['passes'] = row.record['flop'] / one_pass
  return rows_lib.Results(found)


def _row(job, group) -> rows_lib.Row:
  first = group.members[0]
  seeds = [files.read_json(m.folder / 'evaluation.json')['values'] for m in group.members]
  arrays = files.read_arrays(first.folder / 'plots.npz')
  if job.config.has_recovery:
    more = audit.read_values(job, group), recovery.read_values(job, group)
    seeds = [values | a | r for values, a, r in zip(seeds, *more, strict=True)]
    arrays |= recovery.read_arrays(job, group)
  found = {}
  if job.config.is_full and _is_group_fresh(job, group):
    found = files.read_json(group.file(job, '.json'))
    arrays |= files.read_arrays(group.file(job, '.npz'))
  records = [checkpoints.read_record(m.checkpoint) for m in group.members]
  costs = [k for k in ('seconds', 'compile_seconds', 'flop') if all(k in r for r in records)]
  times = {k: float(np.mean([r[k] for r in records])) for k in costs}
  return rows_lib.Row(
    group.name,
    'oracle' if 'gold' in records[0] else group.kind,
    tuple(seeds),
    {**records[0], **times},
    arrays,
    first.folder,
    found.get('values', {}),
    found.get('intervals', {}),
    tuple(m.folder for m in group.members),
  )


def _evaluate_member(job, group, number, outputs) -> None:
  original, gold = models.references(job, number)
  model = group.members[number]
  measured = outputs(model)
  values = one_model.scalars(
    job, measured, outputs(gold), outputs(original), is_gold=group.kind == 'gold'
  )
  kept = {  # files beside the evaluation, and what is in them
    verdict.FILE: verdict.representation(job, measured),
    predictions.FILE: predictions.reliability(
      model.folder, outputs(gold)['forget'].logits, job.sets['forget'].labels
    ),
    datamodel_margins.FILE: datamodel_margins.margins(
      model.folder, outputs(gold), outputs(original), job.sets
    ),
    'plots.npz': one_model.arrays(job, measured) if number == 0 else {},
  }
  kept = {name: arrays for name, arrays in kept.items() if arrays}
  for name, arrays in kept.items():
    files.write_arrays(model.folder / name, arrays)
  files.write_json(
    model.folder / 'evaluation.json',
    {
      'name': group.name,
      'kind': group.kind,
      'settings': _settings(job, model, number),
      'values': values,
      'arrays': {name: digests.of_tree(arrays) for name, arrays in kept.items()},
    },
  )


def _logits_of(job, groups):
  """A function that gives a model's logits, and keeps those of originals and golds alone."""
  once = functools.partial(models.logits, job)
  kept = functools.cache(once)
  standing = {model for group in groups[:3] for model in (*group.members, *group.shadows)}
  return lambda model, *names: (kept if model in standing else once)(model, *names)


def _evaluate_group(job, group, logits) -> None:
  original, gold, second = seed_groups.standing(job)
  result = many_seeds.measure(
    job,
    [logits(m) for m in group.members],
    [logits(m, ('forget',)) for m in group.shadows],
    original=[logits(m) for m in original.members],
    gold=[logits(m) for m in gold.members],
    references=[[logits(r) for r in second.members if r.folder != m.folder] for m in group.members],
    state=models.restore(job, group.members[0]),
    shadow=logits(original.shadows[0], ('forget', 'validation')),
    is_gold=group.kind == 'gold',
  )
  files.write_arrays(group.file(job, '.npz'), result.arrays)
  files.write_json(
    group.file(job, '.json'),
    {
      'settings': _group_settings(job, group),
      'values': result.values,
      'intervals': {k: rows_lib.mean_interval(v) for k, v in result.samples.items()},
      'arrays': digests.of_tree(result.arrays),
    },
  )


def _settings(job, model, number) -> dict:
  """The settings that an evaluation depends on."""
  original, gold = models.references(job, number)
  return {
    'format': FORMAT,
    'measures': [measure.key for measure in evaluation.MEASURES],
    'da_energy': job.config.da_energy,
    'evaluation_seed': job.config.evaluation_seed,
    'model': models.digest(job, model.checkpoint),
    'original': models.digest(job, original.checkpoint),
    'gold': models.digest(job, gold.checkpoint),
  }


def _group_settings(job, group) -> dict:
  used = [group, *seed_groups.standing(job)]
  return {
    'format': FORMAT,
    'measures': [measure.key for measure in many_seeds.MEASURES],
    'evaluation_seed': job.config.evaluation_seed,
    'relearn_epochs': job.config.relearn_epochs,
    'shadows': job.config.shadows,
    'models': [[models.digest(job, m.checkpoint) for m in (*g.members, *g.shadows)] for g in used],
  }


def _is_fresh(job, group, number) -> bool:
  model = group.members[number]
  there = _read(model.folder / 'evaluation.json')
  if there is None or there['settings'] != _settings(job, model, number):
    return False
  if there.get('kind') != group.kind:  # a control that somebody asks for now
    return False
  if not job.is_multi_label and not verdict.is_kept(model.folder):
    return False
  known = there.get('arrays')  # not in those of before it was kept
  if not isinstance(known, dict):
    return number > 0 or _is_whole(model.folder / 'plots.npz')
  return all(_is_whole(model.folder / name, digest) for name, digest in known.items())


def _is_group_fresh(job, group) -> bool:
  there = _read(group.file(job, '.json'))
  if there is None or there['settings'] != _group_settings(job, group):
    return False
  return _is_whole(group.file(job, '.npz'), there.get('arrays'))


def _is_whole(path, digest: str | None = None) -> bool:
  """Whether arrays can be read and have the digest, where it is known; says it if not."""
  try:
    found = files.read_arrays(path)
    if digest not in (None, digests.of_tree(found)):
      raise files.DamagedError(path, 'its arrays are not those that were measured')
  except FileNotFoundError:
    return False
  except files.DamagedError as error:
    progress.say(f'measured again: {error}')
    return False
  return True


def _read(path):
  """An evaluation; None where there is none, or one that cannot be read."""
  if not path.exists():
    return None
  try:
    return files.read_json(path, keys=['settings', 'values'])
  except files.DamagedError as error:
    progress.say(f'measured again: {error}')
    return None

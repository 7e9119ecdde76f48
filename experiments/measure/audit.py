"""Audits of single models for `--evaluation=recovery`: leakage, difficulty and groups, cached."""

from collections.abc import Callable
import time

import numpy as np

from dalign_jax import checkpoints, evaluation, influence, metrics, prediction
from dalign_jax.store import files, progress
from experiments.measure import audit_case, audit_columns, models, seed_groups
from experiments.problem import memorisation, preparation

FORMAT = 3  # to be raised when a column changes (a new one is noticed)
_FILE = 'audit.json'


def evaluate(
  job: preparation.Job,
  chosen: list[tuple[seed_groups.Group, int]],
  outputs: Callable[[seed_groups.Model], evaluation.Outputs],
) -> None:
  """Audits the members, by group and number, that have not been audited with these settings."""
  todo = [(g, i) for g, i in chosen if _read(job, g, i) is None]
  if not todo:
    return
  start = time.monotonic()
  scores = difficulty(job)
  with progress.bar('audit') as shown:
    for done, (group, number) in enumerate(todo):
      shown.update(done, len(todo), group.name)
      own, (original, gold) = group.members[number], models.references(job, number)
      of_model = models.case(
        job,
        outputs(own),
        outputs(original),
        None if group.kind == 'gold' else outputs(gold),
      )
      case = audit_case.Case(of_model=of_model, difficulty=scores)
      values = {m.key: m.compute(case) for m in audit_columns.MEASURES}
      found = {key: float(value) for key, value in values.items() if value is not None}
      files.write_json(
        own.folder / _FILE, {'settings': _settings(job, own, number), 'values': found}
      )
  progress.say(f'audit: {len(todo)} models, {time.monotonic() - start:.1f} s')


def read_values(job: preparation.Job, group: seed_groups.Group) -> list[dict[str, float]]:
  """The columns of each member; empty where it was not audited with these settings."""
  return [_read(job, group, i) or {} for i in range(len(group.members))]


def difficulty(job: preparation.Job) -> dict[str, np.ndarray]:
  """Scores of the forget examples by the first original, larger for harder ones; kept on disk.

  Entanglement is not defined where a forget class has no retain examples; memorisation scores are
  there once a run has asked for them (`--forget=memorised:...`).
  """
  first = seed_groups.standing(job)[0].members[0]
  path = job.folder / 'evaluation' / 'difficulty.npz'
  digest = np.array(models.digest(job, first.checkpoint))
  found = _kept(path, digest)
  if found is None:
    found = {'digest': digest, **_scores(job, first)}
    files.write_arrays(path, found)
  scores = {name: values for name, values in found.items() if name != 'digest'}
  memorised = memorisation.kept(job.config)
  if memorised is not None and memorised.data_hash == job.data_hash:
    memorisation.check_network(job)
    of_forget = memorised.values[job.split.forget]
    if np.isfinite(of_forget).all():
      scores['memorised'] = of_forget
  return scores


def _kept(path, digest):
  try:
    found = files.read_arrays(path, keys=['digest'])
  except (files.DamagedError, FileNotFoundError):
    return None
  return found if found['digest'] == digest else None


def _scores(job, model) -> dict[str, np.ndarray]:
  state, _ = checkpoints.restore(model.checkpoint, job.template)
  forget, retain = job.sets['forget'], job.sets['retain']
  options = {'devices': job.devices}
  scores = {
    'influential': influence.influence_scores(
      job.apply_fn, state, forget, job.sets['validation'], **options
    )
  }
  if not job.forgets_classes:
    features = [
      np.asarray(prediction.predict(job.apply_fn, state, d.images, **options).features)
      for d in (forget, retain)
    ]
    distances = metrics.entanglement_distances(
      features[0], forget.labels, features[1], retain.labels
    )
    scores['entangled'] = -distances
  return {name: np.nan_to_num(values) for name, values in scores.items()}


def _read(job, group, number):
  own = group.members[number]
  return models.read_fresh(own.folder / _FILE, _settings(job, own, number))


def _settings(job, own, number) -> dict:
  original, gold = models.references(job, number)
  first = seed_groups.standing(job)[0].members[0]
  return {
    'format': FORMAT,
    'measures': [m.key for m in audit_columns.MEASURES],
    'evaluation_seed': job.config.evaluation_seed,
    'has_memorisation': memorisation.is_kept(job.config),
    **{
      name: models.digest(job, model.checkpoint)
      for name, model in (
        ('model', own),
        ('original', original),
        ('gold', gold),
        ('difficulty', first),
      )
    },
  }

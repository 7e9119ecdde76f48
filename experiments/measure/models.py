"""Models of a problem as measurements need them: digests, states, outputs, references."""

import pathlib

import numpy as np

from dalign_jax import checkpoints, evaluation, prediction, types
from dalign_jax.store import files, progress
from experiments.measure import seed_groups
from experiments.problem import preparation


def digest(job: preparation.Job, checkpoint: pathlib.Path) -> str | None:
  """The digest in a model's record; None where there is no model."""
  if checkpoint not in job.digests and checkpoints.exists(checkpoint):
    job.digests[checkpoint] = checkpoints.read_record(checkpoint)['digest']
  return job.digests.get(checkpoint)


def restore(job: preparation.Job, model: seed_groups.Model) -> types.ModelState:
  """The model."""
  return checkpoints.restore(model.checkpoint, job.template)[0]


def outputs(job: preparation.Job, model: seed_groups.Model, names=None) -> dict[str, types.Outputs]:
  """Outputs on all sets or on those named."""
  state = restore(job, model)
  return {
    name: prediction.predict(job.apply_fn, state, job.sets[name].images, devices=job.devices)
    for name in names or job.sets
  }


def logits(job: preparation.Job, model: seed_groups.Model, names=None) -> dict[str, np.ndarray]:
  """Finite logits on all sets or on those named."""
  found = evaluation.finite(outputs(job, model, names))
  return {name: np.asarray(of_set.logits) for name, of_set in found.items()}


def references(job: preparation.Job, number: int) -> tuple[seed_groups.Model, seed_groups.Model]:
  """Original and gold that the member of this number is compared with."""
  original, gold, _ = seed_groups.standing(job)
  return original.members[number % len(original.members)], gold.members[number]


def case(
  job: preparation.Job,
  own: evaluation.Outputs,
  original: evaluation.Outputs,
  gold: evaluation.Outputs | None,
) -> evaluation.Case:
  """A model's outputs as the measures take them; `gold` is None for gold itself."""
  return evaluation.Case(
    sets=job.sets,
    outputs=own,
    original=original,
    gold=gold,
    num_classes=job.num_classes,
    forgotten_subclass=job.forgets_subclass,
    energy=job.config.da_energy,
    seed=job.config.evaluation_seed,
  )


def read_fresh(path: pathlib.Path, settings: dict) -> dict | None:
  """The `values` of a file of measurements; None unless it was made with these settings."""
  if not path.exists():
    return None
  try:
    found = files.read_json(path, keys=['settings', 'values'])
  except files.DamagedError as error:
    progress.say(f'measured again: {error}')
    return None
  return found['values'] if found['settings'] == settings else None

"""A dummy request: the same method, asked to forget as many retained samples.

What it does to the samples of the true request is the noise of the method: they are retained there.
"""

from collections.abc import Callable
import dataclasses
import pathlib

import jax
import numpy as np

from dalign_jax import checkpoints, errors, types
from dalign_jax.deletion import evidence
from dalign_jax.store import model_folder, progress

FOLDER = 'dummy'


def rows(problem: types.Problem, *, class_only: bool, seed: int) -> np.ndarray:
  """Rows of retain for a dummy request.

  As many as are to be forgotten, of the same classes where those are kept, and no more than half of
  what there is; for methods that forget whole classes, the class whose size is nearest.

  Args:
    problem: of the true request.
    class_only: whether the method forgets whole classes alone.
    seed: of the choice.
  """
  rng = np.random.default_rng(seed)
  forget, retain = problem.forget.labels, problem.retain.labels
  if class_only:
    classes, counts = np.unique(retain, return_counts=True)
    return np.flatnonzero(retain == classes[np.argmin(np.abs(counts - len(forget)))])
  order = rng.permutation(len(retain))
  wanted = min(len(forget), len(retain) // 2)
  if retain.ndim > 1:
    return np.sort(order[:wanted])
  chosen: list[int] = []
  for label, count in zip(*np.unique(forget, return_counts=True), strict=True):
    same = order[retain[order] == label]
    chosen += same[: min(count, len(same) // 2)].tolist()  # no class may go whole
  chosen = chosen[:wanted]
  rest = order[~np.isin(order, chosen)]
  return np.sort(np.concatenate([chosen, rest[: wanted - len(chosen)]]).astype(np.int64))


def problem_of(problem: types.Problem, chosen: np.ndarray) -> types.Problem:
  """The problem of a dummy request: the samples of the true one are retained."""
  retain = problem.retain.take(np.delete(np.arange(len(problem.retain)), chosen))
  return dataclasses.replace(
    problem,
    forget=problem.retain.take(chosen),
    retain=types.concatenate(retain, problem.forget),
  )


def make(
  folder: pathlib.Path,
  problem: types.Problem,
  chosen: np.ndarray,
  unlearn: Callable[..., types.ModelState],
  key: jax.Array,
  record: dict,
) -> types.ModelState | None:
  """The model of a dummy request; None if the method cannot forget these samples, or diverges.

  Args:
    folder: the hidden folder of the true request; the model is removed with it.
    problem: of the true request.
    chosen: by `rows`.
    unlearn: the method.
    key: random key, independent of that of the true request.
    record: what a model that is there already must have been made with.
  """

  def compute(monitor):
    return unlearn(dataclasses.replace(problem_of(problem, chosen), monitor=monitor), key)

  title = f'dummy request: {record["method"]}'
  try:
    model_folder.make_model(
      folder / FOLDER, 'model', compute, record, title, devices=problem.devices
    )
    model = checkpoints.restore(folder / FOLDER / 'model', problem.original)[0]
    if not evidence.is_finite(problem, model):
      raise errors.DivergedError('its outputs are not finite')
  except (types.DataError, errors.DivergedError) as error:
    progress.say(f'{title}: not possible, so the verdict is a quick one: {error}')
    return None
  return model

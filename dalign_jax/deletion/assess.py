"""The assessment of a request that was carried out: its verdict, with a dummy request."""

from collections.abc import Mapping
import pathlib
from typing import Any

from dalign_jax import data as data_lib
from dalign_jax import from_settings, methods, seeds, types
from dalign_jax.deletion import dummy_request, evidence, starting_point, verdict
from dalign_jax.store import files, model_folder

RESULT = 'verdict.json'  # in the hidden folder of a request


def verdict_of(
  problem: types.Problem,
  models: Mapping[str, types.ModelState],
  metrics: Mapping[str, Mapping[str, float]],
  basis: starting_point.StartingPoint,
  test: types.Dataset,
  record: dict,
  folder: pathlib.Path,
  mode: str,
) -> dict[str, Any]:
  """The verdict of a request, computed once.

  Args:
    problem: of the request.
    models: `before`, `after` and perhaps `gold`.
    metrics: of `evaluation.compare`.
    basis: where the request started.
    test: held-out data of classes that the model may know.
    record: what the model after was made with.
    folder: the hidden folder of the request.
    mode: `full` with a dummy request, `quick` without.
  """
  path = folder / RESULT
  made_with = {
    **{name: model_folder.digest(model) for name, model in models.items()},
    'mode': mode,
    'seed': basis.config.evaluation_seed,
    'energy': basis.config.da_energy,
    'held_out': data_lib.content_hash(test),
  }
  if path.is_file():
    found = files.read_json(path, keys=('made_with', 'verdict'))
    if found['made_with'] == made_with:
      return found['verdict']
  exact = record['method'] == 'retrain'
  dummy = None
  if mode == 'full' and not exact:
    dummy = _dummy(problem, basis, record, folder)
  measured = evidence.measure(
    problem,
    {**models, 'dummy': dummy} if dummy else models,
    test,
    metrics,
    exact=exact,
    seed=basis.config.evaluation_seed,
    counts={
      'retain_accuracy': len(basis.sets['train']) - len(problem.forget),
      'test_accuracy': len(basis.sets['test']),
    },
  )
  found = verdict.make(measured)
  files.write_json(path, {'made_with': made_with, 'verdict': found})
  return found


def _dummy(problem, basis, record, folder) -> types.ModelState | None:
  """The model of a dummy request, on a random stream of its own."""
  seed, number = basis.config.unlearn_seed, len(basis.chain)
  method = methods.METHODS[record['method']]
  chosen = dummy_request.rows(problem, class_only=method.class_only, seed=seed + number)
  return dummy_request.make(
    folder,
    problem,
    chosen,
    from_settings.method(basis.config, record['method'], record['hparams']),
    seeds.stream(seed, 'request_dummy', number),
    {**record, 'dummy': True},  # its rows follow from the request and the seed
  )

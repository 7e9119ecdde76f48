"""Outputs of the models trained on subsets that memorisation scores come from, for datamodels."""

import numpy as np

from dalign_jax import checkpoints, errors, parallel, prediction, types
from dalign_jax.store import files
from experiments.problem import memorisation, preparation

_FILE = 'outputs.npz'
_SETS = ('retain', 'forget', 'validation')


def outputs(job: preparation.Job, forget: types.Dataset) -> types.SubsetOutputs:
  """Outputs on a problem's examples of models trained on two thirds of its training data.

  The models are trained once for all requests on one training set, and their outputs kept beside
  them. Shadows could not take their place: each has half of the forget set, so that nothing says
  what the whole of it adds (`datamodels.effect`).

  Args:
    job: the problem.
    forget: its forget set, or of a shadow the half of it that the shadow has seen.

  Raises:
    errors.InputError: if the models were not trained on these examples: of poisoned data, or of
      requests with other held-out rows.
  """
  make(job)
  path = _path(job)
  found = files.read_arrays(path, keys=['rows', 'is_trained', 'logits', 'data_hash'])
  return _of_problem(job, found, np.isin(job.sets['forget'].ids, forget.ids))


def make(job: preparation.Job) -> None:
  """Trains the models of subsets and keeps their outputs, unless they are there.

  Before a method runs, which would be charged for it.

  Raises:
    errors.InputError: as `outputs`.
    errors.BusyError: if another process makes them.
  """
  _check_problem(job)
  if not parallel.agree(_path(job).exists()):
    _make(job, _path(job))


def _path(job):
  return memorisation.folder_of(job.config) / _FILE


def check(job: preparation.Job) -> None:
  """Checks, before any training, what `outputs` needs.

  Raises:
    errors.InputError: as `outputs`.
  """
  _check_problem(job)
  with memorisation.prepared(job.config, 'subsets') as whole:
    trained, own = (np.concatenate([j.split.retain, j.split.forget]) for j in (whole, job))
    is_kept = np.isin(job.split.validation, whole.split.validation).all()
  if not is_kept or not np.array_equal(np.sort(own), np.sort(trained)):
    raise _other_examples(job)


def _check_problem(job):
  memorisation.check_count(job.config)
  if job.poison is not None or job.watched is not None:
    raise errors.InputError(
      f'models of subsets are trained on the data as they are, which --forget={job.config.forget} '
      'changes',
      argument='methods',
    )
  memorisation.check_network(job)


def _other_examples(job) -> errors.InputError:
  return errors.InputError(
    f'the models of subsets in {memorisation.folder_of(job.config)} are trained on other examples '
    'than this problem has',
    argument='methods',
  )


def _make(job, path):
  with memorisation.prepared(job.config, 'outputs') as whole:
    folders, is_trained = memorisation.models(whole, whole.folder)
    if parallel.is_main_process():
      images = [whole.sets[name].images for name in _SETS]
      logits = [_logits(whole, folder, images) for folder in folders]
      rows = np.concatenate([getattr(whole.split, name) for name in _SETS])
      arrays = {'rows': rows, 'is_trained': is_trained, 'logits': np.stack(logits)}
      files.write_arrays(path, {**arrays, 'data_hash': np.array(whole.data_hash)})
    parallel.barrier('outputs')


def _logits(job, folder, images) -> np.ndarray:
  model, _ = checkpoints.restore(folder / 'model', job.template)
  predict = lambda of_set: prediction.predict(job.apply_fn, model, of_set, devices=job.devices)
  return np.concatenate([predict(of_set).logits for of_set in images])


def _of_problem(job, found, is_seen) -> types.SubsetOutputs:
  """The outputs in the order of a problem's own sets, without forget rows that were not seen."""
  order = {row: place for place, row in enumerate(found['rows'].tolist())}
  wanted = {name: getattr(job.split, name).tolist() for name in _SETS}
  trained = [*wanted['retain'], *wanted['forget']]
  count = found['is_trained'].shape[1]
  is_same = sorted(trained) == sorted(found['rows'][:count].tolist())
  is_same &= set(wanted['validation']) <= order.keys()
  if not is_same or str(found['data_hash']) != job.data_hash:
    raise _other_examples(job)
  trained = [*wanted['retain'], *job.split.forget[is_seen].tolist()]
  places = [order[row] for row in (*trained, *wanted['validation'])]
  return types.SubsetOutputs(
    found['is_trained'][:, places[: len(trained)]], found['logits'][:, places]
  )

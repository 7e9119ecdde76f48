"""Scores of training images that forget requests choose by: one entry of `SCORES` each."""

from collections.abc import Callable

import numpy as np

from dalign_jax import checkpoints, influence, metrics, parallel, prediction, seeds
from experiments import config as config_lib
from experiments.problem import ensembles, memorisation

_MODELS = 3  # trained on all training images; their scores are averaged


def _entanglement(job, model, dataset) -> np.ndarray:
  """Minus the mean distance to the training images of the same class, in feature space."""
  outputs = prediction.predict(job.apply_fn, model, dataset.images, devices=job.devices)
  features = np.nan_to_num(np.asarray(outputs.features))
  labels = dataset.labels  # each image is among its class: a distance of 0, alike for all of it
  return -metrics.entanglement_distances(features, labels, features, labels)


def _influence(job, model, dataset) -> np.ndarray:
  """Gradient dot product with the validation loss."""
  validation = job.sets['validation']
  return influence.influence_scores(job.apply_fn, model, dataset, validation, devices=job.devices)


def _of_models(kind: str, measure: Callable) -> Callable:
  """Scores of a kind, averaged over models trained on all training images."""

  def scores(config: config_lib.Config) -> memorisation.Scores:
    return memorisation.stored(config, f'{kind}.npz', kind, compute)

  def compute(job, folder):
    dataset = job.training_set
    folders = {k: folder / 'difficulty' / f'seed_{k}' for k in range(_MODELS)}
    everything = {k: np.arange(len(dataset)) for k in folders}
    keys = {k: seeds.stream(k, 'difficulty') for k in folders}
    ensembles.make_ensemble(job, 'difficulty', folders, keys, dataset, everything)
    if not parallel.is_main_process():
      return None
    found = []
    for of_model in folders.values():
      model, _ = checkpoints.restore(of_model / 'model', job.template)
      found.append(measure(job, model, dataset))
    return np.mean(found, axis=0)

  return scores


SCORES: dict[str, Callable[[config_lib.Config], memorisation.Scores]] = {
  'memorised': memorisation.scores,
  'entangled': _of_models('entangled', _entanglement),
  'influential': _of_models('influential', _influence),
}

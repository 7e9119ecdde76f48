"""SISA: an ensemble that forgets exactly, by retraining the shards that held the rows."""

from collections.abc import Callable, Collection
import dataclasses
import hashlib

import jax
import numpy as np
from scipy import special

from dalign_jax import data as data_lib
from dalign_jax import errors, parallel, prediction, seeds, training, types


@dataclasses.dataclass(frozen=True)
class Sisa:
  """Sharded, isolated, sliced, aggregated training: its settings.

  Each row belongs to one shard and one slice of it, by a hash of its id: where a row is does not
  depend on which other rows there are. A shard's model is trained on its first slice, then on the
  first two, and so on, with a checkpoint before each.

  Attributes:
    apply_fn: the network.
    init_fn: `key -> ModelState`.
    recipe: of each slice's training; its epochs are those of each slice.
    num_shards: number of models.
    num_slices: checkpoints of each.
    seed: of placement, initial weights and batches.
    devices: devices to use, None for all.
  """

  apply_fn: types.ApplyFn
  init_fn: Callable[[jax.Array], types.ModelState]
  recipe: types.Recipe
  num_shards: int = 5
  num_slices: int = 1
  seed: int = 0
  devices: parallel.Devices = None

  def __post_init__(self):
    for name in ('num_shards', 'num_slices'):
      if getattr(self, name) < 1:
        raise errors.InputError(f'{name} must be 1 or more', argument=name)


@dataclasses.dataclass(frozen=True)
class Ensemble:
  """A trained ensemble.

  Attributes:
    checkpoints: of each shard, the model before and after each slice, `num_slices + 1` of them;
      they hold what the rows of their slices have taught, and are replaced when these are
      forgotten.
    counts: rows of each shard. One without rows has no vote.
    trained: slices trained by the call that made this ensemble, of all shards together.
  """

  checkpoints: tuple[tuple[types.ModelState, ...], ...]
  counts: tuple[int, ...]
  trained: int


def place(sisa: Sisa, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The shard and the slice of each id, both `[N]`."""
  places = sisa.num_shards * sisa.num_slices
  hashed = [
    int.from_bytes(hashlib.blake2b(f'{sisa.seed}/{name}'.encode(), digest_size=8).digest(), 'big')
    for name in ids
  ]
  number = np.array([h % places for h in hashed], int)
  return number // sisa.num_slices, number % sisa.num_slices


def train(sisa: Sisa, dataset: types.Dataset) -> Ensemble:
  """Trains all shards."""
  return _train(sisa, dataset, None, {shard: 0 for shard in range(sisa.num_shards)})


def forget(
  sisa: Sisa, ensemble: Ensemble, dataset: types.Dataset, ids: Collection[str]
) -> tuple[Ensemble, types.Dataset]:
  """Forgets rows exactly: the ensemble is that of `train` on the other rows, to the bit.

  Only the shards that hold one of the rows are trained, each from the checkpoint before the first
  slice with one. Exact means: the result does not depend on the rows, whatever they were. It does
  not cover copies of them under other ids, nor what else was computed from them.

  Args:
    sisa: the settings that the ensemble was trained with.
    ensemble: the ensemble.
    dataset: what it was trained on.
    ids: of the rows to forget.

  Returns:
    The new ensemble and the remaining rows.

  Raises:
    errors.InputError: for ids that are not in the set, or if no row remains.

  References:
    Bourtoule, Chandrasekaran, Choquette-Choo, et al.: Machine Unlearning.
    https://arxiv.org/abs/1912.03817
  """
  unknown = set(ids) - set(dataset.ids.tolist())
  if unknown:
    raise errors.InputError(
      f'ids must be of the set; {sorted(unknown)[0]!r} is not in it', argument='ids'
    )
  is_forgotten = np.isin(dataset.ids, list(ids))
  if is_forgotten.all():
    raise errors.InputError('ids must leave one row or more', argument='ids')
  shards, slices = place(sisa, dataset.ids)
  first = {s: int(slices[is_forgotten & (shards == s)].min()) for s in {*shards[is_forgotten]}}
  remaining = dataset.take(np.flatnonzero(~is_forgotten))
  return _train(sisa, remaining, ensemble, first), remaining


def predict(sisa: Sisa, ensemble: Ensemble, images: np.ndarray) -> np.ndarray:
  """Mean probabilities `[N, C]` of the shards' models, each that has rows with one vote."""
  members = [c[-1] for c, n in zip(ensemble.checkpoints, ensemble.counts, strict=True) if n]
  votes = [
    special.softmax(
      prediction.predict(sisa.apply_fn, model, images, devices=sisa.devices).logits, axis=1
    )
    for model in members
  ]
  return np.mean(votes, axis=0)


def _train(sisa, dataset, ensemble, first) -> Ensemble:
  """Trains the shards `first`, each from its slice on; the others stay."""
  shards, slices = place(sisa, dataset.ids)
  checkpoints = list(ensemble.checkpoints) if ensemble else [()] * sisa.num_shards
  trained = 0
  for shard, start in first.items():
    kept = list(checkpoints[shard][: start + 1]) or [_initial(sisa, shard)]
    for number in range(start, sisa.num_slices):
      rows = np.flatnonzero((shards == shard) & (slices <= number))
      kept.append(_train_slice(sisa, kept[-1], dataset.take(rows), _key(sisa, shard, number + 1)))
      trained += 1
    checkpoints[shard] = tuple(kept)
  counts = np.bincount(shards, minlength=sisa.num_shards)
  return Ensemble(tuple(checkpoints), tuple(counts.tolist()), trained)


def _initial(sisa, shard) -> types.ModelState:
  """The model before a shard's first slice, which has seen no row."""
  if hasattr(sisa.init_fn, 'prepare'):
    raise errors.InputError(
      'init_fn must not compute initial weights from images: they would be of rows to forget',
      argument='init_fn',
    )
  return jax.tree.map(np.asarray, sisa.init_fn(_key(sisa, shard, 0)))


def _key(sisa, shard, number):
  key = jax.random.fold_in(seeds.key(sisa.seed), shard)
  return jax.random.fold_in(key, number)


def _train_slice(sisa, model, dataset, key) -> types.ModelState:
  """One slice's training, by a program that depends on the number of batches alone."""
  if not len(dataset):
    return model
  size, recipe = sisa.recipe.batch_size, sisa.recipe
  num_batches = -(-len(dataset) // size)
  padded = dataset.take(np.resize(np.arange(len(dataset)), num_batches * size))
  loss = training.ClassificationLoss(
    sisa.apply_fn, 'train', recipe.augmentation, recipe.label_smoothing
  )
  tx = training.recipe_optimizer(recipe, num_batches * size)
  step = training.make_step(loss, tx, devices=sisa.devices)
  data = training.put_data({'train': padded}, sisa.devices)

  def epoch_fn(state, epoch):
    rng = training.epoch_rng(key, epoch)
    batches = {'train': data_lib.epoch_batches(len(dataset), size, rng)}
    state, loss = training.run_steps(step, state, data, batches, key)
    return state, {'loss': loss}

  return training.run_epochs(
    epoch_fn,
    training.init_state(model, tx),
    recipe.num_epochs,
    monitor=types.Monitor(),
    devices=sisa.devices,
  )

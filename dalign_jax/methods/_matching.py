"""Matching: fine-tuning towards the outputs that gold has, or is predicted to have."""

from collections.abc import Mapping, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import datamodels, errors, objectives, optim, training, types


def datamodel_matching(
  *,
  num_epochs: int = 5,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  batch_size: int = 64,
) -> types.UnlearnFn:
  r"""Fine-tunes to the outputs that datamodels predict for gold, on forget and retain.

  .. math:: \min_\theta \; \tfrac12 \sum_{D \in \{forget, retain\}} E_{x \in D} \, \tfrac1C \big|
    z_\theta(x) - z_o(x) + \sum_{i \in forget} w_{x, i} \big|^2

  with z the logits, centred over the classes, and w the weights of `datamodels.effect`. They are
  fitted to the outputs of models trained on random subsets of the training data
  (`problem.subset_outputs`), which serve every request on these data: their training is the cost,
  and it is shared by all requests. Each step takes a batch of both sets, so that a single image
  counts as much as the retain set; an epoch is a pass over the retain set. Batch statistics stay
  as they are. Serves any request, best one of few examples: a datamodel is linear, and what a whole
  class adds is not.

  Args:
    num_epochs: passes over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch of each set.

  Raises:
    types.DataError: when run, without `problem.subset_outputs`.

  References:
    Georgiev, Rinberg, Park, Garg, Ilyas, Madry, Neel: Attribute-to-Delete: Machine Unlearning via
    Datamodel Matching. https://arxiv.org/abs/2410.23232

  Deviation: ridge datamodels (see `datamodels.effect`) of centred logits, from hundreds of models
  and not tens of thousands, matched on the whole retain set. The paper's text was not readable to
  us in full: rate and schedule are ours.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    if problem.subset_outputs is None:
      raise types.DataError(
        'datamodel_matching needs problem.subset_outputs, outputs of models trained on subsets'
      )
    targets = predicted_logits(problem, problem.subset_outputs)
    held_out = lambda: predicted_logits(problem, problem.subset_outputs, ('validation',))
    problem.monitor.on_arrays('datamodel', lambda: {**targets, **held_out()})
    return _match(problem, targets, rule, key, num_epochs, batch_size)

  return unlearn


def oracle_matching(
  *,
  num_epochs: int = 5,
  learning_rate: float = 0.01,
  momentum: float = 0.9,
  batch_size: int = 64,
) -> types.UnlearnFn:
  r"""Fine-tunes to gold's own outputs: a control that no method can be.

  .. math:: \min_\theta \; \tfrac12 \sum_{D \in \{forget, retain\}} E_{x \in D} \, \tfrac1C \big|
    z_\theta(x) - z_{gold}(x) \big|^2

  It shows what `datamodel_matching` could reach if datamodels were perfect. Who has gold needs no
  unlearning.

  Args:
    num_epochs: passes over the retain set.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch of each set.

  Raises:
    errors.InputError: when run, without `problem.gold_logits`.

  References:
    Georgiev et al.: Attribute-to-Delete: Machine Unlearning via Datamodel Matching.
    https://arxiv.org/abs/2410.23232

  Deviation: as of `datamodel_matching`.
  """
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    if problem.gold_logits is None:
      raise errors.InputError(
        'oracle_matching needs problem.gold_logits: it is a control of benchmarks'
      )
    return _match(problem, problem.gold_logits, rule, key, num_epochs, batch_size)

  return unlearn


def predicted_logits(
  problem: types.Problem,
  subsets: types.SubsetOutputs,
  names: Sequence[str] = ('retain', 'forget'),
) -> dict[str, np.ndarray]:
  """Gold's centred logits on sets of these names, as datamodels predict them; no empty ones.

  A set is 'retain', 'forget' or 'validation'; `subsets` is of all three, in this order.
  """
  sets = {name: getattr(problem, name) for name in ('retain', 'forget', 'validation')}
  sizes = {name: len(dataset) for name, dataset in sets.items()}
  count = sizes['retain'] + sizes['forget']
  if subsets.is_trained.shape[1:] != (count,) or subsets.logits.shape[1] != sum(sizes.values()):
    raise errors.InputError(
      f'subset_outputs must be of {count} training examples and {sum(sizes.values())} in all, got '
      f'{list(subsets.is_trained.shape[1:])} and {list(subsets.logits.shape[1:2])}'
    )
  own = np.where(np.arange(sum(sizes.values())) < count, np.arange(sum(sizes.values())), -1)
  removed = np.arange(count) >= sizes['retain']
  change = datamodels.effect(_centred(subsets.logits), subsets.is_trained, removed, own)
  parts = np.split(change, np.cumsum(list(sizes.values()))[:-1])
  return {
    name: (_centred(objectives.original_logits(problem, dataset)) - part).astype(np.float32)
    for (name, dataset), part in zip(sets.items(), parts, strict=True)
    if name in names and len(dataset)
  }


def _match(problem, targets: Mapping, rule, key, num_epochs, batch_size) -> types.ModelState:
  names = ('retain', 'forget')
  return training.minimize(
    problem,
    _Loss(problem.apply_fn),
    rule,
    {name: getattr(problem, name) for name in names},
    key,
    num_epochs=num_epochs,
    batch_size=batch_size,
    extra={name: {'target': _centred(targets[name])} for name in names},
  )


def _centred(logits):
  return logits - logits.mean(axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class _Loss:
  """Squared distance of centred logits to their targets, of both sets alike."""

  apply_fn: types.ApplyFn

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    images, targets = (
      jnp.concatenate([batch[name][field] for name in ('retain', 'forget')])
      for field in ('images', 'target')
    )
    model = types.ModelState(params, batch_stats)
    outputs, batch_stats = training.forward(self.apply_fn, model, images, key, keep_statistics=True)
    return jnp.mean((_centred(outputs.logits) - targets) ** 2), batch_stats

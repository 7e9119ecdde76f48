"""The optimizer that a recipe names: schedules, groups of parameters, averaging of weights."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dalign_jax import errors, optim, types

SCHEDULES = ('cosine', 'triangular', 'constant')


def steps(recipe: types.Recipe, num_examples: int) -> tuple[int, int]:
  """Steps of an epoch and of the whole training, for a training set of that size."""
  per_epoch = -(-num_examples // recipe.batch_size)
  return per_epoch, max(1, recipe.num_epochs * per_epoch)


def schedule(recipe: types.Recipe, num_examples: int) -> optax.Schedule:
  r"""The learning rate of a recipe at each step.

  'cosine' is `optim.warmup_cosine`. 'triangular' rises linearly from 0.2 of the peak to the peak
  within `warmup_epochs` and falls linearly to 0.07 of it at the last step. 'constant' rises
  linearly from 0 within `warmup_epochs`, and stays.

  Args:
    recipe: the recipe.
    num_examples: size of the training set.

  Raises:
    ValueError: for an unknown schedule.

  Example:
    >>> recipe = types.Recipe(schedule='triangular', learning_rate=1.0, batch_size=1, num_epochs=2)
    >>> rate = schedule(recipe, 10)
    >>> [round(float(rate(step)), 3) for step in (0, 10, 20)]
    [0.2, 1.0, 0.07]
  """
  if recipe.schedule not in SCHEDULES:
    raise errors.InputError(
      f'schedule must be one of {", ".join(SCHEDULES)}, got {recipe.schedule!r}'
    )
  if recipe.schedule == 'cosine':
    return optim.warmup_cosine(recipe, num_examples)
  per_epoch, total = steps(recipe, num_examples)
  if recipe.schedule == 'constant':
    warmup = round(recipe.warmup_epochs * per_epoch)
    if not warmup:
      return optax.constant_schedule(recipe.learning_rate)
    return optax.warmup_constant_schedule(0.0, recipe.learning_rate, warmup)
  warmup, peak = min(round(recipe.warmup_epochs * per_epoch), total - 1), recipe.learning_rate
  fall = optax.linear_schedule(peak, 0.07 * peak, total - warmup)
  if not warmup:
    return fall
  return optax.join_schedules([optax.linear_schedule(0.2 * peak, peak, warmup), fall], [warmup])


def optimizer(recipe: types.Recipe, num_examples: int) -> optax.GradientTransformation:
  r"""The optimizer of original and gold: the one that the recipe names, and what it adds.

  The bias of a layer named 'whitening' has no gradient after `whitening_epochs` (with 'adamw' and
  'muon': no update); what momentum it has then runs out.

  Args:
    recipe: the recipe.
    num_examples: size of the training set, which decides the number of steps.

  Returns:
    The transformation; with a recipe's defaults it is `optim.sgd`.

  Raises:
    ValueError: for an unknown optimizer, or one that cannot do what the recipe asks for.
  """
  if recipe.optimizer not in OPTIMIZERS:
    raise errors.InputError(
      f'optimizer must be one of {", ".join(OPTIMIZERS)}, got {recipe.optimizer!r}'
    )
  rate = schedule(recipe, num_examples)
  per_epoch, total = steps(recipe, num_examples)
  hold = optax.identity()
  if recipe.whitening_epochs:
    hold = _held_after(recipe.whitening_epochs * per_epoch, 'whitening')
  tx = OPTIMIZERS[recipe.optimizer](recipe, rate, hold)
  if recipe.lookahead_steps:
    tx = lookahead(tx, every=recipe.lookahead_steps, decay=recipe.lookahead_decay, num_steps=total)
  return tx


def _sgd(recipe, rate, hold):
  """SGD with Nesterov momentum.

  Parameters of a layer whose name contains 'norm' have `norm_learning_rate` times the learning
  rate. Weight decay is decoupled from that factor: all parameters decay by the learning rate times
  `weight_decay` a step.
  """
  sgd = functools.partial(optim.sgd, rate, momentum=recipe.momentum, nesterov=True)
  if recipe.norm_learning_rate == 1 and not recipe.whitening_epochs:
    return sgd(weight_decay=recipe.weight_decay)
  factor = lambda path: recipe.norm_learning_rate if optim.is_in(path, 'norm') else 1.0
  return optax.chain(
    _leafwise(lambda path, g, p: g + (recipe.weight_decay / factor(path)) * p),
    hold,
    sgd(weight_decay=0.0),
    _leafwise(lambda path, g, p: factor(path) * g),
  )


def _adamw(recipe, rate, hold):
  """AdamW; `momentum` is its first decay rate."""
  _check_norm_learning_rate(recipe)
  tx = optax.adamw(rate, b1=recipe.momentum, weight_decay=recipe.weight_decay)
  return optax.chain(tx, hold)


def _muon(recipe, rate, hold):
  """`optim.muon`."""
  _check_norm_learning_rate(recipe)
  tx = optim.muon(rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
  return optax.chain(tx, hold)


def _check_norm_learning_rate(recipe):
  if recipe.norm_learning_rate != 1:
    raise errors.InputError(
      f'norm_learning_rate is for sgd; {recipe.optimizer} takes 1, got {recipe.norm_learning_rate}'
    )


OPTIMIZERS = {'sgd': _sgd, 'adamw': _adamw, 'muon': _muon}


class LookaheadState(NamedTuple):
  """The number of steps, the slow weights and the state of the inner transformation."""

  count: jax.Array  # type: ignore[assignment]  # hides tuple.count
  slow: types.PyTree
  inner: optax.OptState


def lookahead(
  tx: optax.GradientTransformation, *, every: int, decay: float, num_steps: int
) -> optax.GradientTransformationExtraArgs:
  r"""Weights that return to a running average of themselves every few steps.

  After every k-th step t, and after the last of T,

  .. math:: s \leftarrow d_t s + (1 - d_t) \theta, \quad \theta \leftarrow s, \quad
    d_t = d^k (t / T)^3

  with s the slow weights, those of the start at first. The average is short in the beginning and
  long at the end. It is part of the state, so that training resumes to the bit. Batch statistics
  are not averaged: they follow the weights by themselves.

  Args:
    tx: the inner transformation, whose state the averaging leaves alone.
    every: k.
    decay: d, a step's.
    num_steps: T.

  Returns:
    The transformation; its `update` needs `params`.

  Raises:
    ValueError: if `every` or `num_steps` is below 1 or `decay` is outside [0, 1].

  Example:
    >>> tx = lookahead(optax.sgd(1.0), every=2, decay=1.0, num_steps=2)
    >>> params = {'w': jnp.ones(1)}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...   updates, state = tx.update({'w': jnp.ones(1)}, state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> params['w'].tolist()  # back at the start: the last average weighs the slow weights alone
    [1.0]

  References:
    Zhang, Lucas, Hinton, Ba: Lookahead Optimizer: k steps forward, 1 step back.
    https://arxiv.org/abs/1907.08610
    Keller Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU.
    https://arxiv.org/abs/2404.00498
  """
  if every < 1 or num_steps < 1:
    raise errors.InputError(f'every and num_steps must be positive, got {every} and {num_steps}')
  if not 0 <= decay <= 1:
    raise errors.InputError(f'decay must be in [0, 1], got {decay}')
  tx = optax.with_extra_args_support(tx)

  def init(params):
    return LookaheadState(
      jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, params), tx.init(params)
    )

  def update(updates, state, params, **extra_args):
    updates, inner = tx.update(updates, state.inner, params, **extra_args)
    count = optax.safe_increment(state.count)
    is_due = (count % every == 0) | (count == num_steps)
    weight = decay**every * jnp.minimum(count / num_steps, 1.0) ** 3
    average = lambda s, p, u: jnp.where(is_due, weight * s + (1 - weight) * (p + u), s)
    slow = jax.tree.map(average, state.slow, params, updates)
    updates = jax.tree.map(lambda s, p, u: jnp.where(is_due, s - p, u), slow, params, updates)
    return updates, LookaheadState(count, slow, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def _leafwise(change: Callable) -> optax.GradientTransformation:
  """A stateless transformation: `change(path, update, parameter)` for each leaf."""
  return optax.stateless(
    lambda updates, params: jax.tree_util.tree_map_with_path(change, updates, params)
  )


def _held_after(num_steps: int, name: str) -> optax.GradientTransformation:
  """No gradient after so many steps (0: always one) for the parameters of the layer `name`."""

  def update(updates, state, params=None):
    del params
    is_open = (state.count < num_steps) | (num_steps == 0)
    hold = lambda path, g: jnp.where(is_open, g, 0.0) if optim.is_in(path, name) else g
    updates = jax.tree_util.tree_map_with_path(hold, updates)
    return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

  init = lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))
  return optax.GradientTransformation(init, update)

"""Optimizers: SGD as in the papers, its schedule, and one that alternates between phases."""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dalign_jax import errors, types


class AlternatingState(NamedTuple):
  """The current phase (-1 before the first update) and each phase's own state."""

  phase: jax.Array
  inner: dict[str, optax.OptState]


@functools.lru_cache(maxsize=64)
def alternating(
  *, reset_on_switch: bool = True, **transforms: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
  """One transformation for training that alternates between phases, as forget and recover do.

  Each phase has its own inner transformation, state and step count, so that its schedule advances
  only in its own updates. `update` takes the keyword argument `phase`, an integer (possibly traced)
  that indexes the names in the order given. The state is a plain pytree: it works under jit, scan
  and pmap, and is saved by orbax.

  Args:
    reset_on_switch: start a phase's momenta afresh whenever the phase changes. Its step count
      starts afresh too, as part of its state.
    **transforms: an optax transformation for each phase, by name.

  Returns:
    A transformation whose `update(updates, state, params, *, phase)` applies that phase's
    transformation and leaves the other phases' states as they are.

  Raises:
    ValueError: if no transformation is given.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> tx = alternating(forget=optax.sgd(1.0), recover=optax.sgd(0.1))
    >>> state = tx.init({'w': jnp.ones(1)})
    >>> updates, state = tx.update({'w': jnp.ones(1)}, state, phase=1)
    >>> round(float(updates['w'][0]), 3)
    -0.1

  References:
    Seo, Kim, Han: Revisiting Machine Unlearning with Dimensional Alignment (alternating training).
    https://arxiv.org/abs/2407.17710
  """
  if not transforms:
    raise errors.InputError('alternating needs at least one phase, got none')
  names = tuple(transforms)
  inner = {name: optax.with_extra_args_support(tx) for name, tx in transforms.items()}

  def init(params):
    return AlternatingState(
      phase=jnp.full((), -1, jnp.int32), inner={name: tx.init(params) for name, tx in inner.items()}
    )

  def update(updates, state, params=None, *, phase, **extra_args):
    phase = jnp.asarray(phase, jnp.int32)
    switched = (phase != state.phase) & (state.phase >= 0)

    def branch(name):
      def apply(states):
        current = states[name]
        if reset_on_switch:
          fresh = inner[name].init(updates if params is None else params)
          current = jax.tree.map(lambda f, c: jnp.where(switched, f, c), fresh, current)
        new_updates, new_state = inner[name].update(updates, current, params, **extra_args)
        return new_updates, {**states, name: new_state}

      return apply

    new_updates, states = jax.lax.switch(phase, [branch(name) for name in names], state.inner)
    return new_updates, AlternatingState(phase, states)

  return optax.GradientTransformationExtraArgs(jax.jit(init), update)


class RestrictedState(NamedTuple):
  """The mask and the state of the restricted transformation."""

  mask: types.PyTree
  inner: optax.OptState


def restricted(
  tx: optax.GradientTransformation, mask: types.PyTree
) -> optax.GradientTransformationExtraArgs:
  """Updates of the weights in a mask; all others stay as they are, to the bit.

  The mask is applied to what `tx` gives out, so that neither momentum nor weight decay moves a
  weight outside of it. It is part of the state, not of the compiled program.

  Args:
    tx: any transformation.
    mask: pytree like the parameters, of boolean arrays of their shapes.

  Returns:
    The restricted transformation.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> tx = restricted(optax.sgd(1.0), {'w': jnp.array([True, False])})
    >>> params = {'w': jnp.ones(2)}
    >>> updates, _ = tx.update({'w': jnp.ones(2)}, tx.init(params), params)
    >>> (params['w'] + updates['w']).tolist()
    [0.0, 1.0]
  """

  def init(params):
    return RestrictedState(jax.tree.map(np.asarray, mask), tx.init(params))

  return optax.GradientTransformationExtraArgs(init, _restricted_update(tx))


@functools.lru_cache(maxsize=64)
def _restricted_update(tx):
  """The update of `restricted`, equal for all masks: it reads the mask from the state."""
  tx = optax.with_extra_args_support(tx)

  def update(updates, state, params=None, **extra_args):
    updates, inner = tx.update(updates, state.inner, params, **extra_args)
    updates = jax.tree.map(lambda m, u: jnp.where(m, u, 0.0), state.mask, updates)
    return updates, RestrictedState(state.mask, inner)

  return update


class ScaledState(NamedTuple):
  """The scales and the state of the scaled transformation."""

  scales: types.PyTree
  inner: optax.OptState


def scaled(
  tx: optax.GradientTransformation, scales: types.PyTree
) -> optax.GradientTransformationExtraArgs:
  """Gradients scaled before `tx` sees them, weight by weight.

  As with `restricted`, the scales are part of the state, not of the compiled program.

  Args:
    tx: any transformation.
    scales: pytree like the parameters, of arrays of their shapes.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> tx = scaled(optax.sgd(1.0), {'w': jnp.array([1.0, 0.1])})
    >>> params = {'w': jnp.ones(2)}
    >>> updates, _ = tx.update({'w': jnp.ones(2)}, tx.init(params), params)
    >>> [round(x, 3) for x in updates['w'].tolist()]
    [-1.0, -0.1]
  """

  def init(params):
    return ScaledState(jax.tree.map(np.asarray, scales), tx.init(params))

  return optax.GradientTransformationExtraArgs(init, _scaled_update(tx))


@functools.lru_cache(maxsize=64)
def _scaled_update(tx):
  """The update of `scaled`, equal for all scales: it reads them from the state."""
  tx = optax.with_extra_args_support(tx)

  def update(updates, state, params=None, **extra_args):
    updates = jax.tree.map(jnp.multiply, state.scales, updates)
    updates, inner = tx.update(updates, state.inner, params, **extra_args)
    return updates, ScaledState(state.scales, inner)

  return update


@functools.lru_cache(maxsize=64)
def frozen(
  tx: optax.GradientTransformation, is_frozen: tuple[bool, ...], structure: jax.tree_util.PyTreeDef
) -> optax.GradientTransformation:
  """Updates of whole leaves; those frozen stay as they are and have no optimizer state.

  Args:
    tx: any transformation.
    is_frozen: for each leaf of the parameters.
    structure: of the parameters.
  """
  mask = jax.tree.unflatten(structure, is_frozen)
  return compiled(optax.transforms.selective_transform(tx, freeze_mask=mask))


def compiled(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same transformation, whose `init` is one program."""
  return tx._replace(init=jax.jit(tx.init))


@functools.lru_cache(maxsize=64)
def adam(learning_rate: float) -> optax.GradientTransformation:
  """optax's Adam; equal settings give the same transformation."""
  return compiled(optax.adam(learning_rate))


@functools.lru_cache(maxsize=64)
def adamw(learning_rate: float, *, weight_decay: float) -> optax.GradientTransformation:
  """optax's AdamW; equal settings give the same transformation.

  Its epsilon, 1e-6, keeps gradients that are nothing but rounding from becoming whole steps.
  """
  return compiled(optax.adamw(learning_rate, weight_decay=weight_decay, eps=1e-6))


@functools.lru_cache(maxsize=64)
def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  nesterov: bool = False,
) -> optax.GradientTransformation:
  """SGD with weight decay added to the gradient, before momentum, as in PyTorch.

  Equal settings give the same transformation, so that steps with it are compiled once.
  """
  tx = optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov and bool(momentum)),
  )
  if callable(learning_rate):
    return compiled(tx)
  return tx._replace(init=_sgd_init(bool(momentum)))


@functools.lru_cache
def _sgd_init(has_momentum: bool) -> Callable:
  """The one program that makes the state of SGD at any constant rate."""
  tx = optax.chain(
    optax.add_decayed_weights(0.0), optax.sgd(1.0, momentum=0.9 if has_momentum else None)
  )
  return jax.jit(tx.init)


@functools.lru_cache(maxsize=64)
def muon(
  learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
  """Muon for the kernels of hidden layers, AdamW in Nesterov form for all else.

  Such a kernel has two or four axes, is named `kernel`, `weight` or `w`, and is not inside of
  `head`. A convolution `[H, W, I, O]` is the matrix of H W I rows and O columns. Updates are scaled
  to the root mean square of AdamW's, .2, so that one learning rate and one decay serve both.
  """

  def dimensions(params):
    of_kernel = lambda k: optax.contrib.MuonDimensionNumbers(tuple(range(k.ndim - 1)), k.ndim - 1)

    def each(path, p):
      names = [str(getattr(key, 'key', getattr(key, 'name', key))) for key in path]
      is_hidden = names[-1] in types.KERNELS and jnp.ndim(p) in (2, 4) and 'head' not in names
      return of_kernel(p) if is_hidden else None

    return jax.tree_util.tree_map_with_path(each, params)

  return optax.contrib.muon(
    learning_rate,
    beta=momentum,
    adam_b1=momentum,
    weight_decay=weight_decay,
    adam_weight_decay=weight_decay,
    muon_weight_dimension_numbers=dimensions,
    consistent_rms=0.2,
  )


def is_in(path: tuple, name: str) -> bool:
  """Whether a key on the path contains the name, in any case of letters."""
  return any(name in str(getattr(key, 'key', key)).lower() for key in path)


OPTIMIZERS = {  # of methods: learning rate, momentum, weight decay -> transformation
  'sgd': lambda rate, momentum, decay: sgd(rate, momentum=momentum, weight_decay=decay),
  'adamw': lambda rate, momentum, decay: compiled(
    optax.adamw(rate, b1=momentum, weight_decay=decay, eps=1e-6)
  ),
  'muon': lambda rate, momentum, decay: compiled(muon(rate, momentum=momentum, weight_decay=decay)),
}
SCHEDULES = {  # of methods: learning rate, number of steps -> rate at each step
  'constant': lambda rate, num_steps: rate,
  'cosine': optax.cosine_decay_schedule,
  'linear': lambda rate, num_steps: optax.linear_schedule(rate, 0.0, num_steps),
}


@dataclasses.dataclass(frozen=True)
class Rule:
  """How a method steps: SGD, as its paper says, or what the problem names in its place.

  Attributes:
    learning_rate: at the start.
    momentum: of SGD and Muon; the first decay rate of AdamW.
    weight_decay: L2 coefficient of SGD; of AdamW and Muon, decay by the learning rate times it.
  """

  learning_rate: float
  momentum: float = 0.9
  weight_decay: float = 0.0

  def of(self, problem: types.Problem, num_steps: int) -> optax.GradientTransformation:
    """The transformation; equal settings give the same, so that steps with it are compiled once.

    Args:
      problem: its `optimizer` and `schedule` are used.
      num_steps: that a schedule is spread over; 'constant' does not need it.

    Raises:
      errors.InputError: for an unknown name.

    Example:
      >>> names = ('apply_fn', 'init_fn', 'original', 'retain', 'forget', 'validation')
      >>> fields = dict.fromkeys(names) | {'num_classes': 2, 'optimizer': 'sgd'}
      >>> problem = types.Problem(**fields, schedule='linear')
      >>> tx = Rule(1.0, momentum=0.0).of(problem, num_steps=2)
      >>> ones = jnp.ones(1)
      >>> state, steps = tx.init(ones), []
      >>> for _ in range(2):
      ...   updates, state = tx.update(ones, state, ones)
      ...   steps.append(float(updates[0]))
      >>> steps
      [-1.0, -0.5]
    """
    return _of_rule(
      self, problem.optimizer, problem.schedule, num_steps * (problem.schedule != 'constant')
    )

  def weighed(self, problem: types.Problem, weight: float | np.floating) -> 'Rule':
    """The rule for a loss that is multiplied by a weight.

    The steps of SGD follow the loss. Those of AdamW and Muon have one length for any multiple of
    it, so that their rate takes the weight.
    """
    if problem.optimizer == 'sgd':
      return self
    return dataclasses.replace(self, learning_rate=self.learning_rate * float(weight))


@functools.lru_cache(maxsize=64)
def _of_rule(rule, optimizer, schedule, num_steps):
  for name, value, known in (
    ('optimizer', optimizer, OPTIMIZERS),
    ('schedule', schedule, SCHEDULES),
  ):
    if value not in known:
      raise errors.InputError(f'must be one of {", ".join(known)}, got {value!r}', argument=name)
  rate = SCHEDULES[schedule](rule.learning_rate, max(1, num_steps))
  return OPTIMIZERS[optimizer](rate, rule.momentum, rule.weight_decay)


def num_steps(num_examples: int, batch_size: int, num_epochs: int) -> int:
  """Steps of some passes over a set."""
  return num_epochs * -(-num_examples // batch_size)


def warmup_cosine(recipe: types.Recipe, num_examples: int) -> optax.Schedule:
  """The learning rate of a recipe for a set of that size: linear warm-up, then cosine to 0."""
  steps_per_epoch = -(-num_examples // recipe.batch_size)
  total = max(1, recipe.num_epochs * steps_per_epoch)
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=recipe.learning_rate,
    warmup_steps=min(round(recipe.warmup_epochs * steps_per_epoch), total - 1),
    decay_steps=total,
  )

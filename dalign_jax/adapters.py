"""Adapters from Flax modules to the plain functions that the library uses.

A network needs no more than `types.ApplyFn`; these make one of a Flax module whose call returns
logits: the features are the input of its last layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx
import flax.linen as nn

from dalign_jax import errors, types


def from_linen(
  module: nn.Module,
  *,
  head: Sequence[str] = ('head',),
  call: Callable[[nn.Module, types.Array, bool], types.Array] | None = None,
) -> types.ApplyFn:
  """An `ApplyFn` of a Flax Linen module that returns logits.

  Its states are `ModelState(variables['params'], variables.get('batch_stats', {}))`. A `BatchNorm`
  should have `axis_name=parallel.AXIS`, or each device normalises by its own part of the batch.

  Args:
    module: the module.
    head: path of the last layer's module: its input are the features.
    call: `(module, images, train) -> logits`, with images float32 in [0, 1]; None for
      `module(images, train=train)`. To normalise images or switch dropout off, do it here.

  Returns:
    The network, for `types.Problem`.

  Raises:
    ValueError: when called, if no module at `head` is used.

  Example:
    >>> import jax
    >>> images = jax.numpy.ones((2, 4, 4, 1))
    >>> network = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(3)])
    >>> params = network.init(jax.random.key(0), images)['params']
    >>> apply_fn = from_linen(network, head=('layers_1',), call=lambda m, x, train: m(x))
    >>> outputs, _ = apply_fn(types.ModelState(params, {}), images, train=False)
    >>> outputs.logits.shape, outputs.features.shape
    ((2, 3), (2, 16))
  """
  head = tuple(head)
  call = call or (lambda m, images, train: m(images, train=train))

  def apply_fn(
    state: types.ModelState, images: types.Array, *, train: bool
  ) -> tuple[types.Outputs, types.PyTree]:
    seen: list[types.Array] = []

    def keep(next_call, args, kwargs, context):
      if context.module.path == head and context.method_name == '__call__':
        seen.append(args[0])
      return next_call(*args, **kwargs)

    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    with nn.intercept_methods(keep):
      logits, updated = module.apply(
        variables,
        images,
        train,
        method=call,
        mutable=['batch_stats'] if train else [],
      )
    features = _only_features(seen, head, 'head=(NAME, ...) must be the path of the last layer')
    batch_stats = updated.get('batch_stats', {}) if train else state.batch_stats
    return types.Outputs(logits, features), batch_stats

  return apply_fn


def from_nnx(
  model: nnx.Module,
  *,
  head: str = 'head',
  call: Callable[[nnx.Module, types.Array], types.Array] | None = None,
) -> tuple[types.ApplyFn, types.ModelState]:
  """An `ApplyFn` and the state of a Flax NNX model that returns logits.

  The model is split: parameters and batch statistics become plain dictionaries of arrays, which
  checkpoints keep; all else (random streams, say) stays as it is. Dropout is switched off in
  training too, since an `ApplyFn` receives no key.

  Args:
    model: the model; it is not changed.
    head: name of the attribute that is the last layer: its input are the features.
    call: `(model, images) -> logits`, with images float32 in [0, 1]; None for `model(images)`.

  Returns:
    The network and its state, for `types.Problem`. `update_nnx` puts a state back into a model.

  Raises:
    ValueError: if the model has no such attribute, or, when called, does not use it.

  Example:
    >>> import jax.numpy as jnp
    >>> class Network(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.head = nnx.Linear(16, 3, rngs=rngs)
    ...   def __call__(self, images):
    ...     return self.head(images.reshape(len(images), -1))
    >>> apply_fn, state = from_nnx(Network(nnx.Rngs(0)))
    >>> outputs, _ = apply_fn(state, jnp.ones((2, 4, 4, 1)), train=False)
    >>> outputs.logits.shape, outputs.features.shape
    ((2, 3), (2, 16))
  """
  if not hasattr(model, head):
    raise errors.InputError(f'head must be an attribute of {type(model).__name__}, got {head!r}')
  call = call or (lambda m, images: m(images))
  graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
  params, batch_stats, rest = states

  def apply_fn(
    state: types.ModelState, images: types.Array, *, train: bool
  ) -> tuple[types.Outputs, types.PyTree]:
    merged = nnx.merge(
      graph,
      _to_nnx(params, state.params),
      _to_nnx(batch_stats, state.batch_stats),
      rest,
      copy=True,
    )
    merged.set_attributes(
      use_running_average=not train, deterministic=True, raise_if_not_found=False
    )
    seen: list[types.Array] = []
    last = getattr(merged, head)
    setattr(merged, head, _Recorder(last, seen))
    logits = call(merged, images)
    setattr(merged, head, last)
    features = _only_features(seen, head, 'head must name the last layer')
    updated = _to_plain(nnx.state(merged, nnx.BatchStat)) if train else state.batch_stats
    return types.Outputs(logits, features), updated

  return apply_fn, types.ModelState(_to_plain(params), _to_plain(batch_stats))


def update_nnx(model: nnx.Module, state: types.ModelState) -> None:
  """Puts a state that a method returned into an NNX model, in place.

  Args:
    model: of the structure that `from_nnx` was given.
    state: the state.
  """
  _, *states = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
  params, batch_stats, _ = states
  nnx.update(model, _to_nnx(params, state.params), _to_nnx(batch_stats, state.batch_stats))


class _Recorder(nnx.Module):
  """A layer that records its input."""

  def __init__(self, layer, seen):
    self.layer, self.note = layer, seen.append

  def __call__(self, inputs, *args, **kwargs):
    self.note(inputs)
    return self.layer(inputs, *args, **kwargs)


def _only_features(seen: list[types.Array], head: object, hint: str) -> types.Array:
  if len(seen) != 1:
    raise errors.InputError(f'the network called {head} {len(seen)} times, not once: {hint}')
  features = seen[0]
  if features.ndim != 2:
    raise errors.InputError(
      f'{head} must be given features [B, D], got shape {list(features.shape)}'
    )
  return features


def _to_plain(state: nnx.State) -> dict[str, Any]:
  """An NNX state as nested dictionaries with string keys."""
  plain: dict[str, Any] = {}
  for path, variable in nnx.to_flat_state(state):
    *folders, name = map(str, path)
    place = plain
    for folder in folders:
      place = place.setdefault(folder, {})
    place[name] = variable.get_value()
  return plain


def _to_nnx(template: nnx.State, plain: Mapping[str, Any]) -> nnx.State:
  """The inverse of `_to_plain`, with the variables of the template."""
  flat = []
  for path, variable in nnx.to_flat_state(template):
    value = plain
    for name in map(str, path):
      value = value[name]
    flat.append((path, variable.replace(value)))
  return nnx.from_flat_state(flat)

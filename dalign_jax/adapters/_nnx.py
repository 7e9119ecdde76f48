"""Flax NNX models as plain functions."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import inspect
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from dalign_jax import errors, types
from dalign_jax.adapters import _flags, _layers


def from_nnx(
  model: nnx.Module,
  *,
  head: str | Sequence[str | int] = 'head',
  call: Callable[[nnx.Module, types.Array, bool], types.Array] | None = None,
) -> tuple[types.ApplyFn, types.ModelState]:
  """An `ApplyFn` and the state of a Flax NNX model that returns logits.

  The model is split: parameters and batch statistics become plain dictionaries of arrays, which
  checkpoints keep; all else stays as it is. Its mode is set by `train()` or `eval()` before
  each call, and passed by those of the arguments `train`, `training`, `is_training`,
  `deterministic` and `use_running_average` that its call has; `str` of the network says which. In
  training its random streams, and `rngs` where its call has it, are made from the step's key.

  Args:
    model: the model; it is not changed.
    head: path of the last layer, 'encoder.head' or its names and numbers: its input are the
      features. The layer stays in its place, so that the model may read its kernel.
    call: `(model, images, train) -> logits`, with images float32 in [0, 1]; None for the model's
      own call with its flags.

  Returns:
    The network and its state, for `types.Problem`. `update_nnx` puts a state back into a model.

  Raises:
    errors.InputError: if the model has no layer at `head`, or an argument without default that is
      no known flag; when called, if it does not use the head, if a model with random streams gets
      no key in training, or, in training on several devices, if a `BatchNorm` does not have
      `axis_name=parallel.AXIS`.

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
  path = _layers.path_of(head)
  if not isinstance(_layer_at(model, path), nnx.Module):
    linear = [_name(p) for p, layer in nnx.iter_modules(model) if isinstance(layer, nnx.Linear)]
    raise _layers.absent(path, linear)
  flags: dict[str, bool] = {}
  takes_rngs = False
  if call is None:
    flags, takes_rngs = _flags.of_call(type(model).__call__, needs_flag=False)
  else:
    _check_call(call)
  graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
  split = _Split(graph, *states)
  apply_fn = _NNX(type(model).__name__, split, path, call, flags, takes_rngs)
  return apply_fn, types.ModelState(_to_plain(split.params), _to_plain(split.batch_stats))


def update_nnx(model: nnx.Module, state: types.ModelState) -> None:
  """Puts a state that a method returned into an NNX model, in place.

  Args:
    model: of the structure that `from_nnx` was given.
    state: the state.
  """
  _, *states = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
  params, batch_stats, _ = states
  nnx.update(model, _to_nnx(params, state.params), _to_nnx(batch_stats, state.batch_stats))


class _Inputs(nnx.Intermediate):
  """What the head was called with."""


@dataclasses.dataclass(frozen=True)
class _Split:
  """A model in parts."""

  graph: nnx.GraphDef
  params: nnx.State
  batch_stats: nnx.State
  streams: nnx.State
  rest: nnx.State

  def merged(self, state: types.ModelState, key: jax.Array | None) -> nnx.Module:
    """A copy of the model with another state, and with random streams from a key."""
    return nnx.merge(
      self.graph,
      _to_nnx(self.params, state.params),
      _to_nnx(self.batch_stats, state.batch_stats),
      self.streams if key is None else _reseeded(self.streams, key),
      self.rest,
      copy=True,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _NNX:
  """The network; its flags have their values in training."""

  name: str
  split: _Split
  head: tuple[str, ...]
  call: Callable | None
  flags: Mapping[str, bool]
  takes_rngs: bool

  def __call__(
    self,
    state: types.ModelState,
    images: types.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[types.Outputs, types.PyTree]:
    key = key if train else None
    if train and key is None and (self.takes_rngs or jax.tree.leaves(self.split.streams)):
      raise errors.InputError(
        'must be passed in training, since the model has random streams', argument='key'
      )
    model = self.split.merged(state, key)
    if train:
      model.train()
      _check_batch_norms(model)
    else:
      model.eval()
    layer = _layer_at(model, self.head)
    noting = _noting(type(layer))  # type: ignore[arg-type]  # a type is hashable
    object.__setattr__(layer, '__class__', noting)  # of this copy alone
    forward = nnx.capture(self.call or functools.partial(self._own_call, key=key), _Inputs)
    logits, noted = forward(model, images, train)
    features = _layers.only_features(jax.tree.leaves(noted), self.head)
    updated = _to_plain(nnx.state(model, nnx.BatchStat)) if train else state.batch_stats
    return types.Outputs(logits, features), updated

  def __str__(self) -> str:
    modes = ['train()', 'call' if self.call else _flags.in_words(self.flags)]
    return f'{self.name}(training: {", ".join(filter(None, modes))}; head: {_name(self.head)})'

  def _own_call(self, model, images, train, *, key):
    rngs = {'rngs': None if key is None else nnx.Rngs(key)} if self.takes_rngs else {}
    return model(images, **_flags.values(self.flags, train), **rngs)


def _name(path: Sequence) -> str:
  return '.'.join(map(str, path))


def _check_call(call) -> None:
  try:
    inspect.signature(call).bind('model', 'images', True)
  except TypeError as error:
    raise errors.InputError(f'must take (model, images, train): {error}', argument='call') from None


def _check_batch_norms(model) -> None:
  for path, layer in nnx.iter_modules(model):
    if isinstance(layer, nnx.BatchNorm) and not layer.use_running_average:
      _layers.check_batch_norm(_name(path), layer.axis_name)


def _layer_at(model, path) -> Any:
  """What is at a path of attributes and numbers, None if there is nothing."""
  for name in path:
    try:
      model = model[int(name)] if name.isdigit() else getattr(model, name)
    except (AttributeError, IndexError, TypeError):
      return None
  return model


@functools.cache
def _noting(kind: type) -> type:
  """The same kind of layer, which notes its input when it is called."""

  def __call__(self, *args, **kwargs):
    self.sow(_Inputs, 'inputs', (*args, *kwargs.values())[0])
    return kind.__call__(self, *args, **kwargs)

  return type(kind.__name__, (kind,), {'__call__': __call__})


def _reseeded(streams: nnx.State, key: jax.Array) -> nnx.State:
  """Random streams that start anew, each from a key of its own."""
  flat = []
  for number, (path, variable) in enumerate(nnx.to_flat_state(streams)):
    value = variable.get_value()
    if isinstance(variable, nnx.RngKey):
      value = jax.random.split(jax.random.fold_in(key, number), value.shape)
    else:
      value = jnp.zeros_like(value)
    flat.append((path, variable.replace(value)))
  return nnx.from_flat_state(flat)


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

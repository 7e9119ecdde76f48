"""Flax Linen modules as plain functions."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import flax.linen as nn
import jax

from dalign_jax import types
from dalign_jax.adapters import _flags, _layers

_INPUTS = 'dalign_jax_head_inputs'  # a collection of variables


def from_linen(
  module: nn.Module,
  *,
  head: str | Sequence[str] = 'head',
  call: Callable[[nn.Module, types.Array, bool], types.Array] | None = None,
) -> types.ApplyFn:
  """An `ApplyFn` of a Flax Linen module that returns logits.

  Its states are `ModelState(variables['params'], variables.get('batch_stats', {}))`. Its mode
  is passed by those of the arguments `train`, `training`, `is_training`, `deterministic` and
  `use_running_average` that its call has, or else its fields; `str` of the network says which. In
  training all of its random streams draw from the step's key; in evaluation there is none.

  Args:
    module: the module.
    head: path of the last layer's module, 'encoder.head' or its names: its input are the features.
    call: `(module, images, train) -> logits`, with images float32 in [0, 1]; None for the module's
      own call with its flags. To normalise images, do it here.

  Returns:
    The network, for `types.Problem`.

  Raises:
    errors.InputError: if the call has an argument that may decide, and is no known flag; when
      called, if no module at `head` is used, or, in training on several devices, if a `BatchNorm`
      does not have `axis_name=parallel.AXIS`.

  Example:
    >>> import jax
    >>> images = jax.numpy.ones((2, 4, 4, 1))
    >>> network = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(3)])
    >>> params = network.init(jax.random.key(0), images)['params']
    >>> apply_fn = from_linen(network, head='layers_1')
    >>> outputs, _ = apply_fn(types.ModelState(params, {}), images, train=False)
    >>> outputs.logits.shape, outputs.features.shape
    ((2, 3), (2, 16))
  """
  flags: dict[str, bool] = {}
  fields: dict[str, bool] = {}
  if call is None:
    flags, _ = _flags.of_call(type(module).__call__, needs_flag=True)
  if call is None and not flags:
    fields = _flags.among(f.name for f in dataclasses.fields(module))
  return _Linen(module, _layers.path_of(head), call, flags, fields)


@dataclasses.dataclass(frozen=True, eq=False)
class _Linen:
  """The network; its flags, of the call or of the module, have their values in training."""

  module: nn.Module
  head: tuple[str, ...]
  call: Callable | None
  flags: Mapping[str, bool]
  fields: Mapping[str, bool]

  def __call__(
    self,
    state: types.ModelState,
    images: types.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[types.Outputs, types.PyTree]:
    module = self.module
    if self.fields:
      changes: dict[str, Any] = _flags.values(self.fields, train)
      module = module.clone(**changes)
    called: list[tuple[str, Any]] = []  # the path of each module, and the shape of what it gave

    def intercept(next_call, args, kwargs, context):
      here = context.module
      if context.method_name != '__call__':
        return next_call(*args, **kwargs)
      if here.path == self.head:
        here.sow(_INPUTS, 'inputs', (*args, *kwargs.values())[0])
      if isinstance(here, nn.BatchNorm) and _takes_statistics(here, args, kwargs):
        _layers.check_batch_norm('.'.join(here.path), here.axis_name)
      outputs = next_call(*args, **kwargs)
      called.append(('.'.join(here.path), getattr(outputs, 'shape', None)))
      return outputs

    with nn.intercept_methods(intercept):
      logits, updated = module.apply(
        {'params': state.params, 'batch_stats': state.batch_stats},
        images,
        train,
        method=self.call or self._own_call,
        mutable=['batch_stats', _INPUTS] if train else [_INPUTS],
        rngs=key if train else None,
      )
    if '.'.join(self.head) not in dict(called):
      raise _layers.absent(self.head, [p for p, shape in called if p and shape == logits.shape])
    features = _layers.only_features(jax.tree.leaves(updated[_INPUTS]), self.head)
    batch_stats = updated.get('batch_stats', {}) if train else state.batch_stats
    return types.Outputs(logits, features), batch_stats

  def __str__(self) -> str:
    mode = 'call' if self.call else _flags.in_words({**self.flags, **self.fields}) or 'no flag'
    return f'{type(self.module).__name__}(training: {mode}; head: {".".join(self.head)})'

  def _own_call(self, module, images, train):
    return module(images, **_flags.values(self.flags, train))


def _takes_statistics(layer: nn.BatchNorm, args: Sequence, kwargs: Mapping) -> bool:
  """Whether a batch norm called so normalises by its batch."""
  given = kwargs.get('use_running_average', args[1] if len(args) > 1 else None)
  return not (layer.use_running_average if given is None else given)

"""Unlearning in a part of a network: chosen parameters alone, or low-rank adapters of its kernels.

Any method can be restricted, since what it may not change is handed to it among the constants of
`batch_stats`: neither gradients nor momentum, decay, noise, damping or a new start reach it there.
Adapters are for methods that train: those that edit weights by themselves, as
`methods.WHOLE_WEIGHTS` names them, find none that they know.
"""

from collections.abc import Callable, Sequence
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, types

_KEPT, _OWN = 'frozen', 'own'  # in `batch_stats` of a restricted model


def restricted(
  unlearn_fn: types.UnlearnFn, *, trainable: Sequence[str] = (), lora_rank: int = 0
) -> types.UnlearnFn:
  r"""A method that changes a part of the parameters; all others keep their bits.

  Args:
    unlearn_fn: any method; `retrain` is no longer exact, since the rest has seen everything, and
      `noisy_finetune`, whose guarantee is for all parameters together, refuses.
    trainable: regular expressions; a parameter whose path, such as 'Block_3/Conv_0/kernel', matches
      one of them (`re.search`) may change. None: all of them.
    lora_rank: r. Above 0, the kernels change by low-rank adapters alone, :math:`W + A B` with A
      `[fan in, r]`, B `[r, fan out]` and B = 0 at first; all else, such as vectors, tokens and
      position embeddings, stays as it is. The result holds the sum. Kernels are what has two axes
      or more and is named `kernel`, `weight` or `w`, or is named by `trainable`.

  Returns:
    The method; its result has the form of the original. Batch statistics follow as ever.

  Raises:
    errors.InputError: when run, if no parameter matches.

  Example:
    >>> from dalign_jax import methods
    >>> unlearn = restricted(methods.muda(), trainable=['head'])

  References:
    Hu et al.: LoRA: Low-Rank Adaptation of Large Language Models. https://arxiv.org/abs/2106.09685

  Deviation: A is drawn with the standard deviation 1 / sqrt(fan in), and there is no further scale.
  """
  if lora_rank < 0:
    raise errors.InputError(f'lora_rank must be 0 or more, got {lora_rank}')
  patterns = tuple(_compiled(pattern).pattern for pattern in trainable)
  if not patterns and not lora_rank:
    return unlearn_fn

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    part = _part_of(problem.original.params, patterns, lora_rank)
    inner = _Network(problem.apply_fn, lora_rank)
    start = _enter(problem.original, problem.original, part, lora_rank)
    init_fn = _Init(problem, part, lora_rank)
    found = unlearn_fn(
      dataclasses.replace(problem, apply_fn=inner, init_fn=init_fn, original=start), key
    )
    return jax.tree.map(np.asarray, inner.whole(found))

  return unlearn


def own_statistics(batch_stats: types.PyTree) -> types.PyTree:
  """The network's own batch statistics, whether or not it is restricted."""
  return batch_stats[_OWN] if is_restricted(batch_stats) else batch_stats


def is_restricted(batch_stats: types.PyTree) -> bool:
  """Whether batch statistics are those of a restricted network."""
  return isinstance(batch_stats, dict) and set(batch_stats) == {_KEPT, _OWN}


def path_of(path: tuple) -> str:
  """A parameter's path, its names joined by '/'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _compiled(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern)
  except re.error as error:
    raise errors.InputError(
      f'{pattern!r} is no regular expression ({error})', argument='trainable'
    ) from error


def _part_of(params, patterns, rank) -> types.PyTree:
  """Whether each parameter may change."""

  def may(path, leaf):
    is_named = not patterns or any(re.search(pattern, path_of(path)) for pattern in patterns)
    if not rank:
      return is_named
    is_kernel = bool(patterns) or path_of(path).rsplit('/', 1)[-1] in types.KERNELS
    return is_named and is_kernel and np.ndim(leaf) > 1

  part = jax.tree_util.tree_map_with_path(may, params)
  if rank:
    _check_axes(params, part)
  if not any(jax.tree.leaves(part)):
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    shown = ', '.join(paths[:8]) + (', ...' if len(paths) > 8 else '')
    kernels = ' kernel' if rank else ''
    raise errors.InputError(
      f'no parameter{kernels} matches {" or ".join(patterns) or "the rank"}; there are {shown}',
      argument='trainable',
    )
  return part


def _check_axes(params, part):
  """Raises for kernels in the order of PyTorch: their last axis is no fan out."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  for (path, leaf), may in zip(leaves, jax.tree.leaves(part), strict=True):
    name = path_of(path)
    if may and name.rsplit('/', 1)[-1] == 'weight' and np.ndim(leaf) > 2:
      raise errors.InputError(
        f'{name} {list(np.shape(leaf))} has its output channels first: an adapter of it would be '
        'of full rank; leave it out by --trainable, or use kernels as Flax has them',
        argument='lora_rank',
      )


def _enter(model, original, part, rank) -> types.ModelState:
  """A model as a method sees it: what it may change, and the original's rest among constants."""
  if rank:
    changed = jax.tree.map(lambda may, w: _adapter(w, rank) if may else None, part, model.params)
    kept = original.params
  else:
    changed = jax.tree.map(lambda may, w: w if may else None, part, model.params)
    kept = jax.tree.map(lambda may, w: None if may else w, part, original.params)
  return types.ModelState(changed, {_KEPT: kept, _OWN: model.batch_stats})


def _adapter(kernel, rank) -> dict[str, np.ndarray]:
  """A and B of a kernel, whose last axis is fan out; A is drawn by the kernel's own shape."""
  fan_in, fan_out = int(np.prod(kernel.shape[:-1])), kernel.shape[-1]
  draw = np.random.default_rng([fan_in, fan_out, rank]).standard_normal((fan_in, rank))
  return {
    'kernel_a': np.asarray(draw / np.sqrt(fan_in), np.float32),
    'kernel_b': np.zeros((rank, fan_out), np.float32),
  }


@dataclasses.dataclass(frozen=True)
class _Network:
  """The network from the two parts of its parameters."""

  apply_fn: types.ApplyFn
  rank: int

  def __call__(self, state, images, *, train, key=None):
    apply_fn = types.with_key(self.apply_fn, key)
    outputs, batch_stats = apply_fn(self.whole(state), images, train=train)
    return outputs, {_KEPT: state.batch_stats[_KEPT], _OWN: batch_stats}

  def whole(self, state) -> types.ModelState:
    """The model with all of its parameters in their place."""
    kept, own = state.batch_stats[_KEPT], state.batch_stats[_OWN]
    join = _adapted if self.rank else lambda mine, rest: rest if mine is None else mine
    is_leaf = lambda x: x is None or (isinstance(x, dict) and 'kernel_a' in x)
    return types.ModelState(jax.tree.map(join, state.params, kept, is_leaf=is_leaf), own)


def _adapted(adapter, kernel):
  if adapter is None:
    return kernel
  product = jnp.matmul(adapter['kernel_a'], adapter['kernel_b'])
  return kernel + product.reshape(kernel.shape)


class _Init:
  """Fresh values of what may change; the rest is the original's.

  Adapters have a whole new network below them: on the original's kernels they would be the original
  itself, which no method means by a network that knows nothing.
  """

  def __init__(self, problem: types.Problem, part: types.PyTree, rank: int):
    self._init_fn, self._original, self._part, self._rank = (
      problem.init_fn,
      problem.original,
      part,
      rank,
    )
    own: Callable[..., Any] | None = getattr(problem.init_fn, 'prepare', None)
    if own is not None:
      self.prepare = lambda model, dataset: self._prepared(own, model, dataset)

  def __call__(self, key: jax.Array) -> types.ModelState:
    drawn = self._init_fn(key)
    return _enter(drawn, drawn if self._rank else self._original, self._part, self._rank)

  def _prepared(self, own, model, dataset):
    """Statistics that a network computes from its data; its parameters are drawn already."""
    statistics = own(types.ModelState({}, model.batch_stats[_OWN]), dataset).batch_stats
    return model._replace(batch_stats={**model.batch_stats, _OWN: statistics})

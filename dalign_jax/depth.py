"""Layers of the parameters, in the order in which the network uses them."""

from collections.abc import Iterator, Sequence

import jax
from jax.extend import core
import jax.numpy as jnp

from dalign_jax import errors, types


def layers(
  apply_fn: types.ApplyFn, model: types.ModelState, image_shape: Sequence[int]
) -> types.ModelState:
  """The number of the layer of each leaf, counted from the input on.

  The order is that of first use in the traced network, so names and nesting of the tree do not
  matter. Every kernel (a leaf of `params` with two or more axes) starts a layer; biases,
  normalisation parameters and batch statistics belong to the kernel used before them. Thus the last
  layer is the head, and a leaf that is never used is in layer 0.

  Args:
    apply_fn: the network.
    model: its state.
    image_shape: `(H, W, C)`.

  Returns:
    A model state of integers.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {'a': {'w': jnp.ones((3, 2)), 'b': jnp.ones(2)}, 'Z': jnp.ones((1, 3))}
    >>> def apply_fn(state, images, *, train):
    ...   features = images.reshape(len(images), -1) @ state.params['Z']
    ...   logits = features @ state.params['a']['w'] + state.params['a']['b'][None]
    ...   return types.Outputs(logits, features), state.batch_stats
    >>> layers(apply_fn, types.ModelState(params, {}), (1, 1, 1)).params
    {'Z': 0, 'a': {'b': 1, 'w': 1}}
  """
  images = jnp.zeros((1, *image_shape), jnp.float32)
  traced = jax.make_jaxpr(lambda m, x: apply_fn(m, x, train=False)[0])(model, images)
  paths, structure = jax.tree_util.tree_flatten_with_path(model)
  is_kernel = [path[0].name == 'params' and jnp.ndim(leaf) >= 2 for path, leaf in paths]
  leaf_of = {variable: i for i, variable in enumerate(traced.jaxpr.invars[: len(paths)])}
  numbers, current = {}, -1
  for leaf in _uses(traced.jaxpr, leaf_of):
    if leaf not in numbers:
      current += is_kernel[leaf]
      numbers[leaf] = max(0, current)
  return jax.tree.unflatten(structure, [numbers.get(i, 0) for i in range(len(paths))])


def last_layers(
  apply_fn: types.ApplyFn, model: types.ModelState, image_shape: Sequence[int], num_layers: int
) -> types.ModelState:
  """Mask of the leaves in the head or in the last `num_layers` layers before it.

  Args:
    apply_fn: the network.
    model: its state.
    image_shape: `(H, W, C)`.
    num_layers: how many layers before the head.

  Returns:
    A model state of booleans.

  Raises:
    ValueError: if the network has no such number of layers before its head.
  """
  numbers = layers(apply_fn, model, image_shape)
  head = max(jax.tree.leaves(numbers))
  if not 0 <= num_layers <= head:
    raise errors.InputError(f'num_layers must be 0 to {head} for this network, got {num_layers}')
  return jax.tree.map(lambda number: number >= head - num_layers, numbers)


def _uses(jaxpr, leaf_of: dict) -> Iterator[int]:
  """The leaves in the order in which they meet other values, with repetitions."""
  leaf_of = dict(leaf_of)
  for equation in jaxpr.eqns:
    inputs = [v for v in equation.invars if not isinstance(v, core.Literal)]
    used = [leaf_of[v] for v in inputs if v in leaf_of]
    if used and len(inputs) == 1:  # a cast or a reshape of a leaf is still that leaf
      leaf_of.update(dict.fromkeys(equation.outvars, used[0]))
      continue
    inner = called(equation)
    if len(used) > 1 and inner is not None:
      known = [
        (i, v) for i, v in zip(inner.jaxpr.invars, equation.invars, strict=True) if v in inputs
      ]
      yield from _uses(inner.jaxpr, {i: leaf_of[v] for i, v in known if v in leaf_of})
    yield from used


def called(equation) -> core.ClosedJaxpr | None:
  """The function that an equation calls with its own inputs, if it is such a call."""
  closed = [p for p in equation.params.values() if isinstance(p, core.ClosedJaxpr)]
  if len(closed) == 1 and len(closed[0].jaxpr.invars) == len(equation.invars):
    return closed[0]
  return None

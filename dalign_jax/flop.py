"""Floating-point operations of programs, counted from their shapes.

Counted are the multiplications and additions of matrix products and convolutions, which is what a
network's cost consists of, on all devices together. Zeros that a dilation inserts are not counted;
padding is. A loop counts as often as it runs, where the program says how often; a `while` loop
counts once, and of two branches the dearer one. Eigendecompositions, elementwise operations and
what runs outside of `parallel.spmd` do not count.
"""

from collections.abc import Callable
import math

import jax
from jax.extend import core

_total = [0.0]


def total() -> float:
  """Operations of all calls of counted programs since the process started."""
  return _total[0]


def counted(call: Callable, fn: Callable, axis: str, num_devices: int) -> Callable:
  """A function that does what `call` does, and adds its operations on all devices.

  Args:
    call: what runs the program; its arguments have a leading axis of this process's devices.
    fn: what it does on one device, without that axis.
    axis: the name that `fn` knows the devices by.
    num_devices: of all processes.
  """
  known: dict[tuple, float] = {}  # by the arguments' shapes

  def run(*args):
    shapes = tuple(x.shape for x in jax.tree.leaves(args))
    if shapes not in known:
      like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), args)
      traced = jax.make_jaxpr(fn, axis_env=[(axis, num_devices)])(*like)
      known[shapes] = num_devices * of(traced.jaxpr)
    _total[0] += known[shapes]
    return call(*args)

  return run


def of(jaxpr: core.Jaxpr) -> float:
  """Operations of one call of a program.

  Args:
    jaxpr: of the program, as `jax.make_jaxpr` gives it.

  Example:
    >>> import jax.numpy as jnp
    >>> of(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 4))).jaxpr)
    48.0
  """
  return float(sum(_of_equation(equation) for equation in jaxpr.eqns))


def _of_equation(equation) -> float:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
  if name == 'conv_general_dilated':
    kernel, out_axis = equation.invars[1].aval, params['dimension_numbers'].rhs_spec[0]
    each = kernel.size / kernel.shape[out_axis]  # products for a number of the output
    return 2 * equation.outvars[0].aval.size * each / math.prod(params['lhs_dilation'])
  if name == 'cond':
    return max(of(branch.jaxpr) for branch in params['branches'])
  times = {'scan': params.get('length'), 'shard_map': getattr(params.get('mesh'), 'size', None)}
  return (times.get(name) or 1) * sum(map(of, _inner(params.values())))


def _inner(values) -> list[core.Jaxpr]:
  """The programs inside of an equation."""
  found = []
  for value in values:
    if isinstance(value, core.ClosedJaxpr):
      found.append(value.jaxpr)
    elif isinstance(value, core.Jaxpr):
      found.append(value)
    elif isinstance(value, tuple | list):
      found += _inner(value)
  return found

"""Losses agree, in value and gradient, on every route to several devices.

Those with an `axis_name` under any mapping; the others, which have no axis, on arrays whose rows
lie on several devices.
"""

import inspect

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

from dalign_jax import losses

AXIS = 'devices'
DEVICES = 4
SIZE, DIM = 12, 5

_rng = np.random.default_rng(0)
X = _rng.normal(size=(SIZE, DIM)).astype(np.float32)
WEIGHTS = _rng.uniform(0.0, 1.0, SIZE).astype(np.float32).round()  # uneven over devices
KERNEL = _rng.normal(size=(DIM, DIM)).astype(np.float32)
BASIS = losses.principal_basis(losses.second_moment(_rng.normal(size=(30, DIM))), energy=0.7)
PROBE = _rng.normal(size=(DIM, DIM)).astype(np.float32)
LABELS = (np.arange(SIZE) % DIM).astype(np.int32)
ATTRIBUTES = _rng.integers(0, 2, (SIZE, DIM)).astype(np.int32)

# name -> scalar of (features [B, D], weights [B], axis_name)
CASES = {
  'weighted_mean': lambda z, w, axis: losses.weighted_mean(
    jnp.sum(z**2, axis=1), w, axis_name=axis
  ),
  'second_moment': lambda z, w, axis: jnp.sum(
    losses.second_moment(z, weights=w, axis_name=axis) * PROBE
  ),
  'dimensional_alignment_loss': lambda z, w, axis: losses.dimensional_alignment_loss(
    z, BASIS, weights=w, axis_name=axis
  ),
  'transport_distance': lambda z, w, axis: losses.transport_distance(
    z, _other(z), epsilon=0.05, weights_a=w, tolerance=1e-4, axis_name=axis
  ),
  'sliced_wasserstein': lambda z, w, axis: losses.sliced_wasserstein(
    z, _other(z), jax.random.key(0), weights_a=w, axis_name=axis
  ),
  'mmd': lambda z, w, axis: losses.mmd(z, _other(z), weights_b=w, axis_name=axis),
}

# name -> array of (features [B, D], labels [B], attributes [B, D])
WITHOUT_AXIS = {
  'cross_entropy': lambda z, y, a: losses.cross_entropy(y, z, label_smoothing=0.1),
  'binary_cross_entropy': lambda z, y, a: losses.binary_cross_entropy(a, z),
  'label_loss': lambda z, y, a: losses.label_loss(y, z) + losses.label_loss(a, z),
  'distillation': lambda z, y, a: losses.distillation(_other(z), z, temperature=2.0),
  'self_distillation': lambda z, y, a: losses.self_distillation(_other(z), z, y),
  'l1': lambda z, y, a: losses.l1({'rows': z}),
  'quadratic': lambda z, y, a: losses.quadratic({'rows': _other(z)}, {'rows': z}),
  'cosine_cost': lambda z, y, a: losses.cosine_cost(z, _other(z)),
  'sinkhorn': lambda z, y, a: losses.sinkhorn(jnp.abs(z), epsilon=0.1).plan,
  'principal_projector': lambda z, y, a: losses.principal_projector(
    losses.second_moment(z), energy=0.7
  ),
}
NO_GRADIENT = ('sinkhorn', 'principal_projector')


def _other(z):
  """Another set of features that goes with the rows, wherever they are."""
  return jnp.sin(2 * z[:, ::-1])


def _loss(case, axis):
  """A function of a linear layer's kernel, so that gradients are those of replicated parameters."""
  return lambda kernel, x, w: CASES[case](x @ kernel, w, axis)


def _local_step(case):
  def step(kernel, x, w):
    value, gradient = jax.value_and_grad(_loss(case, AXIS))(kernel, x, w)
    return value, jax.lax.pmean(gradient, AXIS)

  return step


def _split(array):
  return array.reshape(DEVICES, -1, *array.shape[1:])


def _mesh():
  return jax.make_mesh((DEVICES,), (AXIS,), axis_types=(AxisType.Auto,))


def _plain(case):
  return jax.jit(jax.value_and_grad(_loss(case, None)))(KERNEL, X, WEIGHTS)


def _sharded_jit(case):
  rows = NamedSharding(_mesh(), PartitionSpec(AXIS))
  whole = NamedSharding(_mesh(), PartitionSpec())
  arguments = jax.device_put((KERNEL, X, WEIGHTS), (whole, rows, rows))
  return jax.jit(jax.value_and_grad(_loss(case, None)))(*arguments)


def _explicit_mesh():
  """`jax.make_mesh` as it is by default, with axes of type Explicit."""
  return jax.make_mesh((DEVICES,), (AXIS,), axis_types=(AxisType.Explicit,))


def _explicit_jit(case):
  mesh = _explicit_mesh()
  with jax.set_mesh(mesh):
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
    arguments = jax.device_put((KERNEL, X, WEIGHTS), (whole, rows, rows))
    return jax.jit(jax.value_and_grad(_loss(case, None)))(*arguments)


def _vmap(case):
  step = jax.vmap(_local_step(case), in_axes=(None, 0, 0), axis_name=AXIS)
  return jax.tree.map(lambda x: x[0], step(KERNEL, _split(X), _split(WEIGHTS)))


def _pmap(case):
  step = jax.pmap(_local_step(case), in_axes=(None, 0, 0), axis_name=AXIS)
  return jax.tree.map(lambda x: np.asarray(x)[0], step(KERNEL, _split(X), _split(WEIGHTS)))


def _shard_map(check_vma):
  def route(case):
    step = jax.shard_map(
      _local_step(case),
      mesh=_mesh(),
      in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(AXIS)),
      out_specs=PartitionSpec(),
      check_vma=check_vma,
    )
    return jax.jit(step)(KERNEL, X, WEIGHTS)

  return route


ROUTES = {
  'sharded_jit': _sharded_jit,
  'explicit_jit': _explicit_jit,
  'vmap': _vmap,
  'pmap': _pmap,
  'shard_map': _shard_map(check_vma=True),
  'shard_map_unchecked': _shard_map(check_vma=False),
}


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('case', CASES)
def test_route_equals_plain_jit(case, route):
  expected = _plain(case)
  assert float(jnp.abs(expected[1]).max()) > 1e-3
  chex.assert_trees_all_close(ROUTES[route](case), expected, rtol=1e-4, atol=1e-5)


def test_no_loss_with_an_axis_is_missing():
  with_axis = {
    name
    for name in losses.__all__
    if 'axis_name' in inspect.signature(getattr(losses, name)).parameters
  }
  assert with_axis == set(CASES)


def _array_and_gradient(case):
  """The loss's array, and the gradient of a probe of it by the kernel."""

  def probed(kernel, x, labels, attributes):
    array = WITHOUT_AXIS[case](x @ kernel, labels, attributes)
    return jnp.sum(jnp.sin(array)), array

  def run(*arguments):
    (_, array), gradient = jax.value_and_grad(probed, has_aux=True)(*arguments)
    return array, gradient

  return jax.jit(run)


@pytest.mark.parametrize('mesh_fn', [_mesh, _explicit_mesh])
@pytest.mark.parametrize('case', WITHOUT_AXIS)
def test_rows_on_several_devices_equal_one_device(case, mesh_fn):
  run = _array_and_gradient(case)
  host = (KERNEL, X, LABELS, ATTRIBUTES)
  expected = run(*host)
  assert case in NO_GRADIENT or float(jnp.abs(expected[1]).max()) > 1e-3
  mesh = mesh_fn()
  with jax.set_mesh(mesh):
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
    found = run(*jax.device_put(host, (whole, rows, rows, rows)))
  chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-4, atol=1e-5)


def test_no_loss_without_an_axis_is_missing():
  parts = {'Transport', 'basis_rank', 'principal_basis'}  # of sinkhorn and principal_projector
  assert set(losses.__all__) - set(CASES) - parts == set(WITHOUT_AXIS)

"""Operations of programs: products, convolutions, gradients, loops, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import flop, models, parallel


def _of(fn, *args):
  return flop.of(jax.make_jaxpr(fn)(*args).jaxpr)


def test_products_and_their_gradients():
  w, x = jnp.ones((8, 16)), jnp.ones((4, 8))
  assert _of(lambda w, x: x @ w, w, x) == 2 * 4 * 8 * 16
  gradient = jax.grad(lambda w, x: jnp.sum((x @ w) ** 2), argnums=(0, 1))
  assert _of(gradient, w, x) == 3 * 2 * 4 * 8 * 16


@pytest.mark.parametrize('stride', [1, 2])
def test_convolutions_and_their_gradients(stride):
  kernel, images = jnp.ones((3, 3, 8, 16)), jnp.ones((2, 12, 12, 8))

  def convolve(kernel, images):
    return jax.lax.conv_general_dilated(
      images, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  forward = 2 * (2 * (12 // stride) ** 2 * 16) * 9 * 8
  assert _of(convolve, kernel, images) == forward
  by_kernel = jax.grad(lambda k, x: jnp.sum(convolve(k, x) ** 2))
  assert _of(by_kernel, kernel, images) == 2 * forward
  both = jax.grad(lambda k, x: jnp.sum(convolve(k, x) ** 2), argnums=(0, 1))
  assert _of(both, kernel, images) == 3 * forward


def test_loops_and_branches():
  w, x = jnp.ones((8, 8)), jnp.ones((4, 8))
  scanned = lambda w, x: jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]
  assert _of(scanned, w, x) == 5 * 2 * 4 * 8 * 8
  branched = lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x, x)
  assert _of(branched, w, x) == 2 * 2 * 4 * 8 * 8
  assert _of(jax.jit(jax.remat(lambda w, x: x @ w)), w, x) == 2 * 4 * 8 * 8


def test_grouped_convolutions_count_their_own_channels():
  kernel, images = jnp.ones((3, 3, 1, 8)), jnp.ones((2, 6, 6, 8))
  depthwise = lambda k, x: jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=8
  )
  assert _of(depthwise, kernel, images) == 2 * (2 * 36 * 8) * 9


@pytest.mark.parametrize('mapping', ['pmap', 'shard_map'])
def test_calls_of_mapped_programs_are_added_over_devices(mapping):
  before = parallel.mapping()
  parallel.use(mapping)
  try:
    devices = tuple(jax.devices()[:2])
    program = parallel.spmd(lambda w, x: x @ w, devices=devices)
  finally:
    parallel.use(before)
  w = parallel.replicate(np.ones((8, 16), np.float32), devices)
  x = np.ones((len(devices), 4, 8), np.float32)
  start = flop.total()
  for _ in range(3):
    program(w, x)
  assert flop.total() - start == 3 * len(devices) * 2 * 4 * 8 * 16


def test_cost_of_a_network_is_known():
  apply_fn, init_fn = models.build(
    'fast_cnn_small', num_classes=10, image_shape=(32, 32, 3), axis_name=None
  )
  state = init_fn(jax.random.key(0))

  def loss(params, images):
    outputs, _ = apply_fn(state._replace(params=params), images, train=True)
    return jnp.sum(outputs.logits)

  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  cost = flop.of(jax.make_jaxpr(jax.grad(loss))(state.params, images).jaxpr)
  assert cost == pytest.approx(0.23e9, rel=0.1)  # docs/recipes.md

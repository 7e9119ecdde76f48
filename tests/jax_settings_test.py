"""Settings of JAX that a program may have made before it imports this library."""

import chex
import jax
import jax.numpy as jnp
import pytest

from dalign_jax import seeds
from tests.methods_compile_test import quick

KEY = jax.random.key(7)
DRAWING = ('boundary_shrink', 'dlfd', 'jit', 'l2ul', 'lotus', 'muda', 'noisy_finetune', 'tmu')


@pytest.mark.parametrize('name', DRAWING)
def test_doubles_are_in_no_model(name, tiny_problem):
  """With 64-bit types on, a draw or a label without a type of its own becomes one."""
  with jax.enable_x64(True):
    assert jnp.zeros(()).dtype == jnp.float64
    result = quick(name)(tiny_problem, KEY)
  chex.assert_trees_all_equal_shapes_and_dtypes(result, tiny_problem.original)
  chex.assert_tree_all_finite(result)


@pytest.mark.parametrize('name', DRAWING)
def test_keys_of_any_generator_serve(name, tiny_problem):
  with jax.default_prng_impl('rbg'):
    result = quick(name)(tiny_problem, jax.random.key(7))
  chex.assert_trees_all_equal_shapes_and_dtypes(result, tiny_problem.original)
  chex.assert_tree_all_finite(result)


def test_a_seed_means_the_same_whatever_the_default_generator_is():
  usual = seeds.stream(3, 'gold', 1)
  with jax.default_prng_impl('rbg'):
    other, foreign = seeds.stream(3, 'gold', 1), jax.random.key(3)
  assert jax.random.key_impl(other) == 'threefry2x32' and bool(other == usual)
  bits = seeds.bits_of(foreign)
  assert jax.random.key_impl(foreign) == 'rbg' and bits.shape == (2,) and bits.dtype == 'uint32'
  assert (seeds.bits_of(seeds.of_bits(bits)) == bits).all()

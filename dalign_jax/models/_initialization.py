"""Fast initialisation: shapes from the module, values from NumPy."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, types

_Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def initialize(shapes: types.PyTree, key: jax.Array) -> types.ModelState:
  """Draws the variables of a model from the distributions that its layers declare.

  `model.init` of a ResNet-18 takes seconds on a CPU, this a fraction of one. Runs on the host, so
  it cannot be traced by `jax.jit` or `jax.vmap`.

  Args:
    shapes: `jax.eval_shape` of the module's `init`.
    key: random key; equal keys give equal bits.

  Returns:
    The model state, float32.

  Raises:
    ValueError: for a leaf whose name has no rule.
  """
  generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(_rule(path, leaf.shape)(generator, leaf.shape)), shapes
  )
  return types.ModelState(variables['params'], variables.get('batch_stats', {}))


def _rule(path: tuple, shape: tuple[int, ...]) -> _Draw:
  """The rule that draws the leaf at `path`."""
  rules = {
    ('kernel', 4): _he_normal,  # convolutions
    ('kernel', 2): _lecun_normal,  # linear layers
    ('position_embedding', 3): _small_normal,
    ('class_token', 3): _small_normal,
    ('bias', 1): _zeros,
    ('mean', 1): _zeros,
    ('scale', 1): _ones,
    ('var', 1): _ones,
  }
  rule = rules.get((path[-1].key, len(shape)))
  if rule is None:
    name = jax.tree_util.keystr(path)
    raise errors.InputError(f'no initialisation rule for the leaf {name} of shape {list(shape)}')
  return rule


def _he_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  return _variance_scaling(generator, shape, 2.0)


def _lecun_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  return _variance_scaling(generator, shape, 1.0)


def _small_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  return np.float32(0.02) * generator.standard_normal(shape, np.float32)


def _zeros(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  del generator
  return np.zeros(shape, np.float32)


def _ones(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  del generator
  return np.ones(shape, np.float32)


def _variance_scaling(
  generator: np.random.Generator, shape: tuple[int, ...], scale: float
) -> np.ndarray:
  """Normal values of variance `scale / fan_in`, cut at two of their standard deviations."""
  values = generator.standard_normal(math.prod(shape), np.float32)
  outside = np.flatnonzero(np.abs(values) > 2)
  while outside.size:
    values[outside] = generator.standard_normal(outside.size, np.float32)
    outside = outside[np.abs(values[outside]) > 2]
  cut_deviation = 0.87962566103423978  # of the standard normal distribution cut at -2 and 2
  fan_in = math.prod(shape[:-1])
  return values.reshape(shape) * np.float32(math.sqrt(scale / fan_in) / cut_deviation)

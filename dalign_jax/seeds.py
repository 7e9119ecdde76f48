"""The only maker of PRNG keys: an independent stream for each seed, role and number."""

import jax
import numpy as np

ROLES = (
  'original',
  'gold',
  'unlearn',
  'shadow',
  'memorisation',
  'request',  # the unlearning of a deletion request; its number is the length of the chain
  'request_gold',
  'relearn',
  'template',  # a state that only its shapes are read of
  'request_dummy',  # the unlearning of as many other samples, as the noise of a request
  'recovery',
  'difficulty',  # models that scores of examples are computed with
  'short',  # short training from scratch, for measures without gold
)
_MOST_ROLES = 2**16
_IMPL = 'threefry2x32'  # a seed means the same whatever JAX's default generator is


def key(seed: int | jax.Array) -> jax.Array:
  """The key of a seed, of this library's generator."""
  return jax.random.key(seed, impl=_IMPL)


def of_bits(bits: jax.Array) -> jax.Array:
  """The key of two uint32, of this library's generator."""
  return jax.random.wrap_key_data(bits, impl=_IMPL)


def bits_of(any_key: jax.Array) -> np.ndarray:
  """Two uint32 that stand for a key of any generator; those of `of_bits` are its own."""
  bits = np.asarray(jax.random.key_data(any_key))
  return bits if bits.shape == (2,) else np.asarray(jax.random.bits(any_key, (2,), np.uint32))


def stream(seed: int, role: str, number: int = 0) -> jax.Array:
  """A key that no other seed, role or number gives, nor a split of another's key.

  `jax.random.split(key)[i]` equals `jax.random.fold_in(key, i)`, so that a number must not be
  folded into a key that is also split: role and number are folded into the seed's key together.

  Args:
    seed: a seed of the user's.
    role: one of `ROLES`.
    number: counts within the role, from 0; below 65,536.

  Returns:
    A typed PRNG key.

  Example:
    >>> bool((stream(0, 'original') == stream(0, 'gold')).all())
    False
  """
  if not 0 <= number < 2**16:
    raise ValueError(f'number must be in [0, 65536), got {number}')
  return jax.random.fold_in(key(seed), ROLES.index(role) + _MOST_ROLES * number)

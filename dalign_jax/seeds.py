"""The only maker of PRNG keys: an independent stream for each seed, role and number."""

import jax

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
  return jax.random.fold_in(jax.random.key(seed), ROLES.index(role) + _MOST_ROLES * number)

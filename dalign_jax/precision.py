"""Networks that compute in fewer bits than they are kept in."""

import dataclasses

import jax
import jax.numpy as jnp

from dalign_jax import errors, types

DTYPES = ('float32', 'bfloat16')


def computing_in(apply_fn: types.ApplyFn, dtype: str) -> types.ApplyFn:
  """A network whose layers compute in another floating-point type.

  Parameters and images are cast on the way in, logits and features back to float32 on the way out.
  Parameters, their gradients and updates, batch statistics and losses stay in float32, so that
  methods, checkpoints and records are the same as ever. Flax's normalisation layers and
  `jax.nn.dot_product_attention` take their sums in float32 whatever the images are.

  Args:
    apply_fn: the network. It must compute in the dtype of the images that it receives; a constant
      array of float32 among its operands turns everything behind it into float32.
    dtype: 'float32', which changes nothing, or 'bfloat16'.

  Returns:
    The network.

  Raises:
    errors.InputError: for another dtype; when called, if the network computes its features in
      another type than that.

  Example:
    >>> def apply_fn(state, images, *, train):
    ...   features = images.reshape(len(images), -1)
    ...   return types.Outputs(features @ state.params, features), state.batch_stats
    >>> state = types.ModelState(jnp.full((4, 1), 1 / 3), {})
    >>> outputs, _ = computing_in(apply_fn, 'bfloat16')(state, jnp.ones((1, 2, 2, 1)), train=False)
    >>> outputs.logits.dtype.name, float(outputs.logits[0, 0])
    ('float32', 1.3359375)

  References:
    Paulius Micikevicius and others: Mixed Precision Training, https://arxiv.org/abs/1710.03740

  Deviation: no loss scaling; bfloat16 has the exponents of float32.
  """
  if dtype not in DTYPES:
    raise errors.InputError(f'compute_dtype must be one of {", ".join(DTYPES)}, got {dtype!r}')
  return apply_fn if dtype == 'float32' else _Network(apply_fn, dtype)


@dataclasses.dataclass(frozen=True)
class _Network:
  """The network between two casts."""

  apply_fn: types.ApplyFn
  dtype: str

  def __call__(self, state, images, *, train, key=None):
    apply_fn = types.with_key(self.apply_fn, key)
    params = _cast(state.params, self.dtype)
    inner = types.ModelState(params, state.batch_stats)
    outputs, batch_stats = apply_fn(inner, images.astype(self.dtype), train=train)
    if outputs.features.dtype != self.dtype:
      raise errors.InputError(
        f'the network computes its features in {outputs.features.dtype}, not in {self.dtype}: '
        'have it cast normalised images, and constants that it computes with, to images.dtype',
        argument='compute_dtype',
      )
    return _cast(outputs, 'float32'), _cast(batch_stats, 'float32')


def _cast(tree, dtype):
  """Floating-point leaves in another type."""
  is_float = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
  return jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, tree)

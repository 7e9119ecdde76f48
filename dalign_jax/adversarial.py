"""Adversarial images in pixel space: one gradient step (FGSM) or many, projected (PGD).

Usable alone: a loss is any function of a batch of images, and normalisation is part of the network.
"""

from collections.abc import Callable

import chex
import jax
from jax import lax
import jax.numpy as jnp

from dalign_jax import errors, types

NORMS = ('linf', 'l2')

BatchLoss = Callable[[jax.Array], jax.Array]


def fgsm(
  loss_fn: BatchLoss, images: types.Array, *, epsilon: float, targeted: bool = False
) -> jax.Array:
  r"""One signed gradient step of length `epsilon`, clipped to [0, 1].

  .. math:: x' = clip(x + \epsilon \, \mathrm{sign} \, \nabla_x L(x))

  Args:
    loss_fn: `[B, H, W, C] -> [B]`; a row's loss must depend on that row alone.
    images: `[B, H, W, C]` float in [0, 1].
    epsilon: step in pixel values.
    targeted: descend the loss (towards a target's label) instead of ascending it.

  Returns:
    `[B, H, W, C]` in [0, 1].

  Example:
    >>> import jax.numpy as jnp
    >>> fgsm(lambda x: x.sum((1, 2, 3)), jnp.full((1, 1, 1, 1), 0.5), epsilon=0.25).item()
    0.75

  References:
    Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples.
    https://arxiv.org/abs/1412.6572
  """
  return pgd(
    loss_fn, images, epsilon=epsilon, step_size=epsilon, num_steps=1, norm='linf', targeted=targeted
  )


def pgd(
  loss_fn: BatchLoss,
  images: types.Array,
  *,
  epsilon: float,
  step_size: float,
  num_steps: int,
  norm: str = 'linf',
  targeted: bool = False,
  keys: jax.Array | None = None,
  starts: types.Array | None = None,
  stop_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
  r"""Projected gradient steps inside the ball around each image and inside [0, 1].

  .. math:: x_{k+1} = clip \big( \Pi_\epsilon ( x_k + s \, d(\nabla_x L(x_k)) ) \big), \quad
    d(g) = \mathrm{sign}(g) \text{ or } g / \|g\|_2

  The steps are one compiled loop; gradients do not flow through it.

  Args:
    loss_fn: `[B, H, W, C] -> [B]`, or to a scalar of the batch as a whole, such as a distance.
    images: `[B, H, W, C]` float in [0, 1], the centres of the balls.
    epsilon: radius, of each pixel value ('linf') or of the image as a vector ('l2').
    step_size: length s of a step in the same norm.
    num_steps: number of steps; may be traced.
    norm: 'linf' or 'l2'.
    targeted: descend the loss (towards a target's label) instead of ascending it.
    keys: `[B]` random keys, to start at a random point of each ball; None to start at the centres.
    starts: `[B, H, W, C]`, images inside the balls to start at; not together with `keys`.
    stop_fn: `[B, H, W, C] -> [B]` bool, asked before each step: the rows that stay from then on.

  Returns:
    `[B, H, W, C]`, inside the balls and [0, 1].

  Raises:
    ValueError: if a choice or a number is not one of the above.

  Example:
    >>> import jax.numpy as jnp
    >>> loss_fn = lambda x: x.sum((1, 2, 3))
    >>> images = jnp.full((1, 1, 1, 1), 0.5)
    >>> pgd(loss_fn, images, epsilon=0.25, step_size=0.2, num_steps=9, targeted=True).item()
    0.25

  References:
    Madry et al.: Towards Deep Learning Models Resistant to Adversarial Attacks.
    https://arxiv.org/abs/1706.06083
  """
  chex.assert_rank(images, 4)
  if norm not in NORMS:
    raise errors.InputError(f'norm must be one of {", ".join(NORMS)}, got {norm!r}')
  for name, value in (('epsilon', epsilon), ('step_size', step_size), ('num_steps', num_steps)):
    if not isinstance(value, jax.Array) and not value >= 0:
      raise errors.InputError(f'{name} must not be negative, got {value}')
  images = lax.stop_gradient(jnp.asarray(images, jnp.float32))
  gradient = jax.grad(lambda x: jnp.sum(loss_fn(x)))
  step = -step_size if targeted else step_size

  def project(perturbed):
    offset = perturbed - images
    if norm == 'linf':
      offset = jnp.clip(offset, -epsilon, epsilon)
    else:
      offset *= jnp.minimum(1.0, epsilon / jnp.maximum(_length(offset), 1e-12))
    return jnp.clip(images + offset, 0.0, 1.0)

  def body(_, perturbed):
    slope = gradient(perturbed)
    is_linf = norm == 'linf'
    direction = jnp.sign(slope) if is_linf else slope / jnp.maximum(_length(slope), 1e-12)
    moved = project(perturbed + step * direction)
    if stop_fn is None:
      return moved
    return jnp.where(stop_fn(perturbed)[:, None, None, None], perturbed, moved)

  start = images if starts is None else lax.stop_gradient(jnp.asarray(starts, jnp.float32))
  if keys is not None:
    start = project(images + _random_offset(keys, images, norm, epsilon))
  return lax.stop_gradient(lax.fori_loop(0, num_steps, body, start))


def _length(images):
  """Euclidean norm of each image, `[B, 1, 1, 1]`."""
  return jnp.sqrt(jnp.sum(images**2, axis=(1, 2, 3), keepdims=True))


def _random_offset(keys, images, norm, epsilon):
  """A uniform point of each ball around 0."""
  shape, size, dtype = images.shape[1:], images[0].size, images.dtype
  if norm == 'linf':
    draw = lambda k: jax.random.uniform(k, shape, dtype, minval=-epsilon, maxval=epsilon)
    return jax.vmap(draw)(keys)
  direction = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 0), shape, dtype))(keys)
  radius = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 1), (1, 1, 1), dtype))(keys)
  return epsilon * radius ** (1 / size) * direction / jnp.maximum(_length(direction), 1e-12)

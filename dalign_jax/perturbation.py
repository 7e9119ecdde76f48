"""Perturbed images: steps along the sign of a gradient, in pixel space."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def sign_ascent(objective: Callable, images, *, step_size: float, num_steps, radius: float = 1.0):
  r"""Ascends an objective of images by steps of equal size in every pixel.

  .. math:: x \leftarrow \Pi \big( x + \alpha \, \mathrm{sign} \, \nabla_x J(x) \big)

  where :math:`\Pi` clips to [0, 1] and to the given distance from the images at the start. The
  steps are one compiled loop. No gradient flows through the result.

  Args:
    objective: images `[B, H, W, C]` to a scalar, J.
    images: `[B, H, W, C]` float in [0, 1], before normalisation.
    step_size: alpha, in the unit of the pixels.
    num_steps: how many steps; may be traced.
    radius: largest change of a pixel.

  Returns:
    `[B, H, W, C]` images in [0, 1].

  Example:
    >>> import jax.numpy as jnp
    >>> brighter = sign_ascent(jnp.sum, jnp.full((1, 1, 1, 1), 0.5), step_size=0.25, num_steps=3)
    >>> brighter.ravel().tolist()
    [1.0]

  References:
    Madry, Makelov, Schmidt, Tsipras, Vladu: Towards Deep Learning Models Resistant to Adversarial
    Attacks. https://arxiv.org/abs/1706.06083
  """
  images = jax.lax.stop_gradient(images)
  low, high = jnp.maximum(images - radius, 0.0), jnp.minimum(images + radius, 1.0)

  def step(_, current):
    gradient = jax.grad(objective)(current)
    return jnp.clip(current + step_size * jnp.sign(gradient), low, high)

  return jax.lax.fori_loop(0, num_steps, step, images)

"""Residual knowledge: recognition of forgotten images after small perturbations."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, losses, metrics, parallel, prediction, training, types
from dalign_jax.recovery import _curve

RADII = (0.0, 1 / 255, 2 / 255, 4 / 255)


def residual_knowledge(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  forget: types.Dataset,
  *,
  radii: Sequence[float] = RADII,
  num_steps: int = 10,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  r"""Forget accuracy at the best point of a small ball around each image.

  Projected gradient descent of the label's cross-entropy, in the maximum norm, step
  :math:`2.5 \, r / n`.

  Args:
    apply_fn: the network.
    model: the model to attack.
    forget: images to start from.
    radii: radii r in units of the pixel range [0, 1].
    num_steps: steps n.
    batch_size: rows per call and device.
    devices: devices to use, None for all of them.

  Returns:
    Budgets r and accuracies, `[len(radii)]` each.

  Raises:
    ValueError: for a negative radius, less than one step, or binary attributes.

  References:
    The notion of residual knowledge: https://arxiv.org/abs/2601.22359.

  Deviation: a reconstruction: the point that PGD finds, in place of random points of the ball.
  """
  _curve.check_single_label(forget)
  if num_steps < 1:
    raise errors.InputError(f'num_steps must be 1 or more, got {num_steps}')
  if not len(radii) or min(radii) < 0:
    raise errors.InputError(f'radii must not be empty or negative, got {tuple(radii)}')
  run = functools.partial(prediction.map_examples, batch_size=batch_size, devices=devices)
  centres = {'images': forget.images}
  rates = []
  for radius in radii:
    constants = (model, jnp.float32(radius), jnp.float32(2.5 * radius / num_steps))
    images = run(_centre, (), centres)
    for _ in range(num_steps if radius else 0):  # convolutions inside a lax loop are slow on a CPU
      fields = {**centres, 'labels': forget.labels, 'now': images}
      images = run(_step(apply_fn), constants, fields)
    logits = run(_logits(apply_fn), model, {'now': images})
    is_finite = np.isfinite(logits).all()  # else the model is destroyed, and knows nothing
    rates.append(metrics.accuracy(logits, forget.labels) if is_finite else 0.0)
  return _curve.curve(radii, rates)


def _centre(constants, batch):
  del constants
  return training.to_float(batch['images'])


@functools.lru_cache(maxsize=8)
def _step(apply_fn):
  """One projected step towards the labels, of a batch."""

  def step(constants, batch):
    model, radius, length = constants
    centre = training.to_float(batch['images'])

    def loss_fn(images):
      return losses.cross_entropy(batch['labels'], apply_fn(model, images, train=False)[0].logits)

    moved = batch['now'] - length * jnp.sign(jax.grad(lambda x: jnp.sum(loss_fn(x)))(batch['now']))
    return jnp.clip(jnp.clip(moved, centre - radius, centre + radius), 0.0, 1.0)

  return step


@functools.lru_cache(maxsize=8)
def _logits(apply_fn):
  return lambda model, batch: apply_fn(model, batch['now'], train=False)[0].logits

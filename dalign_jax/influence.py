"""Influence of training examples on held-out data, from gradients along one direction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import importance, losses, parallel, prediction, training, types


def influence_scores(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  validation: types.Dataset,
  *,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> np.ndarray:
  r"""Dot product of each example's loss gradient with that of the validation loss.

  .. math:: s_i = \nabla_\theta L(y_i, f_\theta(x_i)) \cdot
    \nabla_\theta \, \frac1V \sum_v L(y_v, f_\theta(x_v))

  No single-example gradient is formed: it is the derivative of each loss along one direction, by
  two reverse differentiations.

  Args:
    apply_fn: the network, in evaluation mode.
    model: host model state.
    dataset: N examples, the forget set say.
    validation: examples never trained on.
    batch_size: rows per call and device.
    devices: devices to run on, None for all.

  Returns:
    `[N]` scores; large: a step on the example helps the validation set
    (`metrics.strata(scores, 'high')` are the influential ones).

  References:
    Garima Pruthi, Frederick Liu, Mukund Sundararajan, Satyen Kale, "Estimating Training Data
    Influence by Tracing Gradient Descent", https://arxiv.org/abs/2002.08484.

  Deviation: at the final model alone, without a sum over checkpoints.
  """
  direction = importance.mean_gradient(
    apply_fn,
    model,
    validation,
    loss_fn=losses.label_loss,
    batch_size=batch_size,
    devices=devices,
  )
  fields = {'images': dataset.images, 'labels': dataset.labels}
  return prediction.map_examples(
    _along(apply_fn), (model, direction), fields, batch_size=batch_size, devices=devices
  )


@functools.lru_cache(maxsize=8)
def _along(apply_fn):
  def along(constants, batch):
    model, direction = constants

    def loss_fn(params):
      images = training.to_float(batch['images'])
      outputs, _ = apply_fn(model._replace(params=params), images, train=False)
      return losses.label_loss(batch['labels'], outputs.logits)

    # forward mode by two reverse ones: networks may have derivatives of their own (custom_vjp)
    losses_now, pull = jax.vjp(loss_fn, model.params)
    _, push = jax.vjp(lambda cotangent: pull(cotangent)[0], jnp.zeros_like(losses_now))
    return push(direction)[0]

  return along

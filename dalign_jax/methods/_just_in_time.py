"""JiT: just in time unlearning, by smoothing the network around the forget images."""

import jax
import jax.numpy as jnp

from dalign_jax import optim, parallel, training, types


def jit(
  *,
  num_epochs: int = 1,
  learning_rate: float = 3e-4,
  momentum: float = 0.0,
  batch_size: int = 64,
  noise: float = 0.5,
  num_noises: int = 25,
) -> types.UnlearnFn:
  r"""Makes the network locally constant at the forget images, which needs no labels.

  .. math:: \min_\theta \; E_{x \in forget} \, \frac{1}{N} \sum_{i=1}^N
    \frac{\| f_\theta(x) - sg \, f_\theta(x + \xi_i) \|_2}{\| \xi_i \|_2}, \quad
    \xi_i \sim N(0, \sigma^2)

  with f the logits and sg the stop of gradients. Batch statistics stay as they are. Sees the forget
  images, no labels and no retain data ("zero-shot"). Serves any request.

  Args:
    num_epochs: passes over the forget set; the paper's is one.
    learning_rate: of SGD.
    momentum: of SGD.
    batch_size: global batch.
    noise: sigma, in pixel values of [0, 1].
    num_noises: N, noisy copies of each image in a step.

  Raises:
    ValueError: if `noise` or `num_noises` is not positive.

  References:
    Foster, Fogarty, Schoepf, Oztireli, Brintrup: Zero-Shot Machine Unlearning at Scale via
    Lipschitz Regularization. https://arxiv.org/abs/2402.01401

  Deviation: noise is in pixel values, without clipping; the loss is the mean over the batch.
  """
  for name, value in (('noise', noise), ('num_noises', num_noises)):
    if not value > 0:
      raise ValueError(f'{name} must be positive, got {value}')
  tx = optim.sgd(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    def loss_fn(params, batch_stats, batch, constants, key):
      del constants
      model = types.ModelState(params, batch_stats)
      images = batch['forget']['images']
      keys = parallel.example_keys(key, len(images))
      clean = problem.apply_fn(model, images, train=False)[0].logits

      def steepness(index):
        draw = lambda k: jax.random.normal(jax.random.fold_in(k, index), images.shape[1:])
        offset = noise * jax.vmap(draw)(keys)
        noisy = problem.apply_fn(model, images + offset, train=False)[0].logits
        distance = jnp.linalg.norm(clean - jax.lax.stop_gradient(noisy), axis=1)
        return jnp.mean(distance / jnp.linalg.norm(offset.reshape(len(images), -1), axis=1))

      values = jax.lax.map(steepness, jnp.arange(num_noises))
      return jnp.mean(values), batch_stats

    return training.minimize(
      loss_fn,
      tx,
      problem.original,
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
      devices=problem.devices,
      monitor=problem.monitor,
    )

  return unlearn

"""JiT: just in time unlearning, by smoothing the network around the forget images."""

import dataclasses

import jax
import jax.numpy as jnp

from dalign_jax import errors, optim, parallel, training, types


def jit(
  *,
  num_epochs: int = 1,
  learning_rate: float = 5e-3,
  momentum: float = 0.0,
  batch_size: int = 64,
  noise: float = 0.25,
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

  Deviation: noisy images are clipped to [0, 1], and xi is the remaining noise (the released
  code clips to the batch's range); the loss is the mean over the batch (there its sum).
  """
  for name, value in (('noise', noise), ('num_noises', num_noises)):
    if not value > 0:
      raise errors.InputError(f'{name} must be positive, got {value}')
  rule = optim.Rule(learning_rate, momentum=momentum)

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    return training.minimize(
      problem,
      _Steepness(problem.apply_fn, noise, num_noises),
      rule,
      {'forget': problem.forget},
      key,
      num_epochs=num_epochs,
      batch_size=batch_size,
    )

  return unlearn


@dataclasses.dataclass(frozen=True)
class _Steepness:
  """Mean change of the logits per change of the image, over noisy copies."""

  apply_fn: types.ApplyFn
  noise: float
  num_noises: int

  def __call__(self, params, batch_stats, batch, constants, key):
    del constants
    model = types.ModelState(params, batch_stats)
    images = batch['forget']['images']
    keys = parallel.example_keys(key, len(images))
    clean = self.apply_fn(model, images, train=False)[0].logits

    def steepness(index):
      shape = images.shape[1:]
      draw = lambda k: jax.random.normal(jax.random.fold_in(k, index), shape, jnp.float32)
      noisy = jnp.clip(images + self.noise * jax.vmap(draw)(keys), 0.0, 1.0)
      logits = self.apply_fn(model, noisy, train=False)[0].logits
      return jnp.mean(_length(clean - jax.lax.stop_gradient(logits)) / _length(noisy - images))

    return jnp.mean(jax.lax.map(steepness, jnp.arange(self.num_noises))), batch_stats


def _length(rows):
  """Euclidean norm of each row, with a finite slope at 0."""
  return jnp.sqrt(jnp.sum(rows.reshape(len(rows), -1) ** 2, axis=1) + 1e-12)

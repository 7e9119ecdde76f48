"""Importance of each weight for a set: squared or absolute gradients of single examples.

Means over examples, not over batches: a squared batch gradient depends on the batch size. The
network is in evaluation mode, so that examples do not see each other.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from dalign_jax import errors, losses, parallel, prediction, training, types

ExampleLoss = Callable[[jax.Array, jax.Array], jax.Array]


def squared_gradients(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  *,
  loss_fn: ExampleLoss = losses.cross_entropy,
  batch_size: int = 256,
  microbatch_size: int = 32,
  devices: parallel.Devices = None,
) -> types.PyTree:
  r"""Mean squared gradient of single examples: the diagonal of the empirical Fisher information.

  .. math:: I_j = \frac{1}{N} \sum_i \Big( \frac{\partial L(y_i, f_\theta(x_i))}
    {\partial \theta_j} \Big)^2

  Args:
    apply_fn: the network.
    model: host model state.
    dataset: N >= 1 examples.
    loss_fn: `(labels [B], logits [B, C]) -> [B]`.
    batch_size: rows per call and device.
    microbatch_size: how many single gradients are in memory at a time.
    devices: devices to run on, None for all.

  Returns:
    Host pytree like `model.params`.

  References:
    Kirkpatrick et al.: Overcoming Catastrophic Forgetting in Neural Networks.
    https://arxiv.org/abs/1612.00796
  """
  options = {'batch_size': batch_size, 'microbatch_size': microbatch_size, 'devices': devices}
  return _mean(jnp.square, apply_fn, model, dataset, loss_fn, **options)


def absolute_gradients(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  *,
  loss_fn: ExampleLoss = losses.cross_entropy,
  batch_size: int = 256,
  microbatch_size: int = 32,
  devices: parallel.Devices = None,
) -> types.PyTree:
  r"""Mean absolute gradient of single examples; arguments as in `squared_gradients`.

  .. math:: \frac{1}{N} \sum_i \Big| \frac{\partial L(y_i, f_\theta(x_i))}{\partial \theta_j} \Big|

  References:
    Aljundi et al.: Memory Aware Synapses: Learning What (not) to Forget.
    https://arxiv.org/abs/1711.09601
  """
  options = {'batch_size': batch_size, 'microbatch_size': microbatch_size, 'devices': devices}
  return _mean(jnp.abs, apply_fn, model, dataset, loss_fn, **options)


def mean_gradient(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  *,
  loss_fn: ExampleLoss = losses.cross_entropy,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> types.PyTree:
  """Gradient of the mean loss of a set; arguments as in `squared_gradients`."""
  summed = _GradientSum(apply_fn, loss_fn)
  fields = {'images': dataset.images, 'labels': dataset.labels}
  total = prediction.sum_examples(summed, model, fields, batch_size=batch_size, devices=devices)
  return jax.tree.map(lambda t: t / len(dataset), total)


def fisher_product(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  dataset: types.Dataset,
  *,
  loss_fn: ExampleLoss = losses.cross_entropy,
  batch_size: int = 256,
  devices: parallel.Devices = None,
) -> Callable[[types.PyTree], types.PyTree]:
  r"""Products with the empirical Fisher information, without single gradients.

  .. math:: v \mapsto \frac{1}{N} \sum_i g_i \, g_i^T v, \quad
    g_i = \nabla_\theta L(y_i, f_\theta(x_i))

  Each product is one pass over the set: :math:`J v` by transposing the gradient's linear map, then
  :math:`J^T (J v)`. Arguments as in `squared_gradients`.

  Returns:
    A function from a pytree like `model.params` to another, on the host.
  """
  summed = _FisherProductSum(apply_fn, loss_fn)
  fields = {'images': dataset.images, 'labels': dataset.labels}

  def product(vector):
    constants = (model, vector)
    total = prediction.sum_examples(
      summed, constants, fields, batch_size=batch_size, devices=devices
    )
    return jax.tree.map(lambda t: t / len(dataset), total)

  return product


def _mean(
  statistic, apply_fn, model, dataset, loss_fn, *, batch_size, microbatch_size, devices
) -> types.PyTree:
  """Mean of `statistic(gradient)` over examples: a loop over micro-batches of single gradients."""
  for name, value in (('batch_size', batch_size), ('microbatch_size', microbatch_size)):
    if value < 1:
      raise errors.InputError(f'{name} must be 1 or more, got {value}')
  summed = _StatisticSum(statistic, apply_fn, loss_fn, microbatch_size)
  fields = {'images': dataset.images, 'labels': dataset.labels}
  total = prediction.sum_examples(summed, model, fields, batch_size=batch_size, devices=devices)
  return jax.tree.map(lambda t: t / len(dataset), total)


@dataclasses.dataclass(frozen=True)
class _GradientSum:
  """Gradient of the summed loss of a batch."""

  apply_fn: types.ApplyFn
  loss_fn: ExampleLoss

  def __call__(self, model, batch, weights):
    def loss(params):
      images = training.to_float(batch['images'])
      outputs, _ = self.apply_fn(model._replace(params=params), images, train=False)
      return jnp.sum(weights * self.loss_fn(batch['labels'], outputs.logits))

    return jax.grad(loss)(model.params)


@dataclasses.dataclass(frozen=True)
class _FisherProductSum:
  """Sum over a batch of the products of single gradients' outer squares with a vector."""

  apply_fn: types.ApplyFn
  loss_fn: ExampleLoss

  def __call__(self, constants, batch, weights):
    model, vector = constants

    def example_losses(params):
      images = training.to_float(batch['images'])
      outputs, _ = self.apply_fn(model._replace(params=params), images, train=False)
      return self.loss_fn(batch['labels'], outputs.logits)

    values, pull_back = jax.vjp(example_losses, model.params)
    _, transposed = jax.vjp(lambda u: pull_back(u)[0], jnp.zeros_like(values))
    return pull_back(weights * transposed(vector)[0])[0]


@dataclasses.dataclass(frozen=True)
class _StatisticSum:
  """Sum over a batch of `statistic(gradient)`, in micro-batches of single gradients."""

  statistic: Callable
  apply_fn: types.ApplyFn
  loss_fn: ExampleLoss
  microbatch_size: int

  def __call__(self, model, batch, weights):
    def gradient(row):
      def loss(params):
        image = training.to_float(row['images'])[None]
        outputs, _ = self.apply_fn(model._replace(params=params), image, train=False)
        return self.loss_fn(row['labels'][None], outputs.logits)[0]

      return jax.grad(loss)(model.params)

    def body(total, rows):
      statistics = jax.tree.map(self.statistic, jax.vmap(gradient)(rows['batch']))
      part = jax.tree.map(lambda s: jnp.tensordot(rows['weights'], s, 1), statistics)
      return jax.tree.map(jnp.add, total, part), None

    size = min(self.microbatch_size, len(weights))
    rows = jax.tree.map(lambda x: _cut(x, size), {'batch': batch, 'weights': weights})
    zeros = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), model.params)
    return jax.lax.scan(body, zeros, rows)[0]


def _cut(values, size):
  """`[B, ...]` as `[B / size, size, ...]`, padded by zeros at the end."""
  padding = -len(values) % size
  values = jnp.pad(values, ((0, padding),) + ((0, 0),) * (values.ndim - 1))
  return values.reshape(-1, size, *values.shape[1:])

"""Convolutions inside loops: XLA's own gradients ("stock") against the library's ("ours").

python -m experiments.benchmarks.loops
"""

import functools
from unittest import mock

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dalign_jax import losses, models, optim, parallel, training, types
from dalign_jax.models import _convolution
from experiments.benchmarks import harness

CONVOLUTIONS = {'stock': lax.conv_general_dilated, 'ours': _convolution.canonical_convolution}


def measure(*, quick: bool = False) -> list[dict]:
  """Rows for the training step and for per-example gradients, of the CNN on 28x28x1 images."""
  shape, rows = ((8, 8, 1), 8) if quick else ((28, 28, 1), 64)
  rounds = 1 if quick else 7
  return [_training(shape, rows, rounds), _per_example(shape, rows // 2, rounds)]


def _training(shape, batch_size, rounds):
  """Eight steps: eight calls, or one call that scans."""
  functions = {
    f'{kind}, {"scan" if size > 1 else "loop"}': _steps(convolution, shape, batch_size, size)
    for kind, convolution in CONVOLUTIONS.items()
    for size in (1, 8)
  }
  values = [function() for function in functions.values()]
  timings = harness.interleave(functions, rounds=rounds)
  pairs = [('stock, scan', 'stock, loop'), ('ours, scan', 'ours, loop')]
  pairs += [('ours, loop', 'stock, loop'), ('ours, scan', 'stock, scan')]
  return harness.row(
    '8 training steps',
    timings,
    pairs,
    batch_size=batch_size,
    largest_value_difference=max(values) - min(values),
  )


def _steps(convolution, shape, batch_size, steps_per_call):
  devices = (jax.devices()[0],)
  dataset = harness.random_dataset(shape, 4 * batch_size)
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=shape)
  tx = optim.sgd(0.05)

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants, key
    images, labels = batch['train']['images'], batch['train']['labels']
    with mock.patch.object(_convolution, 'convolution', convolution):
      outputs, batch_stats = apply_fn(types.ModelState(params, batch_stats), images, train=True)
    return jnp.mean(losses.cross_entropy(labels, outputs.logits)), batch_stats

  step = training.make_step(loss_fn, tx, devices=devices, steps_per_call=steps_per_call)
  model = init_fn(jax.random.key(0))
  data = training.put_data({'train': dataset}, devices)
  batches = {'train': np.arange(8 * batch_size, dtype=np.int32).reshape(8, -1) % len(dataset)}
  key = jax.random.key(0)

  def run():
    state = parallel.replicate(training.init_state(model, tx), devices)
    return training.run_steps(step, state, data, batches, key)[1]

  return run


def _per_example(shape, batch_size, rounds):
  """Squared gradient norms of each example."""
  functions = {
    f'{kind}, {loop}': functools.partial(_gradient_norms(convolution, shape, loop), batch_size)
    for kind, convolution in CONVOLUTIONS.items()
    for loop in ('vmap', 'scan')
  }
  values = np.stack([function() for function in functions.values()])
  timings = harness.interleave(functions, rounds=rounds)
  pairs = [('stock, scan', 'stock, vmap'), ('ours, scan', 'ours, vmap')]
  pairs += [('ours, scan', 'stock, vmap'), ('ours, vmap', 'stock, vmap')]
  return harness.row(
    'per-example gradient norms',
    timings,
    pairs,
    batch_size=batch_size,
    largest_value_difference=float(np.ptp(values, axis=0).max() / values.max()),
  )


def _gradient_norms(convolution, shape, loop):
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=shape)
  model = init_fn(jax.random.key(0))

  def loss(params, image, label):
    with mock.patch.object(_convolution, 'convolution', convolution):
      state = types.ModelState(params, model.batch_stats)
      outputs, _ = apply_fn(state, training.to_float(image[None]), train=False)
    return losses.cross_entropy(label[None], outputs.logits)[0]

  def norm(image, label):
    leaves = jax.tree.leaves(jax.grad(loss)(model.params, image, label))
    return sum(jnp.sum(leaf**2) for leaf in leaves)

  loops = {'vmap': jax.vmap(norm), 'scan': lambda *rows: lax.map(lambda row: norm(*row), rows)}
  norms = jax.jit(loops[loop])

  def run(batch_size):
    dataset = harness.random_dataset(shape, batch_size)
    return np.asarray(norms(dataset.images, dataset.labels))

  return run


if __name__ == '__main__':
  harness.run(measure)

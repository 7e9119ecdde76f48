"""Training steps whose rows come from a file, compared with rows that lie on the device.

python -m experiments.benchmarks.loading
"""

import functools
import pathlib
import tempfile

import jax
import numpy as np

from dalign_jax import fresh, image_rows, models, optim, parallel, training, types
from experiments.benchmarks import harness

CASES = {  # network, image shape, batch size, images, rounds
  'fast_cnn_small 32x32x3, 512': ('fast_cnn_small', (32, 32, 3), 512, 50_000, 3),
  'cnn 28x28x1, 128': ('cnn', (28, 28, 1), 128, 50_000, 9),
}
STEPS = 6  # of a round


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each network: rounds of steps with rows from either place, and gathering alone."""
  cases = {name: (*case[:2], 16, 64, 1) for name, case in CASES.items()} if quick else CASES
  with tempfile.TemporaryDirectory() as folder:
    return [_case(pathlib.Path(folder), name, *case) for name, case in cases.items()]


def _case(folder, name, network, image_shape, batch_size, count, rounds):
  dataset = harness.random_dataset(image_shape, count)
  path = folder / f'{network}.npy'
  np.save(path, dataset.images)
  rows = image_rows.ImageRows([image_rows.ImageFile(path)])
  in_file = types.Dataset(rows, dataset.labels, dataset.ids)
  places = {'on device': ('yes', dataset), 'from file': ('no', in_file)}
  batches = np.random.default_rng(0).permutation(count).astype(np.int32)
  batches = {'train': np.resize(batches, (STEPS, batch_size))}
  functions = {key: _steps(network, *place, batches) for key, place in places.items()}
  training.keep_data_on_device('no')
  host = training.put_data({'train': in_file}, jax.devices()[:1])
  calls = [{'train': batch[None, None]} for batch in batches['train']]
  functions['gathering alone'] = lambda: [host.gather(call) for call in calls]
  timings = harness.interleave(functions, rounds=rounds)
  pairs = [('from file', 'on device'), ('gathering alone', 'on device')]
  return harness.row(name, timings, pairs, steps=STEPS, batch_size=batch_size, images=count)


def _steps(network, place, dataset, batches):
  """A function that takes the steps of a round."""
  devices = (jax.devices()[0],)
  apply_fn, init_fn = models.build(network, num_classes=10, image_shape=dataset.images.shape[1:])
  loss = training.ClassificationLoss(apply_fn, 'train', 'none')
  tx = optim.sgd(0.01)
  step = training.make_step(loss, tx, devices=devices)
  training.keep_data_on_device(place)
  data = training.put_data({'train': dataset}, devices)
  model = fresh.model(init_fn, jax.random.key(0), dataset)
  start = training.init_state(model, tx)
  run = functools.partial(training.run_steps, step)
  return lambda: run(parallel.replicate(start, devices), data, batches, jax.random.key(1))


if __name__ == '__main__':
  harness.run(measure)

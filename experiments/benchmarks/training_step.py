"""A training step compared with the same network in PyTorch.

python -m experiments.benchmarks.training_step
"""

import jax
import jax.numpy as jnp
import numpy as np

from dalign_jax import errors, fresh, losses, models, optim, parallel, training, types
from experiments.benchmarks import harness

CASES = {  # network, image shape, rounds, batch size (default 128)
  'fast_cnn': ('fast_cnn', (32, 32, 3), 5, 512),
  'fast_cnn_small': ('fast_cnn_small', (32, 32, 3), 9, 512),
  'resnet18': ('resnet18', (32, 32, 3), 5),
  'resnet20': ('resnet20', (32, 32, 3), 13),
  'resnet8': ('resnet8', (32, 32, 3), 21),
  'cnn 28x28x1': ('cnn', (28, 28, 1), 31),
  'cnn 64x64x3': ('cnn', (64, 64, 3), 11),
}
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
SETTINGS = {'lr': LEARNING_RATE, 'momentum': MOMENTUM, 'weight_decay': WEIGHT_DECAY}


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each network: ours against PyTorch in both memory formats."""
  harness.import_torch()
  cases = dict(CASES)
  if quick:
    quickest = ('cnn 28x28x1', 'fast_cnn_small')
    cases = {name: (*CASES[name][:2], 1, 16) for name in quickest}
  return [_case(name, *case) for name, case in cases.items()]


def _case(name, network, image_shape, rounds, batch_size=128):
  rng = np.random.default_rng(0)
  dataset = harness.random_dataset(image_shape, 2 * batch_size)
  indices = rng.permutation(len(dataset))[:batch_size].astype(np.int32)
  model, ours = our_step(network, dataset, indices)
  functions = {'ours': ours}
  for memory_format in layouts():
    key = f'torch {memory_format}'
    functions[key] = torch_step(network, model, dataset, indices, memory_format)
  found = {key: [function() for _ in range(3)] for key, function in functions.items()}  # compiles
  difference = max(np.abs(np.subtract(found['ours'], other)).max() for other in found.values())
  if not difference < 1e-3 * max(found['ours']):
    raise errors.InputError(f'{name}: the networks differ: losses of three steps {found}')
  pairs = [('ours', key) for key in functions if key != 'ours']
  timings = harness.interleave(functions, rounds=rounds, warm_up=0)
  num_parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))
  return harness.row(
    name,
    timings,
    pairs,
    batch_size=batch_size,
    parameters=num_parameters,
    largest_loss_difference=float(difference),
  )


def our_step(network: str, dataset: types.Dataset, indices: np.ndarray, **options):
  """The model before training, and a function that takes one step and returns its loss.

  The step is the library's own, `training.make_step`, on one device.
  """
  devices = (jax.devices()[0],)
  apply_fn, init_fn = models.build(network, num_classes=10, image_shape=dataset.images.shape[1:])
  tx = optim.sgd(LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants, key
    images, labels = batch['train']['images'], batch['train']['labels']
    outputs, batch_stats = apply_fn(types.ModelState(params, batch_stats), images, train=True)
    return jnp.mean(losses.cross_entropy(labels, outputs.logits)), batch_stats

  step = training.make_step(loss_fn, tx, devices=devices, **options)
  model = fresh.model(init_fn, jax.random.key(0), dataset)
  state = parallel.replicate(training.init_state(model, tx), devices)
  data = training.put_data({'train': dataset}, devices)
  key_data = parallel.replicate(jax.random.key_data(jax.random.key(0)), devices)
  sharded = {'train': parallel.shard(indices[None], devices)}

  def one():
    nonlocal state
    state, loss = step.single(state, data, sharded, (), key_data)
    return float(parallel.fetch(loss))

  return model, one


def layouts():
  """PyTorch's memory formats by name."""
  torch = harness.import_torch()
  return {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


def torch_step(network, model, dataset, indices, memory_format):
  """As `our_step`, from the same parameters, in plain PyTorch."""
  torch = harness.import_torch()
  from experiments.benchmarks import torch_networks

  layout = layouts()[memory_format]
  net = torch_networks.build(network, dataset.images.shape[1:])
  torch_networks.copy_parameters(net, model.params, model.batch_stats)
  if torch_networks.num_parameters(net) != sum(x.size for x in jax.tree.leaves(model.params)):
    raise errors.InputError(f'{network}: numbers of parameters differ')
  net = net.train().to(memory_format=layout)
  optimizer = torch.optim.SGD(net.parameters(), **SETTINGS)
  images = torch.from_numpy(dataset.images.transpose(0, 3, 1, 2).copy())
  images = images.to(memory_format=layout)
  labels = torch.from_numpy(dataset.labels).long()
  rows = torch.from_numpy(indices).long()

  def one():
    batch = (images[rows].float() / 255 - 0.5) / 0.25
    loss = torch.nn.functional.cross_entropy(net(batch)[0], labels[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()

  return one


if __name__ == '__main__':
  harness.run(measure)

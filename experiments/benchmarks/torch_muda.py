"""MUDA in plain PyTorch: the losses, phases and batches of `dalign_jax.methods.muda`.

For a whole class, by the defaults: what `stop_at` and small forget sets are about is left out.
"""

import math

import jax
import numpy as np
import torch
from torch.nn import functional

from dalign_jax import data as data_lib
from dalign_jax import training, types
from experiments.benchmarks import torch_networks


def unlearn(problem: types.Problem, key: jax.Array, settings: dict, layout: torch.memory_format):
  """The unlearned network, from the same original and on the same batches as ours.

  Args:
    problem: what to forget; all of its retain set is used.
    key: as given to our method.
    settings: the hyper-parameters of `muda`.
    layout: memory format of images and weights.
  """
  net = network(problem.original, problem.forget.images.shape[1:]).to(memory_format=layout)
  sets = {'forget': problem.forget, 'retain': problem.retain}
  images = {
    name: torch.from_numpy(d.images.transpose(0, 3, 1, 2).copy()).to(memory_format=layout)
    for name, d in sets.items()
  }
  labels = {name: torch.from_numpy(d.labels).long() for name, d in sets.items()}
  size = settings['batch_size']
  passes = settings['recover_epochs'] * -(-len(sets['retain']) // size)
  steps = {'forget': settings['forget_steps']}
  steps['recover'] = max(math.ceil(passes), 4 * steps['forget'])
  masked = _evaluate(net, images['forget'])[0].scatter(1, labels['forget'][:, None], -torch.inf)
  teacher = masked.log_softmax(1)
  for epoch in range(settings['rounds']):
    basis = _basis(_evaluate(net, images['retain'])[1], settings['energy'])
    rng = training.epoch_rng(jax.random.split(key)[1], epoch)
    forget, companions, recover = (
      torch.from_numpy(
        data_lib.epoch_batches(len(sets[name]), size, rng, num_batches=steps[phase])
      ).long()
      for name, phase in (('forget', 'forget'), ('retain', 'forget'), ('retain', 'recover'))
    )
    optimizer = _optimizer(net, settings)
    for rows, others in zip(forget, companions, strict=True):
      batch = torch.cat([images['forget'][rows], images['retain'][others]])
      logits, features = net(_normalized(batch))
      least = _outside(features[len(rows) :], basis).detach()
      excess = (_outside(features[: len(rows)], basis) - least).clamp(min=0)
      distance = _divergence(teacher[rows], logits[: len(rows)].log_softmax(1))
      _step(optimizer, distance + settings['da_weight'] * excess)
    optimizer = _optimizer(net, settings)
    for rows in recover:
      logits, _ = net(_normalized(images['retain'][rows]))
      _step(optimizer, functional.cross_entropy(logits, labels['retain'][rows]))
  return net


def network(model: types.ModelState, image_shape):
  """A CNN with the parameters and running statistics of a Linen one."""
  net = torch_networks.build('cnn', image_shape)
  torch_networks.copy_parameters(net, model.params, model.batch_stats)
  norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
  for index, layer in enumerate(norms):
    stats = model.batch_stats[f'BatchNorm_{index}']
    layer.running_mean.copy_(torch.from_numpy(np.array(stats['mean'])))
    layer.running_var.copy_(torch.from_numpy(np.array(stats['var'])))
  return net.train()


def parameters(net) -> np.ndarray:
  """All parameters as one array."""
  return np.concatenate([p.detach().contiguous().numpy().ravel() for p in net.parameters()])


@torch.no_grad()
def _evaluate(net, images):
  net.eval()
  parts = [net(_normalized(part)) for part in images.split(256)]
  net.train()
  return [torch.cat(field) for field in zip(*parts, strict=True)]


def _basis(features, energy):
  weights, vectors = torch.linalg.eigh(features.T @ features / len(features))
  weights, vectors = weights.flip(0).clamp(min=0), vectors.flip(1)
  return vectors[:, weights.cumsum(0) - weights < energy * weights.sum()]


def _outside(features, basis):
  """The share of the features outside of a basis: 1 - DA."""
  return 1 - (features @ basis).square().sum() / features.square().sum()


def _divergence(teacher, student):
  ratio = teacher.masked_fill(torch.isneginf(teacher), 0) - student
  return (teacher.exp() * ratio).sum(1).mean()


def _optimizer(net, settings):
  return torch.optim.SGD(
    net.parameters(),
    lr=settings['learning_rate'],
    momentum=settings['momentum'],
    weight_decay=settings['weight_decay'],
  )


def _normalized(images):
  return (images.float() / 255 - 0.5) / 0.25


def _step(optimizer, loss):
  optimizer.zero_grad()
  loss.backward()
  optimizer.step()

"""The benchmarked networks in PyTorch, layer by layer in the order of `dalign_jax.models`."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class ResNet(nn.Module):
  def __init__(self, stage_sizes, widths, projection, num_classes=10):
    super().__init__()
    self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
    self.norm = nn.BatchNorm2d(widths[0])
    blocks, channels = [], widths[0]
    for stage, (size, width) in enumerate(zip(stage_sizes, widths, strict=True)):
      for block in range(size):
        stride = 2 if stage > 0 and block == 0 else 1
        blocks.append(_Block(channels, width, stride, projection))
        channels = width
    self.blocks = nn.Sequential(*blocks)
    self.head = nn.Linear(channels, num_classes)

  def forward(self, images):
    features = self.blocks(functional.relu(self.norm(self.conv(images)))).mean((2, 3))
    return self.head(features), features


class _Block(nn.Module):
  def __init__(self, channels, width, stride, projection):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    self.norm1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.norm2 = nn.BatchNorm2d(width)
    self.missing, self.stride = width - channels, stride
    self.shortcut = nn.Identity()
    if projection and (self.missing or stride > 1):
      self.shortcut = nn.Sequential(
        nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
      )
      self.missing, self.stride = 0, 1

  def forward(self, images):
    outputs = functional.relu(self.norm1(self.conv1(images)))
    outputs = self.norm2(self.conv2(outputs))
    images = self.shortcut(images)
    if self.missing:
      low = self.missing // 2
      images = images[:, :, :: self.stride, :: self.stride]
      images = functional.pad(images, (0, 0, 0, 0, low, self.missing - low))
    return functional.relu(outputs + images)


class CNN(nn.Module):
  def __init__(self, image_shape, widths=(32, 64), hidden=128, num_classes=10):
    super().__init__()
    height, width, channels = image_shape
    layers = []
    for outputs in widths:
      layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
      layers += [nn.ReLU(), nn.MaxPool2d(2)]
      height, width, channels = height // 2, width // 2, outputs
    self.layers = nn.Sequential(*layers)
    self.hidden = nn.Linear(height * width * channels, hidden)
    self.head = nn.Linear(hidden, num_classes)
    self.map_shape = (height, width, channels)

  def forward(self, images):
    features = functional.relu(self.hidden(self.layers(images).flatten(1)))
    return self.head(features), features


class FastCNN(nn.Module):
  def __init__(self, widths, num_classes=10):
    super().__init__()
    self.whitening = nn.Conv2d(3, 24, 2)
    self.whitening.weight.requires_grad = False
    self.register_buffer('mean', torch.zeros(3, 1, 1))
    channels, blocks = 24, []
    for width in widths:
      blocks += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2)]
      blocks += [_shifting_norm(width), nn.GELU('tanh')]
      blocks += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
      blocks += [_shifting_norm(width), nn.GELU('tanh')]
      channels = width
    self.blocks = nn.Sequential(*blocks)
    self.head = nn.Linear(channels, num_classes)

  def forward(self, images):
    images = functional.gelu(self.whitening(images - self.mean), approximate='tanh')
    features = self.blocks(images).amax((2, 3)) / 9
    return self.head(features), features


def _shifting_norm(width):
  """Batch normalisation without a trained scale."""
  norm = nn.BatchNorm2d(width)
  norm.weight.requires_grad = False
  return norm


def build(name, image_shape):
  """A network of `dalign_jax.models` by its name there."""
  small = ((16, 32, 64), False)
  makers = {
    'resnet18': lambda: ResNet((2, 2, 2, 2), (64, 128, 256, 512), True),
    'resnet20': lambda: ResNet((3, 3, 3), *small),
    'resnet8': lambda: ResNet((1, 1, 1), *small),
    'cnn': lambda: CNN(image_shape),
    'fast_cnn': lambda: FastCNN((64, 256, 256)),
    'fast_cnn_small': lambda: FastCNN((32, 128, 192)),
  }
  return makers[name]()


def copy_parameters(network, params, batch_stats):
  """Gives a network the parameters, and the whitening, of the Linen network with its layers."""
  layers = {kind: [m for m in network.modules() if isinstance(m, kind)] for kind in _KINDS}
  with torch.no_grad():
    if isinstance(network, FastCNN):
      whitening = batch_stats['whitening']
      _set(network.whitening.weight, whitening['kernel'].transpose(3, 2, 0, 1))
      _set(network.mean, whitening['mean'][:, None, None])
      _set(network.whitening.bias, params['whitening']['bias'])
      layers[nn.Conv2d].remove(network.whitening)
    for index, layer in enumerate(layers[nn.Conv2d]):
      _set(layer.weight, params[f'Conv_{index}']['kernel'].transpose(3, 2, 0, 1))
    for index, layer in enumerate(layers[nn.BatchNorm2d]):
      if layer.weight.requires_grad:
        _set(layer.weight, params[f'BatchNorm_{index}']['scale'])
      _set(layer.bias, params[f'BatchNorm_{index}']['bias'])
    for name in ('hidden', 'head'):
      if name in params:
        kernel = params[name]['kernel']
        if name == 'hidden':  # rows follow (H, W, C) there and (C, H, W) here
          kernel = kernel.reshape(*network.map_shape, -1).transpose(2, 0, 1, 3)
        _set(getattr(network, name).weight, kernel.reshape(-1, kernel.shape[-1]).T)
        _set(getattr(network, name).bias, params[name]['bias'])


def num_parameters(network):
  """How many numbers are trained."""
  return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _set(parameter, value):
  value = torch.from_numpy(np.array(value))
  if value.shape != parameter.shape:
    raise ValueError(f'shapes must be equal, got {value.shape} and {parameter.shape}')
  parameter.copy_(value)


_KINDS = (nn.Conv2d, nn.BatchNorm2d)

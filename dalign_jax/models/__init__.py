"""Image classifiers: Linen modules, and `build`, which makes plain functions of them."""

from dalign_jax.models._build import MODELS, build
from dalign_jax.models._cnn import CNN, AllCNN
from dalign_jax.models._convolution import canonical_convolution, convolution
from dalign_jax.models._fast_cnn import FastCNN
from dalign_jax.models._resnet import ResNet, WideResNet
from dalign_jax.models._vgg import VGG
from dalign_jax.models._vit import ViT

__all__ = [
  'CNN',
  'MODELS',
  'VGG',
  'AllCNN',
  'FastCNN',
  'ResNet',
  'ViT',
  'WideResNet',
  'build',
  'canonical_convolution',
  'convolution',
]

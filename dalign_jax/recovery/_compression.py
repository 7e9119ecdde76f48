"""Recovery by compression: rounding and pruning can bring back what a small change had hidden."""

from collections.abc import Sequence

import jax
import numpy as np

from dalign_jax import errors, parallel, types
from dalign_jax.recovery import _curve

BITS = (8, 4)
SHARES = (0.3, 0.6, 0.9)


def rounding(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  forget: types.Dataset,
  *,
  bits: Sequence[int] = BITS,
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  """Forget accuracy after rounding the kernels to few bits (`quantized`).

  Args:
    apply_fn: the network.
    model: the model to attack; it is not changed.
    forget: data to measure on.
    bits: the budgets.
    devices: devices to use, None for all of them.

  Returns:
    Budgets in bits and accuracies, `[len(bits)]` each.

  Raises:
    ValueError: for bits outside 2 to 16.

  References:
    Zhiwei Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization",
    https://arxiv.org/abs/2410.16454.

  Deviation: a reconstruction for image classifiers, without calibration.
  """
  rates = [_curve.accuracy(apply_fn, quantized(model, b), forget, devices) for b in bits]
  return _curve.curve(bits, rates)


def pruning(
  apply_fn: types.ApplyFn,
  model: types.ModelState,
  forget: types.Dataset,
  *,
  shares: Sequence[float] = SHARES,
  devices: parallel.Devices = None,
) -> _curve.RecoveryCurve:
  """Forget accuracy after setting the smallest kernel weights to zero (`pruned`).

  Args:
    apply_fn: the network.
    model: the model to attack; it is not changed.
    forget: data to measure on.
    shares: the budgets, shares of all kernel weights.
    devices: devices to use, None for all of them.

  Returns:
    Budgets and accuracies, `[len(shares)]` each.

  Raises:
    ValueError: for a share outside [0, 1].
  """
  rates = [_curve.accuracy(apply_fn, pruned(model, s), forget, devices) for s in shares]
  return _curve.curve(shares, rates)


def quantized(model: types.ModelState, bits: int) -> types.ModelState:
  r"""The model with its kernels rounded, symmetrically, one scale a tensor.

  .. math:: \hat w = s \, \mathrm{round}(w / s), \quad s = \max |w| / (2^{bits - 1} - 1)

  Args:
    model: host model state.
    bits: 2 to 16.

  Returns:
    A copy; arrays of fewer than two dimensions (biases, scales) stay as they are.

  Raises:
    ValueError: for bits out of range.

  Example:
    >>> model = types.ModelState({'kernel': np.array([[1.0, -0.4]], np.float32)}, {})
    >>> quantized(model, 2).params['kernel']
    array([[ 1., -0.]], dtype=float32)
  """
  if not 2 <= bits <= 16:
    raise errors.InputError(f'bits must be in [2, 16], got {bits}')

  def rounded(weights):
    weights = np.asarray(weights)
    top = np.abs(weights).max(initial=0)
    if weights.ndim < 2 or not top:
      return weights
    scale = top / (2 ** (bits - 1) - 1)
    return (scale * np.round(weights / scale)).astype(weights.dtype)

  return model._replace(params=jax.tree.map(rounded, model.params))


def pruned(model: types.ModelState, share: float) -> types.ModelState:
  """The model with the smallest kernel weights set to zero, by magnitude over all kernels together.

  Args:
    model: host model state.
    share: of the kernel weights, in [0, 1].

  Returns:
    A copy; arrays of fewer than two dimensions stay as they are. Weights that tie with the last
    one to go stay.

  Raises:
    ValueError: for a share out of range.

  Example:
    >>> model = types.ModelState({'kernel': np.array([[1.0, -0.4]], np.float32)}, {})
    >>> pruned(model, 0.5).params['kernel']
    array([[1., 0.]], dtype=float32)
  """
  if not 0 <= share <= 1:
    raise errors.InputError(f'share must be in [0, 1], got {share}')
  kernels = [np.asarray(x) for x in jax.tree.leaves(model.params) if np.ndim(x) >= 2]
  sizes = np.sort(np.concatenate([np.abs(x).ravel() for x in kernels])) if kernels else np.zeros(0)
  count = round(share * len(sizes))
  threshold = np.inf if count == len(sizes) else sizes[count]

  def cut(weights):
    weights = np.asarray(weights)
    if weights.ndim < 2:
      return weights
    return np.where(np.abs(weights) < threshold, 0, weights).astype(weights.dtype)

  return model._replace(params=jax.tree.map(cut, model.params))

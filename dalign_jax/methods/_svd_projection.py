"""Projection of every layer's input away from what only the forgotten classes use."""

import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import layer_inputs, linear_head, training, types


def svd_projection(
  *, retain_scale: float = 100.0, forget_scale: float = 3.0, retain_fraction: float = 0.1
) -> types.UnlearnFn:
  r"""Projects the input of every layer, in closed form, from the retain and forget activations.

  .. math:: W \leftarrow P W, \quad P = I - (M_f - M_f M_r), \quad
    M = U \, \mathrm{diag} \Big( \frac{\alpha r_i}{(\alpha - 1) r_i + 1} \Big) U^\top

  for each linear layer and convolution (on its windows), with U the eigenvectors of its inputs'
  second moment over the retain or forget set and r their shares of the trace; all activations are
  those of the original (`layer_inputs.second_moments`). alpha says how many directions a space
  takes up: at 1 in proportion to their shares, at infinity all. Biases, normalisation and batch
  statistics stay. No training. Sees all forget data and `retain_fraction` of the retain data. Class
  forgetting only.

  Args:
    retain_scale: alpha of the retain space; the larger, the more is kept.
    forget_scale: alpha of the forget space; the larger, the more is removed.
    retain_fraction: share of each retained class that is used, in (0, 1], at least one example.

  References:
    Kodge, Saha, Roy: Deep Unlearning: Fast and Efficient Gradient-free Class Forgetting.
    https://arxiv.org/abs/2312.00761

  Deviation: all windows of an image are used (the release samples them); layers that are used in
  another way than `layer_inputs` knows keep their weights. The release chooses both alphas by
  trial, on the forget and retain accuracy of training images.
  """

  def unlearn(problem: types.Problem, key: jax.Array) -> types.ModelState:
    problem.forgotten_classes('svd_projection')
    retain = data_lib.stratified_subset(problem.retain, retain_fraction, training.epoch_rng(key, 0))
    retain_moments, forget_moments = (
      layer_inputs.second_moments(
        problem.apply_fn, problem.original, dataset, devices=problem.devices
      )
      for dataset in (retain, problem.forget)
    )
    leaves, structure = jax.tree.flatten(problem.original.params)
    for i, (of_retain, of_forget) in enumerate(zip(retain_moments, forget_moments, strict=True)):
      if of_retain is not None:
        kept, removed = _space(of_retain, retain_scale), _space(of_forget, forget_scale)
        leaf = np.asarray(leaves[i])
        kernel = leaf.reshape(len(kept), -1).astype(np.float64)
        projected = kernel - removed @ (kernel - kept @ kernel)
        leaves[i] = projected.reshape(leaf.shape).astype(leaf.dtype)
    params = jax.tree.unflatten(structure, leaves)
    return types.ModelState(params, problem.original.batch_stats)

  return unlearn


def _space(moment, scale):
  """M: the directions of a second moment, weighted by their shares."""
  values, vectors = linear_head.descending_eigh(moment)
  shares = values / max(values.sum(), np.finfo(np.float64).tiny)
  weights = scale * shares / ((scale - 1) * shares + 1)
  return (vectors * weights) @ vectors.T

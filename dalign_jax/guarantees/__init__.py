"""Unlearning with a guarantee: exact, or (epsilon, delta)-indistinguishable from retraining.

`docs/guarantees.md` compares what each covers. `methods.noisy_finetune` is the one of them that
starts from any trained network; the others need a training of their own.
"""

from dalign_jax.guarantees._accounting import (
  contracted_delta,
  contraction_noise,
  gaussian_epsilon,
  hockey_stick,
)
from dalign_jax.guarantees._linear_head import RemovableHead, fit_head, gradient_of, remove_rows
from dalign_jax.guarantees._noisy_descent import is_kernel, noisy_descent
from dalign_jax.guarantees._rewind import Descent
from dalign_jax.guarantees._sisa import Ensemble, Sisa, forget, place, predict, train

__all__ = [
  'Descent',
  'Ensemble',
  'RemovableHead',
  'Sisa',
  'contracted_delta',
  'contraction_noise',
  'fit_head',
  'forget',
  'gaussian_epsilon',
  'gradient_of',
  'hockey_stick',
  'is_kernel',
  'noisy_descent',
  'place',
  'predict',
  'remove_rows',
  'train',
]

"""Pure losses: jit-able, differentiable, importable into any JAX code.

Arguments come in the order (target or teacher, prediction), knobs are keyword-only. Per-example
losses return `[B]` without reduction (`weighted_mean` reduces them). Distribution losses return a
scalar and take `weights` and `axis_name`: inside pmap, vmap or shard_map with that axis they return
the value for the global batch, and the caller's `pmean` of the gradients is the global gradient.
"""

from dalign_jax.losses._alignment import (
  basis_rank,
  dimensional_alignment_loss,
  principal_basis,
  principal_projector,
  second_moment,
)
from dalign_jax.losses._classification import binary_cross_entropy, cross_entropy, label_loss
from dalign_jax.losses._discrepancy import mmd, sliced_wasserstein
from dalign_jax.losses._distillation import distillation, self_distillation
from dalign_jax.losses._reduction import weighted_mean
from dalign_jax.losses._regularization import l1, quadratic
from dalign_jax.losses._sinkhorn import Transport, sinkhorn
from dalign_jax.losses._transport import cosine_cost, transport_distance

__all__ = [
  'Transport',
  'basis_rank',
  'binary_cross_entropy',
  'cosine_cost',
  'cross_entropy',
  'dimensional_alignment_loss',
  'distillation',
  'l1',
  'label_loss',
  'mmd',
  'principal_basis',
  'principal_projector',
  'quadratic',
  'second_moment',
  'self_distillation',
  'sinkhorn',
  'sliced_wasserstein',
  'transport_distance',
  'weighted_mean',
]

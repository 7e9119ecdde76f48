"""What comes back: procedures that try to recover forgotten knowledge from a finished model.

Each works on a copy and returns a `RecoveryCurve`: forget accuracy after the procedure, at growing
budgets. A curve says nothing alone: read it beside gold's, with `metrics.recovery_gap`.
"""

from dalign_jax.recovery._compression import pruned, pruning, quantized, rounding
from dalign_jax.recovery._curve import RecoveryCurve
from dalign_jax.recovery._residual import residual_knowledge
from dalign_jax.recovery._retain_only import retain_only
from dalign_jax.recovery._shots import head_shots, prototype_shots

__all__ = [
  'RecoveryCurve',
  'head_shots',
  'prototype_shots',
  'pruned',
  'pruning',
  'quantized',
  'residual_knowledge',
  'retain_only',
  'rounding',
]

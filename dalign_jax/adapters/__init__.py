"""Adapters from Flax modules to the plain functions that the library uses.

A network needs no more than `types.ApplyFn`; these make one of a Flax module whose call returns
logits: the features are the input of its last layer.
"""

from dalign_jax.adapters._linen import from_linen
from dalign_jax.adapters._nnx import from_nnx, update_nnx

__all__ = ['from_linen', 'from_nnx', 'update_nnx']

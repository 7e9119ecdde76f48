"""Models that other programs saved: Orbax, Flax msgpack, safetensors and npz, in and out."""

from dalign_jax.foreign._files import Stored, read, write
from dalign_jax.foreign._fit import Fitted, fit

__all__ = ['Fitted', 'Stored', 'fit', 'read', 'write']

"""Models that other programs saved: Orbax, Flax msgpack, safetensors and npz, in and out."""

from dalign_jax.foreign._files import Stored, read, write
from dalign_jax.foreign._fit import Fitted, canonical, fit, names_of

__all__ = ['Fitted', 'Stored', 'canonical', 'fit', 'names_of', 'read', 'write']

"""Data: image sources, disjoint seeded splits with forget requests, and batches by index."""

from dalign_jax.data._base import Source
from dalign_jax.data._batches import balanced_batches, epoch_batches, stratified_subset
from dalign_jax.data._cache import content_hash, drop_cached
from dalign_jax.data._coarse import coarsen
from dalign_jax.data._duplicates import duplicates
from dalign_jax.data._faces import official_parts
from dalign_jax.data._forget import id_rows, read_ids
from dalign_jax.data._forget import parse as parse_forget
from dalign_jax.data._scenarios import add_trigger, backdoor_target, mislabel, subclass_number
from dalign_jax.data._sources import SOURCES, load
from dalign_jax.data._split import Split, check_split, load_split, save_split
from dalign_jax.data._splits import split_dataset

__all__ = [
  'SOURCES',
  'Source',
  'Split',
  'add_trigger',
  'backdoor_target',
  'balanced_batches',
  'check_split',
  'coarsen',
  'content_hash',
  'drop_cached',
  'duplicates',
  'epoch_batches',
  'id_rows',
  'load',
  'load_split',
  'mislabel',
  'official_parts',
  'parse_forget',
  'read_ids',
  'save_split',
  'split_dataset',
  'stratified_subset',
  'subclass_number',
]

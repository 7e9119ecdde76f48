"""Data: image sources, disjoint seeded splits with forget requests, and batches by index."""

from dalign_jax.data._base import Source
from dalign_jax.data._batches import balanced_batches, epoch_batches, stratified_subset
from dalign_jax.data._by_id import id_rows, read_ids
from dalign_jax.data._cache import cache_state, content_hash, drop_cached
from dalign_jax.data._coarse import coarsen
from dalign_jax.data._duplicates import duplicates
from dalign_jax.data._faces import official_parts
from dalign_jax.data._pictures import read_photo
from dalign_jax.data._poison import add_trigger, backdoor_target, mislabel
from dalign_jax.data._request import Forget, Scenario
from dalign_jax.data._scenarios import SCENARIOS
from dalign_jax.data._scenarios import parse as parse_forget
from dalign_jax.data._sources import SOURCES, load
from dalign_jax.data._split import Split, check_split, load_split, save_split
from dalign_jax.data._splits import split_dataset
from dalign_jax.data._subclass import subclass_number
from dalign_jax.data._taken import LeftOut, Taken

__all__ = [
  'SCENARIOS',
  'SOURCES',
  'Forget',
  'LeftOut',
  'Scenario',
  'Source',
  'Split',
  'Taken',
  'add_trigger',
  'backdoor_target',
  'balanced_batches',
  'cache_state',
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
  'read_photo',
  'save_split',
  'split_dataset',
  'stratified_subset',
  'subclass_number',
]

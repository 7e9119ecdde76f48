"""A small model, data and request of one's own, for tests of records."""

import base64
from collections.abc import Iterator
import dataclasses
import json
import pathlib
import re

import numpy as np

from dalign_jax import settings as settings_lib
from dalign_jax import types
from dalign_jax.deletion import carry_out, record_files, record_keys, replay, signing, statement
from dalign_jax.store import files, hashing
from experiments.benchmarks import file_kills

SETTINGS = settings_lib.Settings(
  width_multiplier=0.125, num_devices=1, cache_dir='', compilation_cache_dir=''
)


def write(folder: pathlib.Path) -> list[str]:
  """The model, data and a request for five rows in a folder; all ids of the training set."""
  file_kills.write_place(folder)
  with np.load(folder / 'train.npz') as arrays:
    ids = arrays['ids'].tolist()
  (folder / 'request.txt').write_text('\n'.join(ids[:5]), encoding='utf-8')
  return ids


def forget(folder: pathlib.Path, name: str = 'first', **changes) -> dict:
  """A request: `first` from the model, or another from the one before."""
  request = {
    'checkpoint': str(folder / 'mine.npz'),
    'ids': str(folder / 'request.txt'),
    'data': f'npz:{folder}/train.npz',
    'held_out': f'npz:{folder}/held_out.npz',
    'method': 'finetune',
    'hparam': ('finetune.num_epochs=1',),
    'verdict': 'quick',
    'accept': ('no_effect', 'worse', 'destroyed', 'incomplete'),
    'out': str(folder / name),
  }
  settings = changes.pop('settings', SETTINGS)
  return carry_out.forget(settings_lib.Request(**{**request, **changes}), settings)


def verify(out: pathlib.Path, again: bool = True, keys: pathlib.Path | None = None, **more):
  """Verifies a request with its private folder, or as `more` says."""
  places = {'keys': str(keys or out.parent / record_keys.NAME)} | more.pop('places', {})
  settings = {'compilation_cache_dir': ''}
  return replay.verify(out / 'record.json', places=places, settings=settings, replay=again, **more)


def edit(out: pathlib.Path, change, *, rehash: bool = True) -> None:
  """Changes a record as a forger would: with a hash that fits, if wanted."""
  record = record_files.check(json.loads((out / 'record.json').read_text(encoding='utf-8')))
  change(record)
  if rehash:
    record['hash'] = hashing.of_json({k: v for k, v in record.items() if k != 'hash'})
  files.write_text(out / 'record.json', json.dumps(statement.of_record(record)))


def keep(settings: settings_lib.Settings, **changes) -> settings_lib.Settings:
  """Settings with changes."""
  return dataclasses.replace(settings, **changes)


def everything(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, bytes]]:
  """The content of all files below a folder, and of envelopes inside."""
  for path in folder.rglob('*'):
    if path.is_file():
      content = path.read_bytes()
      yield path, content
      for found in re.findall(rb'"payload": "([A-Za-z0-9+/=]+)"', content):
        yield path, base64.b64decode(found)


def two_requests(folder: pathlib.Path) -> None:
  """Two signed requests, one after the other, with the keys in `signing`."""
  ids = write(folder)
  private, _ = signing.keygen(folder / 'signing')
  said = {'received': '2026-05-01', 'due': '2026-05-31', 'ground': 'objection'}
  forget(folder, signing_key=str(private), **said)
  (folder / 'second.txt').write_text('\n'.join(ids[10:15]), encoding='utf-8')
  second = {'checkpoint': str(folder / 'first'), 'ids': str(folder / 'second.txt')}
  forget(folder, 'second', signing_key=str(private), **second)


def digits(start: int, stop: int = 120) -> types.Dataset:
  """Some of the embedded digits."""
  return file_kills.digits(slice(start, stop))


def dataset(folder: pathlib.Path, rows: slice = slice(None)) -> types.Dataset:
  """Rows of the training set."""
  with np.load(folder / 'train.npz') as arrays:
    found = types.Dataset(arrays['images'], arrays['labels'], arrays['ids'])
  return found.take(np.arange(len(found))[rows])

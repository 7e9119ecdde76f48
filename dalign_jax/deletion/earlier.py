"""An earlier request as a starting point: its configuration, and the samples after it."""

from collections.abc import Collection
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, from_settings, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import audit_record, commitments, record_files, record_keys, untrusted
from dalign_jax.store import progress

ROLES = ('train', 'validation', 'test')
_PLACES = ('dataset', 'pretrained')  # settings that say where things are
MAY_CHANGE = {'gold_seed', 'channels', *(f.name for f in dataclasses.fields(types.Recipe))}
_WITHOUT_PATH = tuple(kind for kind, reader in data_lib.SOURCES.items() if not reader.path)


def configuration(
  config: settings_lib.Settings,
  record: dict,
  request: settings_lib.Request,
  keys: pathlib.Path,
  trusts_records: bool,
  given: Collection[str] | None = None,
) -> tuple[settings_lib.Settings, str]:
  """The configuration of an earlier request, and its held-out data; seeds are this one's.

  What is trained anew follows the recipe of the earlier request, where no flag says another.

  Args:
    config: of this request.
    record: of the earlier one.
    request: the flags of this one.
    keys: the private folder.
    trusts_records: whether paths in a record of format 1 may be read.
    given: of `with_fixed`.
  """
  settings = audit_record.config_of(record).problem_settings()
  places = record_keys.places(keys, record)
  if record['format'] == 1 and trusts_records:
    places = {'data': settings['dataset'], 'held_out': record['configuration']['held_out']}
  settings['dataset'] = place_of('data', settings['dataset'], request.data, places)
  settings['pretrained'] = pretrained_at(settings['pretrained'], config.pretrained, places)
  said = record['configuration']['held_out']
  held_out = place_of('held_out', said, request.held_out, places)
  config = with_data_dir(config, places)
  return with_fixed(config, settings, f'request {record["number"]}', given), held_out


def with_fixed(
  config: settings_lib.Settings,
  fixed: dict[str, Any],
  by: str,
  given: Collection[str] | None = None,
) -> settings_lib.Settings:
  """The settings of a request on a model that fixes most of them; says which are other than usual.

  Args:
    config: as the flags have it.
    fixed: settings by name; data and pretrained weights among them are where they are now.
    by: what fixed them, for people.
    given: names of the settings that somebody gave; None for those that are not at their defaults.

  Raises:
    errors.InputError: if a flag contradicts one. Those of the recipe and the seed of gold models,
      which a new training alone reads, do not; nor do the channels, since hashes check the pixels.
  """
  usual = {f.name: f.default for f in dataclasses.fields(settings_lib.Settings)}
  now = {name: getattr(config, name) for name in fixed if name not in _PLACES}
  is_given = lambda name: now[name] != usual[name] if given is None else name in given
  changed = {n: v for n, v in now.items() if v != fixed[n] and is_given(n)}
  if given and 'dataset' in given and config.dataset != fixed['dataset']:
    raise errors.InputError(
      f'{by} has data of its own; say by --data where they are now', argument='dataset'
    )
  for name, value in changed.items():
    if name not in MAY_CHANGE:
      raise errors.InputError(
        f'{by} has {fixed[name]!r}, which the model is of; got {value!r}: leave the flag out',
        argument=name,
      )
  taken = {n: fixed[n] for n in now if n not in changed and fixed[n] != usual[n]}
  for what, values in ((f'settings of {by}', taken), ('other than there', changed)):
    if values:
      progress.say(f'{what}: {", ".join(f"{name}={value}" for name, value in values.items())}')
  return dataclasses.replace(config, **{**fixed, **changed})


def with_data_dir(config: settings_lib.Settings, places: dict) -> settings_lib.Settings:
  """The settings with the folder of TFDS that the private folder names, where no flag does."""
  kept = places.get('data_dir')
  if config.data_dir or not isinstance(kept, str):
    return config
  return dataclasses.replace(config, data_dir=kept)


def place_of(name: str, said: str, given: str, places: dict) -> str:
  """Where data are, by what was given, by the private folder, or as they are inside a package.

  Args:
    name: of the argument.
    said: by the record: a kind of data, empty where there are none.
    given: by whoever asks.
    places: of `record_keys.places`.

  Raises:
    errors.InputError: if nobody says it.
  """
  if given or not said:
    return given
  kept = places.get(name)
  if isinstance(kept, str) and (kept == said or kept.partition(':')[0] in data_lib.SOURCES):
    return kept  # a name of TFDS is said by the record whole
  if said in _WITHOUT_PATH:
    return said
  raise errors.InputError(
    f'say where they are: the record says {said!r}, and no record is obeyed', argument=name
  )


def pretrained_at(said: str, given: str, places: dict) -> str:
  """Where the pretrained weights of a model are, by what was given or by the private folder.

  Args:
    said: by the record: a digest of the weights, empty where there are none.
    given: by whoever asks.
    places: of `record_keys.places`.

  Raises:
    errors.InputError: if nobody says it.
  """
  found = given or places.get('pretrained')
  if not said:
    return ''
  if isinstance(found, str) and found:
    return found
  raise errors.InputError(
    'say where the weights are that the model was fine-tuned from', argument='pretrained'
  )


def held_out_data(
  config: settings_lib.Settings,
  held_out: str,
  class_names: tuple[str, ...] | None,
  channels: int,
) -> types.Dataset | None:
  """Data that were held out, read as the training data; None where they are part of a run's."""
  if not held_out and not config.test_split:
    return None
  config = dataclasses.replace(config, dataset=held_out or config.dataset)
  split = config.test_split or 'train'
  return from_settings.load(uncached(config), split, class_names, channels=channels).dataset


def sets_by_ids(
  config: settings_lib.Settings,
  record: dict,
  held_out: str,
  place: pathlib.Path,
  keys: pathlib.Path,
) -> tuple[data_lib.Source, dict[str, types.Dataset]]:
  """The sets after a request, by the tags next to its record, checked by its hashes.

  Args:
    config: with the data.
    record: of the request.
    held_out: data that were held out, empty if they are part of the same.
    place: the folder of the request.
    keys: the private folder of its chain.

  Raises:
    errors.InputError: naming the flag, if samples are missing or changed.
  """
  key = None
  if record['format'] > 1:
    key = record_keys.read(keys)
    record_keys.check(key, record, keys)
  ids = _members(place, key)
  class_names = _class_names(record, keys, key)
  source = from_settings.load(uncached(config), config.train_split, class_names)
  _check_class_names(source.class_names, record, key)
  channels = source.dataset.images.shape[-1]
  other = held_out_data(config, held_out, class_names, channels)
  row_of_train = _rows_by_name(source.dataset, key)
  row_of_other = row_of_train if other is None else _rows_by_name(other, key)
  found = {}
  for role in ROLES:
    dataset, row_of = other or source.dataset, row_of_other
    if role == 'train' or (role == 'validation' and row_of_other.keys().isdisjoint(ids[role])):
      dataset, row_of = source.dataset, row_of_train  # a run takes its validation samples there
    missing = [name for name in ids[role] if name not in row_of]
    if missing:
      raise errors.InputError(
        f'{len(missing)} {role} samples are missing, such as {missing[0]!r}', argument='data'
      )
    found[role] = dataset.take(np.array([row_of[name] for name in ids[role]], np.int64))
    if commitments.root(found[role], key) != record['samples'][role]['after']:
      raise errors.InputError(
        f'the {role} samples are not those of the record in {place}: the data have changed, or '
        'the ids in that folder, of which a copy must be brought back',
        argument='data',
      )
  return source, found


def _rows_by_name(dataset, key) -> dict[str, int]:
  """Rows by the ids of their samples, or by their tags."""
  ids = dataset.ids.tolist()
  names = ids if key is None else commitments.tags(key, ids)
  return {name: row for row, name in enumerate(names)}


def _members(place, key) -> dict[str, list[str]]:
  """The ids of each set after a request, or their tags."""
  path = place / (record_files.IDS if key is None else record_files.MEMBERS)
  found = untrusted.read_json(path)
  for role in ROLES:
    names = found.get(role) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise errors.InputError(
        f'{path} has no list of {role} samples; bring back a copy', argument='checkpoint'
      )
    if len(set(names)) < len(names):
      raise errors.InputError(
        f'{path} names {role} samples twice; bring back a copy', argument='checkpoint'
      )
  return found


def _class_names(record, keys, key) -> tuple[str, ...] | None:
  """The names of classes in their order, None where the data alone can say them."""
  if key is None:
    return tuple(record['configuration']['class_names'])
  said = record_keys.places(keys, record).get('class_names')
  return tuple(said) if said else None


def _check_class_names(names, record, key):
  if key is None:
    return
  wanted = record['configuration']['classes']['commitment']
  if commitments.of_json(key, 'classes', list(names)) != wanted:
    raise errors.InputError(
      'the data have other classes than those of the record; its private folder says their names',
      argument='keys',
    )


def uncached(config: settings_lib.Settings) -> settings_lib.Settings:
  """Decoded images are not kept: the caches must not outlive the samples."""
  return dataclasses.replace(config, cache_dir='')

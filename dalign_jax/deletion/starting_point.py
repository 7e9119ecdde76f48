"""Starting point of a deletion request: a model, its training data, and earlier requests."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, from_settings, locate, seeds, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  commitments,
  model_source,
  record_files,
  record_keys,
)
from dalign_jax.store import files, model_folder, problem_folder

ROLES = ('train', 'validation', 'test')
_WITHOUT_PATH = tuple(kind for kind, reader in data_lib.SOURCES.items() if not reader.path)


class StartingPoint(NamedTuple):
  """A model before a request, and all that is known of it."""

  config: settings_lib.Settings
  taken: model_source.Taken  # where the model was
  apply_fn: types.ApplyFn
  init_fn: object
  model: types.ModelState
  sets: dict[str, types.Dataset]  # train, validation, test
  class_names: tuple[str, ...]
  data_hash: str
  held_out: str
  chain: list[dict]  # records of earlier requests, oldest first
  problem: pathlib.Path | None  # the folder of the run that the model is of
  key: bytes | None = None  # of the commitments, None where the chain has none yet


def read(
  request: settings_lib.Request,
  config: settings_lib.Settings,
  keys: pathlib.Path | None = None,
  *,
  trusts_records: bool = True,
) -> StartingPoint:
  """Finds the model, its data and the earlier requests.

  Args:
    request: the flags.
    config: the flags shared with `experiments.run`; those that a run or an earlier request has
      fixed are taken from there.
    keys: the private folder of the chain; None for `--keys`, or where it lies by default.
    trusts_records: whether paths that a record of format 1 names may be read; not where it comes
      from somebody else.

  Raises:
    errors.InputError: naming what is missing, or has changed since.
  """
  place = pathlib.Path(request.checkpoint).expanduser()
  if not request.checkpoint or not place.exists():
    raise errors.InputError(
      f'there is no file or folder {request.checkpoint!r}', argument='checkpoint'
    )
  chain = record_files.read_chain(place)
  earlier = record_files.request_folder(place)
  keys = keys or record_keys.folder(request.keys, pathlib.Path(request.out), earlier)
  key = record_keys.read(keys)
  problem = run_folder(place)
  inside = place / 'model'
  folder = inside if (chain or problem) and inside.is_dir() else place
  with errors.blame('checkpoint'):
    located = locate.find(folder, request.item)
  held_out = request.held_out
  if earlier:
    config, held_out = _earlier(config, chain[-1], request, keys, trusts_records)
    source, found = sets_by_ids(config, chain[-1], held_out, earlier, keys)
  elif problem:
    config = _of_run(config, problem, request)
    source, found = _by_split(config, problem)
  else:
    source = training_source(request, config)
    config = dataclasses.replace(config, dataset=request.data or config.dataset)
    found = _whole(config, held_out, source)
  shape, class_names = source.dataset.images.shape[1:], source.class_names
  apply_fn, init_fn = from_settings.network(config, shape, len(class_names))
  with errors.blame('checkpoint'):
    template = init_fn(seeds.stream(0, 'template'))
    record = chain[-1] if chain else None
    taken = model_source.take(located, template, request.item, record)
  if chain and model_folder.digest(taken.model) != chain[-1]['model']['after']:
    raise errors.InputError(
      f'the model in {folder} is not the one that its record speaks of', argument='checkpoint'
    )
  return StartingPoint(
    config=config,
    taken=taken,
    apply_fn=apply_fn,
    init_fn=init_fn,
    model=taken.model,
    sets=found,
    class_names=class_names,
    data_hash=data_lib.content_hash(source.dataset),
    held_out=held_out,
    chain=chain,
    problem=None if chain else problem,
    key=key,
  )


def training_source(
  request: settings_lib.Request, config: settings_lib.Settings
) -> data_lib.Source:
  """The data that a request names, decoded but not kept."""
  config = dataclasses.replace(config, dataset=request.data or config.dataset)
  return from_settings.load(_uncached(config), config.train_split)


def _uncached(config):
  """Decoded images are not kept: the caches must not outlive the samples."""
  return dataclasses.replace(config, cache_dir='')


def run_folder(place: pathlib.Path) -> pathlib.Path | None:
  """The folder of `experiments.run` that a checkpoint lies in."""
  inside = (p for p in place.resolve().parents if (p / 'problem.json').is_file())
  return next(inside, None)


def _of_run(config, problem, request):
  """The configuration of a run, with the data where they are now."""
  identity = files.read_json(problem / 'problem.json', keys=['identity'])['identity']
  scenario = data_lib.SCENARIOS.get(identity.get('forget', '').partition(':')[0])
  if identity.get('coarse') or (scenario is not None and scenario.poison is not None):
    raise errors.InputError(
      f'the models in {problem} were trained on other labels or images than those of '
      'the data (mislabelled:, backdoor: or --coarse); name a model of the data as they are',
      argument='checkpoint',
    )
  known = {f.name for f in dataclasses.fields(settings_lib.Settings)}
  settings = {n: v for n, v in identity.items() if n in known and n != 'forget'}
  dataset = request.data or settings['dataset']
  return dataclasses.replace(config, **{**settings, 'dataset': dataset})


def _earlier(config, record, request, keys, trusts_records):
  """The configuration of an earlier request; seeds and devices are this one's."""
  settings = audit_record.config_of(record).problem_settings()
  places = record_keys.places(keys, record)
  if record['format'] == 1 and trusts_records:
    places = {'data': settings['dataset'], 'held_out': record['configuration']['held_out']}
  settings['dataset'] = place_of('data', settings['dataset'], request.data, places)
  said = record['configuration']['held_out']
  held_out = place_of('held_out', said, request.held_out, places)
  return dataclasses.replace(config, **settings), held_out


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
  if isinstance(kept, str) and kept.partition(':')[0] in data_lib.SOURCES:
    return kept
  if said in _WITHOUT_PATH:
    return said
  raise errors.InputError(
    f'say where they are: the record says {said!r}, and no record is obeyed', argument=name
  )


def _by_split(config, problem):
  """The sets of a run."""
  source = from_settings.load(_uncached(config), config.train_split)
  identity = files.read_json(problem / 'problem.json', keys=['identity'])['identity']
  if data_lib.content_hash(source.dataset) != identity['data_hash']:
    raise errors.InputError(
      f'{config.dataset} is not what {problem} was trained on', argument='data'
    )
  with errors.blame('checkpoint'):
    split = problem_folder.read_split(problem)
    data_lib.check_split(split, len(source.dataset))
  rows = {
    'train': np.union1d(split.retain, split.forget),
    'validation': split.validation,
    'test': split.test,
  }
  found = {name: source.dataset.take(r) for name, r in rows.items()}
  if config.test_split:
    found['test'] = from_settings.load(
      _uncached(config), config.test_split, source.class_names
    ).dataset
  return source, found


def _whole(config, held_out, source):
  """All of the user's data, and others that were held out, half for methods to watch."""
  other = _held_out(config, held_out, source.class_names)
  if other is None:
    raise errors.InputError(
      'name data that the model was not trained on (npz:PATH, folder:PATH or a split '
      'by --test_split); without them nothing can be said of the result',
      argument='held_out',
    )
  rows = np.random.default_rng(config.split_seed).permutation(len(other))
  halves = np.array_split(rows, 2)
  found = {name: other.take(np.sort(r)) for name, r in zip(ROLES[1:], halves, strict=True)}
  return {'train': source.dataset, **found}


def _held_out(config, held_out, class_names):
  if not held_out and not config.test_split:
    return None
  config = dataclasses.replace(config, dataset=held_out or config.dataset)
  return from_settings.load(_uncached(config), config.test_split or 'train', class_names).dataset


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
    record_keys.check(key, record)
  ids = _members(place, key)
  class_names = _class_names(record, keys, key)
  source = from_settings.load(_uncached(config), config.train_split, class_names)
  _check_class_names(source.class_names, record, key)
  other = _held_out(config, held_out, class_names) or source.dataset
  found = {}
  for role in ROLES:
    dataset = source.dataset if role == 'train' else other
    there = dataset.ids.tolist() if key is None else commitments.tags(key, dataset.ids.tolist())
    row_of = {name: row for row, name in enumerate(there)}
    missing = [name for name in ids[role] if name not in row_of]
    if missing:
      raise errors.InputError(
        f'{len(missing)} {role} samples are missing, such as {missing[0]!r}', argument='data'
      )
    found[role] = dataset.take(np.array([row_of[name] for name in ids[role]], np.int64))
    if commitments.root(found[role], key) != record['samples'][role]['after']:
      raise errors.InputError(
        f'the {role} samples are not those of the record in {place}', argument='data'
      )
  return source, found


def _members(place, key) -> dict[str, list[str]]:
  """The ids of each set after a request, or their tags."""
  path = place / (record_files.IDS if key is None else record_files.MEMBERS)
  found = record_files.read_json(path)
  for role in ROLES:
    names = found.get(role) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise errors.InputError(f'{path} has no list of {role} samples', argument='checkpoint')
    if len(set(names)) < len(names):
      raise errors.InputError(f'{path} names {role} samples twice', argument='checkpoint')
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

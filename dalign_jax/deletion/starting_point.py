"""Starting point of a deletion request: a model, its training data, and earlier requests."""

from collections.abc import Collection
import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import checkpoints, errors, from_settings, locate, pretrained, seeds, types
from dalign_jax import data as data_lib
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import earlier, model_source, record_files, record_keys
from dalign_jax.store import model_folder, problem_folder


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
  given: Collection[str] | None = None,
) -> StartingPoint:
  """Finds the model, its data and the earlier requests.

  Args:
    request: the flags.
    config: the flags shared with `experiments.run`; those that a run or an earlier request has
      fixed are taken from there.
    keys: the private folder of the chain; None for `--keys`, or where it lies by default.
    trusts_records: whether paths that a record of format 1 names may be read; not where it comes
      from somebody else.
    given: names of the settings that somebody gave, of `earlier.with_fixed`.

  Raises:
    errors.InputError: naming what is missing, or has changed since.
  """
  place = pathlib.Path(request.checkpoint).expanduser()
  if not request.checkpoint or not place.exists():
    raise errors.InputError(
      f'there is no file or folder {request.checkpoint!r}', argument='checkpoint'
    )
  chain = record_files.read_chain(place)
  before = record_files.request_folder(place)
  out = pathlib.Path(request.out) if request.out else None
  keys = keys or record_keys.folder(request.keys, out, before)
  key = record_keys.read(keys)
  problem = run_folder(place)
  inside = place / 'model'
  folder = inside if (chain or problem) and inside.is_dir() else place
  with errors.blame('checkpoint'):
    located = locate.find(folder, request.item)
  held_out = request.held_out
  if before:
    config, held_out = earlier.configuration(
      config, chain[-1], request, keys, trusts_records, given
    )
    source, found = earlier.sets_by_ids(config, chain[-1], held_out, before, keys)
  elif problem:
    _check_is_original(place, problem)
    if request.held_out and trusts_records:
      raise errors.InputError(
        f'the run in {problem} has held-out samples of its own; leave the flag out',
        argument='held_out',
      )
    config = _of_run(config, problem, request, given)
    source, found = _by_split(config, problem)
  else:
    source = training_source(request, config)
    config = dataclasses.replace(config, dataset=request.data or config.dataset)
    found = _whole(config, held_out, source)
  shape, class_names = source.dataset.images.shape[1:], source.class_names
  apply_fn, init_fn = from_settings.network(config, shape, len(class_names))
  if before and chain[-1]['format'] == 2:
    _check_start(init_fn, chain[-1]['configuration']['settings']['pretrained'], before)
  elif problem and not before:
    wanted = problem_folder.read_identity(problem).get('pretrained_hash', '')
    _check_start(init_fn, wanted, problem)
  with errors.blame('checkpoint'):
    template = init_fn(seeds.stream(0, 'template'))
    checkpoints.check_state(template)
    record = chain[-1] if chain else None
    taken = model_source.take(located, template, request.item, record)
    taken = model_source.as_pretrained(taken, init_fn)
  if taken.fitted:
    from_settings.check_statistics(config, taken.fitted)
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
  return from_settings.load(earlier.uncached(config), config.train_split)


def run_folder(place: pathlib.Path) -> pathlib.Path | None:
  """The folder of `experiments.run` that a checkpoint lies in."""
  inside = (p for p in place.resolve().parents if (p / 'problem.json').is_file())
  return next(inside, None)


def _check_is_original(place, problem):
  """Raises for a gold, a shadow or an unlearned model: a part of the run's data it has not seen."""
  role = place.resolve().relative_to(problem).parts[0]
  if role != 'original':
    raise errors.InputError(
      f'{place} is one of {role}/ in {problem}, and was not trained on all of its data; '
      'name one of original/',
      argument='checkpoint',
    )


def _of_run(config, problem, request, given):
  """The configuration of a run, with the data where they are now."""
  identity = problem_folder.read_identity(problem)
  scenario = data_lib.SCENARIOS.get(identity.get('forget', '').partition(':')[0])
  if identity.get('coarse') or (scenario is not None and scenario.poison is not None):
    raise errors.InputError(
      f'the models in {problem} were trained on other labels or images than those of '
      'the data (mislabelled:, backdoor: or --coarse); name a model of the data as they are',
      argument='checkpoint',
    )
  known = {f.name for f in dataclasses.fields(settings_lib.Settings)}
  settings = {n: v for n, v in identity.items() if n in known and n != 'forget'}
  places = {
    'dataset': request.data or settings['dataset'],
    'pretrained': config.pretrained or settings.get('pretrained', ''),
  }
  return earlier.with_fixed(config, {**settings, **places}, f'the run in {problem}', given)


def _check_start(init_fn, wanted, place):
  """Raises unless the pretrained weights are those of a run, or of the record before."""
  if pretrained.digest_of(init_fn) != wanted:
    raise errors.InputError(
      f'these are not the weights that {place} started from', argument='pretrained'
    )


def _by_split(config, problem):
  """The sets of a run."""
  source = from_settings.load(earlier.uncached(config), config.train_split)
  identity = problem_folder.read_identity(problem)
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
    channels = source.dataset.images.shape[-1]
    test = from_settings.load(
      earlier.uncached(config), config.test_split, source.class_names, channels=channels
    )
    found['test'] = test.dataset
    if identity.get('check_duplicates') == 'drop':  # the run did so, and keeps no rows of it
      same = data_lib.duplicates({'retain': found['train'], 'test': found['test']})
      gone = same.get(('retain', 'test'), np.zeros(0, np.int64))
      found['test'] = found['test'].take(np.delete(np.arange(len(found['test'])), gone))
  return source, found


def _whole(config, held_out, source):
  """All of the user's data, and others that were held out, half for methods to watch."""
  channels = source.dataset.images.shape[-1]
  other = earlier.held_out_data(config, held_out, source.class_names, channels)
  if other is None:
    raise errors.InputError(
      'name data that the model was not trained on (npz:PATH, folder:PATH or a split '
      'by --test_split); without them nothing can be said of the result',
      argument='held_out',
    )
  shapes = [dataset.images.shape[1:] for dataset in (source.dataset, other)]
  if shapes[0] != shapes[1]:
    raise errors.InputError(
      f'has images of {shapes[1]}, the training data of {shapes[0]} (height, width, channels)',
      argument='held_out',
    )
  rows = np.random.default_rng(config.split_seed).permutation(len(other))
  halves = np.array_split(rows, 2)
  found = {name: other.take(np.sort(r)) for name, r in zip(earlier.ROLES[1:], halves, strict=True)}
  return {'train': source.dataset, **found}

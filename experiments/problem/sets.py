"""The sets of a problem: loaded, split, and checked for people and images on both sides."""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import errors, from_settings, types
from experiments import config as config_lib

_SETS = ('retain', 'forget', 'validation', 'test', 'unseen', 'unseen_validation')


Poison = Callable[[types.Dataset], types.Dataset]  # of held-out rows


class Made(NamedTuple):
  """The sets of a problem; see `preparation.Job`."""

  source: data_lib.Source
  split: data_lib.Split
  sets: dict[str, types.Dataset]
  watched: types.Dataset | None
  notes: tuple[str, ...]
  poison: Poison | None = None
  forgets_subclass: int | None = None
  taken: tuple[data_lib.Taken, ...] = ()  # of the training and of the test split

  @property
  def forgets_classes(self) -> tuple[int, ...]:
    """Classes without retain examples."""
    if self.sets['retain'].is_multi_label:
      return ()
    present = {name: set(self.sets[name].labels.tolist()) for name in ('forget', 'retain')}
    return tuple(sorted(present['forget'] - present['retain']))


def make(config: config_lib.Config, scores: np.ndarray | None = None) -> Made:
  """Loads the data and makes the sets that the configuration asks for.

  Args:
    config: the settings.
    scores: scores of all rows, for requests such as `--forget=memorised:SHARE`.

  Raises:
    errors.InputError: naming the flag that cannot be followed.
  """
  fine = from_settings.load(config, config.train_split)
  source = _coarse(config, fine)
  split = _split(config, source, scores)
  sets = {name: source.dataset.take(getattr(split, name)) for name in _SETS}
  taken = (fine.taken,)
  if config.test_split:
    fine_test = from_settings.load(
      config, config.test_split, fine.class_names, channels=fine.dataset.images.shape[-1]
    )
    taken = (fine.taken, fine_test.taken)
    shapes = [s.dataset.images.shape[1:] for s in (fine, fine_test)]
    if shapes[0] != shapes[1]:
      raise errors.InputError(
        f'{config.test_split} has images of {shapes[1]}, {config.train_split} of {shapes[0]} '
        '(height, width, channels)',
        argument='test_split',
      )
    test = _coarse(config, fine_test)
    _check_test_people(config, source, split, test)
    sets['test'] = _with_groups_of(source, test)
  sets, split, notes = _check_duplicates(config, sets, split)
  for flag, name in (('validation_fraction', 'validation'), ('test_fraction', 'test')):
    if not len(sets[name]):
      raise errors.InputError(f'leaves no {name} examples; use a larger share', argument=flag)
  watched = sets.pop('unseen_validation')
  if not len(sets['unseen']):
    del sets['unseen']
  watched, notes = watched if len(watched) else None, notes
  request = data_lib.parse_forget(config.forget)
  scenario = data_lib.SCENARIOS.get(request.kind, data_lib.Scenario(forms=(), rows=None))
  number = None
  if scenario.group is not None:
    number = scenario.group(request, source.dataset.group, source.group_names)
  poison = None
  if scenario.poison is not None:
    change = scenario.poison(request, source.dataset.labels, source.class_names)
    rng = lambda purpose: np.random.default_rng([config.split_seed, purpose])
    poison = lambda rows, purpose=8: change(rows, rng(purpose))
    sets |= {'forget': poison(sets['forget'], 6), 'poisoned': poison(sets['test'], 7)}
  return Made(source, split, sets, watched, notes, poison, number, taken)


def _coarse(config, source):
  with errors.blame('coarse'):
    return data_lib.coarsen(source, config.coarse) if config.coarse else source


def _with_groups_of(source, test):
  """The test rows with groups numbered as in the source; -1 for groups that it lacks."""
  if test.dataset.group is None or source.group_names is None:
    return test.dataset
  numbers = {name: number for number, name in enumerate(source.group_names)}
  of_test = np.array([numbers.get(name, -1) for name in test.group_names], np.int32)
  return dataclasses.replace(test.dataset, group=of_test[test.dataset.group])


def _check_test_people(config, source, split, test):
  """Raises if people who are forgotten, or must be held out whole, are in the test split too."""
  if source.dataset.group is None or test.dataset.group is None:
    return
  names = lambda s, rows: {s.group_names[k] for k in np.unique(s.dataset.group[rows])}
  tested = names(test, np.arange(len(test.dataset)))
  parts = {'unseen': np.union1d(split.unseen, split.unseen_validation)}
  if data_lib.parse_forget(config.forget).kind in ('group', 'people'):
    parts['forget'] = split.forget
  if config.split_by_group:
    parts['split_by_group'] = np.union1d(split.retain, split.forget)
  for flag, rows in parts.items():
    shared = tested & names(source, rows)
    if shared:
      raise errors.InputError(
        f'{len(shared)} people are in --test_split={config.test_split} too, such as {min(shared)}',
        argument=flag,
      )


def _check_duplicates(config, sets, split):
  """Says which images are in several sets, and drops the later ones where that is asked."""
  if config.check_duplicates not in ('warn', 'drop', 'off'):
    raise errors.InputError(
      f'must be warn, drop or off, got {config.check_duplicates!r}', argument='check_duplicates'
    )
  if config.check_duplicates == 'off':
    return sets, split, ()
  found = data_lib.duplicates(sets)
  if not found:
    return sets, split, ()
  counts = ', '.join(f'{len(rows)} of {b} in {a}' for (a, b), rows in found.items())
  if config.check_duplicates == 'warn':
    return sets, split, (f'equal images in different sets: {counts} (--check_duplicates=drop)',)
  for name in {b for _, b in found}:
    rows = np.concatenate([rows for (_, b), rows in found.items() if b == name])
    sets = sets | {name: sets[name].take(np.setdiff1d(np.arange(len(sets[name])), rows))}
    if name != 'test' or not config.test_split:
      own = getattr(split, name)
      changed = {name: np.delete(own, rows), 'unused': np.union1d(split.unused, own[rows])}
      split = dataclasses.replace(split, **changed)
  return sets, split, (f'equal images left out: {counts}',)


def _group_sizes(config) -> tuple[int, int] | None:
  if not config.group_sizes:
    return None
  low, _, high = config.group_sizes.partition(',')
  if not (low.strip().isdecimal() and high.strip().isdecimal()):
    raise errors.InputError(f'must be MIN,MAX, got {config.group_sizes!r}', argument='group_sizes')
  return int(low), int(high)


def _split(config, source, scores):
  with errors.blame('forget'):
    return data_lib.split_dataset(
      source.dataset,
      validation_fraction=config.validation_fraction,
      test_fraction=0.0 if config.test_split else config.test_fraction,
      forget=config.forget,
      seed=config.split_seed,
      class_names=source.class_names,
      group_names=source.group_names,
      max_examples=config.max_examples or None,
      unseen=config.unseen or None,
      split_by_group=config.split_by_group,
      group_sizes=_group_sizes(config),
      official=data_lib.official_parts(config.dataset, source),
      scores=scores,
    )

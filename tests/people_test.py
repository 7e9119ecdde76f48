"""People: unseen and held out whole, official parts, equal images in several sets."""

import dataclasses

import numpy as np
import pytest

from dalign_jax import data, errors, types
from dalign_jax.data import _people
from experiments import config as config_lib
from experiments.problem import sets


def _dataset(seed=0, size=400, people=40):
  rng = np.random.default_rng(seed)
  return types.Dataset(
    images=rng.integers(0, 256, (size, 4, 4, 1), np.uint8),
    labels=rng.integers(0, 2, size).astype(np.int32),
    ids=np.array([f'row-{row}' for row in range(size)]),
    group=rng.choice(people, size, p=np.arange(1, people + 1) / (people * (people + 1) / 2)).astype(
      np.int32
    ),
  )


NAMES = tuple(f'person_{k}' for k in range(40))


def _split(dataset=None, forget='people:5', **changes):
  arguments = {'validation_fraction': 0.2, 'test_fraction': 0.2, 'seed': 0} | changes
  return data.split_dataset(dataset or _dataset(), forget=forget, group_names=NAMES, **arguments)


def _people_of(dataset, split):
  return {name: set(dataset.group[rows].tolist()) for name, rows in vars(split).items()}


@pytest.mark.parametrize('seed', range(5))
def test_unseen_people_are_in_no_other_part(seed):
  dataset = _dataset(seed)
  split = _split(dataset, unseen='people:10', seed=seed)
  people = _people_of(dataset, split)
  assert len(people['unseen']) == len(people['unseen_validation']) == 5
  assert len(people['forget']) == 5
  apart = [people['forget'], people['unseen'], people['unseen_validation']]
  others = people['retain'] | people['validation'] | people['test']
  assert len(set.union(others, *apart)) == len(others) + sum(map(len, apart))
  rows = np.concatenate(list(vars(split).values()))
  np.testing.assert_array_equal(np.sort(rows), np.arange(400))


@pytest.mark.parametrize('seed', range(5))
def test_split_by_group_holds_out_whole_people(seed):
  dataset = _dataset(seed)
  split = _split(dataset, unseen='people:6', split_by_group=True, seed=seed)
  people = _people_of(dataset, split)
  parts = [p for name, p in people.items() if name != 'unused']
  assert len(set.union(*parts)) == sum(map(len, parts))
  free = len(split.retain) + len(split.validation) + len(split.test)
  for part in (split.validation, split.test):
    assert abs(len(part) - 0.2 * free) < 20
  rows_of = lambda forget: _split(dataset, forget=forget, split_by_group=True, seed=seed)
  ids = rows_of('random:0.1')
  assert not set(dataset.group[ids.retain].tolist()) & set(dataset.group[ids.test].tolist())


def test_unseen_can_be_named_and_goes_with_every_request():
  split = _split(forget='random:0.1', unseen='group:person_39')
  assert set(_dataset().group[split.unseen].tolist()) == {39}
  assert not len(split.unseen_validation)  # a single person stays with the attacks
  assert 39 not in _dataset().group[np.concatenate([split.retain, split.forget, split.test])]


def test_group_sizes_leave_other_people_unused():
  dataset = _dataset()
  _, counts = np.unique(dataset.group, return_counts=True)
  split = _split(dataset, unseen='people:4', group_sizes=(5, 15))
  used = np.concatenate([rows for name, rows in vars(split).items() if name != 'unused'])
  sizes = counts[np.searchsorted(np.unique(dataset.group), np.unique(dataset.group[used]))]
  assert sizes.min() >= 5 and sizes.max() <= 15
  assert len(split.unused) == counts[(counts < 5) | (counts > 15)].sum()


def test_growing_requests_contain_each_other():
  small, large = (_split(forget=f'people:{count}', unseen='people:4') for count in (3, 8))
  assert set(small.forget.tolist()) < set(large.forget.tolist())


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'unseen': 'class:1'}, r'unseen: class:1: must be group:NAME or people:COUNT'),
    ({'unseen': 'people:35'}, r'unseen: people:35: would forget everything: there are 34 groups'),
    ({'unseen': 'group:nobody'}, r"unseen: group:nobody: there is no group 'nobody'"),
    (
      {'forget': 'group:person_7', 'unseen': 'group:person_7'},
      'person_7 is forgotten already',
    ),
    ({'group_sizes': (500, 600)}, 'group_sizes: 500,600 leaves 0 groups; sizes are from'),
    ({'forget': 'official'}, 'the data set has no official parts'),
    ({'forget': 'official:3'}, 'forget: official:3: must be'),
  ],
)
def test_requests_that_cannot_be_met(changes, message):
  with pytest.raises(ValueError, match=message):
    _split(**changes)


def test_groups_are_needed():
  without = dataclasses.replace(_dataset(), group=None)
  for changes in ({'unseen': 'people:3'}, {'split_by_group': True}, {'group_sizes': (1, 9)}):
    flag = next(iter(changes))
    with pytest.raises(ValueError, match=f'{flag}.*no groups.*group_key'):
      _split(without, forget='random:0.1', **changes)


def test_people_on_both_sides_are_named():
  with pytest.raises(ValueError, match='group 4 is in both retain and test'):
    _people.check_people(np.array([4, 5, 4]), {'retain': np.array([0]), 'test': np.array([1, 2])})


def test_multi_label_split_is_stratified_by_combination():
  rng = np.random.default_rng(0)
  labels = (rng.uniform(size=(400, 2)) < [0.5, 0.2]).astype(np.int32)
  dataset = dataclasses.replace(_dataset(), labels=labels)
  split = _split(dataset, forget='random:0.1')
  combined = labels @ [1, 2]
  for part in (split.validation, split.test):
    share = np.bincount(combined[part]) / len(part)
    np.testing.assert_allclose(share, np.bincount(combined) / 400, atol=0.02)
  with pytest.raises(ValueError, match='several attributes, there are no classes'):
    _split(dataset, forget='class:1')


def _npz(tmp_path, duplicate):
  dataset = _dataset()
  images = dataset.images.copy()
  if duplicate:
    images[1::40] = images[0]
  path = tmp_path / 'faces.npz'
  np.savez(
    path,
    images=images,
    labels=dataset.labels,
    ids=dataset.ids,
    group=np.array(NAMES)[dataset.group],
  )
  return f'npz:{path}'


def _config(tmp_path, duplicate=True, **changes):
  settings = {
    'dataset': _npz(tmp_path, duplicate),
    'forget': 'people:5',
    'unseen': 'people:6',
    'cache_dir': '',
    **changes,
  }
  return config_lib.Config(**settings)


def test_equal_images_are_said_or_dropped(tmp_path):
  made = {
    choice: sets.make(_config(tmp_path, check_duplicates=choice))
    for choice in ('warn', 'drop', 'off')
  }
  assert made['off'].notes == () and 'equal images in different sets' in made['warn'].notes[0]
  assert 'equal images left out' in made['drop'].notes[0]
  all_of = lambda m: {**m.sets, 'unseen_validation': m.watched}
  assert data.duplicates(all_of(made['warn'])) and not data.duplicates(all_of(made['drop']))
  lost = sum(map(len, all_of(made['warn']).values())) - sum(map(len, all_of(made['drop']).values()))
  found = data.duplicates(all_of(made['warn']))
  assert lost == sum(map(len, found.values())) == len(made['drop'].split.unused)
  first = min(found, key=lambda pair: pair[0] != 'forget')[0]
  assert len(made['drop'].sets[first]) == len(made['warn'].sets[first])
  clean = sets.make(_config(tmp_path, duplicate=False))
  assert clean.notes == ()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'check_duplicates': 'yes'}, "check_duplicates: must be one of warn, drop, off, got 'yes'"),
    ({'group_sizes': '5'}, "group_sizes: must be MIN,MAX, got '5'"),
    ({'unseen': 'random:0.1'}, 'unseen: random:0.1: must be'),
  ],
)
def test_flags_that_cannot_be_followed(tmp_path, changes, message):
  with pytest.raises(errors.InputError, match=message):
    sets.make(_config(tmp_path, **changes))

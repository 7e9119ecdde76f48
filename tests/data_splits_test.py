"""Splits, forget requests and batches: properties over seeds, and every error."""

import dataclasses
import os

import numpy as np
import pytest

from dalign_jax import data, types

_PARTS = ('retain', 'forget', 'validation', 'test', 'unused')
_CLASS_NAMES = ('cat', 'dog', 'owl', '7')
_GROUP_NAMES = tuple(f'person_{k}' for k in range(20))


def _dataset(seed=0, size=400):
  """Four classes of unequal size, twenty groups."""
  rng = np.random.default_rng(seed)
  return types.Dataset(
    images=np.zeros((size, 2, 2, 1), np.uint8),
    labels=rng.choice(4, size, p=[0.5, 0.3, 0.15, 0.05]).astype(np.int32),
    ids=np.array([f'row-{row}' for row in range(size)]),
    group=rng.integers(0, 20, size).astype(np.int32),
  )


def _split(forget, dataset=None, **changes):
  arguments = {'validation_fraction': 0.1, 'test_fraction': 0.2, 'seed': 0} | changes
  return data.split_dataset(
    dataset or _dataset(),
    forget=forget,
    class_names=_CLASS_NAMES,
    group_names=_GROUP_NAMES,
    **arguments,
  )


def _equal(a, b, parts=_PARTS):
  return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in parts)


def _request_file(tmp_path, text, encoding='utf-8'):
  path = tmp_path / 'request.csv'
  path.write_bytes(text.encode(encoding))
  return f'ids:{path}'


@pytest.fixture
def any_request(tmp_path):
  """Builds one request of each kind."""
  ids = _request_file(tmp_path, '\n'.join(f'row-{row}' for row in range(0, 60, 5)))
  kinds = (
    'class:dog',
    'class:dog:0.1',
    'classes:cat,2',
    'random:0.1',
    'random:30',
    'people:3',
    'group:person_4',
  )
  return (*kinds, ids)


def test_splits_are_disjoint_covering_sorted_and_seeded(any_request):
  for request in any_request:
    seen = set()
    for seed in range(20):
      for max_examples in (None, 250):
        dataset = _dataset(seed)
        split = _split(request, dataset, seed=seed, max_examples=max_examples)
        rows = np.concatenate([getattr(split, part) for part in _PARTS])
        np.testing.assert_array_equal(np.sort(rows), np.arange(400))
        for part in _PARTS:
          assert getattr(split, part).dtype == np.int64
          assert np.all(np.diff(getattr(split, part)) > 0)
        again = _split(request, dataset, seed=seed, max_examples=max_examples)
        assert _equal(split, again)
        assert len(split.unused) == (0 if max_examples is None else 150)
      seen.add(_split(request, seed=seed).test.tobytes())
    assert len(seen) == 20


@pytest.mark.parametrize(('validation', 'test'), [(0.1, 0.2), (0.0, 0.3), (0.25, 0.0), (0.0, 0.0)])
def test_held_out_rows_are_stratified(validation, test):
  for seed in range(20):
    dataset = _dataset(seed)
    split = _split(
      'random:0.2', dataset, validation_fraction=validation, test_fraction=test, seed=seed
    )
    assert len(split.validation) == round(400 * validation)
    assert len(split.test) == round(400 * test)
    sizes = np.bincount(dataset.labels, minlength=4)
    held = np.concatenate([split.validation, split.test])
    counts = np.bincount(dataset.labels[held], minlength=4)
    assert np.all(np.abs(counts - sizes * (validation + test)) < 1 + 1e-9)
    counts = np.bincount(dataset.labels[split.test], minlength=4)
    assert np.all(np.abs(counts - sizes * test) < 2)


def test_classes_of_one_row_are_held_out_at_random():
  labels = np.arange(100, dtype=np.int32)
  dataset = dataclasses.replace(_dataset(size=100), labels=labels)
  means = [
    data.split_dataset(
      dataset, validation_fraction=0, test_fraction=0.2, forget='random:5', seed=seed
    ).test.mean()
    for seed in range(50)
  ]
  assert abs(np.mean(means) - 49.5) < 5  # standard error .8


def test_max_examples_is_stratified_and_keeps_what_is_named(tmp_path):
  dataset = _dataset()
  split = _split('random:0.1', max_examples=200)
  used = np.setdiff1d(np.arange(400), split.unused)
  sizes, counts = np.bincount(dataset.labels), np.bincount(dataset.labels[used])
  assert len(used) == 200 and np.all(np.abs(counts - sizes / 2) < 1)
  split = _split('group:person_2', max_examples=60)
  np.testing.assert_array_equal(split.forget, np.flatnonzero(dataset.group == 2))
  assert len(split.unused) == 340
  split = _split(_request_file(tmp_path, 'row-9\nrow-399'), max_examples=50)
  assert split.forget.tolist() == [9, 399] and len(split.unused) == 350
  assert _equal(_split('class:cat', max_examples=400), _split('class:cat'))


def test_class_requests_forget_training_rows_only():
  dataset = _dataset()
  training = np.union1d(_split('class:dog').retain, _split('class:dog').forget)
  for request, classes in (
    ('class:dog', [1]),
    ('class:1', [1]),
    ('class: dog ', [1]),
    ('classes:dog,owl', [1, 2]),
    ('classes:owl, 1,owl', [1, 2]),
    ('class:7', [3]),  # the name of a class goes before its number
    ('class:3', [3]),
  ):
    split = _split(request)
    np.testing.assert_array_equal(
      split.forget, training[np.isin(dataset.labels[training], classes)]
    )
    assert set(classes) <= set(dataset.labels[split.validation]) | set(dataset.labels[split.test])
    assert set(dataset.labels[split.retain]) == set(range(4)) - set(classes)


def test_requests_share_held_out_rows_and_nest():
  splits = [_split(request) for request in ('class:0', 'classes:1,2', 'random:28', 'random:0.5')]
  assert all(_equal(split, splits[0], ('validation', 'test', 'unused')) for split in splits)
  assert len(splits[2].forget) == 28 and len(splits[3].forget) == 140
  assert set(splits[2].forget) < set(splits[3].forget)
  few, many = _split('people:2'), _split('people:6')
  assert set(few.forget) < set(many.forget)


def test_part_of_a_class():
  dataset = _dataset()
  of = {request: _split(f'class:{request}') for request in ('dog', 'dog:5', 'dog:0.5', '1:0.001')}
  assert all(_equal(split, of['dog'], ('validation', 'test')) for split in of.values())
  whole = set(of['dog'].forget)
  sizes = {request: len(split.forget) for request, split in of.items()}
  assert sizes == {'dog': len(whole), 'dog:5': 5, 'dog:0.5': round(len(whole) / 2), '1:0.001': 1}
  assert set(of['1:0.001'].forget) < set(of['dog:5'].forget) < set(of['dog:0.5'].forget) < whole
  assert {1} == set(dataset.labels[of['dog:5'].forget]) < set(dataset.labels[of['dog:5'].retain])
  assert not _equal(of['dog:5'], _split('class:dog:5', seed=1), ('forget',))


def test_class_with_a_colon_in_its_name():
  split = lambda forget: data.split_dataset(
    _dataset(),
    validation_fraction=0.1,
    test_fraction=0.2,
    forget=forget,
    seed=0,
    class_names=('a', 'b:0.5', 'c', 'd'),
  )
  labels = _dataset().labels
  whole, part = split('class:b:0.5'), split('class:b:0.5:0.5')
  assert set(labels[whole.forget]) == set(labels[part.forget]) == {1}
  assert len(part.forget) == round(len(whole.forget) / 2)


def test_groups_leave_whole():
  dataset = _dataset()
  for seed in range(20):
    split = _split('people:4', seed=seed)
    groups = np.unique(dataset.group[split.forget])
    assert len(groups) == 4
    rest = np.concatenate([split.retain, split.validation, split.test])
    assert not np.isin(dataset.group[rest], groups).any()
    assert len(split.test) == round(0.2 * len(rest))
  split = _split('group:person_11')
  np.testing.assert_array_equal(split.forget, np.flatnonzero(dataset.group == 11))


def test_group_that_is_a_number_means_a_count():
  names = tuple(str(100 + k) for k in range(20))
  split = data.split_dataset(
    _dataset(),
    validation_fraction=0.1,
    test_fraction=0.1,
    forget='people:5',
    seed=0,
    group_names=names,
  )
  assert len(np.unique(_dataset().group[split.forget])) == 5


@pytest.mark.parametrize(
  ('text', 'encoding'),
  [
    ('row-3\nrow-10\nrow-2', 'utf-8'),
    ('id\nrow-3\nrow-10\nrow-2\n', 'utf-8-sig'),
    ('\r\n  row-3 \r\nrow-10\r\n\r\nrow-2', 'utf-8'),
    ('reason,id\n"moved, then asked",row-3\n,"row-10"\nnone,row-2\n', 'utf-8'),
  ],
)
def test_ids_files(tmp_path, text, encoding):
  split = _split(_request_file(tmp_path, text, encoding))
  assert split.forget.tolist() == [2, 3, 10]


def test_ids_with_commas_and_other_alphabets(tmp_path):
  ids = _dataset().ids.astype('<U20')
  ids[5], ids[6] = 'owl/a,b.png', 'Zoë#2'
  dataset = dataclasses.replace(_dataset(), ids=ids)
  split = _split(_request_file(tmp_path, 'owl/a,b.png\nZoë#2'), dataset)
  assert split.forget.tolist() == [5, 6]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('row-1\nrow-x\nrow-y\nrow-z\nrow-w', "4 of 5 ids are not in .*'row-x', 'row-y', 'row-z'; ids"),
    ('row-1\nrow-2\nrow-1', "1 ids occur more than once, such as 'row-1'"),
    ('id\n# nobody\n', "1 of 1 ids are not in the training data, such as '# nobody'"),
    ('', 'forgets no training row'),
    ('reason,id\nmoved,row-1\nmoved', "line 3 has no id in the column 'id'"),
    ('\n'.join(f'row-{row}' for row in range(400)), 'forgets all 400 training rows'),
  ],
)
def test_ids_file_errors(tmp_path, text, message):
  request = _request_file(tmp_path, text)
  with pytest.raises(ValueError, match=f'forget: .*{message}'):
    _split(request)


def test_unreadable_ids_files(tmp_path):
  for request in (
    f'ids:{tmp_path / "missing.txt"}',
    f'ids:{tmp_path}',
    _request_file(tmp_path, 'Zoë', 'latin-1'),
  ):
    with pytest.raises(ValueError, match='forget: must name a text file in UTF-8'):
      _split(request)


@pytest.mark.parametrize(
  ('request_text', 'message'),
  [
    ('', 'must be class:NAME, class:NAME:SHARE, class:NAME:COUNT, classes:NAME,NAME'),
    ('class', 'must be class:NAME'),
    ('class:', 'must be class:NAME'),
    ('klass:3', 'must be class:NAME'),
    ('Class:3', 'must be class:NAME'),
    ('class:dgo', "there is no class 'dgo'; name one of the 4 classes, such as dog"),
    ('class:4', "there is no class '4'; .* such as cat, dog, owl, 7"),
    ('class:-1', "there is no class '-1'"),
    ('class:dog:', 'must give a share between 0 and 1 or a whole number'),
    ('class:dog:0', 'must give a share'),
    ('class:dog:1.5', 'must give a share'),
    ('class:dog:400', 'the class has .* training rows; give fewer'),
    ('class:dgo:0.1', "there is no class 'dgo'; name one of the 4 classes, such as dog"),
    ('classes:cat,', "there is no class ''"),
    ('classes:0,1,2,3', 'forgets all 280 training rows'),
    ('classes:0,1,2', 'leaves one class only to retain'),
    ('random:0', 'must give a share between 0 and 1 or a whole number'),
    ('random:1.0', 'must give a share'),
    ('random:-0.1', 'must give a share'),
    ('random:nan', 'must give a share'),
    ('random:ten', 'must give a share'),
    ('random:0.0001', 'forgets no training row'),
    ('random:280', 'forgets all 280 training rows'),
    ('random:5000', 'forgets all 280 training rows'),
    ('people:0', 'must be a number of persons, 1 or more'),
    ('people:20', 'would forget everything: there are 20 groups'),
    ('group:person_99', "there is no group 'person_99'.*20 groups, such as person_9"),
  ],
)
def test_request_errors(request_text, message):
  with pytest.raises(ValueError, match=f'forget: .*{message}'):
    _split(request_text)


def test_group_errors():
  dataset = dataclasses.replace(_dataset(), group=None)
  with pytest.raises(ValueError, match=r'forget: people:2: the data set has no groups.*group_key'):
    _split('people:2', dataset)
  dataset = dataclasses.replace(_dataset(), group=np.ones(400, np.int32))
  with pytest.raises(ValueError, match='forgets all 400 training rows'):
    _split('group:person_1', dataset)
  with pytest.raises(ValueError, match='forgets no training row'):
    _split('group:person_2', dataset)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'validation_fraction': 1.0}, r'validation_fraction: must be in \[0, 1\), got 1.0'),
    ({'test_fraction': -0.1}, r'test_fraction: must be in \[0, 1\), got -0.1'),
    ({'test_fraction': float('nan')}, r'test_fraction: must be .*got nan'),
    ({'validation_fraction': 0.5, 'test_fraction': 0.5}, 'their sum must be below 1'),
    ({'seed': -1}, 'the seed of the split must be 0 or more, got -1'),
    ({'max_examples': 0}, 'max_examples: must be 1 or more, got 0'),
    ({'max_examples': 10}, 'max_examples: 10 leaves nothing to keep: people:2 names'),
  ],
)
def test_number_errors(changes, message):
  with pytest.raises(ValueError, match=message):
    _split('people:2', **changes)


def test_check_split_names_what_is_wrong():
  split = _split('random:0.1')
  data.check_split(split, 400)
  retain, forget = split.retain, split.forget
  for changes, size, message in (
    ({}, 401, '1 rows are in no part of the split, such as 400'),
    ({}, 399, r'must be sorted, without repeats, and in \[0, 399\)'),
    ({'forget': retain}, 400, 'rows are in both retain and forget'),
    ({'forget': forget[::-1]}, 400, 'forget must be sorted'),
    ({'forget': np.repeat(forget, 2)}, 400, 'forget must be sorted, without repeats'),
    ({'forget': forget.astype(np.int32)}, 400, 'forget must be int64 row numbers'),
    ({'test': forget[:0]}, 400, '80 rows are in no part'),
    ({'forget': forget[:0], 'unused': forget}, 400, 'forget must not be empty'),
  ):
    with pytest.raises(ValueError, match=message):
      data.check_split(dataclasses.replace(split, **changes), size)


def test_splits_are_saved_and_loaded(tmp_path):
  path = tmp_path / 'splits.npz'
  first, second = _split('class:dog'), _split('random:0.1', max_examples=100)
  for split in (first, second):
    data.save_split(path, split)
    assert _equal(data.load_split(path), split)
  assert os.listdir(tmp_path) == ['splits.npz']


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'splits.npz'
  split = _split('class:dog')
  data.save_split(path, split)

  def fail(file, **arrays):
    file.write(b'half')
    raise OSError('disk full')

  monkeypatch.setattr(np, 'savez', fail)
  with pytest.raises(OSError, match='disk full'):
    data.save_split(path, _split('random:0.1'))
  assert _equal(data.load_split(path), split) and os.listdir(tmp_path) == ['splits.npz']


@pytest.mark.parametrize('content', [None, b'', b'PK\x03\x04 cut short', b'text'])
def test_damaged_splits(tmp_path, content):
  if content is not None:
    (tmp_path / 'splits.npz').write_bytes(content)
  with pytest.raises(ValueError, match=r'splits\.npz is not a saved split'):
    data.load_split(tmp_path / 'splits.npz')


@pytest.mark.parametrize(
  ('size', 'batch'), [(10, 4), (12, 4), (1, 1), (7, 7), (8, 7), (50, 1), (100, 64), (33, 32)]
)
def test_an_epoch_covers_everything_in_full_batches(size, batch):
  for seed in range(20):
    batches = data.epoch_batches(size, batch, np.random.default_rng(seed))
    assert batches.dtype == np.int32 and batches.shape == (-(-size // batch), batch)
    np.testing.assert_array_equal(np.sort(batches.ravel()[:size]), np.arange(size))
    assert np.bincount(batches.ravel()).max() <= 2
    assert all(len(np.unique(rows)) == batch for rows in batches)


@pytest.mark.parametrize(('size', 'batch', 'count'), [(10, 4, 25), (5, 4, 9), (7, 3, 2), (9, 9, 4)])
def test_more_batches_continue_over_permutations(size, batch, count):
  for seed in range(20):
    batches = data.epoch_batches(size, batch, np.random.default_rng(seed), num_batches=count)
    assert batches.shape == (count, batch)
    assert all(len(np.unique(rows)) == batch for rows in batches)
    flat = batches.ravel()
    for start in range(0, len(flat) - size + 1, size):
      np.testing.assert_array_equal(np.sort(flat[start : start + size]), np.arange(size))


@pytest.mark.parametrize(('size', 'batch'), [(3, 8), (1, 5), (4, 8), (5, 128)])
def test_batches_larger_than_the_set_repeat_evenly(size, batch):
  batches = data.epoch_batches(size, batch, np.random.default_rng(0), num_batches=6)
  for rows in batches:
    counts = np.bincount(rows, minlength=size)
    assert counts.min() >= batch // size and counts.max() - counts.min() <= 1
  assert data.epoch_batches(size, batch, np.random.default_rng(0)).shape == (1, batch)


def test_batches_are_seeded_and_uniform():
  make = lambda seed: data.epoch_batches(20, 8, np.random.default_rng(seed))
  np.testing.assert_array_equal(make(1), make(1))
  assert not np.array_equal(make(1), make(2))
  rng = np.random.default_rng(3)
  first = np.mean([data.epoch_batches(20, 8, rng)[0] for _ in range(300)])
  assert abs(first - 9.5) < 0.4  # standard error .1
  assert data.epoch_batches(20, 8, rng, num_batches=0).shape == (0, 8)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0, 4), 'num_examples must be 1 or more, got 0'),
    ((4, 0), 'batch_size must be 1 or more, got 0'),
    ((4, 4, -1), 'num_batches must be 0 or more, got -1'),
  ],
)
def test_batch_errors(arguments, message):
  num_examples, batch_size, *rest = arguments
  with pytest.raises(ValueError, match=message):
    data.epoch_batches(
      num_examples, batch_size, np.random.default_rng(0), num_batches=rest[0] if rest else None
    )


def test_number_is_no_index_where_the_names_are_numbers():
  labels = np.arange(40, dtype=np.int32) % 4
  dataset = types.Dataset(
    np.zeros((40, 2, 2, 1), np.uint8), labels, np.array([f'i{k}' for k in range(40)])
  )
  options = {'validation_fraction': 0.1, 'test_fraction': 0.1, 'seed': 0}
  names = ('0', '1', '3', '4')
  split = data.split_dataset(dataset, forget='class:3', class_names=names, **options)
  assert set(labels[split.forget]) == {2}
  with pytest.raises(ValueError, match="no class '2'"):
    data.split_dataset(dataset, forget='class:2', class_names=names, **options)

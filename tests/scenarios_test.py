"""Subclasses, poisoned and memorised images: what is forgotten, and what the table says of it."""

import csv
import dataclasses

import numpy as np
import PIL.Image
import pytest

from dalign_jax import checkpoints, errors, evaluation, metrics, prediction, types
from dalign_jax import data as data_lib
from experiments import config as config_lib
from experiments import stages
from experiments.measure import one_model
from experiments.problem import ensembles, example_scores, folders, memorisation, sets
from experiments.tuning import score

PARITY = 'even=0,2,4,6,8;odd=1,3,5,7,9'


def _config(**changes):
  settings = {
    'dataset': 'digits',
    'width_multiplier': 0.125,
    'num_epochs': 3,
    'batch_size': 64,
    'methods': ('finetune',),
    'hparam': ('finetune.num_epochs=1',),
    'num_devices': 1,
    'cache_dir': '',
    'compilation_cache_dir': '',
  }
  return config_lib.Config(**{**settings, **changes})


def _true_labels(dataset):
  source = data_lib.load('digits').dataset
  return source.labels[np.searchsorted(source.ids, dataset.ids)]


def _rows(config):
  path = folders.problem_folder(config) / 'report.csv'
  lines = path.read_text(encoding='utf-8').splitlines()
  return {row['model']: row for row in csv.DictReader(lines)}


@pytest.mark.parametrize('forget', ['mislabelled:0.1', 'backdoor:0.1', 'backdoor:0.1:4'])
def test_poison_is_seeded_nests_and_leaves_the_other_sets(forget):
  made, again = sets.make(_config(forget=forget)), sets.make(_config(forget=forget))
  np.testing.assert_array_equal(made.sets['forget'].labels, again.sets['forget'].labels)
  np.testing.assert_array_equal(made.sets['forget'].images, again.sets['forget'].images)
  clean = sets.make(_config(forget='random:0.1'))
  assert len(made.sets['forget']) == len(clean.sets['forget'])
  for name in ('validation', 'test'):
    np.testing.assert_array_equal(made.sets[name].ids, clean.sets[name].ids)
  for name in ('retain', 'validation', 'test'):
    np.testing.assert_array_equal(made.sets[name].labels, _true_labels(made.sets[name]))
  fewer = sets.make(_config(forget=forget.replace('0.1', '0.05'))).sets['forget']
  assert set(fewer.ids) < set(made.sets['forget'].ids)
  other = sets.make(_config(forget=forget, split_seed=1)).sets['forget']
  assert set(other.ids) != set(made.sets['forget'].ids)


def test_every_mislabelled_image_has_a_wrong_label_and_its_own_pixels():
  made = sets.make(_config(forget='mislabelled:0.2'))
  for name in ('forget', 'poisoned'):
    labels = made.sets[name].labels
    assert np.all(labels != _true_labels(made.sets[name]))
    assert set(labels) == set(range(10))
  source = data_lib.load('digits').dataset
  np.testing.assert_array_equal(made.sets['forget'].images, source.images[made.split.forget])
  np.testing.assert_array_equal(made.sets['poisoned'].images, made.sets['test'].images)


def test_backdoor_stamps_images_of_other_classes_and_nothing_else():
  made = sets.make(_config(forget='backdoor:0.1:4'))
  for name in ('forget', 'poisoned'):
    dataset = made.sets[name]
    assert np.all(dataset.labels == 4) and np.all(_true_labels(dataset) != 4)
    assert np.all(dataset.images[:, -2:, -2:] == 255)
  source = data_lib.load('digits').dataset
  before, after = source.images[made.split.forget], made.sets['forget'].images
  is_same = np.all(before == after, axis=(0, 3))
  np.testing.assert_array_equal(np.argwhere(~is_same), [[6, 6], [6, 7], [7, 6], [7, 7]])
  clean = np.sum(_true_labels(made.sets['test']) != 4)
  assert len(made.sets['poisoned']) == clean


def test_subclass_is_one_fine_class_inside_a_class_that_stays():
  made = sets.make(_config(forget='subclass:3', coarse=PARITY))
  assert made.source.class_names == ('even', 'odd') and made.forgets_classes == ()
  forget, retain = made.sets['forget'], made.sets['retain']
  assert set(forget.group) == {3} and set(forget.labels) == {1}
  assert 3 not in retain.group and {1, 5, 7, 9} <= set(retain.group)
  for name in ('validation', 'test'):
    assert 3 in made.sets[name].group
    np.testing.assert_array_equal(made.sets[name].labels, made.sets[name].group % 2)


def test_groups_of_a_test_split_are_those_of_the_training_split():
  dataset = types.Dataset(
    np.zeros((3, 2, 2, 1), np.uint8),
    np.zeros(3, np.int32),
    np.array(['a', 'b', 'c']),
    np.array([0, 1, 2], np.int32),
  )
  source = data_lib.Source(dataset, ('x',), ('red', 'green', 'blue'))
  test = data_lib.Source(dataset, ('x',), ('blue', 'black', 'red'))
  assert sets._with_groups_of(source, test).group.tolist() == [2, -1, 0]


CHANNELS = [  # of the training split, the test split, what is asked for, and what there is
  ('RGB', 'L', 0, 3),
  ('L', 'RGB', 0, 1),
  ('L', 'L', 3, 3),
  ('RGB', 'RGB', 1, 1),
]


def _pictures(folder, of_split):
  """Four pictures of two classes for each split, by `split -> (mode, side)`."""
  for split, (mode, side) in of_split.items():
    for name in ('cat', 'dog'):
      place = folder / split / name
      place.mkdir(parents=True)
      for k in range(4):
        colour = k if mode == 'L' else (k, 0, 9)
        PIL.Image.new(mode, (side, side), colour).save(place / f'{k}.png')


def test_a_test_split_of_other_images_is_refused_before_training(tmp_path):
  _pictures(tmp_path, {'train': ('RGB', 4), 'test': ('RGB', 5)})
  changes = {'dataset': f'folder:{tmp_path}', 'test_split': 'test', 'check_duplicates': 'off'}
  message = r'test_split: test has images of \(5, 5, 3\), train of \(4, 4, 3\)'
  with pytest.raises(errors.InputError, match=message):
    sets.make(_config(forget='random:1', **changes))


@pytest.mark.parametrize(('train', 'test', 'asked', 'channels'), CHANNELS)
def test_a_test_split_has_the_channels_of_the_training_split(
  train, test, asked, channels, tmp_path
):
  _pictures(tmp_path, {'train': (train, 4), 'test': (test, 4)})
  changes = {'dataset': f'folder:{tmp_path}', 'test_split': 'test', 'check_duplicates': 'off'}
  made = sets.make(_config(forget='random:1', channels=asked, **changes))
  assert {part.images.shape[1:] for part in made.sets.values()} == {(4, 4, channels)}


def test_arrays_are_not_read_in_other_channels(tmp_path):
  np.savez(tmp_path / 'a.npz', images=np.zeros((8, 4, 4, 1), np.uint8), labels=np.arange(8) % 2)
  with pytest.raises(errors.InputError, match=r'channels: .* has images of 1 channels, .* got 3'):
    sets.make(_config(dataset=f'npz:{tmp_path}/a.npz', forget='random:1', channels=3))


def test_memorised_takes_the_highest_scores_of_the_training_rows():
  scores = np.random.default_rng(0).normal(size=1797)
  made = sets.make(_config(forget='memorised:0.1'), scores)
  trained = np.union1d(made.split.retain, made.split.forget)
  assert len(made.split.forget) == round(0.1 * len(trained))
  assert scores[made.split.forget].min() > scores[made.split.retain].max()
  random = sets.make(_config(forget='random:0.5')).split
  np.testing.assert_array_equal(trained, np.union1d(random.retain, random.forget))


def test_rows_without_a_score_are_not_chosen():
  """Of two equal images, one may be dropped where the models of the scores are trained."""
  scores = -np.random.default_rng(0).random(1797)  # as entanglement: none above 0
  scores[::7] = np.nan
  for stratum in ('low', 'middle', 'high'):
    split = sets.make(_config(forget=f'entangled:0.1:{stratum}'), scores).split
    assert np.isfinite(scores[split.forget]).all()
    assert len(split.forget) == round(0.1 * (len(split.forget) + len(split.retain)))


def test_a_method_of_classes_is_refused_before_scores_are_made(tmp_path, monkeypatch):
  monkeypatch.setattr(ensembles, 'make_ensemble', None)
  config = _config(forget='memorised:0.1', workdir=str(tmp_path), methods=('esc',))
  with pytest.raises(errors.InputError, match='esc forgets whole classes, but --forget=memorised'):
    stages.run(config)


@pytest.mark.parametrize('kind', ['memorised', 'entangled', 'influential'])
def test_strata_are_the_ends_and_the_middle_of_a_score(kind):
  scores = np.random.default_rng(0).normal(size=1797)
  rows = lambda stratum: sets.make(_config(forget=f'{kind}:0.1:{stratum}'), scores).split.forget
  low, middle, high = (rows(stratum) for stratum in ('low', 'middle', 'high'))
  assert scores[low].max() < scores[middle].min() < scores[middle].max() < scores[high].min()
  np.testing.assert_array_equal(high, sets.make(_config(forget=f'{kind}:0.1'), scores).split.forget)
  training = np.concatenate([sets.make(_config(forget='random:0.5')).split.retain, low, high])
  assert abs(np.median(scores[middle]) - np.median(scores[training])) < 0.2


def test_entanglement_is_nearness_to_the_class(tiny_problem):
  job = dataclasses.make_dataclass('J', ['apply_fn', 'devices'])(
    tiny_problem.apply_fn, tiny_problem.devices
  )
  data = tiny_problem.retain.take(np.arange(60))
  got = example_scores._entanglement(job, tiny_problem.original, data)
  features = prediction.predict(
    job.apply_fn, tiny_problem.original, data.images, devices=job.devices
  ).features
  same = data.labels == data.labels[0]
  expected = -np.linalg.norm(features[same] - features[0], axis=1).mean()
  assert got[0] == pytest.approx(expected, rel=1e-4)


def test_each_kind_of_score_has_a_file_of_its_own(tmp_path, monkeypatch):
  monkeypatch.setattr(example_scores, '_MODELS', 1)
  config = _config(
    forget='influential:0.1:low', workdir=str(tmp_path), stages=('prepare',), num_epochs=1
  )
  stages.run(config)
  folder = memorisation.folder_of(config)
  assert (folder / 'influential.npz').exists() and memorisation.kept(config) is None
  split = data_lib.load_split(folders.problem_folder(config) / 'splits.npz')
  scores = example_scores.SCORES['influential'](config).values
  assert scores[split.forget].max() <= scores[split.retain].min()


@pytest.mark.parametrize('size', [30, 31, 32])
def test_each_image_is_left_out_by_a_third_of_the_models(size):
  subsets = [memorisation._subset(_config(), k, size) for k in range(6)]
  assert len({len(rows) for rows in subsets}) == 1
  counts = np.sum([np.isin(np.arange(size), rows) for rows in subsets], axis=0)
  assert counts.min() >= 2 and counts.max() <= 4
  assert size % 3 or np.all(counts == 4)


def test_memorisation_scores_are_what_they_say():
  rng = np.random.default_rng(0)
  chances, trained = rng.uniform(size=(8, 5)), rng.uniform(size=(8, 5)) < 0.6
  expected = [p[t].mean() - p[~t].mean() for p, t in zip(chances.T, trained.T, strict=True)]
  np.testing.assert_allclose(metrics.memorisation_scores(chances, trained), expected)
  with pytest.raises(ValueError, match='is_trained'):
    metrics.memorisation_scores(chances, np.ones((8, 5), bool))
  with pytest.raises(ValueError, match='one shape'):
    metrics.memorisation_scores(chances, trained[:, :4])


def test_a_backdoor_opens_the_original_and_not_gold(tmp_path):
  config = _config(forget='backdoor:0.1:4', workdir=str(tmp_path), num_epochs=6)
  stages.run(config)
  rows = _rows(config)
  rate = lambda name: float(rows[name]['poisoned_accuracy'])
  assert rate('original') > 0.8 and rate('gold') < 0.3
  assert float(rows['original']['test_accuracy']) > 0.8  # clean images
  job = stages.prepare(config, folders.problem_folder(config))
  assert evaluation.other_side(job.sets) == 'poisoned'
  judged = score.Judge(job).judged.sets
  assert set(judged) == {'retain', 'forget', 'test', 'poisoned'}
  assert set(judged['poisoned'].ids) < set(job.sets['validation'].ids)


def test_a_forgotten_subclass_has_its_own_column_and_attack(tmp_path):
  config = _config(forget='subclass:3', coarse=PARITY, workdir=str(tmp_path))
  stages.run(config)
  assert 0 <= float(_rows(config)['gold']['test_forget_accuracy']) <= 1
  job = stages.prepare(config, folders.problem_folder(config))
  assert set(job.sets['test'].group[one_model.matched_rows(job)['test']]) == {3}
  with pytest.raises(errors.InputError, match='unsir forgets whole classes'):
    stages.run(dataclasses.replace(config, methods=('unsir',)))


def test_memorised_images_are_found_once_for_all_requests(tmp_path, monkeypatch, capsys):
  config = _config(
    forget='memorised:0.1',
    workdir=str(tmp_path),
    memorisation_models=3,
    stages=('prepare', 'train_original'),
  )
  stages.run(config)
  assert 'train memorisation: 3 models' in capsys.readouterr().out
  monkeypatch.setattr(ensembles, 'make_ensemble', None)
  stages.run(config)
  more = dataclasses.replace(config, forget='memorised:0.2', original_seed=1, stages=('prepare',))
  stages.run(more)
  small, large = (
    data_lib.load_split(folders.problem_folder(c) / 'splits.npz').forget for c in (config, more)
  )
  assert set(small) < set(large)
  job = stages.prepare(config, folders.problem_folder(config))
  scores = memorisation.scores(config)
  known = np.isfinite(scores.values)
  np.testing.assert_array_equal(
    np.flatnonzero(known), np.union1d(job.split.retain, job.split.forget)
  )
  assert scores.data_hash == job.data_hash and np.all(np.abs(scores.values[known]) <= 1)
  assert checkpoints.exists(memorisation.folder_of(config) / 'memorisation/seed_2/model')


BAD = {
  'share': ({'forget': 'mislabelled:2'}, 'forget: mislabelled:2: must give a share'),
  'stratum': ({'forget': 'memorised:0.1:top'}, 'the stratum must be low, middle, high'),
  'number': ({'forget': 'memorised:many'}, 'forget: memorised:many: must give a share'),
  'target': ({'forget': 'backdoor:0.1:cat'}, "forget: backdoor:0.1:cat: there is no class 'cat'"),
  'too many': ({'forget': 'backdoor:0.95:1'}, 'outside class 1'),
  'no subclasses': ({'forget': 'subclass:3'}, 'forget: subclass:3: there are no subclasses'),
  'subclass': ({'forget': 'subclass:x', 'coarse': PARITY}, "there is no subclass 'x'"),
  'whole class': (
    {'forget': 'subclass:3', 'coarse': 'three=3;rest=0,1,2,4,5,6,7,8,9'},
    'forget: subclass:3: is a whole class',
  ),
  'coarse name': ({'coarse': 'a=0,x'}, "coarse: there is no class 'x'"),
  'coarse twice': ({'coarse': 'a=0,1;b=1,2'}, 'class 1 is named twice'),
  'coarse missing': ({'coarse': 'a=0,1;b=2,3'}, 'class 4 is in no coarse class'),
  'models': ({'forget': 'memorised:0.1', 'memorisation_models': 4}, 'memorisation_models'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_requests_are_refused_before_any_work(case, tmp_path):
  changes, message = BAD[case]
  with pytest.raises(errors.InputError, match=message):
    stages.run(_config(workdir=str(tmp_path), **changes))
  assert not list(tmp_path.rglob('model'))


@pytest.mark.parametrize('forget', ['group:ann', 'people:1'])
def test_a_forgotten_person_in_a_test_split_is_refused(forget, tmp_path):
  rng = np.random.default_rng(0)
  for split, people in (('train', ('ann', 'ann', 'bob', 'bob')), ('test', ('ann', 'bob'))):
    count = 8 * len(people)
    np.savez(
      tmp_path / f'{split}.npz',
      images=rng.integers(0, 256, (count, 4, 4, 1), np.uint8),
      labels=np.arange(count) % 2,
      group=np.repeat(people, 8),
    )
  train, test = (data_lib.load(f'npz:{tmp_path}/{split}.npz') for split in ('train', 'test'))
  split = data_lib.split_dataset(
    train.dataset,
    validation_fraction=0.2,
    test_fraction=0.0,
    forget=forget,
    seed=0,
    group_names=train.group_names,
  )
  config = _config(forget=forget, test_split='test')
  with pytest.raises(errors.InputError, match='forget: 1 people are in --test_split=test too'):
    sets._check_test_people(config, train, split, test)

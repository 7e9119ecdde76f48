"""Readers of face data sets, on tiny folders in the layout in which they are distributed."""

import numpy as np
import PIL.Image
import pytest

from dalign_jax import data
from dalign_jax.data import _faces


def _save(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture
def mufac(tmp_path):
  """Three lists; families of two people with two images each."""
  root = tmp_path / 'mufac'
  lists = {
    'custom_train_dataset.csv': ('train_images', range(1, 5)),
    'custom_val_dataset.csv': ('val_images', range(801, 803)),
    'custom_test_dataset.csv': ('test_images', range(851, 853)),
  }
  for name, (folder, families) in lists.items():
    lines = ['family_id,person_id,age_class,image_path']
    for family in families:
      for person, age in (('D', 'a'), ('M', 'h')):
        for number in (1, 2):
          file = f'F{family:04d}_AGE_{person}_18_{age}{number}.jpg'
          _save(root / folder / file, seed=family * 10 + number)
          lines.append(f'F{family:04d},{person},{age},{file}')
    (root / name).write_text('\n'.join(lines) + '\n')
  return root


def test_mufac_reads_the_official_lists(mufac):
  source = data.load(f'mufac:{mufac}', image_size=4)
  assert source.dataset.images.shape == (32, 4, 4, 3)
  assert source.class_names[0] == '0-6' and source.class_names[-1] == '67-80'
  assert set(source.dataset.labels.tolist()) == {0, 7}
  assert source.dataset.ids[0] == 'train/F0001_AGE_D_18_a1.jpg'
  assert source.group_names[:2] == ('F0001_D', 'F0001_M') and len(source.group_names) == 16
  assert any('lists 16; the official number is 10,025' in note for note in source.notes)


def test_mufac_official_parts(mufac, monkeypatch):
  monkeypatch.setattr(_faces, 'MUFAC_FORGET', 4)
  name = f'mufac:{mufac}'
  source = data.load(name)
  parts = data.official_parts(name, source)
  assert {part: len(rows) for part, rows in parts.items()} == {
    'forget': 4,
    'retain': 12,
    'test': 8,
    'unseen': 8,
  }
  split = data.split_dataset(
    source.dataset,
    validation_fraction=0.25,
    test_fraction=0.3,
    forget='official',
    seed=0,
    official=parts,
  )
  assert len(split.test) == 8 and len(split.validation) == 3 and len(split.retain) == 9
  assert len(split.unseen) == len(split.unseen_validation) == 4
  ids = source.dataset.ids[split.forget]
  assert ids.tolist() == [f'train/F0001_AGE_{p}' for p in ('D_18_a1.jpg', 'D_18_a2.jpg')] + [
    f'train/F0001_AGE_{p}' for p in ('M_18_h1.jpg', 'M_18_h2.jpg')
  ]


def _attribute_file(path, files):
  names = [f'Attribute{k}' for k in range(1, 41)]
  names[20], names[31], names[39] = 'Male', 'Smiling', 'Young'
  lines = [str(len(files)), ' '.join(names)]
  for row, file in enumerate(files):
    values = ['-1'] * 40
    values[20] = '1' if row % 2 else '-1'
    values[31] = '1' if row % 3 == 0 else '-1'
    lines.append(f'{file}  ' + ' '.join(values))
  path.write_text('\n'.join(lines) + '\n')


@pytest.fixture
def mucac(tmp_path):
  root = tmp_path / 'mucac'
  people = [5, 5, 189, 190, 1249, 1250, 3000, 4854, 4855, 6000]
  files = [f'{k}.jpg' for k in range(len(people))]
  for k, file in enumerate(files):
    _save(root / 'CelebAMask-HQ' / 'CelebA-HQ-img' / file, k)
  lines = [f'{file} {person}' for file, person in zip(files, people, strict=True)]
  (root / 'CelebA-HQ-identity.txt').write_text('\n'.join(lines))
  _attribute_file(root / 'CelebA-HQ-attribute.txt', files)
  return root


def test_mucac_has_three_attributes_and_parts_by_identity(mucac):
  name = f'mucac:{mucac}'
  source = data.load(name, image_size=4)
  assert source.class_names == ('Male', 'Smiling', 'Young') and source.dataset.is_multi_label
  assert source.dataset.labels[:4].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
  parts = {part: rows.tolist() for part, rows in data.official_parts(name, source).items()}
  assert parts == {'test': [0, 1, 2], 'forget': [3, 4], 'retain': [5, 6, 7], 'unseen': [8, 9]}
  assert len(source.notes) == 2
  one = data.load(name, label_key='Smiling')
  assert one.class_names == ('not Smiling', 'Smiling')
  assert one.dataset.labels.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_cached_attributes_are_those_read(mucac, tmp_path):
  name = f'mucac:{mucac}'
  first, again = (data.load(name, cache_dir=tmp_path / 'cache') for _ in range(2))
  np.testing.assert_array_equal(first.dataset.labels, again.dataset.labels, strict=True)
  assert again.class_names == first.class_names


def test_celeba_reads_its_partition(tmp_path):
  root = tmp_path / 'celeba'
  files = [f'{k:06d}.jpg' for k in range(1, 7)]
  for k, file in enumerate(files):
    _save(root / 'img_align_celeba' / file, k)
  write = lambda name, values: (root / name).write_text(
    '\n'.join(f'{file} {value}' for file, value in zip(files, values, strict=True))
  )
  write('identity_CelebA.txt', [7, 7, 8, 8, 9, 9])
  write('list_eval_partition.txt', [0, 0, 0, 1, 2, 2])
  _attribute_file(root / 'list_attr_celeba.txt', files)
  train, test = (data.load(f'celeba:{root}', split=split) for split in ('train', 'test'))
  assert train.dataset.ids.tolist() == files[:3] and test.dataset.ids.tolist() == files[4:]
  assert train.class_names == ('not Male', 'Male') and train.dataset.labels.tolist() == [0, 1, 0]
  assert train.group_names == ('7', '8') and train.dataset.group.tolist() == [0, 0, 1]
  assert train.splits == ('train', 'validation', 'test')
  with pytest.raises(ValueError, match=r"label_key: Beard.*no 'Beard'.*Male"):
    data.load(f'celeba:{root}', label_key='Beard')


def test_celeba_in_the_edition_of_kaggle(tmp_path):
  files = [f'{k:06d}.jpg' for k in range(1, 5)]
  for k, file in enumerate(files):
    _save(tmp_path / 'img_align_celeba' / 'img_align_celeba' / file, k)
  lines = [f'{file},{male},-1' for file, male in zip(files, (1, -1, 1, -1), strict=True)]
  (tmp_path / 'list_attr_celeba.csv').write_text('\n'.join(['image_id,Male,Young', *lines]))
  lines = [f'{file},{part}' for file, part in zip(files, (0, 0, 2, 1), strict=True)]
  (tmp_path / 'list_eval_partition.csv').write_text('\n'.join(['image_id,partition', *lines]))
  train = data.load(f'celeba:{tmp_path}')
  assert train.dataset.ids.tolist() == files[:2] and train.dataset.labels.tolist() == [1, 0]
  assert train.dataset.group is None and 'no people' in train.notes[0]
  assert data.load(f'celeba:{tmp_path}', split='valid').dataset.ids.tolist() == files[3:]


@pytest.fixture
def lfw(tmp_path):
  root = tmp_path / 'lfw'
  for person, count in (('Ann_A', 3), ('Bob_B', 2), ('Eve_C', 1)):
    for number in range(1, count + 1):
      _save(root / person / f'{person}_{number:04d}.jpg', hash((person, number)) % 1000)
  return root


def test_lfw_people_and_genders(lfw):
  source = data.load(f'lfw:{lfw}')
  assert source.class_names == source.group_names == ('Ann_A', 'Bob_B', 'Eve_C')
  assert source.dataset.ids[0] == 'Ann_A/Ann_A_0001.jpg'
  (lfw / 'female_names.txt').write_text('Ann_A_0001.jpg\nAnn_A_0002.jpg\nAnn_A_0003.jpg\n')
  (lfw / 'male_names.txt').write_text('Bob_B_0001.jpg\nBob_B_0002.jpg\n')
  gender = data.load(f'lfw:{lfw}', label_key='gender')
  assert gender.class_names == ('female', 'male')
  assert gender.dataset.labels.tolist() == [0, 0, 0, 1, 1]
  assert gender.notes == (
    '1 of 6 rows with gender -1 (unknown) left out, such as Eve_C/Eve_C_0001.jpg',
  )


def test_what_is_missing_is_named(mufac, mucac, lfw, tmp_path):
  cases = [
    (f'mufac:{tmp_path}/none', {}, r'there is no folder .*give mufac:PATH'),
    (f'mufac:{lfw}', {}, r'cannot read .*custom_train_dataset.csv'),
    (f'mufac:{mufac}', {'label_key': 'age'}, "label_key: 'age'"),
    (f'lfw:{lfw}', {'label_key': 'gender'}, r'cannot read .*female_names.txt'),
    (f'lfw:{lfw}', {'label_key': 'age'}, 'has identity and gender'),
    (f'mucac:{mucac}', {'split': 'test'}, "has no split 'test'"),
  ]
  for name, arguments, message in cases:
    with pytest.raises(ValueError, match=message):
      data.load(name, **arguments)
  (mufac / 'val_images' / 'F0801_AGE_D_18_a1.jpg').unlink()
  with pytest.raises(ValueError, match=r'1 of 32 images are missing, such as .*F0801_AGE_D_18_a1'):
    data.load(f'mufac:{mufac}')
  (mufac / 'custom_test_dataset.csv').write_text('image_path,age_class\nx.jpg,z\n')
  with pytest.raises(ValueError, match=r'custom_test_dataset.csv must have the columns'):
    data.load(f'mufac:{mufac}')

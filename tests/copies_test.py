"""Copies among the remaining samples, and the search for a photo."""

import csv
import io
import shutil
import sys

import jax
import numpy as np
import PIL.Image
import pytest

from dalign_jax import data as data_lib
from dalign_jax import errors, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import copies, find, request_file
from experiments.benchmarks import copies as benchmark
from tests import tiny


def _pictures(count, side=64, seed=0):
  """Smooth pictures in colour, like photos in that a thumbnail tells them apart."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
  how = PIL.Image.Resampling.BICUBIC
  sized = [np.asarray(PIL.Image.fromarray(x).resize((side, side), how)) for x in small]
  ids = np.array([f'p{k:03d}' for k in range(count)])
  return types.Dataset(np.stack(sized), np.arange(count, dtype=np.int32) % 3, ids)


@pytest.mark.parametrize('change', benchmark.CHANGES)
def test_changed_copies_are_found_and_nothing_else(change):
  dataset = _pictures(24)
  images = dataset.images.copy()
  images[20] = benchmark.CHANGES[change](images[3])
  found = copies.search(types.Dataset(images, dataset.labels, dataset.ids), np.array([3, 5]))
  assert [(copy.row, copy.of) for copy in found] == [(20, 3)]
  assert ('mirrored' in found[0].kind) == ('mirrored' in change)


def test_equal_pixels_need_no_hash(monkeypatch):
  monkeypatch.setitem(sys.modules, 'imagehash', None)
  dataset = _pictures(6)
  images = dataset.images.copy()
  images[1], images[2] = images[0], images[0][:, ::-1]
  same = types.Dataset(images, dataset.labels, dataset.ids)
  found = copies.search(same, np.array([0]), near=False)
  assert [copy[:3] for copy in found] == [(1, 0, 'equal pixels'), (2, 0, 'equal pixels, mirrored')]
  with pytest.raises(
    errors.InputError, match=r"near_copies: .*pip install 'dalign-jax\[deletion\]"
  ):
    copies.search(same, np.array([0]))


def test_digits_are_not_all_taken_for_copies():
  """8x8 digits look alike: of 600, few are taken for copies of 100 others."""
  digits = data_lib.load('digits').dataset.take(np.arange(700))
  assert len(copies.search(digits, np.arange(100))) <= 3


def test_pictures_of_one_shade_are_copies_only_where_equal():
  images = np.stack([np.full((32, 32, 1), shade, np.uint8) for shade in (10, 10, 200, 11)])
  dataset = types.Dataset(images, np.zeros(4, np.int32), np.array(list('abcd')))
  assert [copy.row for copy in copies.search(dataset, np.array([0]))] == [1]


def _photo(image, path):
  """Saved as somebody would send it: larger, encoded again, mirrored."""
  sent = PIL.Image.fromarray(np.ascontiguousarray(image[:, ::-1])).resize((150, 150))
  sent.save(path, 'JPEG', quality=60)


def test_find_lists_the_sample_of_a_photo_as_a_file_to_check(tmp_path):
  dataset = _pictures(40)
  np.savez(tmp_path / 'data.npz', images=dataset.images, labels=dataset.labels, ids=dataset.ids)
  _photo(dataset.images[17], tmp_path / 'photo.jpg')
  listed = tmp_path / 'candidates.csv'
  search = settings_lib.Search(image=str(tmp_path / 'photo.jpg'), count=5, list_file=str(listed))
  request = settings_lib.Request(data=f'npz:{tmp_path}/data.npz')
  found = find.find(search, request, settings_lib.Settings(cache_dir=''))
  assert len(found) == 5 and found[0].row == 17 and found[0].mirrored
  assert found[0].likeness > 0.98 > found[1].likeness and found[0].hash_bits <= 14
  text = listed.read_text(encoding='utf-8')
  rows = list(csv.DictReader(io.StringIO(text)))
  assert rows[0]['candidate_id'] == 'p017' and rows[0]['feature_likeness'] == ''
  known = dataset.ids.tolist()
  unchecked = request_file.read(str(listed), 'id', known)
  assert not set(unchecked.ids) & set(known)  # no id: forget refuses them as unknown
  assert request_file.read(str(listed), find.COLUMN, known).ids[0] == 'p017'
  with pytest.raises(errors.InputError, match=r'list_file: .* is there already'):
    find.find(search, request, settings_lib.Settings(cache_dir=''))


def test_find_ranks_by_the_features_of_a_model_too():
  dataset = tiny.dataset().take(np.arange(300))
  model = tiny.init_fn(jax.random.key(0))
  photo = dataset.images[7]
  found = find.nearest(photo, dataset, 6, tiny.apply_fn, model)
  assert found[0].row == 7 and found[0].feature_likeness == pytest.approx(1, abs=1e-5)
  assert all(np.isfinite(candidate.feature_likeness) for candidate in found)


def test_a_photo_is_read_as_the_pictures_of_a_folder_are(tmp_path):
  rng = np.random.default_rng(0)
  clear = rng.integers(0, 256, (16, 16, 4)).astype(np.uint8)
  PIL.Image.fromarray(clear).save(tmp_path / 'clear.png')
  deep = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
  PIL.Image.fromarray(deep).save(tmp_path / 'deep.png')
  for name, channels in (('clear', 3), ('deep', 1)):
    for label in ('a', 'b'):
      (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
      shutil.copy(tmp_path / f'{name}.png', tmp_path / name / label / f'{label}.png')
    images = data_lib.load(f'folder:{tmp_path / name}').dataset.images
    photo = find.read_photo(str(tmp_path / f'{name}.png'), (16, 16, channels))
    np.testing.assert_array_equal(photo, images[0])
  with pytest.raises(errors.InputError, match='image: there is no file'):
    find.read_photo(str(tmp_path / 'none.png'), (16, 16, 3))


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
  image = _pictures(1).images[0]
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # lies on its side: turn it to the right
  PIL.Image.fromarray(np.rot90(image)).save(tmp_path / 'photo.png', exif=exif)
  np.testing.assert_array_equal(find.read_photo(str(tmp_path / 'photo.png'), image.shape), image)
  (tmp_path / 'text.jpg').write_text('no photo', encoding='utf-8')
  with pytest.raises(
    errors.InputError, match=r'image: .*text.jpg: the photo is not a readable image$'
  ):
    find.read_photo(str(tmp_path / 'text.jpg'), image.shape)

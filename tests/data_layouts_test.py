"""Layouts of people's own data: folders, tables, arrays, Parquet; what is taken is said."""

import json
import os
import re
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest

from dalign_jax import data, errors
from dalign_jax.data import _npz

RNG = np.random.default_rng(0)


def _save(path, seed=0, size=(6, 5)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(path)
  return path


def _classes(root, parts=('',), classes=('cat', 'dog'), count=2):
  for part in parts:
    for name in classes:
      for k in range(count):
        _save(root / part / name / f'{k}.png', k)
  return f'folder:{root}'


@pytest.mark.parametrize(
  ('parts', 'split', 'taken'),
  [
    (('train', 'valid'), 'validation', 'valid'),
    (('Train', 'Test'), 'train', 'Train'),
    (('training', 'testing'), 'test', 'testing'),
    (('train', 'dev'), 'val', 'dev'),
    (('seg_train', 'seg_test'), 'train', 'seg_train'),
    (('seg_train/seg_train', 'seg_test/seg_test'), 'test', 'seg_test'),
    (('fold1', 'fold2'), 'fold2', 'fold2'),
  ],
)
def test_usual_names_of_splits(tmp_path, parts, split, taken):
  source = data.load(_classes(tmp_path, parts), split=split)
  assert source.class_names == ('cat', 'dog') and len(source.dataset) == 4
  assert all(name.startswith(f'{taken}/') for name in source.dataset.ids)
  assert source.taken.split == f'{split} (the folder {taken})' and len(source.splits) == 2


def test_splits_with_names_of_no_meaning_are_asked_for(tmp_path):
  with pytest.raises(errors.InputError, match=r'train_split: .*fold1, fold2 hold the same folders'):
    data.load(_classes(tmp_path, ('fold1', 'fold2')))
  with pytest.raises(errors.InputError, match='may be any of val, valid; name one'):
    data.load(_classes(tmp_path / 'b', ('train', 'val', 'valid')), split='validation')


def test_a_class_may_be_called_like_a_split(tmp_path):
  source = data.load(_classes(tmp_path, classes=('bus', 'test', 'train')))
  assert source.class_names == ('bus', 'test', 'train') and source.splits == ('train',)
  name = _classes(tmp_path / 'b', ('train',))
  _save(tmp_path / 'b' / 'bus' / 'a.png')
  with pytest.raises(errors.InputError, match='train may be a split or a class next to bus'):
    data.load(name)


@pytest.mark.parametrize('stranger', ['__MACOSX', 'logs', 'unlabeled', '.cache'])
def test_strangers_beside_splits(tmp_path, stranger):
  name = _classes(tmp_path, ('train', 'test'))
  _save(tmp_path / stranger / 'x.png')
  source = data.load(name)
  assert source.class_names == ('cat', 'dog') and source.splits == ('train', 'test')
  left_out = [kind.what for kind in source.left_out]
  assert left_out == (['folders other than the splits'] if stranger[0] not in '._' else [])


def test_what_is_left_out_of_a_folder_is_counted_and_named(tmp_path):
  name = _classes(tmp_path)
  (tmp_path / 'bird').mkdir()
  (tmp_path / 'cat' / 'notes.txt').write_text('')
  _save(tmp_path / 'cat' / '.ipynb_checkpoints' / '0-checkpoint.png')
  _save(tmp_path / 'beside.png')
  os.symlink(tmp_path / 'gone.png', tmp_path / 'cat' / 'broken.png')
  os.symlink(tmp_path / 'cat', tmp_path / 'cat' / 'circle')
  source = data.load(name)
  assert len(source.dataset) == 4
  assert {kind.what: kind.count for kind in source.left_out} == {
    'broken links': 1,
    'files that are not images': 1,
    'folders without pictures': 1,
    'hidden folders with pictures': 1,
    'links back to a folder above': 1,
    'pictures outside the folders of classes': 1,
  }
  lines = source.taken.lines()
  assert lines[:3] == [
    f'data: {name}, split train (all: there are no folders of splits), 4 rows',
    'images: 6 x 5 x 3 uint8',
    '2 classes: cat (2), dog (2)',
  ]
  assert any(str(tmp_path / 'bird') in line for line in lines)


def test_linked_folders_are_read(tmp_path):
  name = _classes(tmp_path / 'set')
  _save(tmp_path / 'elsewhere' / 'a.png', 1)
  os.symlink(tmp_path / 'elsewhere', tmp_path / 'set' / 'cat' / 'more')
  assert 'cat/more/a.png' in data.load(name).dataset.ids.tolist()


def test_labels_in_the_names_of_files(tmp_path):
  for k, name in enumerate(('1_0_2_20161219', '30_1_0_20170117', '30_0_1_20170118')):
    _save(tmp_path / 'utk' / f'{name}.jpg.chip.jpg', k)
  with pytest.raises(errors.InputError, match=r'label_key=age, gender or race'):
    data.load(f'folder:{tmp_path / "utk"}')
  gender = data.load(f'folder:{tmp_path / "utk"}', label_key='gender')
  assert gender.class_names == ('0', '1') and gender.dataset.labels.tolist() == [0, 0, 1]
  age = data.load(f'folder:{tmp_path / "utk"}', label_key='age')
  assert age.class_names == ('1', '30')
  for name in ('cat.0', 'cat.1', 'dog.0'):
    _save(tmp_path / 'flat' / f'{name}.jpg')
  with pytest.raises(errors.InputError, match=r'label_key=prefix .*csv:PATH'):
    data.load(f'folder:{tmp_path / "flat"}')
  assert data.load(f'folder:{tmp_path / "flat"}', label_key='prefix').class_names == ('cat', 'dog')


def test_tables(tmp_path, monkeypatch):
  rows = ['file,label,group,split']
  for k, (label, split) in enumerate([(10, 'Train'), (9, 'Train'), ('', 'Train'), (9, 'val')]):
    _save(tmp_path / 'p' / f'{k}.png', k)
    rows.append(f'p/{k}.png,{label},ann{k},{split}')
  (tmp_path / 'a.csv').write_text('\n'.join(rows))
  monkeypatch.setenv('HOME', str(tmp_path))
  source = data.load('csv:~/a.csv')
  assert source.class_names == ('9', '10') and source.dataset.labels.tolist() == [1, 0]
  assert source.dataset.ids.tolist() == ['p/0.png', 'p/1.png']
  assert source.group_names == ('ann0', 'ann1') and source.splits == ('Train', 'val')
  assert source.left_out == (('rows without a label', 1, 'p/2.png'),)
  assert 'rows by the column split: Train 3, val 1' in source.taken.lines()
  assert len(data.load('csv:~/a.csv', split='validation').dataset) == 1
  with pytest.raises(errors.InputError, match=r"label_key: a.csv has no column 'age'; it"):
    data.load('csv:~/a.csv', label_key='age')
  (tmp_path / 'p' / '0.png').unlink()
  with pytest.raises(errors.InputError, match=r'1 of 2 files are missing, such as .*0.png'):
    data.load('csv:~/a.csv')
  assert len(data.load('csv:~/a.csv', skip_unreadable=True).dataset) == 1


def _table(folder, *lines, **how):
  (folder / 'p').mkdir(exist_ok=True)
  for k in range(4):
    _save(folder / 'p' / f'{k}.png', k)
  text = '\n'.join(lines) + '\n'
  (folder / 'a.csv').write_text(text, encoding=how.pop('encoding', 'utf-8'))
  return data.load(f'csv:{folder / "a.csv"}', **how)


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_tables_in_other_forms(delimiter, encoding, tmp_path):
  lines = [line.replace(',', delimiter) for line in ('File,Label', 'p/0.png,a', 'p/1.png,b')]
  found = _table(tmp_path, *lines, encoding=encoding)
  assert found.class_names == ('a', 'b') and len(found.dataset) == 2


def test_labels_of_tables_are_numbers_where_they_all_are(tmp_path):
  rows = [f'p/{k}.png,{label}' for k, label in enumerate(('1.0', '10.0', '2.0', 'NaN'))]
  found = _table(tmp_path, 'file,label', *rows)
  assert found.class_names == ('1', '2', '10') and found.dataset.labels.tolist() == [0, 2, 1]
  assert found.left_out == (('rows without a label', 1, 'p/3.png'),)


BAD_TABLES = {
  'an open quote': (('file,label,note', 'p/0.png,a,"x', 'p/1.png,b,y"', 'p/2.png,b,'), 'a quote'),
  'a label of two lines': (('file,label', 'p/0.png,"a', 'b"', 'p/1.png,b'), 'a quote is open'),
  'two columns of labels': (('file,label,label', 'p/0.png,a,b'), "two columns 'label'"),
  'a person without a name': (('file,label,group', 'p/0.png,a,x', 'p/1.png,b,'), 'has no group'),
  'a cell too many': (('file,label', 'p/0.png,a,b'), '3 cells and the header has 2'),
}


@pytest.mark.parametrize('case', BAD_TABLES)
def test_tables_that_say_two_things_are_refused(case, tmp_path):
  lines, message = BAD_TABLES[case]
  with pytest.raises(errors.InputError, match=message):
    _table(tmp_path, *lines)


def test_rows_of_a_second_split_of_that_name_are_said(tmp_path):
  rows = [f'p/{k}.png,{k % 2},{s}' for k, s in enumerate(('train', 'train', 'TRAIN', 'Training'))]
  found = _table(tmp_path, 'file,label,split', *rows)
  assert len(found.dataset) == 2
  assert [kind[0] for kind in found.left_out] == [
    'rows of the split TRAIN, beside train',
    'rows of the split Training, beside train',
  ]


def test_flat_splits_are_no_classes(tmp_path):
  for name in ('train/cat.0', 'train/dog.1', 'test1/0', 'test1/1'):
    _save(tmp_path / f'{name}.png')
  with pytest.raises(errors.InputError, match=r'label_key: .*called like splits'):
    data.load(f'folder:{tmp_path}')
  found = data.load(f'folder:{tmp_path}', label_key='prefix')
  assert found.class_names == ('cat', 'dog') and len(found.dataset) == 2


def test_what_is_no_file_is_left_out(tmp_path):
  for name in ('a/0', 'a/1', 'b/0'):
    _save(tmp_path / f'{name}.png')
  os.mkfifo(tmp_path / 'b' / '1.png')
  found = data.load(f'folder:{tmp_path}')
  assert len(found.dataset) == 3
  assert ('entries that are no files', 1, str(tmp_path / 'b' / '1.png')) in found.left_out


IMAGES = RNG.integers(0, 256, (8, 6, 6, 3), np.uint8)
LABELS = np.arange(8) % 4


@pytest.mark.parametrize(
  ('images', 'labels', 'note'),
  [
    (IMAGES.transpose(0, 3, 1, 2), LABELS, r'\[8, 3, 6, 6\] taken as \[N, C, H, W\]'),
    (IMAGES / 255, LABELS, r'float64 pixels from 0 to 1 taken as \[0, 1\], times 255'),
    (IMAGES.astype(np.float32), LABELS, r'float32 pixels from 0 to 255 taken as \[0, 255\]'),
    (IMAGES.astype(np.int64), LABELS, r'int64 pixels from 0 to 255 taken as \[0, 255\]'),
    (IMAGES, np.eye(4)[LABELS], 'one-hot labels of 4 classes taken as numbers'),
    (IMAGES, LABELS + 1, 'labels from 1 to 4: the class 1 is the first output'),
    (IMAGES, LABELS.astype(np.float32), 'float32 labels taken as whole numbers'),
  ],
)
def test_arrays_in_other_forms_are_recognised_and_said(tmp_path, images, labels, note):
  np.savez(tmp_path / 'a.npz', images=images, labels=labels)
  source = data.load(f'npz:{tmp_path / "a.npz"}')
  np.testing.assert_array_equal(source.dataset.images, IMAGES)
  assert source.dataset.labels.tolist() == LABELS.tolist()
  assert len(source.notes) == 1
  assert re.search(note, source.notes[0]) and source.taken.notes == source.notes


@pytest.mark.parametrize(
  ('images', 'labels', 'message'),
  [
    (IMAGES / 127.5 - 1, LABELS, r'from -1.0 to 1.0; images = np.uint8\('),
    (IMAGES / 255 * 7, LABELS, r'neither \[0, 1\] nor \[0, 255\]; images = np.uint8\('),
    (IMAGES * np.nan, LABELS, 'from nan to nan'),
    (IMAGES[:, :3, :, :1].copy(), LABELS, r'may be \[N, H, W, C\] or \[N, C, H, W\]; images ='),
    (IMAGES, np.eye(4)[LABELS] * 0.5, r'not one-hot; labels = labels.argmax\(1\)'),
  ],
)
def test_arrays_that_may_be_several_things_are_refused(tmp_path, images, labels, message):
  np.savez(tmp_path / 'a.npz', images=images, labels=labels)
  with pytest.raises(errors.InputError, match=message):
    data.load(f'npz:{tmp_path / "a.npz"}')


def _header(shape):
  text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
  text += ' ' * (117 - len(text)) + '\n'
  return b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text.encode()


def test_bombs_are_refused_before_memory_is_taken(tmp_path):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('images.npy', _header((1 << 22, 1024, 1024, 3)))
  with pytest.raises(errors.InputError, match=r'claims 13,194,139,533,312 bytes .* and holds 0'):
    data.load(f'npz:{path}')
  count = 1 << 30
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open('images.npy', 'w') as file:
      file.write(_header((count, 1, 1)))
      for _ in range(64):
        file.write(bytes(1 << 20))
  with pytest.raises(errors.InputError, match='claims'):
    data.load(f'npz:{path}')


def test_what_packs_too_well_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(_npz, '_SUSPICIOUS', 1 << 20)
  images = np.zeros((1 << 22, 1, 1), np.uint8)
  np.savez_compressed(tmp_path / 'a.npz', images=images, labels=np.zeros(1 << 22, np.uint8))
  with pytest.raises(errors.InputError, match=r'packs 4,194,304 bytes into \d,\d+, which no'):
    data.load(f'npz:{tmp_path / "a.npz"}')


def test_the_cache_notices_content_that_changes_with_the_same_time(tmp_path):
  name = _classes(tmp_path / 'set')
  file = tmp_path / 'set' / 'cat' / '0.png'
  before = data.load(name, cache_dir=tmp_path / 'cache')
  stat, content = file.stat(), bytearray(file.read_bytes())
  array = np.array(PIL.Image.open(file))
  file.with_suffix('.bmp').touch()
  file.with_suffix('.bmp').unlink()
  PIL.Image.fromarray(255 - array).save(file)
  changed = file.read_bytes()
  file.write_bytes(changed + bytes(max(0, len(content) - len(changed))))
  os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  after = data.load(name, cache_dir=tmp_path / 'cache')
  np.testing.assert_array_equal(after.dataset.images[0], 255 - before.dataset.images[0])
  assert after.taken == before.taken


def test_the_cache_tells_of_what_lies_beside_today(tmp_path):
  name = _classes(tmp_path / 'set', ('train',))
  load = lambda: data.load(name, cache_dir=tmp_path / 'cache')
  assert load().splits == ('train',) and load().left_out == ()
  (tmp_path / 'set' / 'train' / 'cat' / 'notes.txt').touch()
  (tmp_path / 'set' / 'train' / 'cow').mkdir()
  _classes(tmp_path / 'set', ('test',))
  assert load().splits == ('train', 'test')
  assert load().taken == data.load(name).taken
  assert 'folders without pictures' in {left.what for left in load().left_out}


def _parquet(path, labels, names=None, **columns):
  """A file of Hugging Face, as many pictures as labels."""
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  content = [_save(path.parent / f'{k}.png', k).read_bytes() for k in range(len(labels))]
  images = [{'bytes': c, 'path': None} for c in content]
  table = pyarrow.table({'image': images, 'label': labels, **columns})
  if names:
    described = {'info': {'features': {'label': {'names': names, '_type': 'ClassLabel'}}}}
    table = table.replace_schema_metadata({'huggingface': json.dumps(described)})
  parquet.write_table(table, path)
  return f'hf:{path.parent}'


def test_columns_that_nobody_asked_for_are_not_read_but_named(tmp_path, monkeypatch):
  name = _parquet(tmp_path / 'train.parquet', [0, 1], depth=['a', 'b'])
  from pyarrow import parquet

  asked, read = [], parquet.ParquetFile.read
  monkeypatch.setattr(
    parquet.ParquetFile,
    'read',
    lambda self, columns: asked.append(columns) or read(self, columns=columns),
  )
  assert len(data.load(name).dataset) == 2 and asked == [['image', 'label']]
  with pytest.raises(
    errors.InputError, match=r"'photo' is not a column of .*: image, label, depth"
  ):
    data.load(name, image_key='photo')


def test_two_configurations_of_hugging_face_are_not_mixed(tmp_path):
  for name in ('augmented', 'original'):
    _parquet(tmp_path / name / 'train-00000-of-00001.parquet', [0, 1])
  with pytest.raises(errors.InputError, match=r'2 folders \(augmented, original\).*hf:.*/original'):
    data.load(f'hf:{tmp_path}')
  assert len(data.load(f'hf:{tmp_path / "original"}').dataset) == 2
  (tmp_path / 'original' / 'train-00001-of-00002.arrow').touch()
  with pytest.raises(errors.InputError, match=r'train has \.parquet and \.arrow files'):
    data.load(f'hf:{tmp_path / "original"}')


@pytest.mark.parametrize(
  ('labels', 'names', 'message'),
  [
    ([0, 1, 2], ['a', 'b'], r"label_key: 'label' must hold numbers from 0 to 1, of the 2 .*got 2"),
    (['a', 'b'], ['a', 'b'], r"must hold numbers from 0 to 1, of the 2 classes .*got 'a'"),
    ([0.5, 1.0], None, 'must be a column of whole numbers or names'),
  ],
)
def test_labels_of_hugging_face_that_mean_nothing_are_refused(tmp_path, labels, names, message):
  with pytest.raises(errors.InputError, match=message):
    data.load(_parquet(tmp_path / 'set' / 'train.parquet', labels, names))


def test_rows_of_hugging_face_without_a_label_are_left_out(tmp_path):
  source = data.load(_parquet(tmp_path / 'set' / 'train.parquet', ['cat', None, 'dog']))
  assert source.class_names == ('cat', 'dog') and source.dataset.labels.tolist() == [0, 1]
  assert [left.count for left in source.left_out] == [1]


@pytest.mark.parametrize('people', [[None, 'a', 'b'], ['a', None, 'b'], ['a', '', 'b']])
def test_rows_of_hugging_face_without_a_person_are_named(tmp_path, people):
  name = _parquet(tmp_path / 'set' / 'train.parquet', [0, 1, 0], person=people)
  with pytest.raises(errors.InputError, match=r'group_key: .* train_0000[01] has no person'):
    data.load(name, group_key='person')


def test_parquet_of_hugging_face(tmp_path, monkeypatch):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  content = [_save(tmp_path / f'{k}.png', k).read_bytes() for k in range(4)]
  table = pyarrow.table(
    {'image': [{'bytes': c, 'path': None} for c in content], 'label': [1, 0, -1, 1]}
  )
  described = '{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
  table = table.replace_schema_metadata({'huggingface': described})
  (tmp_path / 'set' / 'data').mkdir(parents=True)
  parquet.write_table(table, tmp_path / 'set' / 'data' / 'train-00000-of-00001.parquet')
  parquet.write_table(table[:2], tmp_path / 'set' / 'data' / 'test-00000-of-00001.parquet')
  source = data.load(f'hf:{tmp_path / "set"}')
  assert source.class_names == ('cat', 'dog') and source.dataset.labels.tolist() == [1, 0, 1]
  assert source.dataset.ids.tolist() == ['train_00000', 'train_00001', 'train_00003']
  np.testing.assert_array_equal(
    source.dataset.images[2], np.array(PIL.Image.open(tmp_path / '3.png'))
  )
  assert len(data.load(f'hf:{tmp_path / "set"}', split='test').dataset) == 2
  (tmp_path / 'disk' / 'train').mkdir(parents=True)
  path = str(tmp_path / 'disk' / 'train' / 'data-00000-of-00001.arrow')
  with pyarrow.OSFile(path, 'w') as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
    writer.write_table(table)
  assert data.load(f'hf:{tmp_path / "disk"}').dataset.labels.tolist() == [1, 0, 1]
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  with pytest.raises(errors.InputError, match=r"pip install 'dalign-jax\[hf\]'"):
    data.load(f'hf:{tmp_path / "set"}')

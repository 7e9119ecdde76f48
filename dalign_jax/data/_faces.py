"""Faces of known people in the user's own folders: MUFAC, MUCAC, CelebA and LFW.

Nothing is downloaded. A source holds all rows of its data set; `official_parts` says which of them
the benchmark trains on, forgets, tests on and keeps unseen.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import pathlib

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _base, _files, _pictures, _words

AGES = tuple('abcdefgh')
AGE_NAMES = ('0-6', '7-12', '13-19', '20-30', '31-45', '46-55', '56-66', '67-80')
MUFAC_LISTS = {  # part: (list, folder of images, official number of images)
  'train': ('custom_train_dataset.csv', 'train_images', 10_025),
  'test': ('custom_val_dataset.csv', 'val_images', 1_539),
  'unseen': ('custom_test_dataset.csv', 'test_images', 1_504),
}
MUFAC_FORGET = 1_500
MUCAC_ATTRIBUTES = ('Male', 'Smiling', 'Young')
MUCAC_RANGES = {'test': (0, 190), 'forget': (190, 1250), 'retain': (1250, 4855)}
MUCAC_IMAGES, MUCAC_PEOPLE = 30_000, 6_217


def mufac(request: _base.Request) -> _base.Opened:
  """MUFAC: ages of Korean families; ids are `part/file`, groups people (`F0001_D`)."""
  _base.require_defaults(request)
  root = _files.existing_folder(request)
  rows, notes = [], []
  for part, (name, folder, expected) in MUFAC_LISTS.items():
    listed = list(csv.DictReader(_lines(request, root / name)))
    for row in listed:
      if not {'image_path', 'age_class'} <= row.keys() or row['age_class'] not in AGES:
        raise errors.InputError(
          f'{request.name}: {name} must have the columns image_path and age_class '
          f'(a to h), found {row}'
        )
      file = row['image_path']
      person = '_'.join(np.array(file.split('_'))[[0, 2]]) if file.count('_') >= 2 else file
      rows.append((f'{part}/{file}', root / folder / file, AGES.index(row['age_class']), person))
    notes += _count_note(f'{name} lists', len(listed), expected)
  return _opened(request, rows, AGE_NAMES, notes, [root / n for n, _, _ in MUFAC_LISTS.values()])


def mucac(request: _base.Request) -> _base.Opened:
  """MUCAC: attributes of CelebA-HQ, several at once; groups are identity numbers."""
  names = _attribute_names(request, MUCAC_ATTRIBUTES)
  root = _files.existing_folder(request)
  masks = root / 'CelebAMask-HQ'
  find = lambda name: root / name if (root / name).exists() else masks / name
  identity_file, attribute_file = find('CelebA-HQ-identity.txt'), find('CelebA-HQ-attribute.txt')
  people, labels = _pairs(request, identity_file), _attributes(request, attribute_file, names)
  wrong = [value for value in people.values() if not value.isdecimal()]
  if wrong:
    raise errors.InputError(
      f'{request.name}: {identity_file} must number the people, found {wrong[0]!r}'
    )
  notes = [
    *_count_note('CelebA-HQ-identity.txt lists', len(people), MUCAC_IMAGES),
    *_count_note('people are', len(set(people.values())), MUCAC_PEOPLE),
  ]
  rows = _joined(request, find('CelebA-HQ-img'), people, labels)
  return _opened(request, rows, names, notes, [identity_file, attribute_file])


def celeba(request: _base.Request) -> _base.Opened:
  """CelebA as distributed: aligned images, attributes, identities, and its partition by split."""
  names = _attribute_names(request, ('Male',))
  root = _files.existing_folder(request)
  find = lambda *names: next((root / n for n in names if (root / n).exists()), root / names[0])
  attribute_file = find('list_attr_celeba.txt', 'list_attr_celeba.csv')  # Kaggle's are CSV
  partition_file = find('list_eval_partition.txt', 'list_eval_partition.csv')
  identity_file = find('identity_CelebA.txt', 'identity_CelebA.csv')
  splits = ('train', 'validation', 'test')
  request = dataclasses.replace(request, split=_words.find_split(request, splits))
  labels = _attributes(request, attribute_file, names)
  partition = _pairs(request, partition_file)
  wanted = str(splits.index(request.split))
  files, notes = [attribute_file, partition_file], []
  people: dict[str, str | None]
  if identity_file.exists() or attribute_file.suffix == '.txt':
    people = {**_pairs(request, identity_file)}
    files.append(identity_file)
  else:
    people = dict.fromkeys(labels)
    notes = ['there is no identity_CelebA.txt: no people, no forgetting by person']
  people = {file: person for file, person in people.items() if partition.get(file) == wanted}
  folder = find('img_align_celeba/img_align_celeba', 'img_align_celeba')
  return _opened(request, _joined(request, folder, people, labels), names, notes, files, splits)


def lfw(request: _base.Request) -> _base.Opened:
  """LFW: a folder for each person; labels are people, or genders by two lists of file names."""
  if request.label_key not in ('label', 'identity', 'gender'):
    raise errors.InputError(
      f'{request.label_key!r}: {request.name} has identity and gender', argument='label_key'
    )
  root = _files.existing_folder(request)
  people = tuple(p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name[:1] != '.')
  gathered = _files.Gathered()
  images = [
    (_words.show(f'{name}/{file.name}'), file, name)
    for name, file in _files.list_images(root, people, gathered)
  ]
  if request.label_key != 'gender':
    kept = tuple(sorted({person for _, _, person in images}))
    rows = [(name, file, kept.index(person), person) for name, file, person in images]
    return _opened(request, rows, kept, [], [], left_out=gathered.left_out())
  lists = [root / 'female_names.txt', root / 'male_names.txt']
  listed: dict[str, int] = {}
  for label, path in enumerate(lists):
    listed |= {line.split()[0]: label for line in _lines(request, path)}
  known = [(i, f, listed[f.name], p) for i, f, p in images if f.name in listed]
  unknown = [name for name, file, _ in images if file.name not in listed]
  left_out = [*gathered.left_out(), *_base.note_unknown('gender', len(images), unknown)]
  return _opened(request, known, ('female', 'male'), [], lists, left_out=left_out)


def official_parts(name: str, source: _base.Source) -> dict[str, np.ndarray] | None:
  """The benchmark's own sets `retain`, `forget`, `test`, `unseen`, as sorted row numbers.

  MUFAC forgets the first 1,500 rows of its training list; MUCAC goes by the number of the person:
  below 190 test, to 1249 forget, to 4854 retain, above unseen.

  Args:
    name: the data set as given to `load`.
    source: what `load` gave for it.

  Returns:
    The parts, or None where the data set has no official ones.
  """
  kind = name.partition(':')[0]
  if kind == 'mufac':
    parts = np.array([identifier.partition('/')[0] for identifier in source.dataset.ids])
    rows = {part: np.flatnonzero(parts == part) for part in MUFAC_LISTS}
    train = rows.pop('train')
    return {'forget': train[:MUFAC_FORGET], 'retain': train[MUFAC_FORGET:], **rows}
  if kind == 'mucac':
    person = np.array([int(name) for name in source.group_names or ()])[source.dataset.group]
    rows = {
      part: np.flatnonzero((person >= low) & (person < high))
      for part, (low, high) in MUCAC_RANGES.items()
    }
    return {**rows, 'unseen': np.flatnonzero(person >= MUCAC_RANGES['retain'][1])}
  return None


def _lines(request, path) -> list[str]:
  """The lines of a list that are not empty."""
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(f'{request.name}: cannot read {path} ({error})') from error
  return [line for line in lines if line.strip()]


def _pairs(request, path) -> dict[str, str]:
  """A file of lines `file value`."""
  cells = [_cells(path, line) for line in _lines(request, path)]
  cells = [row for row in cells if row[0] != 'image_id']  # the header of a CSV file
  if any(len(row) != 2 for row in cells):
    raise errors.InputError(f'{request.name}: {path} must hold a file name and a number a line')
  return {file: value for file, value in cells}


def _cells(path, line) -> list[str]:
  return line.strip().split(',') if path.suffix == '.csv' else line.split()


def _attribute_names(request, default: Sequence[str]) -> tuple[str, ...]:
  """The attributes that `label_key` names, separated by commas."""
  if request.label_key == 'label':
    return tuple(default)
  return tuple(name.strip() for name in request.label_key.split(','))


def _attributes(request, path, names) -> dict[str, list[int]]:
  """Attributes 0 or 1 of each file: a line with a count, one with names, then -1 or 1 a name."""
  cells = [_cells(path, line) for line in _lines(request, path)]
  is_table = path.suffix == '.csv'
  cells = cells if is_table else cells[1:]  # the first line counts
  header = cells[0][int(is_table) :] if cells else []
  unknown = [name for name in names if name not in header]
  if unknown:
    raise errors.InputError(
      f'{request.label_key}: {path.name} has no {unknown[0]!r}; it has: {", ".join(header)}',
      argument='label_key',
    )
  columns = [1 + header.index(name) for name in names]
  short = [row[0] for row in cells[1:] if len(row) <= max(columns)]
  if short:
    raise errors.InputError(
      f'{request.name}: {path.name} ends before the attributes of {short[0]}; bring back a copy'
    )
  return {row[0]: [int(row[c] == '1') for c in columns] for row in cells[1:]}


def _joined(request, folder, people: Mapping[str, str | None], labels: Mapping[str, list[int]]):
  """Rows `(id, file, label, person)` of the files that have a person; one label or several."""
  missing = [file for file in people if file not in labels]
  if missing:
    raise errors.InputError(f'{request.name}: {missing[0]} has an identity and no attributes')
  return [
    (file, folder / file, labels[file] if len(labels[file]) > 1 else labels[file][0], person)
    for file, person in people.items()
  ]


def _count_note(what, found, expected) -> list[str]:
  return [] if found == expected else [f'{what} {found:,}; the official number is {expected:,}']


def _opened(
  request, rows, class_names, notes, lists, splits=('train',), left_out=()
) -> _base.Opened:
  """A source of rows `(id, file, label, person)`."""
  missing = [file for _, file, _, _ in rows if not file.is_file()]
  if missing:
    raise errors.InputError(
      f'{request.name}: {len(missing)} of {len(rows)} images are missing, such as {missing[0]}'
    )
  _base.require_split(request, request.split, splits)
  binary = len(rows) and not isinstance(rows[0][2], list) and len(class_names) == 1
  names = (f'not {class_names[0]}', class_names[0]) if binary else tuple(class_names)
  root = pathlib.Path(request.path).expanduser()

  def read(progress):
    return _pictures.source(
      request,
      rows,
      progress,
      class_names=names,
      mode='RGB',
      notes=notes,
      left_out=left_out,
      splits=splits,
      split=f'{request.split} (of the data set as distributed)',
    )

  files = [*(file for _, file, _, _ in rows), *lists]
  return _base.Opened(_files.fingerprint(root, files, left_out=left_out), read)

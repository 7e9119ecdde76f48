"""A CSV table that names picture files and their labels."""

import collections
import csv
import io
import pathlib
import re

from dalign_jax import errors, id_file
from dalign_jax.data import _base, _files, _pictures, _words

_NO_LABEL = ('', '-1', 'na', 'n/a', 'nan', '<na>', 'null')  # as data frames write it


def table(request: _base.Request) -> _base.Opened:
  """A table with the columns `file` and `label`, and perhaps `group`, `split` and `id`.

  Columns are delimited by commas, semicolons or tabs; their names may be in any case. Files are
  relative to the table. `image_key`, `label_key`, `group_key` and `id_key` name other columns. The
  ids are the files as written, where there is no column of ids.
  """
  path = pathlib.Path(request.path).expanduser()
  columns, lines = _read(request, path)
  file_key = _column(path, columns, 'image_key', _file_key(request))
  label_key = _column(path, columns, 'label_key', request.label_key)
  group_key = _column(path, columns, 'group_key', request.group_key, 'group')
  id_key = _column(path, columns, 'id_key', request.id_key, 'id') or file_key
  split_key = _column(path, columns, 'split', None, 'split')
  used = {key for key in (file_key, label_key, group_key, id_key, split_key) if key}
  _refuse_swallowed(request, path, lines, file_key, used)
  splits: tuple[str, ...] = ('train',)
  split = 'train'
  gathered, rows = _files.Gathered(), []
  notes: list[str] = []
  if split_key:
    counts = collections.Counter(line[split_key] for line in lines)
    told = ', '.join(f'{name or "(empty)"} {count}' for name, count in counts.items())
    notes.append(f'rows by the column split: {told}')
    splits = tuple(dict.fromkeys(line[split_key] for line in lines))
    split = _words.find_split(request, splits)
    role = _words.role(split)
    for line in lines:
      if role and line[split_key] != split and _words.role(line[split_key]) == role:
        gathered.add(f'rows of the split {line[split_key]}, beside {split}', line[file_key])
    lines = [line for line in lines if line[split_key] == split]
  else:
    _base.require_split(request, request.split, splits)
  for line in lines:
    label = line[label_key]
    if label.casefold() in _NO_LABEL:
      gathered.add('rows without a label', line[file_key])
      continue
    group = None if group_key is None else line[group_key]
    if group_key is not None:
      _base.require_group(request, line[file_key], group_key, group)
    rows.append((line[id_key], path.parent / line[file_key], label, group))
  missing = [file for _, file, _, _ in rows if not file.is_file()]
  if missing and not request.skip_unreadable:
    raise errors.InputError(
      f'{request.name}: {len(missing)} of {len(rows)} files are missing, such as '
      f'{_words.show(missing[0])}'
    )
  rows, names = _numbered(rows)
  said = f'{split} (the column split)' if split_key else f'{split} (no column split)'

  def read(progress):
    more = {'class_names': names, 'splits': splits, 'split': said, 'notes': notes}
    return _pictures.source(request, rows, progress, left_out=gathered.left_out(), **more)

  files = [path, *(file for _, file, _, _ in rows)]
  return _base.Opened(_files.fingerprint(path, files, notes=notes), read)


def _file_key(request) -> str:
  return 'file' if request.image_key == 'image' else request.image_key


def _column(path, columns, argument, wanted, usual=None):
  """The column of a name in any case; None where it is not there and need not be."""
  found = [c for c in columns if c.casefold() == (wanted or usual).casefold()]
  exact = [c for c in found if c == (wanted or usual)]
  found = exact or found
  if len(found) > 1:
    raise errors.InputError(
      f'{path.name} has {len(found)} columns {wanted or usual!r}; name one', argument=argument
    )
  if not found and wanted is not None:
    raise errors.InputError(
      f'{path.name} has no column {wanted!r}; it has: {", ".join(columns)}', argument=argument
    )
  return found[0] if found else None


def _refuse_swallowed(request, path, lines, file_key, used):
  """A quote that opens a cell and closes lines later hides the rows between."""
  for line in lines:
    for key, cell in line.items():
      begins = [part.split(',')[0].strip().strip('"') for part in cell.split('\n')[1:]]
      if '\n' in cell and (key in used or any((path.parent / b).is_file() for b in begins if b)):
        raise errors.InputError(
          f'{request.name}: the row of {line[file_key].splitlines()[:1]} has a cell of several '
          f'lines in the column {key!r}; a quote is open there that should be closed'
        )


def _numbered(rows):
  """The rows with labels as numbers: of numbers by value, of names by the alphabet."""
  as_number = {label: _whole(label) for _, _, label, _ in rows}
  if None not in as_number.values():
    named = {label: str(number) for label, number in as_number.items()}
    names = tuple(sorted(set(named.values()), key=int))
  else:
    named = {label: label for label in as_number}
    names = tuple(sorted(named))
  number = {name: k for k, name in enumerate(names)}
  return [(name, file, number[named[label]], group) for name, file, label, group in rows], names


def _whole(label: str) -> int | None:
  """The whole number that a label is, `10.0` too; None for other labels.

  Example:
    >>> _whole('10.0'), _whole('-2'), _whole('1.5'), _whole('cat')
    (10, -2, None, None)
  """
  found = re.fullmatch(r'([+-]?\d+)(\.0*)?', label)
  return int(found[1]) if found else None


def _read(request, path) -> tuple[list[str], list[dict[str, str]]]:
  """Names of the columns, and rows."""
  try:
    lines = io.StringIO(id_file.decode(path), newline=None).read().split('\n')
    first = next((k for k, line in enumerate(lines) if line.strip()), 0)
    skipped, given = id_file.declared_delimiter(lines[first])
    header = lines[first + skipped] if first + skipped < len(lines) else ''
    wanted = {_file_key(request).casefold(), request.label_key.casefold()}
    cells = lambda d: {c.strip().casefold() for c in next(csv.reader([header], delimiter=d), [])}
    delimiter = given or next((d for d in id_file.DELIMITERS if wanted <= cells(d)), ',')
    text = '\n'.join(lines[first + skipped :])
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    columns = [cell.strip() for cell in next(reader, [])]
    rows = [row for row in reader if any(cell.strip() for cell in row)]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(f'{request.name}: cannot read {path} ({error})') from error
  if not rows:
    raise errors.InputError(
      f'{request.name}: {path} must hold a header with the columns file and label, and rows'
    )
  twice = sorted({c for c in columns if c and columns.count(c) > 1})
  if twice:
    raise errors.InputError(f'{request.name}: {path} has two columns {twice[0]!r}; name one')
  wide = [row for row in rows if len(row) > len(columns)]
  if wide:
    raise errors.InputError(
      f'{request.name}: a row of {path} has {len(wide[0])} cells and the header has '
      f'{len(columns)}, such as {wide[0][0]!r}; quote cells that hold {delimiter!r}'
    )
  fill = lambda row: [cell.strip() for cell in row] + [''] * (len(columns) - len(row))
  return columns, [dict(zip(columns, fill(row), strict=True)) for row in rows]

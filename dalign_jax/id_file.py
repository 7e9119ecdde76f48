"""Files of ids: CSV with a header, JSON lines, or one id a line; every line is accounted for.

No character makes a line a comment, and no line is left out but blank ones and the header.
"""

from collections.abc import Iterator
import csv
import dataclasses
import io
import json
import pathlib

from dalign_jax import errors

FORMS = (
  'one id a line; or CSV with commas, semicolons or tabs and a header with a column id (or the one '
  'that --id_column names); or JSON lines such as {"id": "a.png"}'
)
DELIMITERS = {',': 'CSV (commas)', ';': 'CSV (semicolons)', '\t': 'CSV (tabs)'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdFile:
  """The ids of a file, and what each of its lines was.

  Attributes:
    form: how it was read.
    ids: as they are spelled, in their order, repeated ones too.
    lines: of the file.
    header_lines: that name the columns, or say the delimiter.
    blank_lines: between the rows, or at the end.
    further_lines: of rows with line breaks inside quotes: lines beyond the first of each.
    header: the cell that names the column of ids, empty where there is none.
    inside: lines inside cells of several lines, except those of the ids themselves.
  """

  form: str
  ids: tuple[str, ...]
  lines: int
  header_lines: int = 0
  blank_lines: int = 0
  further_lines: int = 0
  header: str = ''
  inside: tuple[str, ...] = ()

  def __post_init__(self):
    told = self.header_lines + self.blank_lines + self.further_lines + len(self.ids)
    if told != self.lines:
      raise errors.InputError(
        f'{self.lines} lines were read, but {len(self.ids)} ids, {self.header_lines} header, '
        f'{self.blank_lines} blank and {self.further_lines} further lines are {told}: the file '
        f'cannot be read for certain. It should be {FORMS}'
      )


def read(path: str | pathlib.Path, id_column: str = 'id') -> IdFile:
  r"""Reads a file of ids.

  Args:
    path: the file, in UTF-8 or UTF-16 (with its byte order mark).
    id_column: name of the column, or of the JSON key, in upper or lower case.

  Raises:
    errors.InputError: if it cannot be read for certain; says the line, and how it should look.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'request.csv'
    >>> _ = path.write_text('ID;reason\n#1.png;"asked\ntwice"\n\n')
    >>> found = read(path)
    >>> found.form, found.ids, found.lines, found.further_lines, found.blank_lines
    ('CSV (semicolons)', ('#1.png',), 4, 1, 1)
  """
  text = _text(path)
  lines = _lines(text)
  filled = [line for line in lines if line.strip()]
  first = filled[0] if filled else ''
  if _is_json(first):
    return _json_lines(path, lines, id_column)
  skipped, given = declared_delimiter(first)
  start = next((k for k, line in enumerate(lines) if line.strip()), 0) + skipped
  header = next((k for k in range(start, len(lines)) if lines[k].strip()), start)
  for delimiter in [given] if given else DELIMITERS:
    cells = (
      next(csv.reader([lines[header]], delimiter=delimiter), []) if header < len(lines) else []
    )
    columns = [k for k, cell in enumerate(cells) if _is_named(cell, id_column)]
    if len(columns) > 1:
      raise errors.InputError(f'{path} has {len(columns)} columns {id_column!r}; name one')
    if columns:
      return _table(path, lines, header, delimiter, columns[0], skipped)
  if id_column != 'id' or skipped:
    raise errors.InputError(
      f'{path} has no column {id_column!r}: its first line is {first[:80]!r}. It should be {FORMS}'
    )
  return _plain(path, lines, filled)


def decode(path: str | pathlib.Path) -> str:
  """The text of a file in UTF-8 or UTF-16, without its byte order mark.

  Raises:
    OSError: if there is none.
    UnicodeDecodeError: if it is no text.
  """
  content = pathlib.Path(path).expanduser().read_bytes()
  is_wide = content[:2] in (b'\xff\xfe', b'\xfe\xff')
  return content.decode('utf-16' if is_wide else 'utf-8-sig')


def _text(path) -> str:
  try:
    return decode(path)
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f'must name a text file in UTF-8, {FORMS}: {error or type(error).__name__}'
    ) from error


def _lines(text: str) -> list[str]:
  """Lines that end in LF, CRLF or CR only: an id may hold any other character."""
  return [line.rstrip('\n') for line in io.StringIO(text, newline=None)]


def _is_named(cell: str, id_column: str) -> bool:
  return cell.strip().casefold() == id_column.strip().casefold()


def _is_json(line: str) -> bool:
  try:
    return isinstance(json.loads(line), dict)
  except RecursionError:
    return True  # too deep for a line of ids: the line itself is refused
  except ValueError:
    return False


def declared_delimiter(line: str) -> tuple[int, str]:
  """The line `sep=;` that some spreadsheets write first."""
  is_declared = len(line) == 5 and line.lower().startswith('sep=') and line[4] in DELIMITERS
  return (1, line[4]) if is_declared else (0, '')


def _records(path, lines, start, delimiter) -> Iterator[tuple[int, int, list[str]]]:
  """Records of a CSV as `(first line, last line, cells)`, lines counted from 1."""
  reader = csv.reader((f'{line}\n' for line in lines[start:]), delimiter=delimiter, strict=True)
  before = 0
  try:
    for cells in reader:
      yield start + before + 1, start + reader.line_num, cells
      before = reader.line_num
  except csv.Error as error:
    raise errors.InputError(
      f'{path}: the row that begins in line {start + before + 1} cannot be read ({error}); a quote '
      'that opens a cell must close it'
    ) from error


def _table(path, lines, header, delimiter, column, skipped) -> IdFile:
  ids, inside, blank, further = [], [], header - skipped, 0
  records = _records(path, lines, header, delimiter)
  _, last, names = next(records)
  further += last - header - 1
  for first, last, cells in records:
    if not any(cell.strip() for cell in cells):
      blank += last - first + 1
      continue
    if len(cells) <= column or not cells[column].strip():
      raise errors.InputError(f'{path}: line {first} has no id in the column {names[column]!r}')
    if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
      raise errors.InputError(
        f'{path}: line {first} has {len(cells)} cells and the header has {len(names)}: quote cells '
        f'that hold {delimiter!r}'
      )
    ids.append(cells[column])
    further += last - first
    others = (cell for k, cell in enumerate(cells) if k != column and '\n' in cell)
    inside += [line for cell in others for line in cell.split('\n')]
  return IdFile(
    form=DELIMITERS[delimiter] if len(names) > 1 else 'a column with a header',
    ids=tuple(ids),
    lines=len(lines),
    header_lines=1 + skipped,
    blank_lines=blank,
    further_lines=further,
    header=names[column],
    inside=tuple(inside),
  )


def _plain(path, lines, filled) -> IdFile:
  blank = len(lines) - len(filled)
  is_quoted = all(len(x.strip()) > 1 and x.strip()[0] == x.strip()[-1] == '"' for x in filled)
  if not (filled and is_quoted):
    return IdFile(form='one id a line', ids=tuple(filled), lines=len(lines), blank_lines=blank)
  rows = [cells for _, _, cells in _records(path, filled, 0, ',')]
  if any(len(cells) != 1 for cells in rows):
    raise errors.InputError(f'{path} has several columns and no header; it should be {FORMS}')
  ids = tuple(cells[0] for cells in rows)
  return IdFile(form='one quoted id a line', ids=ids, lines=len(lines), blank_lines=blank)


def _json_lines(path, lines, id_column) -> IdFile:
  ids = []
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      pairs = json.loads(line, object_pairs_hook=list)
      values = [value for name, value in pairs if _is_named(name, id_column)]
    except (ValueError, TypeError, RecursionError):
      values = []
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], str | int):
      raise errors.InputError(
        f'{path}: line {number} is not an object with one {id_column!r} that is a string or a '
        f'whole number: {line[:80]!r}'
      )
    ids.append(str(values[0]))
  blank = sum(not line.strip() for line in lines)
  return IdFile(form='JSON lines', ids=tuple(ids), lines=len(lines), blank_lines=blank)

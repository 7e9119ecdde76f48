"""The tables of a report as pages show them: heads in groups, cells with their gaps to gold."""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

from experiments.measure import rows as rows_lib
from experiments.report import error_rates, looks, table

_TAIL_GROUPS = {
  'Avg Gap': 'summary',
  'ToW': 'summary',
  'seconds': 'cost',
  'of gold': 'cost',
  'passes': 'cost',
  'PFLOP': 'cost',
  'F x RA x TA': 'summary',
}
_TAIL_MEANINGS = {
  'Avg Gap': 'Mean absolute gap to gold over forget, retain and test accuracy and the attack, '
  'points.',
  'ToW': 'Product of one minus the three accuracy gaps; 1 is gold.',
  'seconds': 'Time without compilation, s.',
  'of gold': 'The same as a share of the time that training gold took.',
  'passes': 'Epochs of the original that cost as many operations.',
  'PFLOP': 'Operations of matrix products and convolutions, 10^15.',
  'sees': 'What the method reads.',
  'F x RA x TA': "Forgetting quality times the shares of gold's retain and test accuracy left.",
}
_STAYS, _NO_GROUP = 'Avg Gap', 9


class Head(NamedTuple):
  """A column; where it is narrow, those of the highest `place` go first.

  It is the place inside the group, and below 0 for the summary that stays longest.
  """

  text: str
  meaning: str
  group: str
  place: int
  is_grey: bool


class Cell(NamedTuple):
  """A value as text, its gap to gold, and how it is marked: floor, void, grey, words."""

  text: str
  gap: str = ''
  marks: tuple[str, ...] = ()


class Line(NamedTuple):
  """A model: `anchor` is that of its flags, empty where there are none."""

  name: str
  label: str
  kind: str
  color: str
  anchor: str
  cells: list[Cell]


class Table(NamedTuple):
  """A table with a name; `groups` are headings with the number of columns under them."""

  name: str
  heads: list[Head]
  groups: list[tuple[str, int]]
  lines: list[Line]


def results(
  rows: rows_lib.Results,
  part: str = 'main',
  *,
  name: str = '',
  anchors: dict[str, str] | None = None,
  of: dict[str, looks.Look] | None = None,
) -> Table:
  """The table of models against gold.

  Args:
    rows: original, gold, second gold and the methods.
    part: of the columns, such as 'main'.
    name: of the table on its page; default: the part.
    anchors: of each model's flags on the page.
    of: the look of each model on the page; default: that of the rows.
  """
  shown, of = table.columns(rows, part), of or looks.of_rows(rows)
  grey = error_rates.grey(shown, rows)
  heads = _heads(shown, table.heads(shown, part)[1:], grey)
  lines = [_line(line, shown, part, anchors or {}, of, grey) for line in table.lines(rows)]
  return Table(name or part, heads, grouped(heads), lines)


def grouped(heads: Sequence[Head]) -> list[tuple[str, int]]:
  """Headings over the heads, each with the number of columns under it; empty without any."""
  found = [(name, len(list(of))) for name, of in itertools.groupby(heads, lambda h: h.group)]
  return found if any(name for name, _ in found) else []


def _heads(shown, texts, grey) -> list[Head]:
  measured = [(c.head, c.meaning, c.group, c.key in grey) for c in shown]
  tail = [(t, _TAIL_MEANINGS[t], _TAIL_GROUPS.get(t, ''), False) for t in texts[len(shown) :]]
  found, places = [], {}
  for text, meaning, group, is_grey in [*measured, *tail]:
    place = places.get(group, 0) if group else _NO_GROUP
    places[group] = place + 1
    place = -1 if text == _STAYS else place
    found.append(Head(text, meaning, group, place, is_grey))
  return found


def _line(line, shown, part, anchors, of, grey) -> Line:
  row, texts = line.row, table.texts(line, shown, part)
  cells = []
  for column, text in zip(shown, texts[1:], strict=False):
    cell, gap = line.cells[column.key], ''
    if cell.gap is not None and not column.is_distance:
      gap = f'{cell.gap * column.scale:.{column.digits}f}'
    found = {'floor': cell.at_floor, 'void': cell.is_void, 'grey': column.key in grey}
    marks = tuple(mark for mark, is_marked in found.items() if is_marked)
    cells.append(Cell(text.removesuffix(' ='), gap, marks))
  tail = table.heads(shown, part)[1 + len(shown) :]
  for head, text in zip(tail, texts[1 + len(shown) :], strict=True):
    cells.append(Cell(text, '', ('words',) if head == 'sees' else ()))
  look = of[row.name]
  return Line(row.name, look.label, row.kind, look.color, anchors.get(row.name, ''), cells)

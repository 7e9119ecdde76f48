"""The tables of a report in HTML."""

import html
import os
import pathlib
import urllib.parse

from experiments.measure import rows as rows_lib
from experiments.report import error_rates, table


def link(text: str, path: pathlib.Path, folder: pathlib.Path) -> str:
  """A link to a file from a page in `folder`."""
  target = urllib.parse.quote(os.path.relpath(path, folder))
  return f'<a href="./{target}">{html.escape(text)}</a>'


def grid(cells: list[list[str]]) -> str:
  """Lines of cells, head line first, as a table."""
  escape = lambda row, tag: ''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in row)
  body = ''.join(f'<tr>{escape(row, "td")}</tr>' for row in cells[1:])
  return _table(escape(cells[0], 'th'), body)


def results(rows: rows_lib.Results, folder: pathlib.Path, part: str = 'main') -> str:
  """The table of models against gold; a method's name links to its resolved flags.

  Args:
    rows: original, gold, second gold and the methods.
    folder: of the page.
    part: of the columns, such as 'main'.
  """
  shown = table.columns(rows, part)
  grey = error_rates.grey(shown, rows)
  classes = {c.head: ' class="grey"' for c in shown if c.key in grey}
  meanings = {c.head: c.meaning for c in shown}
  head = ''.join(
    f'<th{classes.get(h, "")} title="{html.escape(meanings.get(h, ""))}">{html.escape(h)}</th>'
    for h in table.heads(shown, part)
  )
  body = ''.join(_line(line, shown, part, folder, grey) for line in table.lines(rows))
  return _table(head, body)


def _line(line, shown, part, folder, grey):
  row, texts = line.row, table.texts(line, shown, part)
  flags = row.folder / 'flags.txt'
  name = link(texts[0], flags, folder) if flags.exists() else html.escape(texts[0])
  cells = [f'<td>{name}</td>']
  for column, text in zip(shown, texts[1:], strict=False):
    cell, gap = line.cells[column.key], ''
    if cell.gap is not None and not column.is_distance:
      gap = f'<small>gap {cell.gap * column.scale:.{column.digits}f}</small>'
    names = ['floor'] * cell.at_floor + ['grey'] * (column.key in grey)
    mark = f' class="{" ".join(names)}"' if names else ''
    cells.append(f'<td{mark}>{html.escape(text)}{gap}</td>')
  cells += [f'<td>{html.escape(t)}</td>' for t in texts[1 + len(shown) :]]
  kind = ' class=gold' if row.kind.endswith('gold') else ''
  return f'<tr{kind}>{"".join(cells)}</tr>'


def _table(head, body):
  return (
    f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
  )

"""What a report prints: a summary that fits a terminal; the tables are in the files."""

import pathlib
import textwrap

from dalign_jax.store import progress
from experiments.measure import rows as rows_lib
from experiments.report import table

WIDTH = 100  # characters
_WANTED = (  # heads of columns, the most wanted first
  *('forget', 'test', 'DA', 'AD', 'Avg Gap', 'ToW', 'retain', 'LP forgotten', 'attack'),
  *('NMI', 'seconds', 'of gold', 'test forgotten', 'test balanced', 'ASR', 'FS'),
)
_LONGEST_NAME = 30


def summary(rows: rows_lib.Results) -> str:
  """The table of models with as many columns as fit, the most wanted ones, as Markdown."""
  shown = table.columns(rows, 'main')
  heads = table.heads(shown)
  lines = [table.texts(line, shown) for line in table.lines(rows)]
  names = [_short(row.name) for row in rows]
  cells = [heads, *([name, *line[1:]] for name, line in zip(names, lines, strict=True))]
  chosen = {0}
  for head in _WANTED:
    if head in heads and _width(cells, {*chosen, heads.index(head)}) <= WIDTH:
      chosen.add(heads.index(head))
  return table.grid([[line[i] for i in sorted(chosen)] for line in cells])


def show(folder: pathlib.Path, rows: rows_lib.Results, verdict: str, notes: list[str]) -> None:
  """Prints summary, verdict, warnings, and where the report is."""
  progress.say(f'\n{summary(rows)}\n\n= within the noise floor; all columns: report.md\n')
  progress.tell(textwrap.fill(verdict, WIDTH))
  for note in notes:
    progress.tell(textwrap.fill(f'warning: {note}', WIDTH, subsequent_indent='  '))
  progress.tell(f'report: {folder / "report.html"}')


def _width(cells, columns) -> int:
  longest = [max(len(line[i]) for line in cells) for i in columns]
  return sum(longest) + 3 * len(longest) + 1


def _short(name):
  return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'

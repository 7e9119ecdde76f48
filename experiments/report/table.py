"""The table of methods against gold: numbers with their gaps to gold and the noise floor."""

import csv
import io
import math
from typing import NamedTuple

from dalign_jax import metrics
from experiments.measure import columns as columns_lib
from experiments.measure import rows as rows_lib
from experiments.report import error_rates

Column = columns_lib.Column
_TAILS = {  # columns of a part that are made of others
  'main': ('Avg Gap', 'ToW', 'seconds', 'of gold', 'passes', 'PFLOP', 'sees'),
  'full': ('F x RA x TA',),
}
_COMPARABLE_BY = {'dimensional_alignment': 'da_rank'}  # a value, and what must be as gold's is
VOID = {'dimensional_alignment': '≠k'}  # their marks
HARM = 0.02  # of test accuracy below gold's, outside the noise floor


class Cell(NamedTuple):
  """A value, its gap to gold, whether that is as small as a gold's, and the value's interval.

  `is_void` says that the value is not comparable with gold's, and that its gap decides nothing.
  """

  value: float | None
  gap: float | None
  at_floor: bool
  interval: float | None = None
  is_void: bool = False


class Line(NamedTuple):
  """A row of the table."""

  row: rows_lib.Row
  cells: dict[str, Cell]
  average_gap: float | None
  average_gap_interval: float | None
  tug_of_war: float | None
  final_score: float | None
  seconds: float
  time_ratio: float
  passes: float | None
  flop: float | None


def columns(rows: rows_lib.Results, part: str | None = None) -> list[Column]:
  """The columns that the problem has (class columns only for class forgetting)."""
  measured = {key for row in rows for key in row.values}
  return [c for c in columns_lib.COLUMNS if c.key in measured and part in (None, c.part)]


def lines(rows: rows_lib.Results) -> list[Line]:
  """The rows with gaps, floor marks, aggregates and time ratios."""
  shown = [(c, floor(c, rows)) for c in columns(rows)]
  return [_line(row, rows, shown) for row in rows]


def floor(column: Column, rows: rows_lib.Results) -> float:
  """The largest gap between the reference gold and another gold: what luck alone makes."""
  gaps = [_gap(column, row, rows.gold) for row in rows.second_golds]
  return max((gap for gap in gaps if gap is not None), default=0.0)


def separation(column: Column, rows: rows_lib.Results) -> float:
  """Number of floors between original and gold; infinite where the floor is 0."""
  gap, noise = _gap(column, rows.original, rows.gold), floor(column, rows)
  if not gap:
    return 0.0
  return gap / noise if noise else float('inf')


def harm(line: Line, rows: rows_lib.Results) -> float:
  """Test accuracy lost against gold; 0 where it is within `HARM` or the floor of golds."""
  cell, gold = line.cells.get('test_accuracy'), rows.gold.values.get('test_accuracy')
  if cell is None or cell.value is None or gold is None or cell.at_floor:
    return 0.0
  loss = gold - cell.value
  return loss if loss > HARM else 0.0


def _gap(column, row, gold):
  """Distance to gold, or None where it is not defined; over seeds the mean distance."""
  value, reference = row.values.get(column.key), gold.values.get(column.key)
  if column.is_distance or value is None:
    return value
  if reference is None:
    return None
  if column.key in row.group:
    return abs(value - reference)
  seeds = [
    (one[column.key], of_gold[column.key])
    for one, of_gold in zip(row.seeds, gold.seeds, strict=False)
    if column.key in one and column.key in of_gold  # it may be undefined for one seed
  ]
  gaps = [abs(value - reference) for value, reference in seeds]
  return sum(gaps) / len(gaps) if gaps else None


def _line(row, rows, shown):
  gold, cells = rows.gold, {}
  for column, noise in shown:
    gap = None if row is gold else _gap(column, row, gold)
    is_inside = None if row is gold else error_rates.is_inside(column, row, rows)
    at_floor = gap is not None and gap <= noise if is_inside is None else is_inside
    interval = row.interval(column.key)
    cells[column.key] = Cell(row.values.get(column.key), gap, at_floor, interval)
  for key, basis in _COMPARABLE_BY.items():
    if key in cells and basis in cells and cells[basis].gap is not None:
      if not cells[basis].at_floor:
        cells[key] = cells[key]._replace(at_floor=False, is_void=True)
  seconds = row.record['seconds']
  gaps = _aggregates(metrics.average_gap, row, gold, ('UA', 'RA', 'TA', 'MIA'))
  tugs = _aggregates(metrics.tug_of_war, row, gold, ('FA', 'RA', 'TA'))
  mean = lambda values: sum(values) / len(values) if values else None
  return Line(
    row=row,
    cells=cells,
    average_gap=mean(gaps),
    average_gap_interval=None if row is gold else rows_lib.mean_interval(gaps),
    tug_of_war=mean(tugs),
    final_score=_final_score(row.values, gold.values),
    seconds=seconds,
    time_ratio=seconds / gold.record['seconds'],
    passes=row.record.get('passes'),
    flop=row.record.get('flop'),
  )


def _final_score(values, gold):
  """Forgetting quality times the shares of gold's retain and test accuracy that are left."""
  keys = ('retain_accuracy', 'test_accuracy')
  if 'forgetting_quality' not in values or not all(gold.get(k) and k in values for k in keys):
    return None
  return values['forgetting_quality'] * math.prod(values[k] / gold[k] for k in keys)


def _aggregates(metric, row, gold, names) -> list[float]:
  """An aggregate of accuracies and attack for each seed; none where a part is not defined."""
  keys = {'FA': 'forget_accuracy', 'RA': 'retain_accuracy', 'TA': 'test_accuracy', 'MIA': 'attack'}
  results = []
  for seed in zip(row.seeds, gold.seeds, strict=False):
    values = [{n: of_row.get(k) for n, k in keys.items()} for of_row in seed]
    for of_row in values:
      of_row['UA'] = 1 - of_row['FA']
      if any(of_row[n] is None for n in names):
        return []
    results.append(metric(*values))
  return results


def ranks(lines: list[Line]) -> dict[str, dict[str, int]]:
  """Rankings of the unlearned models by Avg Gap, ToW and, where measured, KLOM: 1 is the best."""
  unlearned = [line for line in lines if line.row.kind == 'unlearned']
  scores = {
    'Avg Gap': [line.average_gap for line in unlearned],
    'ToW': [None if line.tug_of_war is None else -line.tug_of_war for line in unlearned],
    'KLOM F': [line.row.values.get('klom_forget') for line in unlearned],
  }
  found = {}
  for name, values in scores.items():
    if unlearned and None not in values:
      found[name] = {
        line.row.name: 1 + sum(other < value for other in values)
        for line, value in zip(unlearned, values, strict=True)
      }
  return found


def format_cell(column: Column, cell: Cell) -> str:
  """The value, half its interval, and `=` where the gap to gold is within the floor.

  A mark of `VOID` stands where the gap decides nothing.
  """
  if cell.value is None:
    return '-'
  form = lambda x: f'{x * column.scale:.{column.digits}f}'
  interval = '' if cell.interval is None else f' ± {form(cell.interval)}'
  mark = VOID[column.key] if cell.is_void else '=' if cell.at_floor else ''
  return f'{form(cell.value)}{interval} {mark}'.rstrip()


def format_gap(line: Line) -> str:
  """Avg Gap in points, and half its interval over seeds."""
  if line.average_gap is None:
    return '-'
  spread = line.average_gap_interval
  return f'{100 * line.average_gap:.1f}' + ('' if spread is None else f' ± {100 * spread:.1f}')


def heads(shown: list[Column], part: str = 'main') -> list[str]:
  """The head line of a table."""
  return ['model', *(c.head for c in shown), *_TAILS.get(part, ())]


def texts(line: Line, shown: list[Column], part: str = 'main') -> list[str]:
  """A row's cells as text, in the order of `heads`."""
  cells = [line.row.name, *(format_cell(c, line.cells[c.key]) for c in shown)]
  number = lambda value, digits: '-' if value is None else f'{value:.{digits}f}'
  if part == 'full':
    return [*cells, number(line.final_score, 3)]
  if part != 'main':
    return cells
  times = [number(line.seconds, 1), number(line.time_ratio, 2), number(line.passes, 1)]
  times.append('-' if line.flop is None else f'{line.flop / 1e15:.2g}')
  return [
    *cells,
    format_gap(line),
    number(line.tug_of_war, 3),
    *times,
    line.row.record.get('sees', ''),
  ]


def markdown(rows: rows_lib.Results, part: str = 'main') -> str:
  """A table as aligned Markdown; empty where it has no columns."""
  shown = columns(rows, part)
  if not shown:
    return ''
  return grid([heads(shown, part), *(texts(line, shown, part) for line in lines(rows))])


def ranking(rows: rows_lib.Results) -> list[list[str]]:
  """The methods with their ranks side by side, since rankings disagree; head line first."""
  found = ranks(lines(rows))
  names = [row.name for row in rows.methods]
  body = [[name, *(str(of[name]) for of in found.values())] for name in names]
  return [['rank by', *found], *body] if found else []


def grid(cells: list[list[str]]) -> str:
  """Lines of cells, head line first, as aligned Markdown."""
  widths = [max(len(r[i]) for r in cells) for i in range(len(cells[0]))]
  aligned = [[r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])] for r in cells]
  rule = ['-' * widths[0], *('-' * (w - 1) + ':' for w in widths[1:])]
  return '\n'.join('| ' + ' | '.join(r) + ' |' for r in (aligned[0], rule, *aligned[1:]))


def _numbers(cell):
  return cell.value, cell.gap, cell.at_floor, cell.interval


def to_csv(rows: rows_lib.Results) -> str:
  """All numbers in full, with gaps and floors."""
  shown = columns(rows)
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  names = [f'{c.key}{suffix}' for c in shown for suffix in ('', '_gap', '_at_floor', '_interval')]
  tail = ['average_gap', 'average_gap_interval', 'tug_of_war', 'final_score']
  tail += ['seconds', 'compile_seconds', 'time_ratio', 'passes', 'flop']
  writer.writerow(['model', 'kind', *names, *tail])
  for line in lines(rows):
    cells = [x for c in shown for x in _numbers(line.cells[c.key])]
    compile_seconds = line.row.record['compile_seconds']
    aggregates = [line.average_gap, line.average_gap_interval, line.tug_of_war, line.final_score]
    aggregates += [line.seconds, compile_seconds, line.time_ratio, line.passes, line.flop]
    writer.writerow([line.row.name, line.row.kind, *cells, *aggregates])
  return out.getvalue()

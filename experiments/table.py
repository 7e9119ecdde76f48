"""The table of methods against gold: every number beside gold's and its floor."""

import csv
import io
from typing import NamedTuple

from dalign_jax import metrics
from experiments import evaluation


class Column(NamedTuple):
  """A column: its key in `evaluation.json`, head, scale, and what it says."""

  key: str
  head: str
  scale: float
  digits: int
  meaning: str
  is_distance: bool = False  # already a distance to gold


COLUMNS = (
  Column('forget_accuracy', 'forget', 100, 1, 'Accuracy on the forget set, %.'),
  Column('retain_accuracy', 'retain', 100, 1, 'Accuracy on the retain set, %.'),
  Column('test_accuracy', 'test', 100, 1, 'Accuracy on test images of the retained classes, %.'),
  Column(
    'test_forget_accuracy',
    'test forgotten',
    100,
    1,
    'Accuracy on test images of forgotten classes, %.',
  ),
  Column(
    'mia',
    'attack',
    1,
    3,
    'One-feature membership attack on the loss: mean accuracy of telling forget from test images '
    "(unseen people's where there are any) of the same classes. 0.5 is chance; its null floor at "
    'these sizes is given below.',
  ),
  Column(
    'forgetting_score',
    'FS',
    1,
    3,
    "Forgetting score of the face benchmarks: |M - 0.5|, M the attack's accuracy on all of forget "
    'against all of the unseen people, cut to equal size; its null floor is given below.',
  ),
  Column(
    'nomus',
    'NoMUS',
    1,
    3,
    'Half the test accuracy plus half of 1 - 2 FS. Not calibrated on gold: an untouched or a '
    'constant network can beat it.',
  ),
  Column(
    'dimensional_alignment',
    'DA',
    1,
    3,
    "Share of the forget features inside the retain features' principal eigenspace.",
  ),
  Column('linear_probe', 'LP', 100, 1, 'Linear probe: a fresh head on frozen features, test %.'),
  Column('linear_probe_forget', 'LP forgotten', 100, 1, 'The same on forgotten classes, test %.'),
  Column('nmi', 'NMI', 1, 3, 'k-means clusters of test features against labels.'),
  Column('f1', 'F1', 1, 3, 'Pairwise F1 of the same clusters.'),
  Column(
    'activation_distance',
    'AD',
    1,
    3,
    "Activation distance: mean L2 distance between the softmax outputs and gold's on forget.",
    True,
  ),
  Column('js_divergence', 'JS', 1, 3, "Jensen-Shannon divergence to gold's outputs, nats.", True),
)


class Cell(NamedTuple):
  """A value, its gap to gold, and whether the gap is within the gold-gold floor."""

  value: float | None
  gap: float | None
  at_floor: bool


class Line(NamedTuple):
  """A row of the table."""

  row: evaluation.Row
  cells: dict[str, Cell]
  average_gap: float | None
  tug_of_war: float | None
  seconds: float
  time_ratio: float


def columns(rows: list[evaluation.Row]) -> list[Column]:
  """The columns that the problem has (class columns only for class forgetting)."""
  return [c for c in COLUMNS if any(c.key in r.values for r in rows)]


def lines(rows: list[evaluation.Row]) -> list[Line]:
  """The rows with gaps, floor marks, aggregates and time ratios."""
  gold = rows[1]
  floors = {c.key: floor(c, rows) for c in columns(rows)}
  return [_line(row, gold, floors) for row in rows]


def floor(column: Column, rows: list[evaluation.Row]) -> float:
  """The largest gap between the reference gold and another gold: what luck alone makes."""
  gaps = [_gap(column, r, rows[1]) for r in rows if r.kind == 'second gold']
  return max((gap for gap in gaps if gap is not None), default=0.0)


def separation(column: Column, rows: list[evaluation.Row]) -> float:
  """How many floors lie between original and gold; infinite where the floor is 0."""
  gap, noise = _gap(column, rows[0], rows[1]), floor(column, rows)
  if not gap:
    return 0.0
  return gap / noise if noise else float('inf')


def _gap(column, row, gold):
  """Distance to gold, or None where it is not defined."""
  value, reference = row.values.get(column.key), gold.values.get(column.key)
  if column.is_distance or value is None:
    return value
  return None if reference is None else abs(value - reference)


def _line(row, gold, floors):
  cells = {}
  for column in COLUMNS:
    if column.key in floors:
      gap = None if row is gold else _gap(column, row, gold)
      at_floor = gap is not None and gap <= floors[column.key]
      cells[column.key] = Cell(row.values.get(column.key), gap, at_floor)
  seconds = row.record['seconds']
  return Line(
    row=row,
    cells=cells,
    average_gap=_aggregate(metrics.average_gap, row, gold, ('UA', 'RA', 'TA', 'MIA')),
    tug_of_war=_aggregate(metrics.tug_of_war, row, gold, ('FA', 'RA', 'TA')),
    seconds=seconds,
    time_ratio=seconds / gold.record['seconds'],
  )


def _aggregate(metric, row, gold, names):
  """An aggregate of accuracies and attack, or None where one of them is not defined."""
  keys = {'FA': 'forget_accuracy', 'RA': 'retain_accuracy', 'TA': 'test_accuracy', 'MIA': 'mia'}
  values = [{n: r.values.get(k) for n, k in keys.items()} for r in (row, gold)]
  for of_row in values:
    of_row['UA'] = 1 - of_row['FA']
    if any(of_row[n] is None for n in names):
      return None
  return metric(*values)


def format_cell(column: Column, cell: Cell) -> str:
  """`value` with `=` behind it where the gap to gold is within the floor."""
  if cell.value is None:
    return '-'
  text = f'{cell.value * column.scale:.{column.digits}f}'
  return f'{text} =' if cell.at_floor else text


def heads(shown: list[Column]) -> list[str]:
  """The table's head line."""
  return ['model', *(c.head for c in shown), 'Avg Gap', 'ToW', 'seconds', 'of gold', 'sees']


def texts(line: Line, shown: list[Column]) -> list[str]:
  """A row's cells as text, in the order of `heads`."""
  return [
    line.row.name,
    *(format_cell(c, line.cells[c.key]) for c in shown),
    '-' if line.average_gap is None else f'{100 * line.average_gap:.1f}',
    '-' if line.tug_of_war is None else f'{line.tug_of_war:.3f}',
    f'{line.seconds:.1f}',
    f'{line.time_ratio:.2f}',
    line.row.record.get('sees', ''),
  ]


def markdown(rows: list[evaluation.Row]) -> str:
  """The table as aligned Markdown."""
  shown = columns(rows)
  grid = [heads(shown), *(texts(line, shown) for line in lines(rows))]
  widths = [max(len(r[i]) for r in grid) for i in range(len(grid[0]))]
  aligned = [[r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])] for r in grid]
  rule = ['-' * widths[0], *('-' * (w - 1) + ':' for w in widths[1:])]
  return '\n'.join('| ' + ' | '.join(r) + ' |' for r in (aligned[0], rule, *aligned[1:]))


def to_csv(rows: list[evaluation.Row]) -> str:
  """All numbers in full, with gaps and floors."""
  shown = columns(rows)
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  names = [f'{c.key}{suffix}' for c in shown for suffix in ('', '_gap', '_at_floor')]
  tail = ['average_gap', 'tug_of_war', 'seconds', 'compile_seconds', 'time_ratio']
  writer.writerow(['model', 'kind', *names, *tail])
  for line in lines(rows):
    cells = [x for c in shown for x in line.cells[c.key]]
    compile_seconds = line.row.record['compile_seconds']
    aggregates = [line.average_gap, line.tug_of_war, line.seconds, compile_seconds, line.time_ratio]
    writer.writerow([line.row.name, line.row.kind, *cells, *aggregates])
  return out.getvalue()

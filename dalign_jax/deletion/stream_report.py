"""The report of a stream of requests: CSV, Markdown, a figure, and when to retrain instead."""

import csv
import io
import pathlib
from typing import Any, NamedTuple

from dalign_jax import settings as settings_lib
from dalign_jax.deletion import judgement, verdict_rules
from dalign_jax.store import files

SO_FAR = ('forget_accuracy', 'attack', 'attack_floor', 'moved')
_COLUMNS = {  # of the table in Markdown: key -> heading, factor, digits
  'requests': ('requests', 1, 0),
  'samples': ('samples', 1, 0),
  'verdict': ('verdict', None, 0),
  'forget_accuracy': ('forget %', 100, 1),
  'forget_accuracy_so_far': ('all so far %', 100, 1),
  'attack_so_far': ('attack, all so far', 1, 3),
  'attack_floor_so_far': ('floor', 1, 3),
  'retain_accuracy': ('retain %', 100, 1),
  'test_accuracy': ('held out %', 100, 1),
  'moved': ('moved', 1, 3),
  'seconds': ('seconds', 1, 1),
  'wall_seconds': ('with checks', 1, 1),
}
_GOLD_COLUMNS = {
  'requests': ('requests', 1, 0),
  'distance_original': ('first model', 1, 3),
  'distance_gap': ('this model', 1, 3),
  'distance_floor': ('second gold', 1, 3),
  'forget_accuracy_gap': ('forget gap', 100, 1),
  'forget_accuracy_floor': ('its floor', 100, 1),
  'test_accuracy_gap': ('held-out gap', 100, 1),
  'test_accuracy_floor': ('its floor', 100, 1),
  'gold_seconds': ('seconds of a training', 1, 1),
}


class Rule(NamedTuple):
  """A reason to retrain instead of another request.

  Attributes:
    key: its name.
    threshold: the number.
    meaning: in words.
  """

  key: str
  threshold: float
  meaning: str


RETRAIN = (
  Rule(
    'lost_share',
    0.05,
    'of the accuracy above chance, on the samples kept or on held-out ones, more than this share '
    'is lost since the first model',
  ),
  Rule('unsuccessful', 2, 'so many requests in a row ended in a verdict that only --accept signs'),
  Rule(
    'membership',
    1.0,
    'the attack tells the samples of all requests so far from held-out ones, by more than this '
    'many null floors',
  ),
  Rule('cost', 1.0, 'the requests so far took more than this many trainings (where one was timed)'),
)


def write(out: pathlib.Path, rows: list[dict[str, Any]], request: settings_lib.Request) -> None:
  """Writes `report.csv`, `report.md` and, where matplotlib is there, `report.svg`."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  table = io.StringIO()
  writer = csv.DictWriter(table, names, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  files.write_text(out / 'report.csv', table.getvalue())
  drawn = figure(rows)
  if drawn:
    files.write_text(out / 'report.svg', drawn)
  files.write_text(out / 'report.md', markdown(rows, request, has_figure=bool(drawn)))


def markdown(
  rows: list[dict[str, Any]], request: settings_lib.Request, *, has_figure: bool = False
) -> str:
  """The report in Markdown."""
  total = sum(row['seconds'] for row in rows)
  count = sum(row['samples'] for row in rows)
  lines = [
    f'# {rows[-1]["requests"]} requests, {count} samples: {request.method}',
    '',
    f'{len(rows)} times unlearned, {total:.1f} s in all: '
    f'{total / rows[-1]["requests"]:.1f} s a request. `with checks` adds reading the data, the '
    'search for copies, the dummy request of the verdict, and this report.',
    '',
    *_table(rows, _COLUMNS),
    '',
    *advice(rows),
  ]
  with_gold = [row for row in rows if 'distance_gap' in row]
  if with_gold:
    lines += [
      '',
      '## Beside models retrained without all samples so far',
      '',
      'Activation distance to a retrained model on all samples of the requests so far, and gaps in '
      'accuracy in points, each beside that of a second retrained model.',
      '',
      *_table(with_gold, _GOLD_COLUMNS),
    ]
  if has_figure:
    lines += ['', '![metrics along the sequence](report.svg)']
  return '\n'.join(lines) + '\n'


def advice(rows: list[dict[str, Any]]) -> list[str]:
  """When to retrain instead, by `RETRAIN`."""
  lines = ['Retrain instead as soon as one of these holds:', '']
  first = {}
  for rule in RETRAIN:
    held = next(
      (row['requests'] for i, row in enumerate(rows) if _holds(rule, rows[: i + 1])), None
    )
    when = 'not yet' if held is None else f'**since request {held}**'
    lines.append(f'- {rule.meaning} ({rule.threshold:g}): {when}')
    if held is not None:
      first[rule.key] = held
  verdict_line = 'No rule asks for a retrained model.'
  if first:
    verdict_line = f'From request {min(first.values())} on, retrain instead.'
  return [*lines, '', verdict_line]


def _holds(rule: Rule, rows) -> bool:
  row = rows[-1]
  if rule.key == 'lost_share':
    sets = (
      ('first_retain_accuracy', 'retain_accuracy', 'remaining'),
      ('first_test_accuracy', 'test_accuracy', 'held_out'),
    )
    return any(
      judgement.is_lost(row[before], row[after], row[count], row['chance'], rule.threshold)
      for before, after, count in sets
      if row.get(before) is not None and row.get(after) is not None
    )
  if rule.key == 'unsuccessful':
    last = rows[-int(rule.threshold) :]
    failed = [bool(verdict_rules.of_word(r['verdict']).accept) for r in last]
    return len(last) == rule.threshold and all(failed)
  if rule.key == 'membership':
    attack, floor = row.get('attack_so_far'), row.get('attack_floor_so_far')
    return attack is not None and abs(attack - 0.5) > rule.threshold * floor
  trainings = [r['gold_seconds'] for r in rows if 'gold_seconds' in r]
  return bool(trainings) and sum(r['seconds'] for r in rows) > rule.threshold * trainings[0]


def _table(rows, columns) -> list[str]:
  shown = {k: c for k, c in columns.items() if any(row.get(k) is not None for row in rows)}
  head = '| ' + ' | '.join(title for title, _, _ in shown.values()) + ' |'
  rule = '|' + '|'.join('---' if f is None else '---:' for _, f, _ in shown.values()) + '|'
  return [
    head,
    rule,
    *('| ' + ' | '.join(_cell(row, k, *c) for k, c in shown.items()) + ' |' for row in rows),
  ]


def _cell(row, key, _, factor, digits) -> str:
  value = row.get(key)
  if value is None:
    return '-'
  return str(value) if factor is None else f'{factor * value:.{digits}f}'


def figure(rows: list[dict[str, Any]]) -> str:
  """The metrics along the sequence as SVG; empty without matplotlib."""
  try:
    import matplotlib
    from matplotlib import figure as figure_lib
  except ImportError:
    return ''
  drawn = figure_lib.Figure(figsize=(11, 3.2), layout='constrained')
  panels = drawn.subplots(1, 3)
  x = [row['requests'] for row in rows]
  lines = (
    {'retain_accuracy': 'kept', 'test_accuracy': 'held out', 'forget_accuracy_so_far': 'forgotten'},
    {'attack_so_far': 'attack on all so far'},
    {'seconds': 'unlearning', 'wall_seconds': 'with checks'},
  )
  for panel, title, named in zip(panels, ('accuracy', 'attack', 'seconds'), lines, strict=True):
    for key, label in named.items():
      values = [row.get(key) for row in rows]
      panel.plot(x, [float('nan') if v is None else v for v in values], marker='.', label=label)
    panel.set(title=title, xlabel='requests')
  floors = [row.get('attack_floor_so_far') or 0.5 for row in rows]
  panels[1].fill_between(
    x, [0.5 - f for f in floors], [0.5 + f for f in floors], alpha=0.2, label='null floor'
  )
  for panel in panels:
    panel.legend(fontsize=7)
  out = io.StringIO()
  with matplotlib.rc_context({'svg.hashsalt': 'dalign_jax'}):
    drawn.savefig(out, format='svg', metadata={'Date': None})
  return out.getvalue()

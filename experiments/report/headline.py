"""The headline of a report: what can be said of the methods, with an error rate, and the table."""

import collections

from experiments.measure import rows as rows_lib
from experiments.measure import verdict as verdict_lib
from experiments.report import error_rates, looks, table

WORDS = (
  'Models are the samples. Nearer: p of the test that a method is no nearer to gold than to the '
  'original; small is good; "-" where originals are not told from gold. All: the largest of them '
  'over the outputs that decide, corrected for the number of methods by Holm. Unlike: corrected p '
  'of the test that it has the distribution of gold; small is bad. A method passes if "all" is '
  'below 0.05 and it does no harm: test accuracy more than two points below gold and outside the '
  'golds, or outputs that are not finite. Held-out golds, as many as a method has models, go '
  'through the same audit: an output in which more than 20 % fail decides nothing. Error rates by '
  'simulation: docs/verdict_error_rates.md.'
)


def words(rows: rows_lib.Results, verdict: verdict_lib.Verdict) -> str:
  """The verdict in words; a method is named only where the tests can decide."""
  if not rows.methods:
    return 'No method has been run yet.'
  if verdict.reason:
    return f'Nothing can be ranked here: {verdict.reason}.'
  failed = (verdict_lib.NOT_NEARER, verdict_lib.HARMFUL)
  passed = {j.name for j in verdict.judgements if not j.words.startswith(failed)}
  parts = [_classes(rows, verdict), _held_out(verdict), nearest(rows, passed), _floors(rows)]
  return ' '.join(part for part in parts if part)


def _classes(rows, verdict) -> str:
  names, of = {row.name for row in rows.methods}, looks.of_rows(rows)
  found = collections.defaultdict(list)
  for judgement in verdict.judgements:
    if judgement.name in names:
      found[judgement.words].append(of[judgement.name].label)
  order = (verdict_lib.LIKE, verdict_lib.NEARER, verdict_lib.BETWEEN)
  order += (verdict_lib.HARMFUL, verdict_lib.NOT_NEARER)
  place = lambda text: next(i for i, w in enumerate(order) if text.startswith(w))
  parts = [f'{w}: {", ".join(found[w])}' for w in sorted(found, key=lambda w: (place(w), len(w)))]
  text = '; '.join(parts)
  return f'{text[0].upper()}{text[1:]} (each at {verdict_lib.ALPHA:.0%}, corrected by Holm).'


def _held_out(verdict) -> str:
  rates = [
    f'{100 * t.false_alarms:.0f} % in {t.key.replace("_", " ")}'
    for t in verdict.tested
    if t.false_alarms is not None
  ]
  return f'Held-out golds fail the same audit: {", ".join(rates)}.' if rates else ''


def nearest(rows: rows_lib.Results, passed: set[str]) -> str:
  """Of several methods that passed, those with the smallest gaps to gold."""
  lines = [line for line in table.lines(rows) if line.row in rows.methods]
  lines = [line for line in lines if line.row.name in passed]
  if len(lines) < 2:
    return ''
  gaps = {
    'output (activation distance)': lambda line: line.row.values['activation_distance'],
    'features (DA)': _alignment_gap,
    'accuracies and attack (Avg Gap)': _average_gap,
  }
  of, parts = looks.of_rows(rows), []
  for what, gap in gaps.items():
    best = min(lines, key=gap)
    if gap(best) < float('inf'):
      parts.append(f'{of[best.row.name].label} in {what}')
  return 'Of those, nearest to gold: ' + '; '.join(parts) + '.'


def _floors(rows) -> str:
  """In how many columns each method is as near to gold as another gold."""
  shown = table.columns(rows)
  lines = table.lines(rows)
  told = lambda key: any(cell.gap is not None or cell.at_floor for cell in _cells(key, lines))
  keys = {c.key for c in shown if told(c.key)} - error_rates.grey(shown, rows)
  counts, of = collections.defaultdict(list), looks.of_rows(rows)
  for line in lines:
    if line.row.kind == 'unlearned':
      number = sum(cell.at_floor for key, cell in line.cells.items() if key in keys)
      counts[number].append(of[line.row.name].label)
  parts = [f'{", ".join(counts[number])} in {number}' for number in sorted(counts, reverse=True)]
  return f'Within the golds in so many of {len(keys)} columns: {"; ".join(parts)}.'


def _cells(key, lines):
  return [line.cells[key] for line in lines if key in line.cells]


def _alignment_gap(line) -> float:
  cell = line.cells.get('dimensional_alignment')
  return float('inf') if cell is None or cell.gap is None or cell.is_void else cell.gap


def _average_gap(line) -> float:
  return float('inf') if line.average_gap is None else line.average_gap


def grid(verdict: verdict_lib.Verdict) -> list[list[str]]:
  """The tests of every method and control, head line first; empty without any."""
  if not verdict.judgements:
    return []
  told = [t for t in verdict.tested if t.is_told]
  name = lambda t: t.key.replace('_', ' ')
  head = ['model', *(f'{name(t)}: nearer' for t in told), 'all: nearer']
  head += [*(f'{name(t)}: unlike' for t in verdict.tested), 'verdict']
  body = []
  for j in verdict.judgements:
    numbers = [j.nearer[t.key] for t in told] + [j.nearer_p]
    numbers += [j.unlike[t.key] for t in verdict.tested]
    body.append([j.name, *(f'{p:.3f}' for p in numbers), j.words])
  share = lambda t: '-' if t.false_alarms is None else f'{100 * t.false_alarms:.0f} %'
  blank = ['-'] * (len(told) + 1)
  return [
    head,
    *body,
    ['original', *blank, *(f'{t.original_p:.3f}' for t in verdict.tested), '-'],
    ['held-out golds that fail', *map(share, told), *(['-'] * (len(verdict.tested) + 2))],
  ]

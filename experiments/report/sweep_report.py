"""One report over all scenarios of a sweep: `report.html`, `report.md`, `report.csv`, figures."""

import csv
import dataclasses
import io
import os
import pathlib
from typing import NamedTuple

from dalign_jax.store import files
from experiments import sweep_cells
from experiments.measure import rows as rows_lib
from experiments.report import (
  looks,
  pages,
  problem_report,
  rows_file,
  svg,
  sweep_figures,
  table,
  tables,
)
from experiments.report import parts as parts_lib


class Part(NamedTuple):
  """A scenario with what its report was made of, rows of the sweep's own methods only."""

  scenario: sweep_cells.Scenario
  record: rows_file.Record


def gather(scenario: sweep_cells.Scenario) -> Part:
  """Reads a scenario's rows; methods are called by their names, settings are behind the links."""
  where = scenario.folders
  record = rows_file.read(where.folder)
  names = {scenario.label(method, values): method for method, values in scenario.methods.items()}
  wanted = {where.run_folders(label)[0]: method for label, method in names.items()}
  rows = []
  for row in record.rows:
    if row.folder in wanted:
      rows.append(dataclasses.replace(row, name=wanted[row.folder]))
    elif row.kind != 'unlearned':
      rows.append(row)
    elif row.name in scenario.config.controls:  # another run has asked for it as a method
      rows.append(dataclasses.replace(row, kind='control'))
  return Part(scenario, record._replace(rows=rows_lib.Results(rows)))


def write(folder: pathlib.Path, parts: list[Part], failures: list[sweep_cells.Failure]) -> None:
  """Writes the reports.

  Args:
    folder: where to.
    parts: the scenarios that have a report of their own.
    failures: cells that are missing in the tables.
  """
  files.write_text(folder / 'report.csv', _csv(folder, parts, failures))
  files.write_text(folder / 'report.md', markdown(parts, failures))
  of = looks.of_models((row.name, row.kind) for part in parts for row in part.record.rows)
  drawn = sweep_figures.draw({part.scenario.name: part.record.rows for part in parts}, of)
  for chart in drawn:
    files.write_text(folder / 'figures' / f'{chart.name}.svg', svg.draw(chart))
  files.write_text(folder / 'report.html', _html(folder, parts, failures, drawn, of))


def summary(parts: list[Part]) -> list[list[str]]:
  """Every method with Avg Gap (points), rank by it and ToW in each scenario, and its mean rank.

  The order is that of the mean rank, over the scenarios that a method has a result in.
  """
  found: dict[str, dict[str, tuple[table.Line, int | None]]] = {}
  for part in parts:
    lines = table.lines(part.record.rows)
    ranks = table.ranks(lines).get('Avg Gap', {})
    for line in lines:
      if line.row.kind in ('unlearned', 'second gold'):
        of_name = found.setdefault(line.row.name, {})
        of_name[part.scenario.name] = line, ranks.get(line.row.name)
  mean_ranks = {name: _mean([rank for _, rank in of.values()]) for name, of in found.items()}
  names = [part.scenario.name for part in parts]
  head = ['method', *(f'{n} {what}' for n in names for what in ('Avg Gap', 'rank', 'ToW'))]
  body = []
  for name in sorted(found, key=lambda n: (mean_ranks[n] is not None, mean_ranks[n] or 0)):
    texts = [x for scenario in names for x in _texts(*found[name].get(scenario, (None, None)))]
    mean = mean_ranks[name]
    body.append([name, *texts, '-' if mean is None else f'{mean:.1f}'])
  return [[*head, 'mean rank'], *body]


def _texts(line, rank):
  if line is None:
    return ['-', '-', '-']
  tow = line.tug_of_war
  return [
    table.format_gap(line),
    '-' if rank is None else str(rank),
    '-' if tow is None else f'{tow:.3f}',
  ]


def _mean(values):
  values = [value for value in values if value is not None]
  return sum(values) / len(values) if values else None


def markdown(parts: list[Part], failures: list[sweep_cells.Failure]) -> str:
  """The report as Markdown."""
  text = [f'# {_title(parts)}']
  text += [f'**{_word(failure)}:** {_describe(failure)}' for failure in failures]
  text += ['## All scenarios', table.grid(summary(parts)), _READING] if parts else []
  for part in parts:
    text += [f'## {part.record.title}', problem_report.markdown_tables(part.record.rows)]
    text += [f'**Warning:** {note}.' for note in part.record.notes]
  return '\n\n'.join([*text, problem_report.READING]) + '\n'


_LINES_OF_LOG = 20
_READING = (
  'Second gold is what luck alone makes. Ranks are by Avg Gap, 1 is the best; a mean rank is over '
  'the scenarios in which a method has a result.'
)


def _html(folder, parts, failures, drawn, of) -> str:
  flags = [_flags(i, part) for i, part in enumerate(parts)]
  return pages.render(
    'sweep.html.j2',
    title=_title(parts),
    verdict=_first(parts),
    failures=[(f'{_word(f)}: {_describe(f)}', _end_of_log(folder, f)) for f in failures],
    summary=summary(parts) if parts else None,
    reading=_READING,
    looks=of,
    figures=[pages.chart(c) for c in drawn],
    scenarios=[
      _scenario(folder, i, part, of_part, of)
      for i, (part, of_part) in enumerate(zip(parts, flags, strict=True))
    ],
    words=problem_report.READING,
    flags=[
      (f'{part.scenario.name}: {name}', anchor, text)
      for part, of_part in zip(parts, flags, strict=True)
      for name, anchor, text in of_part
    ],
  )


def _scenario(folder, number, part, flags, of) -> dict:
  """A scenario as the template takes it."""
  rows = part.record.rows
  anchors = {name: anchor for name, anchor, _ in flags}
  make = lambda key: tables.results(rows, key, name=f'{key}-{number}', anchors=anchors, of=of)
  shown = [(title, key) for key, (title, _) in parts_lib.PARTS.items() if table.columns(rows, key)]
  whole = part.scenario.folders.folder / 'report.html'
  return {
    'title': part.record.title,
    'main': make('main'),
    'parts': [(title, make(key)) for title, key in shown],
    'ranking': table.ranking(rows),
    'notes': part.record.notes,
    'whole': _relative(whole, folder),
  }


def _flags(number, part) -> list[tuple[str, str, str]]:
  """Name, anchor and text of the resolved flags of each method of a scenario."""
  found = []
  for i, row in enumerate(part.record.rows):
    path = row.folder / 'flags.txt'
    if path.exists():
      text = path.read_text(encoding='utf-8', errors='replace')
      found.append((row.name, f'flags-{number}-{i}', text))
  return found


def _first(parts) -> str:
  """The order of the methods, which has no error rate."""
  body = [cells for cells in summary(parts)[1:] if cells[-1] != '-'] if parts else []
  if len(body) < 2:
    return 'Fewer than two methods have results: nothing is ranked.'
  ranked = ', '.join(f'{cells[0]} ({cells[-1]})' for cells in body)
  return (
    f'By mean rank of Avg Gap over the scenarios: {ranked}. Ranks have no error rate; the report '
    'of a scenario says what can be told apart.'
  )


def _end_of_log(folder, failure) -> str:
  """The last lines of a cell's log; empty where there is none."""
  log = folder / 'cells' / f'{failure.cell.name}.log'
  if not log.exists():
    return ''
  lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
  return '\n'.join(lines[-_LINES_OF_LOG:])


def _title(parts) -> str:
  scenarios = ', '.join(part.scenario.name for part in parts) or 'nothing finished'
  return f'Sweep: {scenarios}'


def _word(failure) -> str:
  return 'Refused' if failure.is_refusal else 'Failed'


def _describe(failure) -> str:
  return f'{failure.cell.name}: {failure.error}'


def _relative(path, folder) -> str:
  return pathlib.PurePath(os.path.relpath(path, folder)).as_posix()


def _csv(folder, parts, failures) -> str:
  """All numbers of all scenarios, with ranks, where the resolved flags are, and what is missing.

  Paths start at the folder of the report, so that both can be moved together.
  """
  found = []
  for part in parts:
    rows = part.record.rows
    ranks = table.ranks(table.lines(rows))
    flags = {
      r.name: _relative(r.folder / 'flags.txt', folder)
      for r in rows
      if r.kind in ('unlearned', 'control')
    }
    for values in csv.DictReader(io.StringIO(table.to_csv(rows))):
      name = values['model']
      ranked = {f'rank_{key}': of[name] for key, of in ranks.items() if name in of}
      own = {'scenario': part.scenario.name, **values, **ranked, 'flags': flags.get(name, '')}
      found.append(own)
  for failure in failures:
    cell = failure.cell
    own = {'scenario': cell.scenario.name, 'model': cell.method, 'kind': _word(failure).lower()}
    found.append({**own, 'reason': failure.error})
  heads = list(dict.fromkeys(key for row in found for key in row))
  out = io.StringIO()
  writer = csv.DictWriter(out, heads, lineterminator='\n')
  writer.writeheader()
  writer.writerows(found)
  return out.getvalue()

"""Runs side by side: one table of their models with differences, one page."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import NamedTuple

from dalign_jax.store import files, problem_folder
from experiments.measure import rows as rows_lib
from experiments.report import looks, pages, rows_file, sweep_figures, table, tables
from experiments.report import parts as parts_lib

_WORDS = (
  'Models are matched by their names. A difference is that of a run from the first; "=" marks a '
  'gap to the gold of the same run that another gold could have. Differences have no error rate '
  'here: compare them with those of the second golds.'
)


class Run(NamedTuple):
  """A problem folder with its report's rows."""

  name: str
  folder: pathlib.Path
  record: rows_file.Record


def read(folders: Sequence[pathlib.Path]) -> list[Run]:
  """Reads the rows of problem folders; each is called by the end of its path that tells it apart.

  Raises:
    files.DamagedError: for a file that cannot be read.
    FileNotFoundError: for a folder without a report.
  """
  found = [folder.resolve() for folder in folders]
  depth = next(
    (n for n in range(1, 20) if len({folder.parts[-n:] for folder in found}) == len(found)), 20
  )
  name = lambda folder: '/'.join(folder.parts[-depth:])
  return [Run(name(folder), folder, rows_file.read(folder)) for folder in found]


def write(folder: pathlib.Path, runs: Sequence[Run]) -> None:
  """Writes `compare.html` and `compare.md`."""
  measured = lambda part: any(table.columns(run.record.rows, part) for run in runs)
  shown = {part: _table(runs, part) for part in ('main', *parts_lib.PARTS) if measured(part)}
  titles = {'main': 'Models', **{part: title for part, (title, _) in parts_lib.PARTS.items()}}
  settings = _settings(runs)
  title = f'Side by side: {" and ".join(run.name for run in runs)}'
  of = _looks(runs)
  text = [f'# {title}', _first(runs), *([table.grid(settings)] if settings else [])]
  text += [f'## {titles[part]}\n\n{table.grid(_cells(found))}' for part, found in shown.items()]
  files.write_text(folder / 'compare.md', '\n\n'.join([*text, _WORDS]) + '\n')
  page = pages.render(
    'compare.html.j2',
    title=title,
    verdict=_first(runs),
    settings=settings,
    tables=[(titles[part], found) for part, found in shown.items()],
    words=_WORDS,
    looks=of,
    figures=[pages.chart(c) for c in sweep_figures.draw(_rows(runs), of)],
  )
  files.write_text(folder / 'compare.html', page)


def _rows(runs) -> Mapping[str, rows_lib.Results]:
  return {run.name: run.record.rows for run in runs}


def _looks(runs) -> dict[str, looks.Look]:
  return looks.of_models((row.name, row.kind) for run in runs for row in run.record.rows)


def _names(runs) -> list[str]:
  """Names of all models, in the order in which they come."""
  return list(dict.fromkeys(row.name for run in runs for row in run.record.rows))


def _first(runs) -> str:
  """What is compared, in words."""
  methods = [{row.name for row in run.record.rows.methods} for run in runs]
  both = len(set.intersection(*methods))
  only = [f'{len(of_run)} in {run.name}' for run, of_run in zip(runs, methods, strict=True)]
  return f'{both} of the methods are in every run ({"; ".join(only)}).'


def _settings(runs) -> list[list[str]]:
  """Settings of the problems that differ, head line first; empty where none does."""
  found = [problem_folder.read_identity(run.folder) for run in runs]
  keys = sorted({key for of_run in found for key in of_run})
  texts = {key: [str(of_run.get(key, '-')) for of_run in found] for key in keys}
  body = [[key, *of_key] for key, of_key in texts.items() if len(set(of_key)) > 1]
  return [['setting', *(run.name for run in runs)], *body] if body else []


def _table(runs, part) -> tables.Table:
  """Lines of each model in every run, and its differences from the first."""
  of, names = _looks(runs), [run.name for run in runs]
  made = [tables.results(run.record.rows, part, of=of) for run in runs]
  heads = list({head.text: head._replace(is_grey=False) for t in made for head in t.heads}.values())
  order = {key: i for i, key in enumerate(_heads(runs, part))}
  heads = sorted(heads, key=lambda head: order[head.text])
  by_run = [
    {line.name: dict(zip([h.text for h in t.heads], line.cells, strict=True)) for line in t.lines}
    for t in made
  ]
  lines = []
  for name in _names(runs):
    found = {run: cells[name] for run, cells in zip(names, by_run, strict=True) if name in cells}
    look = of[name]
    lines += [
      tables.Line(
        f'{name} in {run}', f'{look.label} · {run}', '', look.color, '', _in_order(heads, cells)
      )
      for run, cells in found.items()
    ]
    first, *others = found.items()
    for run, cells in others if first[0] == names[0] else ():
      label = 'difference' if len(runs) == 2 else f'difference · {run}'
      changes = [_difference(h, first[1], cells) for h in heads]
      lines.append(tables.Line(f'{name}: {label}', label, 'difference', look.color, '', changes))
  return tables.Table(part, heads, tables.grouped(heads), lines)


def _heads(runs, part) -> list[str]:
  """Heads of the columns of any run, in the order of the table."""
  every = rows_lib.Results(row for run in runs for row in run.record.rows)
  return table.heads(table.columns(every, part), part)


def _in_order(heads, cells) -> list[tables.Cell]:
  return [cells.get(head.text, tables.Cell('-')) for head in heads]


def _difference(head, first, second) -> tables.Cell:
  """The change of a value, with as many digits as it is shown with."""
  texts = [of_run[head.text].text if head.text in of_run else '-' for of_run in (first, second)]
  try:
    values = [float(text.split(' ')[0]) for text in texts]
  except ValueError:
    return tables.Cell('')
  digits = len(texts[0].split(' ')[0].partition('.')[2])
  return tables.Cell(f'{values[1] - values[0]:+.{digits}f}')


def _cells(found: tables.Table) -> list[list[str]]:
  """A table as text, head line first."""
  text = lambda cell: cell.text + (' =' if 'floor' in cell.marks else '')
  body = [[line.label, *map(text, line.cells)] for line in found.lines]
  return [['model', *(head.text for head in found.heads)], *body]

"""The rows of a report as a file, for reports over several problems."""

import pathlib
from typing import NamedTuple

from dalign_jax.store import files
from experiments.measure import rows as rows_lib

_FIELDS = ('name', 'kind', 'seeds', 'record', 'group', 'group_intervals')


class Record(NamedTuple):
  """The contents of a report; its rows are without arrays."""

  title: str
  notes: list[str]
  rows: rows_lib.Results


def write(folder: pathlib.Path, record: Record) -> None:
  """Writes `rows.json` in a problem's folder."""
  rows = [
    {name: getattr(row, name) for name in _FIELDS} | {'folder': str(row.folder.relative_to(folder))}
    for row in record.rows
  ]
  files.write_json(folder / 'rows.json', {**record._asdict(), 'rows': rows})


def read(folder: pathlib.Path) -> Record:
  """Reads `rows.json`."""
  found = files.read_json(folder / 'rows.json', keys=Record._fields)
  rows = [
    rows_lib.Row(
      **{**row, 'seeds': tuple(row['seeds']), 'folder': folder / row['folder'], 'arrays': {}}
    )
    for row in found['rows']
  ]
  return Record(found['title'], found['notes'], rows_lib.Results(rows))

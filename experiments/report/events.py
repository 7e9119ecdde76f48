"""A report for TensorBoard: tables, images of the figures, hyper-parameters with their gaps."""

from collections.abc import Sequence
import shutil

from dalign_jax.store import tensorboard
from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from experiments.report import figures, svg, table

_FOLDER = 'tensorboard'


def write(
  job: preparation.Job,
  rows: rows_lib.Results,
  words: Sequence[str],
  tables: str,
  drawn: Sequence[figures.Figure],
) -> None:
  """Writes event files in the problem's folder, in place of those of an earlier report.

  Args:
    job: the problem.
    rows: of the table.
    words: the verdict and warnings.
    tables: as Markdown.
    drawn: the figures; pictures without a chart are left out.
  """
  shutil.rmtree(job.folder / _FOLDER, ignore_errors=True)
  writer = tensorboard.Writer(job.folder)
  writer.write_text('report/verdict', '\n\n'.join(words))
  writer.write_text('report/tables', tables)
  for figure in drawn:
    if figure.chart and figure.in_page:
      writer.write_image(f'figures/{figure.name}', svg.pixels(figure.chart))
  for line in table.lines(rows):
    if line.row.kind == 'unlearned':
      settings = {'method': line.row.name, **line.row.record.get('hparams', {})}
      writer.write_settings(f'hparams/{line.row.name}', settings, _gaps(line))
  writer.close()


def _gaps(line) -> dict[str, float]:
  """Gaps to gold, of those that are defined."""
  keys = ('activation_distance', 'dimensional_alignment')
  gaps = {f'gap/{k}': line.cells[k].gap for k in keys if k in line.cells}
  gaps['gap/average'] = line.average_gap
  return {key: float(gap) for key, gap in gaps.items() if gap is not None}

"""The figures of a report: which are drawn."""

from typing import Any, NamedTuple

import numpy as np

from dalign_jax.store import files
from experiments.measure import attacks, many_seeds, predictions, recovery_procedures
from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from experiments.report import charts, looks, pages, plots, svg

_RUN = ('unlearned', 'oracle')


class Figure(NamedTuple):
  """A figure: `svg` is its file's text, `chart` what it was drawn from, None for pictures.

  Without `in_page` it is a file alone: the page compares any two models in a panel.
  """

  name: str
  svg: str
  caption: str
  chart: charts.Chart | None = None
  in_page: bool = True

  def for_page(self) -> dict[str, Any]:
    """The figure as templates take it."""
    if self.chart:
      return pages.chart(self.chart)
    return pages.picture(self.name, self.caption, self.svg)


def draw(job: preparation.Job, rows: rows_lib.Results) -> list[Figure]:
  """All figures that the rows have the numbers for, in the order of the report."""
  return [
    *_nearness(rows),
    *_trade_off(rows),
    _drawn(plots.alignment(rows, job.config.da_energy)),
    _drawn(plots.spectrum(rows)),
    *_curves(rows),
    _drawn(plots.class_accuracy(rows, job.class_names, job.forgets_classes)),
    _drawn(plots.projection(rows)),
    *([_drawn(plots.margins(rows))] if _has_margins(rows) else []),
    *_recovery(rows),
    *_attacks(job, rows),
    *_reliability(rows),
    *_perturbed(rows),
    *_methods(rows),
  ]


def write(job: preparation.Job, figures: list[Figure]) -> None:
  """Writes each figure to `figures/NAME.svg` in the problem's folder, and removes all others."""
  folder = job.folder / 'figures'
  folder.mkdir(exist_ok=True)
  names = {f'{figure.name}.svg' for figure in figures}
  for path in folder.glob('*.svg'):
    if path.name not in names:
      path.unlink()
  for figure in figures:
    files.write_text(folder / f'{figure.name}.svg', figure.svg)


def _drawn(chart: charts.Chart, *, in_page: bool = True) -> Figure:
  return Figure(chart.name, svg.draw(chart), chart.caption, chart, in_page)


def _nearness(rows):
  chart = plots.nearness(rows)
  return [_drawn(chart)] if chart else []


def _trade_off(rows):
  choices = {
    'forgetting_score': 'forgetting score (0: no separation)',
    'attack': 'accuracy of the attack (0.5: chance)',
  }
  for key, label in choices.items():
    if all({key, 'test_accuracy'} <= row.values.keys() for row in rows):
      return [_drawn(plots.trade_off(rows, key, label))]
  return []


def _curves(rows):
  of, logs = looks.of_rows(rows), {row.name: row.folder / 'train.jsonl' for row in rows}
  logs = {name: path for name, path in logs.items() if path.exists()}
  standing = {name: logs[name] for name in ('original', 'gold') if name in logs}
  unlearning = {r.name: logs[r.name] for r in rows if r.kind in _RUN and r.name in logs}
  caption = 'Training of original and gold: mean loss of each epoch, nats.'
  found = [_drawn(plots.training_curves('training', caption, standing, of))]
  if unlearning:
    caption = 'Losses of each epoch while unlearning, nats.'
    found.append(_drawn(plots.training_curves('unlearning', caption, unlearning, of)))
  return found


def _recovery(rows):
  if not any(name.startswith('recovery_') for row in rows for name in row.arrays):
    return []
  return [_drawn(plots.recovery(rows, recovery_procedures.PROCEDURES))]


def _attacks(job, rows):
  if not any('u_lira_curve' in row.arrays for row in rows):
    return []
  found = [_drawn(plots.roc(rows, attack.key, attack.title)) for attack in attacks.ATTACKS]
  return [*found, _drawn(plots.klom(rows, many_seeds.floors(job)['klom']))]


def _reliability(rows):
  found = predictions.predictions(rows)
  return [_drawn(plots.reliability(found, looks.of_rows(rows)))] if found else []


def _has_margins(rows) -> bool:
  """Whether there are unseen examples of the classes of the forget set."""
  return all(len(row.arrays['margin_unseen']) for row in rows)


def _methods(rows):
  if not _has_margins(rows):
    return []
  return [_drawn(plots.beside_gold(row, rows), in_page=False) for row in rows if row.kind in _RUN]


def _perturbed(rows):
  found = []
  for row in rows:
    path, names = row.folder / 'perturbed.npz', ('before', 'after')
    if path.exists():
      remedy = f'delete {row.folder} to have it made again'
      arrays = files.read_arrays(path, keys=names, remedy=remedy)
      images, changed = (arrays[name].astype(np.float32) for name in names)
      caption = f'{row.name}: retain images, what is trained on in their place, the difference.'
      found.append(Figure(f'perturbed_{row.name}', plots.perturbed(images, changed), caption))
  return found

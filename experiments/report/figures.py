"""The figures of a report: which are drawn, under which names and captions."""

import base64
import html
from typing import NamedTuple

import numpy as np

from dalign_jax import hparams
from dalign_jax.store import files
from experiments.measure import attacks, many_seeds, predictions, recovery_procedures
from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from experiments.report import plots, recovery_plot

_RUN = ('unlearned', 'oracle')


class Figure(NamedTuple):
  """An SVG image: `name` is its file's, the caption describes it."""

  name: str
  svg: str
  caption: str

  def in_html(self) -> str:
    """The figure as an element that needs no other file."""
    source = 'data:image/svg+xml;base64,' + base64.b64encode(self.svg.encode()).decode()
    caption = html.escape(self.caption)
    return (
      f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def draw(job: preparation.Job, rows: rows_lib.Results) -> list[Figure]:
  """All figures that the rows have the numbers for, in the order of the report."""
  return [
    *_nearness(rows),
    *_trade_off(rows),
    Figure(
      'alignment',
      plots.alignment(rows, job.config.da_energy),
      'DA against the share of the spectrum kept; both are shares of 1.',
    ),
    Figure(
      'spectrum',
      plots.spectrum(rows),
      "Eigenvalue spectrum of the retain features' second moment, as shares of its trace.",
    ),
    *_curves(rows),
    Figure(
      'classes',
      plots.class_accuracy(rows, job.class_names, job.forgets_classes),
      'Test accuracy by class, %.',
    ),
    Figure(
      'projection',
      plots.projection(rows),
      'Training features of each model on their own first two principal components; '
      'crosses: the forget set.',
    ),
    Figure(
      'margins',
      plots.histograms(rows),
      'Margins (log odds of the true label) of forget and of unseen images of the same classes.',
    ),
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


def _nearness(rows):
  svg = plots.nearness(rows)
  caption = 'Distance to gold in outputs and in features; shaded: as near as another gold.'
  return [Figure('nearness', svg, caption)] if svg else []


def _trade_off(rows):
  choices = {
    'forgetting_score': 'forgetting score (0: no separation)',
    'attack': 'accuracy of the attack (0.5: chance)',
  }
  for key, label in choices.items():
    if all({key, 'test_accuracy'} <= row.values.keys() for row in rows):
      caption = 'Utility against what the attack tells; large: mean, small: each seed.'
      return [Figure('trade_off', plots.trade_off(rows, key, label), caption)]
  return []


def _curves(rows):
  logs = {row.name: row.folder / 'train.jsonl' for row in rows}
  logs = {name: path for name, path in logs.items() if path.exists()}
  standing = {name: logs[name] for name in ('original', 'gold') if name in logs}
  unlearning = {r.name: logs[r.name] for r in rows if r.kind in _RUN and r.name in logs}
  found = [
    Figure(
      'training',
      plots.training_curves(standing),
      'Training of original and gold: mean loss of each epoch, nats.',
    )
  ]
  if unlearning:
    curves = plots.training_curves(unlearning)
    found.append(Figure('unlearning', curves, 'Losses of each epoch while unlearning, nats.'))
  return found


def _recovery(rows):
  if not any(name.startswith('recovery_') for row in rows for name in row.arrays):
    return []
  caption = 'What comes back: forget accuracy after each recovery procedure, mean over seeds.'
  return [Figure('recovery', recovery_plot.recovery(rows, recovery_procedures.PROCEDURES), caption)]


def _attacks(job, rows):
  if not any('u_lira_curve' in row.arrays for row in rows):
    return []
  found = [
    Figure(
      attack.key,
      plots.roc(rows, attack.key),
      f'{attack.title}: true against false positives, both in log scale.',
    )
    for attack in attacks.ATTACKS
  ]
  floor = many_seeds.floors(job)['klom']
  caption = 'KLOM of the forget examples; grey: mean of identical distributions.'
  return [*found, Figure('klom', plots.klom(rows, floor), caption)]


def _reliability(rows):
  found = predictions.predictions(rows)
  caption = (
    'Share of images that gold gets right against the predicted chance of it: forget images '
    'against gold, held-out images against the original.'
  )
  return [Figure('reliability', plots.reliability(found), caption)] if found else []


def _methods(rows):
  standing = {row.name: row for row in rows if row.kind in ('original', 'gold')}
  return [
    Figure(
      f'method_{hparams.short(row.name)}',
      plots.beside_gold(row, standing['original'], standing['gold']),
      f'{row.name}, original and gold: margins of forget and of unseen images, and features.',
    )
    for row in rows
    if row.kind in _RUN
  ]


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

"""The plots of a report, as the text of SVG images."""

from collections.abc import Sequence
import pathlib

import numpy as np

from dalign_jax import hparams, metrics
from dalign_jax.store import files, progress
from experiments.measure import columns
from experiments.measure import rows as rows_lib
from experiments.report import plot_style, table


def nearness(rows: rows_lib.Results) -> str | None:
  """Distance to gold in outputs (AD) and in features (DA), as SVG; None where one is not defined.

  What is nearer than another gold is shaded.
  """
  by_key = {c.key: c for c in columns.COLUMNS}
  shown = [by_key[key] for key in ('activation_distance', 'dimensional_alignment')]
  points = []
  for i, line in enumerate(table.lines(rows)):
    gaps = [line.cells[c.key].gap if c.key in line.cells else None for c in shown]
    if line.row.kind != 'gold' and None not in gaps:
      points.append((gaps, plot_style.point_style(line.row, i)))
  if not points:
    return None
  fig, ax = plot_style.axes(width=5.4)
  low = 1e-3  # below it, a gap in DA is drawn at the edge
  floors = [table.floor(column, rows) for column in shown]
  ax.axvspan(0, floors[0], color='goldenrod', alpha=0.15, linewidth=0)
  ax.axhspan(low, max(floors[1], low), color='goldenrod', alpha=0.15, linewidth=0)
  for (distance, gap), style in points:
    ax.scatter(distance, max(gap, low), s=60, alpha=0.8, **style)
  ax.set(xlabel='outputs: activation distance to gold', ylabel='features: gap to gold in DA')
  ax.set(yscale='log', ylim=(low, 1), xlim=(0, 1.1 * max(p[0][0] for p in points)))
  ax.set_title('gold is at the lower left; shaded: as near as another gold', fontsize=8)
  plot_style.legend(ax, beside=True)
  return plot_style.svg(fig)


def spectrum(rows: rows_lib.Results) -> str:
  """Eigenvalues of the retain features' second moment."""
  fig, ax = plot_style.axes()
  for i, row in enumerate(rows):
    values = row.arrays['spectrum']
    ax.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-8), **plot_style.style(row, i))
  ax.set(xlabel='eigenvalue number', ylabel='share of the trace', xscale='log')
  plot_style.legend(ax)
  return plot_style.svg(fig)


def alignment(rows: rows_lib.Results, energy: float) -> str:
  """DA against the share of the spectrum kept."""
  fig, ax = plot_style.axes()
  for i, row in enumerate(rows):
    ax.plot(row.arrays['energies'], row.arrays['alignment'], marker='.', **plot_style.style(row, i))
  ax.axvline(energy, color='gray', linewidth=0.5)
  ax.set(xlabel='energy (share of the spectrum kept)', ylabel='dimensional alignment')
  plot_style.legend(ax)
  return plot_style.svg(fig)


def training_curves(logs: dict[str, pathlib.Path]) -> str:
  """Losses by epoch, from the runs' `train.jsonl`."""
  fig, ax = plot_style.axes()
  for name, path in logs.items():
    records, error = files.read_json_lines(path, keys=['epoch'], remedy='its curve is left out')
    if error:
      progress.say(f'{error}')
      continue
    for key in sorted({k for r in records for k in r if k.endswith('loss')}):
      label = name if key == 'loss' else f'{name}: {key}'
      points = [(r['epoch'], r[key]) for r in records if key in r]  # a run that stopped has none
      ax.plot(*zip(*points, strict=True), marker='.', label=label)
  ax.set(xlabel='epoch', ylabel='mean loss (nats)')
  plot_style.legend(ax)
  return plot_style.svg(fig)


MOST_CLASSES = 40  # that a plot of classes shows


def class_accuracy(
  rows: rows_lib.Results, class_names: tuple[str, ...], forgotten: Sequence[int] = ()
) -> str:
  """Test accuracy by class; of many, the forgotten and those where models differ most from gold."""
  accuracies = np.stack([np.nan_to_num(row.arrays['class_accuracy']) for row in rows])
  change = np.abs(accuracies - np.nan_to_num(rows.gold.arrays['class_accuracy'])).max(axis=0)
  change[list(forgotten)[: MOST_CLASSES // 2]] = np.inf
  shown = np.sort(np.argsort(-change, kind='stable')[:MOST_CLASSES])
  if len(class_names) > MOST_CLASSES:
    shown = shown[change[shown] > 0]
  fig, ax = plot_style.axes(width=8)
  places, width = np.arange(len(shown)), 0.85 / len(rows)
  for i, row in enumerate(rows):
    style = plot_style.style(row, i)
    offset = (i - (len(rows) - 1) / 2) * width
    ax.bar(
      places + offset,
      100 * accuracies[i, shown],
      width,
      color=style['color'],
      label=hparams.short(row.name),
      alpha=0.6 if style['linestyle'] == ':' else 1.0,
    )
  ax.set(ylabel='test accuracy (%)', xticks=places)
  is_part = len(shown) < len(class_names)
  ax.set_xlabel(
    f'{len(shown)} of {len(class_names)} classes: forgotten, or differing most from gold'
    if is_part
    else 'class'
  )
  names = [class_names[k] for k in shown]
  ax.set_xticklabels(names, rotation=0 if len(names) <= 10 else 90, fontsize=7)
  plot_style.legend(ax, beside=True)
  return plot_style.svg(fig)


def projection(rows: rows_lib.Results) -> str:
  """First two principal components of training features, the forget set in black."""
  fig, panels = plot_style.panels(rows, height=2.5)
  for ax, row in panels:
    points, forget = row.arrays['projection'], row.arrays['projection_is_forget'].astype(bool)
    labels = row.arrays['projection_labels']
    ax.scatter(*points[~forget].T, s=4, c=[plot_style.COLORS[c % 10] for c in labels[~forget]])
    ax.scatter(*points[forget].T, s=8, c='black', marker='x', linewidths=0.7)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel('component 1', fontsize=6)
    ax.set_ylabel('component 2', fontsize=6)
  return plot_style.svg(fig)


def histograms(rows: rows_lib.Results) -> str:
  """Margins of forget and unseen images under each model."""
  fig, panels = plot_style.panels(rows, height=1.9)
  for ax, row in panels:
    sides = {name: row.arrays[f'margin_{name}'] for name in ('forget', 'unseen')}
    low, high = np.quantile(np.concatenate([*sides.values()]), [0.005, 0.995])
    bins = np.linspace(low, max(high, low + 1e-3), 25)
    for name, values in sides.items():
      ax.hist(np.clip(values, low, bins[-1]), bins, density=True, alpha=0.55, label=name)
    ax.tick_params(labelsize=6)
    ax.set(yticks=[])
    ax.set_xlabel('margin (nats)', fontsize=7)
    ax.set_ylabel('density', fontsize=7)
  panels[0][0].legend(fontsize=6)
  return plot_style.svg(fig)


def beside_gold(row: rows_lib.Row, original: rows_lib.Row, gold: rows_lib.Row) -> str:
  """One method's outputs on forget and on unseen images, and its features, with those of others."""
  fig = plot_style.figure(7.2, 2.4)
  *sides, features = fig.subplots(1, 3)
  compared = [(original, 'black'), (gold, 'goldenrod'), (row, plot_style.COLORS[0])]
  for ax, name in zip(sides, ('forget', 'unseen'), strict=True):
    margins = [other.arrays[f'margin_{name}'].ravel() for other, _ in compared]
    low, high = np.quantile(np.concatenate(margins), [0.005, 0.995])
    bins = np.linspace(low, max(high, low + 1e-3), 25)
    for values, (other, color) in zip(margins, compared, strict=True):
      shape = {'histtype': 'stepfilled', 'alpha': 0.4} if other is row else {'histtype': 'step'}
      values = np.clip(values, low, bins[-1])
      ax.hist(values, bins, density=True, color=color, label=hparams.short(other.name), **shape)
    ax.set(yticks=[], title=f'{name} images', xlabel='margin (nats)', ylabel='density')
  for other, color in compared:
    features.plot(other.arrays['energies'], other.arrays['alignment'], color=color, marker='.')
  features.set(title='features', xlabel='energy kept', ylabel='dimensional alignment')
  for ax in (*sides, features):
    ax.title.set_fontsize(8)
    ax.tick_params(labelsize=6)
    ax.xaxis.label.set_fontsize(7)
    ax.yaxis.label.set_fontsize(7)
  handles, labels = sides[0].get_legend_handles_labels()
  fig.legend(handles, labels, loc='outside upper center', ncols=3, fontsize=7, frameon=False)
  return plot_style.svg(fig)


def roc(rows: rows_lib.Results, attack: str) -> str:
  """ROC curves of an attack on each group, in log scale, with the diagonal."""
  fig, ax = plot_style.axes()
  for i, row in enumerate(rows):
    if f'{attack}_curve' in row.arrays:
      rates, curve = row.arrays['rates'], row.arrays[f'{attack}_curve']
      ax.loglog(rates, np.maximum(curve, rates.min()), **plot_style.style(row, i))
  ax.loglog([1e-4, 1], [1e-4, 1], color='gray', linewidth=0.5)
  ax.set(xlabel='false-positive rate', ylabel='true-positive rate', xlim=(1e-3, 1), ylim=(1e-3, 1))
  plot_style.legend(ax)
  return plot_style.svg(fig)


def klom(rows: rows_lib.Results, floor: float) -> str:
  """Share of forget examples below a KLOM."""
  fig, ax = plot_style.axes()
  for i, row in enumerate(rows):
    if 'klom_forget' in row.arrays:
      values = np.sort(row.arrays['klom_forget'])
      ax.step(values, np.arange(1, len(values) + 1) / len(values), **plot_style.style(row, i))
  ax.axvline(floor, color='gray', linewidth=0.5)
  ax.set(xlabel='KLOM (nats)', ylabel='share of forget examples', ylim=(0, 1))
  plot_style.legend(ax)
  return plot_style.svg(fig)


def trade_off(rows: rows_lib.Results, key: str, label: str) -> str:
  """Test accuracy against what an attack tells, each model's mean over seeds."""
  fig, ax = plot_style.axes(width=5.0)
  for i, row in enumerate(rows):
    style = plot_style.point_style(row, i)
    for x, y in zip(row.of_seeds(key), row.of_seeds('test_accuracy'), strict=True):
      ax.plot(x, 100 * y, marker='.', color=style['color'], alpha=0.4, markersize=4)
    x, y = row.values[key], 100 * row.values['test_accuracy']
    ax.plot(x, y, linestyle='', **style)
  ax.set(xlabel=label, ylabel='test accuracy (%)')
  plot_style.legend(ax, beside=True)
  return plot_style.svg(fig)


def perturbed(images: np.ndarray, changed: np.ndarray) -> str:
  """Images `[N, H, W, C]`, what a method made of them, and the difference, in columns."""
  count = len(images)
  fig = plot_style.figure(0.9 * count + 0.9, 3.0)
  difference = changed - images
  limit = max(float(np.abs(difference).max()), 1e-6)
  lines = {
    'image': (images, {'vmin': 0, 'vmax': 1, 'cmap': 'gray'}),
    'perturbed': (changed, {'vmin': 0, 'vmax': 1, 'cmap': 'gray'}),
    f'difference\n(±{limit:.3f})': (
      difference.mean(axis=-1, keepdims=True),
      {'vmin': -limit, 'vmax': limit, 'cmap': 'RdBu_r'},
    ),
  }
  for line, (title, (values, how)) in enumerate(lines.items()):
    for column in range(count):
      ax = fig.add_subplot(len(lines), count, line * count + column + 1, xticks=[], yticks=[])
      ax.imshow(np.squeeze(values[column]), **how)
      if column == 0:
        ax.set_ylabel(title, fontsize=7)
  return plot_style.svg(fig)


def reliability(predictions: dict[str, dict[str, np.ndarray]]) -> str:
  """Predicted chances against frequencies, of forget images against gold and of held-out ones."""
  fig, panels = plot_style.panels(list(predictions), height=2.5)
  for ax, name in panels:
    found = predictions[name]
    for label, chance, outcome in (
      ('forget', found['chance'], found['known_to_gold']),
      ('held out', found['held_out_chance'], found['held_out_easy']),
    ):
      curve = metrics.reliability_curve(chance.ravel(), outcome.ravel())
      ax.plot(curve.chance, curve.share, marker='.', label=label)
    ax.plot([0, 1], [0, 1], color='gray', linewidth=0.5)
    ax.tick_params(labelsize=6)
    ax.set(xlim=(0, 1), ylim=(0, 1))
  panels[0][0].legend(fontsize=6)
  return plot_style.svg(fig)

"""The plots of a report: what of the rows they show, as charts."""

from collections.abc import Sequence
import pathlib

import numpy as np

from dalign_jax import metrics
from dalign_jax.store import files, progress
from experiments.measure import columns, recovery_procedures
from experiments.measure import rows as rows_lib
from experiments.report import charts, looks, svg, table

MOST_CLASSES = 40  # that a plot of classes shows
_LOWEST_GAP = 1e-3  # below it, a gap in DA is drawn at the edge
_BINS = 25


def _line(row, x, y, of, **how) -> charts.Series:
  return charts.Series(x=x, y=y, look=of[row.name], model=row.name, **how)


def nearness(rows: rows_lib.Results) -> charts.Chart | None:
  """Distance to gold in outputs (AD) and in features (DA); None where one is not defined.

  What is nearer than another gold is shaded.
  """
  by_key = {c.key: c for c in columns.COLUMNS}
  shown = [by_key[key] for key in ('activation_distance', 'dimensional_alignment')]
  of, points = looks.of_rows(rows), []
  for line in table.lines(rows):
    gaps = [line.cells[c.key].gap if c.key in line.cells else None for c in shown]
    if line.row.kind != 'gold' and None not in gaps:
      texts = [f'AD {gaps[0]:.3f}, gap in DA {gaps[1]:.3f}']
      y = [max(gaps[1], _LOWEST_GAP)]
      how = {'shape': 'points', 'size': 12, 'opacity': 0.85, 'texts': texts}
      points.append(_line(line.row, [gaps[0]], y, of, **how))
  if not points:
    return None
  floors = [table.floor(column, rows) for column in shown]
  right = 1.1 * max(series.x[0] for series in points)
  panel = charts.Panel(
    series=points,
    x_label='outputs: activation distance to gold',
    y_label='features: gap to gold in DA',
    title='gold is at the lower left;\nshaded: as near as another gold',
    y_log=True,
    x_range=(-0.02 * right, right),
    y_range=(0.8 * _LOWEST_GAP, 1),
    shaded=[
      (-0.02 * right, floors[0], 0.8 * _LOWEST_GAP, 1),
      (-0.02 * right, right, 0.8 * _LOWEST_GAP, max(floors[1], _LOWEST_GAP)),
    ],
  )
  caption = 'Distance to gold in outputs and in features; shaded: as near as another gold.'
  return charts.Chart('nearness', caption, [panel], width=5.4, beside=True)


def trade_off(rows: rows_lib.Results, key: str, label: str) -> charts.Chart:
  """Test accuracy against what an attack tells, each model's mean over seeds."""
  of, series = looks.of_rows(rows), []
  for row in rows:
    points = {'shape': 'points'}
    x, y = row.of_seeds(key), 100 * np.array(row.of_seeds('test_accuracy'))
    series.append(_line(row, x, y, of, size=4, opacity=0.5, **points))
    mean = [row.values[key]], [100 * row.values['test_accuracy']]
    series.append(_line(row, *mean, of, size=11, **points))
  panel = charts.Panel(series=series, x_label=label, y_label='test accuracy (%)')
  caption = 'Utility against what the attack tells; large: mean, small: each seed.'
  return charts.Chart('trade_off', caption, [panel], width=5.0, beside=True)


def alignment(rows: rows_lib.Results, energy: float) -> charts.Chart:
  """DA against the share of the spectrum kept."""
  of = looks.of_rows(rows)
  panel = charts.Panel(
    series=[_line(r, r.arrays['energies'], r.arrays['alignment'], of, dots=True) for r in rows],
    x_label='energy (share of the spectrum kept)',
    y_label='dimensional alignment',
    x_at=energy,
  )
  caption = 'DA against the share of the spectrum kept; both are shares of 1.'
  return charts.Chart('alignment', caption, [panel])


def spectrum(rows: rows_lib.Results) -> charts.Chart:
  """Eigenvalues of the retain features' second moment."""
  of, series = looks.of_rows(rows), []
  for row in rows:
    values = np.maximum(row.arrays['spectrum'], 1e-8)
    series.append(_line(row, np.arange(1, len(values) + 1), values, of))
  axes = {'x_label': 'eigenvalue number', 'y_label': 'share of the trace'}
  panel = charts.Panel(series=series, **axes, x_log=True, y_log=True)
  caption = "Eigenvalue spectrum of the retain features' second moment, as shares of its trace."
  return charts.Chart('spectrum', caption, [panel])


_LOSS_DASHES = ('solid', 'dash', 'dot', 'dashdot')


def training_curves(
  name: str, caption: str, logs: dict[str, pathlib.Path], of: dict[str, looks.Look]
) -> charts.Chart:
  """Losses by epoch, from the runs' `train.jsonl`.

  Args:
    name: of the figure.
    caption: of the figure.
    logs: the files by the names of rows.
    of: the look of each row; several losses of one differ in their lines.
  """
  series = []
  for model, path in logs.items():
    records, error = files.read_json_lines(path, keys=['epoch'], remedy='its curve is left out')
    if error:
      progress.say(f'{error}')
      continue
    for i, key in enumerate(sorted({k for r in records for k in r if k.endswith('loss')})):
      label = of[model].label if key == 'loss' else f'{of[model].label}: {key}'
      look = of[model]._replace(label=label, dash=_LOSS_DASHES[i % len(_LOSS_DASHES)])
      points = [(r['epoch'], r[key]) for r in records if key in r]  # a run that stopped has none
      x, y = zip(*points, strict=True)
      series.append(charts.Series(x=x, y=y, look=look, model=model, dots=True))
  panel = charts.Panel(series=series, x_label='epoch', y_label='mean loss (nats)')
  return charts.Chart(name, caption, [panel])


def class_accuracy(
  rows: rows_lib.Results, class_names: Sequence[str], forgotten: Sequence[int] = ()
) -> charts.Chart:
  """Test accuracy by class; of many, the forgotten and those where models differ most from gold."""
  accuracies = np.stack([np.nan_to_num(row.arrays['class_accuracy']) for row in rows])
  change = np.abs(accuracies - np.nan_to_num(rows.gold.arrays['class_accuracy'])).max(axis=0)
  change[list(forgotten)[: MOST_CLASSES // 2]] = np.inf
  shown = np.sort(np.argsort(-change, kind='stable')[:MOST_CLASSES])
  if len(class_names) > MOST_CLASSES:
    shown = shown[change[shown] > 0]
  of, names = looks.of_rows(rows), [class_names[k] for k in shown]
  faint = {'second gold': 0.6}
  panel = charts.Panel(
    series=[
      _line(row, names, 100 * y, of, shape='bars', opacity=faint.get(row.kind, 1.0))
      for row, y in zip(rows, accuracies[:, shown], strict=True)
    ],
    x_label=f'{len(shown)} of {len(class_names)} classes: forgotten, or differing most from gold'
    if len(shown) < len(class_names)
    else 'class',
    y_label='test accuracy (%)',
  )
  return charts.Chart('classes', 'Test accuracy by class, %.', [panel], width=8, beside=True)


def projection(rows: rows_lib.Results) -> charts.Chart:
  """First two principal components of training features, the forget set as crosses."""
  of, panels = looks.of_rows(rows), []
  for row in rows:
    points, forget = row.arrays['projection'], row.arrays['projection_is_forget'].astype(bool)
    labels = row.arrays['projection_labels'].astype(int)
    series = []
    for k in np.unique(labels[~forget] % len(looks.CLASSES)):
      chosen = points[~forget & (labels % len(looks.CLASSES) == k)]
      look = looks.Look(looks.CLASSES[k])
      series.append(
        charts.Series(x=chosen[:, 0], y=chosen[:, 1], look=look, shape='points', size=4)
      )
    crosses = {'look': looks.INK._replace(marker='x'), 'shape': 'points', 'size': 4}
    series.append(charts.Series(x=points[forget, 0], y=points[forget, 1], **crosses))
    no_ticks = {'x_ticks': False, 'y_ticks': False}
    axes = {'x_label': 'component 1', 'y_label': 'component 2'}
    panels.append(charts.Panel(series=series, title=of[row.name].label, **axes, **no_ticks))
  caption = (
    'Training features of each model on their own first two principal components, coloured by '
    'class; crosses: the forget set.'
  )
  return charts.Chart('projection', caption, panels, height=2.5)


def _histogram(values, bins):
  """Density of values by bins, as a step that ends at 0."""
  density, _ = np.histogram(np.clip(values, bins[0], bins[-1]), bins, density=True)
  return bins, np.append(density, 0.0)


def _bins(values):
  low, high = np.quantile(np.concatenate([np.ravel(v) for v in values]), [0.005, 0.995])
  return np.linspace(low, max(high, low + 1e-3), _BINS)


def margins(rows: rows_lib.Results) -> charts.Chart:
  """Margins of forget and unseen images under each model."""
  of, panels = looks.of_rows(rows), []
  for row in rows:
    sides = {name: row.arrays[f'margin_{name}'] for name in ('forget', 'unseen')}
    bins, series = _bins(sides.values()), []
    for (name, values), shape in zip(sides.items(), ('filled', 'step'), strict=True):
      look = of[row.name]._replace(label=name, dash='solid' if name == 'forget' else 'dot')
      x, y = _histogram(values, bins)
      series.append(charts.Series(x=x, y=y, look=look, shape=shape))
    axes = {'x_label': 'margin (nats)', 'y_label': 'density', 'y_ticks': False}
    panels.append(charts.Panel(series=series, title=of[row.name].label, **axes))
  caption = (
    'Margins (log odds of the true label) of forget images (filled) and of unseen images of the '
    'same classes (dotted).'
  )
  return charts.Chart('margins', caption, panels, height=1.9)


def beside_gold(row: rows_lib.Row, rows: rows_lib.Results) -> charts.Chart:
  """One method's outputs on forget and on unseen images, and its features, with those of others."""
  of, compared, panels = looks.of_rows(rows), (rows.original, rows.gold, row), []
  for name in ('forget', 'unseen'):
    values = [other.arrays[f'margin_{name}'] for other in compared]
    bins = _bins(values)
    series = [
      _line(other, *_histogram(v, bins), of, shape='filled' if other is row else 'step')
      for v, other in zip(values, compared, strict=True)
    ]
    axes = {'x_label': 'margin (nats)', 'y_label': 'density', 'y_ticks': False}
    panels.append(charts.Panel(series=series, title=f'{name} images', **axes))
  panels.append(
    charts.Panel(
      series=[
        _line(r, r.arrays['energies'], r.arrays['alignment'], of, dots=True) for r in compared
      ],
      x_label='energy kept',
      y_label='dimensional alignment',
      title='features',
    )
  )
  words = 'margins of forget and of unseen images, and features.'
  label = of[row.name].label
  caption = f'{row.name}, original and gold: {words}'
  return charts.Chart(f'method_{label}', caption, panels, height=2.4)


def roc(rows: rows_lib.Results, key: str, title: str) -> charts.Chart:
  """ROC curves of an attack on each group, in log scale, with the diagonal."""
  of = looks.of_rows(rows)
  found = [row for row in rows if f'{key}_curve' in row.arrays]
  curve = lambda row: np.maximum(row.arrays[f'{key}_curve'], row.arrays['rates'].min())
  panel = charts.Panel(
    series=[_line(row, row.arrays['rates'], curve(row), of) for row in found],
    x_label='false-positive rate',
    y_label='true-positive rate',
    x_log=True,
    y_log=True,
    x_range=(1e-3, 1),
    y_range=(1e-3, 1),
    diagonal=True,
  )
  caption = f'{title}: true against false positives, both in log scale.'
  return charts.Chart(key, caption, [panel])


def klom(rows: rows_lib.Results, floor: float) -> charts.Chart:
  """Share of forget examples below a KLOM."""
  of, series = looks.of_rows(rows), []
  for row in rows:
    if 'klom_forget' in row.arrays:
      values = np.sort(row.arrays['klom_forget'])
      shares = np.arange(1, len(values) + 1) / len(values)
      series.append(_line(row, values, shares, of, shape='step'))
  axes = {'x_label': 'KLOM (nats)', 'y_label': 'share of forget examples'}
  panel = charts.Panel(series=series, **axes, y_range=(0, 1.02), x_at=floor)
  caption = 'KLOM of the forget examples; grey: mean of identical distributions.'
  return charts.Chart('klom', caption, [panel])


def recovery(
  rows: rows_lib.Results, procedures: Sequence[recovery_procedures.Procedure]
) -> charts.Chart:
  """Forget accuracy against the budget of each recovery procedure; lines are means over seeds."""
  of, panels = looks.of_rows(rows), []
  for procedure in procedures:
    key, series = f'recovery_{procedure.key}', []
    for row in rows:
      if key in row.arrays:
        rates, budgets = 100 * row.arrays[key].mean(axis=0), row.arrays[f'{key}_budgets']
        budgets = 255 * budgets if procedure.budget.endswith('1/255') else budgets
        series.append(_line(row, budgets, rates, of, dots=True))
    if series:
      every = np.concatenate([s.x for s in series])
      edges = (every.max(), every.min()) if procedure.budget == 'bits' else None
      axes = {'x_label': procedure.budget, 'y_label': 'forget accuracy (%)', 'y_range': (-3, 103)}
      panels.append(charts.Panel(series=series, title=procedure.head, x_range=edges, **axes))
  caption = 'What comes back: forget accuracy after each recovery procedure, mean over seeds.'
  return charts.Chart('recovery', caption, panels, height=2.3)


def reliability(
  predictions: dict[str, dict[str, np.ndarray]], of: dict[str, looks.Look]
) -> charts.Chart:
  """Predicted chances against frequencies, of forget images against gold and of held-out ones."""
  panels = []
  for name, found in predictions.items():
    series = []
    for label, dash, chance, outcome in (
      ('forget', 'solid', found['chance'], found['known_to_gold']),
      ('held out', 'dot', found['held_out_chance'], found['held_out_easy']),
    ):
      curve = metrics.reliability_curve(chance.ravel(), outcome.ravel())
      look = of[name]._replace(label=label, dash=dash)
      series.append(charts.Series(x=curve.chance, y=curve.share, look=look, dots=True))
    axes = {'x_label': 'predicted chance', 'y_label': 'share that gold gets right'}
    limits = {'x_range': (0, 1), 'y_range': (0, 1)}
    panels.append(
      charts.Panel(series=series, title=of[name].label, **axes, **limits, diagonal=True)
    )
  caption = (
    'Share of images that gold gets right against the predicted chance of it: forget images '
    'against gold, held-out images (dotted) against the original.'
  )
  return charts.Chart('reliability', caption, panels, height=2.5)


def perturbed(images: np.ndarray, changed: np.ndarray) -> str:
  """Images `[N, H, W, C]`, what a method made of them, and the difference, in columns; as SVG."""
  count = len(images)
  fig = svg.empty(0.9 * count + 0.9, 3.0)
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
  return svg.text(fig)

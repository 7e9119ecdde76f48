"""Shared parts of the plots of a report: figures, the look of a model, legends, SVG."""

import io

import matplotlib

matplotlib.use('agg')
from matplotlib import figure as matplotlib_figure

from dalign_jax import hparams

COLORS = matplotlib.colormaps['tab10'].colors
_LINES, _MARKERS = ('-', '--', '-.'), ('o', '^', 's')  # in turn, where colours come again
_STYLES = {
  'original': ('black', '-'),
  'gold': ('goldenrod', '-'),
  'second gold': ('goldenrod', ':'),
}
_MOST_INSIDE, _LINES_OF_LEGEND = 8, 18


def figure(width: float, height: float):
  """An empty figure, in inches."""
  return matplotlib_figure.Figure(figsize=(width, height), layout='constrained')


def axes(width: float = 4.6):
  """A figure of one plot: `(figure, axes)`."""
  fig = figure(width, 3.2)
  return fig, fig.add_subplot()


def panels(rows, *, height: float):
  """A figure with a panel for each row, four side by side: `(figure, [(axes, row), ...])`."""
  across = min(len(rows), 4)
  down = -(-len(rows) // across)
  fig = figure(2.4 * across, height * down)
  found = [(fig.add_subplot(down, across, i + 1), row) for i, row in enumerate(rows)]
  for ax, row in found:
    ax.set_title(hparams.short(getattr(row, 'name', row)), fontsize=8)
  return fig, found


def style(row, i: int) -> dict:
  """Colour, line and label of the model in row i."""
  kind = row.kind if row.kind in _STYLES else None
  color, line = _STYLES.get(kind, (COLORS[i % len(COLORS)], _again(_LINES, i)))
  return {'color': color, 'linestyle': line, 'label': hparams.short(row.name)}


def point_style(row, i: int) -> dict:
  """Colour, marker and label of the model in row i."""
  marker = 'D' if row.kind in _STYLES else _again(_MARKERS, i)
  return {'color': style(row, i)['color'], 'marker': marker, 'label': hparams.short(row.name)}


def _again(choices, i):
  return choices[i // len(COLORS) % len(choices)]


def legend(ax, *, beside: bool = False) -> None:
  """Names inside the plot, or next to it on request or if there are many."""
  handles, labels = ax.get_legend_handles_labels()
  if not labels:
    return
  if not beside and len(labels) <= _MOST_INSIDE:
    ax.legend(fontsize=7)
    return
  fig, across = ax.figure, -(-len(labels) // _LINES_OF_LEGEND)
  fig.set_figwidth(fig.get_figwidth() + 1.5 * across)
  fig.legend(handles, labels, loc='outside right upper', ncols=across, fontsize=7, frameon=False)


def svg(fig) -> str:
  """A figure as SVG, the same text for the same figure."""
  out = io.StringIO()
  with matplotlib.rc_context({'svg.hashsalt': 'dalign_jax'}):
    fig.savefig(out, format='svg', metadata={'Date': None})
  return out.getvalue()

"""Charts as SVG images for papers, by matplotlib."""

import io

import matplotlib

matplotlib.use('agg')
from matplotlib import figure as matplotlib_figure
from matplotlib.backends import backend_agg
import numpy as np

from experiments.report import charts

_DASHES = {'solid': '-', 'dash': '--', 'dashdot': '-.', 'dot': ':'}
_MARKERS = {
  **{'circle': 'o', 'triangle-up': '^', 'square': 's'},
  **{'diamond': 'D', 'diamond-open': 'D', 'x': 'x'},
}
_MOST_INSIDE, _LINES_OF_LEGEND, _ACROSS = 8, 18, 4


def draw(chart: charts.Chart) -> str:
  """A chart as SVG, the same text for the same chart."""
  return text(figure(chart))


def text(fig: matplotlib_figure.Figure) -> str:
  """A figure of matplotlib as SVG."""
  out = io.StringIO()
  with matplotlib.rc_context({'svg.hashsalt': 'dalign_jax'}):
    fig.savefig(out, format='svg', metadata={'Date': None})
  return out.getvalue()


def pixels(chart: charts.Chart) -> np.ndarray:
  """A chart as an image `[H, W, 3]` of uint8."""
  canvas = backend_agg.FigureCanvasAgg(figure(chart))
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3]


def empty(width: float, height: float) -> matplotlib_figure.Figure:
  """An empty figure, in inches."""
  return matplotlib_figure.Figure(figsize=(width, height), layout='constrained')


def figure(chart: charts.Chart) -> matplotlib_figure.Figure:
  """A chart as a figure of matplotlib."""
  panels = chart.panels
  if len(panels) == 1:
    fig = empty(chart.width, chart.height)
    _panel(fig.add_subplot(), panels[0], small=False)
    _legend(fig, beside=chart.beside)
    return fig
  across = min(len(panels), _ACROSS)
  down = -(-len(panels) // across)
  fig = empty(2.4 * across, chart.height * down)
  for i, panel in enumerate(panels):
    _panel(fig.add_subplot(down, across, i + 1), panel, small=True)
  _legend(fig, beside=True)
  return fig


def _panel(ax, panel, *, small):
  for series in panel.series:
    _series(ax, series)
  if panel.heat:
    _heat(ax, panel.heat)
  for x0, x1, y0, y1 in panel.shaded:
    ax.fill_between([x0, x1], y0, y1, color='#b8860b', alpha=0.15, linewidth=0)
  if panel.x_at is not None:
    ax.axvline(panel.x_at, color='gray', linewidth=0.5)
  scales = {'xscale': 'log'} if panel.x_log else {}
  ax.set(**scales, **({'yscale': 'log'} if panel.y_log else {}))
  for set_range, wanted in ((ax.set_xlim, panel.x_range), (ax.set_ylim, panel.y_range)):
    if wanted:
      set_range(*wanted)
  if panel.diagonal:
    low = max(ax.get_xlim()[0], ax.get_ylim()[0])
    ax.plot([low, 1], [low, 1], color='gray', linewidth=0.5)
  if panel.y_whole:
    ax.yaxis.get_major_locator().set_params(integer=True)
  if not panel.x_ticks:
    ax.set(xticks=[])
  if not panel.y_ticks:
    ax.set(yticks=[])
  size = 7 if small else None
  ax.set_xlabel(panel.x_label, fontsize=size)
  ax.set_ylabel(panel.y_label, fontsize=size)
  ax.set_title(panel.title, fontsize=8)
  if small:
    ax.tick_params(labelsize=6)


def _series(ax, series):
  look = series.look
  color = 'black' if look.is_ink else look.color
  how = {'color': color, 'alpha': series.opacity, 'label': look.label or '_'}
  if series.shape == 'points':
    open_marker = {'facecolors': 'none', 'edgecolors': color} if 'open' in look.marker else {}
    how = {k: v for k, v in how.items() if k != 'color' or not open_marker} | open_marker
    ax.scatter(series.x, series.y, s=series.size**2 * 0.7, marker=_MARKERS[look.marker], **how)
    return
  if series.shape == 'bars':
    _bars(ax, series, how)
    return
  dots = {'marker': '.', 'markersize': 4} if series.dots else {}
  if series.shape in ('step', 'filled'):
    dots['drawstyle'] = 'steps-post'
  ax.plot(series.x, series.y, linestyle=_DASHES[look.dash], **dots, **how)
  if series.shape == 'filled':
    ax.fill_between(series.x, series.y, step='post', color=color, alpha=0.3, linewidth=0)


def _bars(ax, series, how):
  """Bars of several series side by side; all series of the panel have the same names."""
  ax.bar(list(series.x), series.y, **how)
  drawn, names = ax.containers, list(series.x)
  width = 0.85 / len(drawn)
  for i, bars in enumerate(drawn):
    for place, bar in enumerate(bars):
      bar.set(x=place + (i - len(drawn) / 2) * width, width=width)
  ax.set_xlim(-0.6, len(names) - 0.4)
  ax.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 10 else 90, fontsize=7)


def _heat(ax, heat):
  ax.imshow(heat.values, cmap='YlOrBr', aspect='auto')
  ax.set_xticks(range(len(heat.x)), heat.x, rotation=20, fontsize=7, ha='right')
  ax.set_yticks(range(len(heat.y)), heat.y, fontsize=7)
  middle = np.nanmean(heat.values) if np.isfinite(heat.values).any() else 0
  for (i, j), value in np.ndenumerate(heat.values):
    if np.isfinite(value):
      color = 'white' if value > 2 * middle else 'black'
      ax.text(j, i, f'{value:.{heat.digits}f}', ha='center', va='center', fontsize=7, color=color)


def _legend(fig, *, beside):
  """Names inside the plot, or next to it on request or if there are many."""
  found = {}
  for ax in fig.axes:
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
      found.setdefault(label, handle)
  if not found:
    return
  if not beside and len(found) <= _MOST_INSIDE:
    fig.axes[0].legend(found.values(), found.keys(), fontsize=7)
    return
  across = -(-len(found) // _LINES_OF_LEGEND)
  fig.set_figwidth(fig.get_figwidth() + 1.5 * across)
  where = {'loc': 'outside right upper', 'ncols': across}
  fig.legend(found.values(), found.keys(), **where, fontsize=7, frameon=False)

"""Charts for a page, by Plotly: each panel is a plot of its own, so that they fit a phone.

Colours of text and grids are those of the page, light or dark; `templates/page.js` sets them.
"""

import json
import math
from typing import Any

import numpy as np

from experiments.report import charts

_MOST_UNIFIED = 8  # lines whose values one box shows together
_HEIGHT = 300


def plot(panel: charts.Panel) -> str:
  """A panel as JSON for Plotly: `data` and `layout`."""
  from plotly import graph_objects

  data = [_trace(series) for series in panel.series]
  data += [_heat(panel.heat)] if panel.heat else []
  many = len(panel.series) > _MOST_UNIFIED
  is_curve = all(s.shape == 'line' and not s.texts for s in panel.series) and not many
  layout: dict[str, Any] = {
    'title': {
      'text': panel.title.replace('\n', '<br>'),
      'font': {'size': 13},
      'x': 0.02,
      'xref': 'container',
    },
    'margin': {
      'l': 56,
      'r': 12,
      't': 36 + 22 * panel.title.count('\n') if panel.title else 12,
      'b': 44,
    },
    'height': _HEIGHT,
    'showlegend': False,
    'barmode': 'group',
    'hovermode': 'x unified' if is_curve and panel.series else 'closest',
    'xaxis': _axis(panel.x_label, panel.x_log, panel.x_range, panel.x_ticks),
    'yaxis': _axis(panel.y_label, panel.y_log, panel.y_range, panel.y_ticks),
    'shapes': _shapes(panel),
  }
  if panel.y_whole:
    layout['yaxis']['dtick'] = 1
  if any(len(s.x) and isinstance(s.x[0], str) for s in panel.series):
    layout['xaxis']['type'] = 'category'
  if panel.heat:
    layout['margin'].update(l=20, b=20)
    layout['yaxis']['autorange'] = 'reversed'
    layout['height'] = max(_HEIGHT, 110 + 28 * len(panel.heat.y))
  figure = graph_objects.Figure(data, layout)
  found = json.loads(figure.to_json())
  found['layout'].pop('template', None)
  return json.dumps(found, separators=(',', ':'))


def _trace(series):
  look = series.look
  named = {'name': look.label, 'meta': {'model': series.model, 'ink': look.is_ink}}
  color = None if look.is_ink else look.color
  where: dict[str, Any] = {'x': _numbers(series.x), 'y': _numbers(series.y)}
  if series.shape == 'bars':
    return {
      **{'type': 'bar', **named, **where, 'marker': {'color': color}, 'opacity': series.opacity},
      'hovertemplate': '%{x}: %{y:.4g}<extra>' + _escape(look.label) + '</extra>',
    }
  texts = {'text': list(series.texts)} if series.texts else {}
  words = '%{text}<br>' if texts else ''
  if series.shape == 'points':
    marker = {'color': color, 'symbol': look.marker, 'size': series.size}
    return {
      **{'type': 'scatter', 'mode': 'markers', **named, **where, **texts, 'marker': marker},
      'opacity': series.opacity,
      'hovertemplate': words + '%{x:.4g}, %{y:.4g}<extra>' + _escape(look.label) + '</extra>',
    }
  line = {'color': color, 'dash': look.dash, 'width': 2}
  if series.shape in ('step', 'filled'):
    line['shape'] = 'hv'
  fill = {'fill': 'tozeroy'} if series.shape == 'filled' else {}
  return {
    **{'type': 'scatter', **named, **where, **texts, 'line': line, **fill},
    **{'mode': 'lines+markers' if series.dots else 'lines', 'marker': {'size': 5, 'color': color}},
    'opacity': series.opacity,
    'hovertemplate': words + '%{y:.4g}<extra>' + _escape(look.label) + '</extra>',
  }


def _heat(heat):
  values = [[None if math.isnan(v) else float(v) for v in row] for row in heat.values]
  texts = [['' if v is None else f'{v:.{heat.digits}f}' for v in row] for row in values]
  return {
    **{'type': 'heatmap', 'x': list(heat.x), 'y': list(heat.y), 'z': values, 'text': texts},
    **{'texttemplate': '%{text}', 'colorscale': 'YlOrBr', 'showscale': False},
    **{'xgap': 2, 'ygap': 2, 'hovertemplate': '%{y}<br>%{x}: %{text}<extra></extra>'},
  }


def _axis(label, is_log, limits, ticks):
  axis: dict[str, Any] = {'title': {'text': label, 'standoff': 8}, 'automargin': True}
  if is_log:
    axis |= {'type': 'log', 'dtick': 1, 'exponentformat': 'power'}
  if limits:
    axis['range'] = [math.log10(x) for x in limits] if is_log else list(limits)
  if not ticks:
    axis['showticklabels'] = False
  return axis


def _shapes(panel):
  shapes = [
    {'type': 'rect', 'x0': x0, 'x1': x1, 'y0': y0, 'y1': y1, 'fillcolor': '#b8860b'}
    | {'opacity': 0.16, 'line': {'width': 0}, 'layer': 'below'}
    for x0, x1, y0, y1 in panel.shaded
  ]
  thin = {'type': 'line', 'line': {'color': '#888888', 'width': 1, 'dash': 'dot'}}
  if panel.x_at is not None:
    shapes.append(thin | {'x0': panel.x_at, 'x1': panel.x_at, 'yref': 'paper', 'y0': 0, 'y1': 1})
  if panel.diagonal:
    low = 1e-4 if panel.x_log else 0
    shapes.append(thin | {'x0': low, 'y0': low, 'x1': 1, 'y1': 1})
  return shapes


def _numbers(values):
  """What Plotly takes: names as they are, numbers as an array, short ones in JSON."""
  if len(values) and isinstance(values[0], str):
    return list(values)
  return np.asarray(values, np.float32)


def _escape(text):
  return text.replace('&', '&amp;').replace('<', '&lt;')

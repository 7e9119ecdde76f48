"""The figures of reports over several problems: ranks, gap against time, method by scenario."""

from collections.abc import Mapping

import numpy as np

from experiments.measure import rows as rows_lib
from experiments.report import charts, looks, table


def draw(
  scenarios: Mapping[str, rows_lib.Results], of: dict[str, looks.Look]
) -> list[charts.Chart]:
  """All figures; none without a method.

  Args:
    scenarios: rows by the name of their scenario.
    of: the look of each model.
  """
  lines = {name: table.lines(rows) for name, rows in scenarios.items()}
  methods = list(dict.fromkeys(row.name for rows in scenarios.values() for row in rows.methods))
  if not methods:
    return []
  found = {
    name: {line.row.name: line for line in of_scenario if line.row.kind == 'unlearned'}
    for name, of_scenario in lines.items()
  }
  return [
    _ranks(methods, {n: table.ranks(of_scenario) for n, of_scenario in lines.items()}, of),
    _gap_against_time(methods, found, of),
    _heat(methods, found, of),
  ]


def _ranks(methods, ranks, of) -> charts.Chart:
  series = []
  for method in methods:
    points = {n: by.get('Avg Gap', {}).get(method) for n, by in ranks.items()}
    points = {name: rank for name, rank in points.items() if rank is not None}
    names, values = list(points), list(points.values())
    series.append(charts.Series(x=names, y=values, look=of[method], model=method, dots=True))
  most = max((rank for s in series for rank in s.y), default=1)
  panel = charts.Panel(
    series=series,
    x_label='scenario',
    y_label='rank by Avg Gap',
    y_range=(most + 0.4, 0.6),
    y_whole=True,
  )
  caption = 'Rank by Avg Gap in each scenario; 1 is the nearest to gold.'
  return charts.Chart('ranks', caption, [panel], beside=True)


def _gap_against_time(methods, found, of) -> charts.Chart:
  panels = []
  for name, by_method in found.items():
    series = []
    for method in methods:
      line = by_method.get(method)
      if line is not None and line.average_gap is not None:
        texts = [f'{line.seconds:.1f} s']
        how = {'shape': 'points', 'size': 11, 'texts': texts, 'model': method}
        gap = [100 * line.average_gap]
        series.append(charts.Series(x=[line.time_ratio], y=gap, look=of[method], **how))
    panels.append(
      charts.Panel(
        series=series,
        title=name,
        x_label='time as a share of training gold',
        y_label='Avg Gap (points)',
      )
    )
  caption = 'Avg Gap against time in each scenario: near to gold and cheap is at the lower left.'
  return charts.Chart('time', caption, panels, height=2.5)


def _heat(methods, found, of) -> charts.Chart:
  gap = lambda line: np.nan if line is None or line.average_gap is None else 100 * line.average_gap
  values = np.array([[gap(by.get(method)) for by in found.values()] for method in methods])
  heat = charts.Heat(list(found), [of[method].label for method in methods], values)
  caption = 'Avg Gap (points) of each method in each scenario; empty: no result.'
  return charts.Chart('heat', caption, [charts.Panel(heat=heat)], width=3 + 0.8 * len(found))

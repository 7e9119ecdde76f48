"""Figures as data: what they show, drawn as SVG by `svg` and for a page by `interactive`."""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.report import looks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Series:
  """A line, points or bars of a panel.

  Attributes:
    x: positions, or names for bars.
    y: heights.
    look: how it is drawn; its label stands in the legend.
    shape: line, step, filled (a step with what is below), points or bars.
    model: the row that it belongs to; empty for none.
    dots: whether the points of a line are marked.
    size: of points.
    opacity: 0 to 1.
    texts: what a point says, instead of the label.
  """

  x: Sequence
  y: Sequence
  look: looks.Look
  shape: str = 'line'
  model: str = ''
  dots: bool = False
  size: float = 9
  opacity: float = 1.0
  texts: Sequence[str] = ()


class Heat(NamedTuple):
  """Numbers by row and column: `values[i][j]` belongs to `y[i]` and `x[j]`; NaN where none is."""

  x: Sequence[str]
  y: Sequence[str]
  values: np.ndarray
  digits: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
  """One pair of axes.

  Attributes:
    series: what is drawn.
    x_label: with the unit.
    y_label: with the unit.
    title: above; empty for none.
    x_log: whether the axis is logarithmic.
    y_log: whether the axis is logarithmic.
    x_range: of the axis, from left to right; None to fit.
    y_range: of the axis, from bottom to top; None to fit.
    x_at: a vertical rule.
    shaded: `(x0, x1, y0, y1)` of rectangles.
    y_whole: whether only whole numbers stand at the axis.
    diagonal: whether a line shows where both are equal.
    x_ticks: whether numbers stand at the axis.
    y_ticks: whether numbers stand at the axis.
    heat: numbers as colours in place of series.
  """

  series: Sequence[Series] = ()
  x_label: str = ''
  y_label: str = ''
  title: str = ''
  x_log: bool = False
  y_log: bool = False
  x_range: tuple[float, float] | None = None
  y_range: tuple[float, float] | None = None
  x_at: float | None = None
  shaded: Sequence[tuple[float, float, float, float]] = ()
  y_whole: bool = False
  diagonal: bool = False
  x_ticks: bool = True
  y_ticks: bool = True
  heat: Heat | None = None


class Chart(NamedTuple):
  """A figure of some panels; `width` and `height` are in inches and of SVG."""

  name: str
  caption: str
  panels: Sequence[Panel]
  width: float = 4.6
  height: float = 3.2
  beside: bool = False  # the legend of the SVG

  @property
  def is_broad(self) -> bool:
    """Whether it takes the whole width of a page."""
    return len(self.panels) > 1 or self.width >= 8

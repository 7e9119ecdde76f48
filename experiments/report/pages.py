"""Pages from templates: each one HTML file that needs no other file and no network."""

import base64
import functools
import json
import pathlib
import re
from typing import Any

import jinja2
import markupsafe

from dalign_jax import errors
from experiments.report import charts, interactive, looks

_ABSOLUTE = re.compile(r'(?<![\w./~])(?:~?/(?!/)|[A-Za-z]:\\)[^\s,;:\'"()\[\]{}<>]+')
_TEMPLATES = pathlib.Path(__file__).parent / 'templates'


def render(template: str, **values: Any) -> str:
  """A page.

  Every text that a template prints has absolute paths cut to their last part: a page is mailed,
  and folders say whose machine it was.

  Args:
    template: name of its file.
    values: what it shows.
  """
  return (
    _environment()
    .get_template(template)
    .render(**values, backgrounds=looks.BACKGROUNDS, plotly=_plotly())
  )


def without_folders(value: Any) -> Any:
  """A text in which absolute paths are cut to their last part; anything else as it is."""
  if not isinstance(value, str) or isinstance(value, markupsafe.Markup):
    return value
  return _ABSOLUTE.sub(lambda found: re.split(r'[/\\]', found[0].rstrip('/\\'))[-1], value)


def chart(drawn: charts.Chart) -> dict[str, Any]:
  """A chart as templates take it."""
  panels = [_embedded(interactive.plot(panel)) for panel in drawn.panels]
  found = {'name': drawn.name, 'caption': drawn.caption, 'is_broad': drawn.is_broad}
  return {**found, 'panels': panels, 'picture': ''}


def picture(name: str, caption: str, svg: str) -> dict[str, Any]:
  """An SVG image as templates take it, in place of a chart."""
  source = 'data:image/svg+xml;base64,' + base64.b64encode(svg.encode()).decode()
  found = {'name': name, 'caption': caption, 'is_broad': True}
  return {**found, 'panels': [], 'picture': source}


def data(value: Any) -> markupsafe.Markup:
  """A value as JSON for the page's script."""
  return _embedded(json.dumps(value, separators=(',', ':')))


def _embedded(text):
  return markupsafe.Markup(text.replace('<', '\\u003c'))


@functools.cache
def _environment():
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=without_folders,
    trim_blocks=True,
    lstrip_blocks=True,
  )


@functools.cache
def _plotly() -> markupsafe.Markup:
  """The text of Plotly's script, which the package brings along."""
  try:
    from plotly import offline
  except ModuleNotFoundError:
    raise errors.InputError(
      "the report needs Plotly: pip install 'dalign-jax[experiments]'"
    ) from None
  return markupsafe.Markup(offline.get_plotlyjs())

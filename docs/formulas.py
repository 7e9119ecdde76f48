"""Formulas as MathML when the site is built: browsers draw them without a script or a request."""

import html
import re

from latex2mathml import converter

_FORMULA = re.compile(
  r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
  flags=re.DOTALL,
)


def on_page_content(content: str, **kwargs) -> str:
  """The event of mkdocs after Markdown has become HTML, API pages included."""
  del kwargs
  return _FORMULA.sub(_mathml, content)


def _mathml(match):
  display = 'inline' if match[1] == 'span' else 'block'
  return converter.convert(html.unescape(match[2]).strip(), display=display)

"""Hooks of mkdocs: formulas as MathML, and the repository's address from the package's metadata."""

import html
import pathlib
import re
import tomllib

from latex2mathml import converter

_FORMULA = re.compile(
  r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
  flags=re.DOTALL,
)


def on_config(config):
  """A link to the repository; mkdocs' own `repo_url` asks another server for stars."""
  metadata = pathlib.Path(config.config_file_path).with_name('pyproject.toml')
  project = tomllib.loads(metadata.read_text(encoding='utf-8'))['project']
  address = project.get('urls', {}).get('Repository')
  if address:
    config.extra['social'] = [{'icon': 'fontawesome/brands/git-alt', 'link': address}]
  return config


def on_page_content(content: str, **kwargs) -> str:
  """The event after Markdown has become HTML, API pages included. Browsers draw MathML."""
  del kwargs
  return _FORMULA.sub(_mathml, content)


def _mathml(match):
  display = 'inline' if match[1] == 'span' else 'block'
  return converter.convert(html.unescape(match[2]).strip(), display=display)

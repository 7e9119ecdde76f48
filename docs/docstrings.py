"""Docstrings as the site's Markdown wants them: formulas, and examples as a section."""

import re
import textwrap

import griffe

_BLOCK = re.compile(r'^( *)\.\. math::(.*)\n((?:\1 +\S.*\n?|\s*\n)*)', flags=re.MULTILINE)
_INLINE = re.compile(r':math:`([^`]+)`')


class Docstrings(griffe.Extension):
  """Rewrites each docstring before it is parsed."""

  def on_instance(self, *, obj, **kwargs):
    del kwargs
    if not obj.is_alias and obj.docstring:
      obj.docstring.value = convert(obj.docstring.value)


def convert(text: str) -> str:
  r"""`.. math:: x` as `\[ x \]`, `:math:` roles as `\( x \)`, and `Example:` as `Examples:`."""

  def block(match):
    formula = f'{match[2].strip()}\n{textwrap.dedent(match[3])}'.strip()
    lines = textwrap.indent(f'\\[\n{formula}\n\\]', match[1])
    return f'{lines}\n\n'

  text = re.sub(r'^( *)Example:$', r'\1Examples:', text, flags=re.MULTILINE)
  return _INLINE.sub(r'\\(\1\\)', _BLOCK.sub(block, f'{text}\n')).rstrip()

"""The look of each model: one colour in all figures of a page, readable on white and on black."""

import collections
from collections.abc import Iterable
from typing import NamedTuple

from dalign_jax import hparams

PALETTE = (
  *('#2f7ed8', '#d9641e', '#2b9348', '#9a5bd0', '#d0353f'),
  *('#0f9199', '#d1499b', '#858a1c', '#a0674b', '#5f6fe0'),
)
CLASSES = (  # of images in projections; never of a model
  *('#7fa8d1', '#d9a27f', '#86b892', '#b79fd0', '#d1888d'),
  *('#77b3b6', '#cf9bb9', '#adb06f', '#b89a8a', '#98a0d6'),
)
BACKGROUNDS = {'light': '#ffffff', 'dark': '#15171c'}
_DASHES, _MARKERS = ('solid', 'dash', 'dashdot'), ('circle', 'triangle-up', 'square')


class Look(NamedTuple):
  """Colour, line and marker, by Plotly's names, and the name in legends."""

  color: str
  dash: str = 'solid'
  marker: str = 'circle'
  label: str = ''

  @property
  def is_ink(self) -> bool:
    """Whether it has the colour of the text, whatever the background."""
    return self.color == 'ink'


INK = Look('ink')
_STANDING = {
  'original': Look('#7a7a7a', marker='diamond'),
  'gold': Look('#b8860b', marker='diamond'),
  'second gold': Look('#b8860b', 'dot', 'diamond-open'),
}


def of_models(models: Iterable[tuple[str, str]]) -> dict[str, Look]:
  """The look of each model by its name; where colours come again, lines and markers differ.

  Args:
    models: name and kind of each row, in order; a name may come again.
  """
  kinds = dict(models)
  shorts = collections.Counter(hparams.short(name) for name in kinds)
  found: dict[str, Look] = {}
  number = 0
  for name, kind in kinds.items():
    short = hparams.short(name)
    label = short if shorts[short] == 1 else name
    if kind in _STANDING:
      found[name] = _STANDING[kind]._replace(label=label)
      continue
    again = number // len(PALETTE)
    color = PALETTE[number % len(PALETTE)]
    found[name] = Look(color, _DASHES[again % 3], _MARKERS[again % 3], label)
    number += 1
  return found


def of_rows(rows: Iterable) -> dict[str, Look]:
  """The look of each row by its name."""
  return of_models((row.name, row.kind) for row in rows)

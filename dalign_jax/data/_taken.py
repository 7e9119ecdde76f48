"""Account of the data that a reader took and left out."""

import dataclasses
from typing import NamedTuple

_SHOWN = 12


class LeftOut(NamedTuple):
  """Something that a reader did not take.

  Attributes:
    what: its kind, such as `files that are not images`.
    count: how many there are.
    example: one of them, with its path.
  """

  what: str
  count: int  # type: ignore[assignment]  # hides tuple.count
  example: str

  def __str__(self) -> str:
    return f'{self.count} {self.what} left out, such as {self.example}'


@dataclasses.dataclass(frozen=True)
class Taken:
  """Account of a data set as it was read, for a run to print and record.

  Attributes:
    name: what was read.
    split: the split, and what says so.
    splits: the splits that there are.
    classes: `(name, rows)` of each class; of several attributes, the rows that have each.
    image: shape and type of an image.
    rows: number of rows.
    people: number of groups, None where the rows have none.
    left_out: what was left out, by kind.
    notes: what else was understood about the data.
  """

  name: str
  split: str
  splits: tuple[str, ...]
  classes: tuple[tuple[str, int], ...]
  image: str
  rows: int
  people: int | None
  left_out: tuple[LeftOut, ...]
  notes: tuple[str, ...]

  def lines(self) -> list[str]:
    """The account as lines of text, so that one glance shows a wrong guess.

    Example:
      >>> from dalign_jax import data
      >>> print('\\n'.join(data.load('digits').taken.lines()[:3]))
      data: digits, split train (the only one), 1797 rows
      images: 8 x 8 x 1 uint8
      10 classes: 0 (178), 1 (182), 2 (177), 3 (183), 4 (181), 5 (182), 6 (181), 7 (179), 8 (174), \
9 (180)
    """
    shown = ', '.join(f'{name} ({count})' for name, count in self.classes[:_SHOWN])
    more = len(self.classes) - _SHOWN
    lines = [
      f'data: {self.name}, split {self.split}, {self.rows} rows',
      f'images: {self.image}',
      f'{len(self.classes)} classes: {shown}{f" and {more} more" if more > 0 else ""}',
    ]
    if self.people is not None:
      lines.append(f'groups (people): {self.people}')
    return [*lines, *map(str, self.left_out), *self.notes]

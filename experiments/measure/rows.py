"""The rows of a table: models or groups of models with their scalars, by what they are."""

from collections.abc import Iterable
import dataclasses
import functools
import pathlib

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table: a model, or several that differ in their seeds.

  Attributes:
    name: what the table calls it.
    kind: original, gold, second gold, unlearned, control, or oracle, which knows gold's answers.
    seeds: the scalars of each member.
    record: how the first member was made.
    arrays: what plots need, of the first member and of the group.
    folder: of the first member.
    group: scalars of the group as a whole.
    group_intervals: half-widths of 95 % intervals of some of them.
    folders: of all members.
  """

  name: str
  kind: str
  seeds: tuple[dict[str, float], ...]
  record: dict
  arrays: dict[str, np.ndarray]
  folder: pathlib.Path
  group: dict[str, float] = dataclasses.field(default_factory=dict)
  group_intervals: dict[str, float] = dataclasses.field(default_factory=dict)
  folders: tuple[pathlib.Path, ...] = ()

  @functools.cached_property  # a report asks for them thousands of times
  def values(self) -> dict[str, float]:
    """Means over the members that have the scalar, and the group's own scalars."""
    keys = {key: None for seed in self.seeds for key in seed}
    means = {key: float(np.mean(self.of_seeds(key))) for key in keys}
    return {**means, **self.group}

  def of_seeds(self, key: str) -> list[float]:
    """A scalar of each member that has it."""
    return [seed[key] for seed in self.seeds if key in seed]

  def interval(self, key: str) -> float | None:
    """Half the width of the 95 % interval of a mean over training seeds; None for one seed."""
    if key in self.group:
      return self.group_intervals.get(key)
    return mean_interval(self.of_seeds(key))


def mean_interval(values: list[float]) -> float | None:
  """Half-width of Student's 95 % interval for the mean; None below two values."""
  if len(values) < 2:
    return None
  return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


class Results(tuple[Row, ...]):
  """The rows of a table in order, and by name: original, gold, other golds, what was unlearned."""

  def __new__(cls, rows: Iterable[Row]):
    return super().__new__(cls, rows)

  @property
  def original(self) -> Row:
    return self._of('original')[0]

  @property
  def gold(self) -> Row:
    """The reference."""
    return self._of('gold')[0]

  @property
  def second_golds(self) -> list[Row]:
    """Golds that make the noise floor."""
    return self._of('second gold')

  @property
  def methods(self) -> list[Row]:
    """The unlearned models, without controls and oracles."""
    return self._of('unlearned')

  @property
  def oracles(self) -> list[Row]:
    """Models made with gold's answers."""
    return self._of('oracle')

  def _of(self, kind):
    return [row for row in self if row.kind == kind]

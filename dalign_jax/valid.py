"""Valid values of a setting or a hyper-parameter, declared together with it."""

from collections.abc import Iterable
import dataclasses
import math
import re
from typing import Any, Protocol


class Valid(Protocol):
  """A set of values, and its description."""

  def __contains__(self, value: Any) -> bool: ...

  def __str__(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Between:
  """Numbers from `low` to `high`, both of them included unless they are left open.

  Example:
    >>> 0.0 in Between(0, 1, open_low=True), str(Between(0, 1, open_low=True))
    (False, 'in (0, 1]')
    >>> str(Between(1, 10**6))
    'in [1, 1000000]'
  """

  low: float
  high: float
  open_low: bool = False
  open_high: bool = False

  def __contains__(self, value) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
      return False
    above = value > self.low if self.open_low else value >= self.low
    below = value < self.high if self.open_high else value <= self.high
    return above and below

  def __str__(self) -> str:
    left, right = '(['[not self.open_low], ')]'[not self.open_high]
    return f'in {left}{self.low:.10g}, {self.high:.10g}{right}'


@dataclasses.dataclass(frozen=True)
class OneOf:
  """A few values.

  Example:
    >>> 'b' in OneOf(('a', 'b')), str(OneOf(('a', 'b')))
    (True, 'one of a, b')
  """

  values: tuple

  def __contains__(self, value) -> bool:
    return any(type(value) is type(v) and value == v for v in self.values)

  def __str__(self) -> str:
    return f'one of {", ".join(map(str, self.values))}'


@dataclasses.dataclass(frozen=True)
class AllOf:
  """Tuples of a few values, without repeats.

  Example:
    >>> ('a', 'a') in AllOf(('a', 'b')), ('b',) in AllOf(('a', 'b'))
    (False, True)
  """

  values: tuple[str, ...]

  def __contains__(self, value) -> bool:
    return len(set(value)) == len(value) and set(value) <= set(self.values)

  def __str__(self) -> str:
    return f'some of {", ".join(self.values)}, none twice'


@dataclasses.dataclass(frozen=True)
class Matching:
  """Texts that match a regular expression as a whole, in words.

  Example:
    >>> 'a/b' in Matching(r'[a-z]+', 'lower-case letters')
    False
  """

  pattern: str
  words: str

  def __contains__(self, value) -> bool:
    return isinstance(value, str) and re.fullmatch(self.pattern, value, re.DOTALL) is not None

  def __str__(self) -> str:
    return self.words


class _Patterns:
  """Tuples of regular expressions."""

  def __contains__(self, value) -> bool:
    try:
      return all(pattern in TEXT and re.compile(pattern) for pattern in value)
    except (re.error, RecursionError, OverflowError):
      return False

  def __str__(self) -> str:
    return 'regular expressions, separated by commas'


PATTERNS = _Patterns()
SEED = Between(0, 2**31 - 1)
COUNT = Between(1, 10**6)  # of epochs, models, rows of a batch: more is a slip of the keyboard
COUNT_OR_ZERO = Between(0, 10**6)
SHARE = Between(0, 1, open_low=True, open_high=True)
SHARE_OR_ALL = Between(0, 1, open_low=True)
RATE = Between(0, 1000, open_low=True)
WEIGHT = Between(0, 10**6)
FOLDER_NAME = Matching(
  r'(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{0,200}', 'the name of one folder, without / or \\'
)
LOCAL_PATH = Matching(
  r'(?![A-Za-z][A-Za-z0-9+.-]*://)[^\x00-\x1f\x7f]*',
  'a path of this machine; addresses such as gs:// or s3:// are not supported',
)
TEXT = Matching(r'[^\x00-\x1f\x7f]*', 'text without control characters')


def problems(fields: Iterable[dataclasses.Field], instance: Any) -> list[tuple[str, str]]:
  """Invalid fields of a dataclass: names and messages, in order.

  Args:
    fields: with a `Valid` at `valid` of their metadata, or none.
    instance: of the dataclass.
  """
  found = []
  for field in fields:
    value, allowed = getattr(instance, field.name), field.metadata.get('valid')
    if allowed is not None and value not in allowed:
      found.append((field.name, f'must be {allowed}, got {value!r}'))
  return found

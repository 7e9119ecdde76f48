"""The page "which method for which request", from the report of a sweep over requests.

python -m experiments.report.which_method docs/benchmark/sizes_digits.csv > docs/which_method.md
"""

from collections.abc import Iterable, Mapping
import csv
import pathlib
import sys
from typing import NamedTuple

from dalign_jax import hparams, methods
from experiments.report import table

HARM = 0.02  # of test accuracy below gold's
LEAST_FLOORS = 3  # between original and gold, for a ranking
LEAST_WAY, HALF = 0.1, 0.5  # of the way from original to gold
_COSTS = ((0.1, 'hardly any'), (0.7, 'part of a training'), (1.5, 'about a training'))
_MORE = 'more than a training'
_ENDS = ('refused', 'failed')
_MADE = ('unlearned', 'control', *_ENDS)

Row = Mapping[str, str]


class Request(NamedTuple):
  """A request of the sweep, and its rows by the names of the models."""

  forget: str
  rows: dict[str, Row]

  @property
  def original(self) -> Row:
    return self.rows['original']

  @property
  def gold(self) -> Row:
    return self.rows['gold']

  @property
  def floor(self) -> float:
    """Activation distance between two golds."""
    return number(self.rows['second gold'], 'activation_distance')

  @property
  def floors(self) -> float:
    """How many floors original and gold are apart."""
    return number(self.original, 'activation_distance') / max(self.floor, 1e-9)

  @property
  def title(self) -> str:
    """The request in words."""
    kind, _, value = self.forget.partition(':')
    if kind == 'random':
      is_share = '.' in value
      return f'{float(value):.0%} of the images' if is_share else _count(int(value), 'image')
    return _count(1 + value.count(','), 'class')


class Outcome(NamedTuple):
  """What a method did on a request.

  Attributes:
    word: refused, failed, harm, like gold, half way, a little, no effect, or nothing to tell.
    way: share of the way from original to gold, in activation distance on forget; None where it
      says nothing.
    loss: of test accuracy, against gold.
  """

  word: str
  way: float | None = None
  loss: float = 0.0


def number(row: Row, key: str) -> float:
  """A number of the CSV; not a number where it is empty."""
  return float(row.get(key) or 'nan')


def _count(count, word) -> str:
  plural = {'image': 'images', 'class': 'classes'}[word]
  return f'one {word}' if count == 1 else f'{count} {plural}'


def read(lines: Iterable[str]) -> list[Request]:
  """The requests of a sweep's `report.csv`, in its order."""
  found: dict[str, dict[str, Row]] = {}
  for row in csv.DictReader(lines):
    found.setdefault(row['scenario'], {})[row['model']] = row
  text = lambda scenario: scenario.rpartition('-')[2].replace('_', ':', 1)
  return [Request(text(scenario), rows) for scenario, rows in found.items()]


def outcome(request: Request, name: str) -> Outcome | None:
  """What a method did on a request, by the rules of the page; None where it was not run."""
  row = request.rows.get(name)
  if row is None:
    return None
  if row['kind'] in _ENDS:
    return Outcome(row['kind'])
  loss = number(request.gold, 'test_accuracy') - number(row, 'test_accuracy')
  if not loss <= HARM and row['test_accuracy_at_floor'] != 'True':
    return Outcome('harm', None, loss)
  if request.floors <= 1:
    return Outcome('nothing to tell', None, loss)
  start, floor = number(request.original, 'activation_distance'), request.floor
  way = (start - number(row, 'activation_distance')) / (start - floor)
  if row['activation_distance_at_floor'] == 'True':
    return Outcome('like gold', way, loss)
  words = {HALF: 'half way', LEAST_WAY: 'a little', -LEAST_WAY: 'no effect'}
  return Outcome(next((w for least, w in words.items() if way >= least), 'away'), way, loss)


def names(requests: list[Request]) -> list[str]:
  """The methods of a sweep, in alphabetical order."""
  return sorted({n for r in requests for n, row in r.rows.items() if row['kind'] in _MADE and n})


def markdown(requests: list[Request], source: str) -> str:
  """The page.

  Args:
    requests: as read.
    source: name of the file that they were read from.
  """
  parts = [_HEAD.format(source=source), _grid_of_requests(requests), _RULES]
  parts += ['## By request', *(_by_request(r, names(requests)) for r in requests)]
  parts += ['## What works where', _WORKS, _grid_of_outcomes(requests)]
  parts += ['## By method', _COST, _grid_of_methods(requests)]
  parts += ['## Features', _FEATURES, _grid_of_alignment(requests)]
  return '\n\n'.join(parts) + '\n'


_HEAD = """# Which method for which request

Every method with its defaults on requests of six sizes, on scikit-learn's digits.
`python -m experiments.sweep --flagfile=experiments/flags/sizes_digits.flags` makes the numbers
(`{source}`), `python -m experiments.report.which_method` this page. One small
network on easy images: read it as what defaults do when a request grows or shrinks, not as a
ranking. [benchmark.md](benchmark.md) has tuned methods on harder images,
[guarantees.md](guarantees.md) says what a promise covers."""

_RULES = f"""**Rules.** *Harm*: test accuracy on kept classes more than {100 * HARM:.0f} points
below gold's, outside the noise floor. *Like gold*: activation distance (AD) on the forget set
within the floor of golds. Otherwise the share of the way from the original's AD to the floor
decides: *half way* ({HALF:.0%} or more), *a little* ({LEAST_WAY:.0%} or more), *no effect*, *away*
(further from gold than the original by {LEAST_WAY:.0%} or more). Where original and gold are one
floor apart or less, forgetting cannot be seen and only harm is told. Below {LEAST_FLOORS} floors
the words are in parentheses: they cannot rank methods. No method sees gold; these rules do."""

_WORKS = (
  'The share of the way from original to gold in AD, or a word. `=` is within the floor of golds, '
  '`·` nothing to tell.'
)

_COST = (
  'What a method sees with its defaults, its promise, and its largest cost over the requests. '
  'Seconds were taken on a shared machine, so only the order of magnitude is told.'
)

_FEATURES = (
  'Dimensional alignment with its rank k, on class requests. DA says nothing where k is far from '
  "gold's; `=` is within the floor of golds. [metrics.md](metrics.md) explains it."
)


def _grid_of_requests(requests) -> str:
  head = ['request', '--forget', 'original, forget', 'gold, forget', 'AD original', 'AD of golds']
  body = []
  for r in requests:
    percent = [f'{100 * number(row, "forget_accuracy"):.1f}' for row in (r.original, r.gold)]
    distances = [f'{number(r.original, "activation_distance"):.3f}', f'{r.floor:.3f}']
    body.append([r.title, f'`{r.forget}`', *percent, *distances, f'{r.floors:.1f}'])
  return table.grid([[*head, 'floors apart'], *body])


def _by_request(request, all_names) -> str:
  """The methods by what they did, as one paragraph."""
  groups: dict[str, list[tuple[float, str]]] = {}
  for name in all_names:
    if (found := outcome(request, name)) is not None:
      note = f'{name} ({-100 * found.loss:+.0f})' if found.word == 'harm' else name
      groups.setdefault(found.word, []).append((-(found.way or 0.0), note))
  order = ('like gold', 'half way', 'a little', 'no effect', 'away', 'nothing to tell', 'harm')
  uncertain = 1 < request.floors < LEAST_FLOORS
  lines = []
  for word in (*order, *_ENDS):
    if word in groups:
      shown = f'({word})' if uncertain and word not in ('harm', *_ENDS) else word
      lines.append(f'- *{shown}*: {", ".join(name for _, name in sorted(groups[word]))}')
  return f'**{request.title[0].upper()}{request.title[1:]}**\n\n' + '\n'.join(lines)


def _grid_of_outcomes(requests) -> str:
  body = []
  for name in names(requests):
    body.append([f'`{name}`', *(_cell(outcome(r, name)) for r in requests)])
  return table.grid([['method', *(r.title for r in requests)], *body])


def _cell(found) -> str:
  if found is None:
    return '-'
  if found.word == 'harm':
    return f'harm ({-100 * found.loss:+.0f})'
  if found.way is None:
    return '·' if found.word == 'nothing to tell' else found.word
  return f'{100 * found.way:.0f} %' + (' =' if found.word == 'like gold' else '')


def _grid_of_methods(requests) -> str:
  head = ['method', 'sees', 'promise', 'cost', 'half way or more', 'harm']
  body = []
  for name in names(requests):
    values = hparams.defaults(name)
    seen = methods.in_words(methods.sees(name, values, has_unseen=False))
    found = {r.title: outcome(r, name) for r in requests}
    those = lambda *words, f=found: '; '.join(t for t, o in f.items() if o and o.word in words)
    cells = [those('like gold', 'half way') or '-', those('harm') or '-']
    body.append([f'`{name}`', seen, _promise(name), _cost(requests, name), *cells])
  return table.grid([head, *body])


def _promise(name) -> str:
  if name == 'retrain':
    return 'exact'
  return '(epsilon, delta)' if methods.METHODS[name].guarantee else 'none'


def _cost(requests, name) -> str:
  rows = [r.rows[name] for r in requests if name in r.rows and r.rows[name]['kind'] not in _ENDS]
  if not rows:
    return '-'
  ratio = max(number(row, 'time_ratio') for row in rows)
  return next((words for most, words in _COSTS if ratio < most), _MORE)


def _grid_of_alignment(requests) -> str:
  of_classes = [r for r in requests if r.forget.startswith('class')]
  body = []
  for name in ('original', 'gold', 'second gold', *names(of_classes)):
    body.append([name, *(_alignment(r.rows.get(name)) for r in of_classes)])
  return table.grid([['model', *(f'{r.title}: DA (k)' for r in of_classes)], *body])


def _alignment(row) -> str:
  if row is None or not row.get('dimensional_alignment'):
    return '-'
  value, rank = number(row, 'dimensional_alignment'), number(row, 'da_rank')
  mark = ' =' if row['dimensional_alignment_at_floor'] == 'True' else ''
  return f'{value:.3f} ({rank:.1f}){mark}'


if __name__ == '__main__':
  _PATH = pathlib.Path(sys.argv[1])
  print(markdown(read(_PATH.read_text('utf-8').splitlines()), _PATH.as_posix()), end='')

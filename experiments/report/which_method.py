"""The page "which method for which request", made from tables of results.

python -m experiments.report.which_method docs/benchmark.md docs/benchmark_cifar10.md \
  docs/benchmark/sizes_digits.csv > docs/which_method.md

It reads tables of reports in Markdown, or the `report.csv` of a sweep.
"""

from collections.abc import Iterable, Mapping
import csv
import pathlib
import re
import sys
from typing import NamedTuple

from dalign_jax import hparams, methods
from experiments.report import table

LEAST_FLOORS = 3  # between original and gold, for a ranking
LEAST_WAY, HALF = 0.1, 0.5  # of the way from original to gold
_ENDS = ('refused', 'failed')
_STANDING = ('original', 'gold', 'second gold')
_COLUMNS = {  # of a report in Markdown -> key in the CSV, and what 1 is there
  'forget': ('forget_accuracy', 100),
  'test': ('test_accuracy', 100),
  'AD': ('activation_distance', 1),
  'DA': ('dimensional_alignment', 1),
  'k': ('da_rank', 1),
  'of gold': ('cost', 1),
}

Row = Mapping[str, str]


class Request(NamedTuple):
  """A request and its rows by the names of the models; its title is in words."""

  title: str
  rows: dict[str, Row]

  @property
  def is_complete(self) -> bool:
    """Whether original and golds are there to compare with."""
    return self.rows.keys() >= set(_STANDING)

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


class Outcome(NamedTuple):
  """What a method did on a request.

  Attributes:
    word: refused, failed, harm, like gold, half way, a little, no effect, away, or nothing to tell.
    way: share of the way from original to gold, in activation distance on forget; None where it
      says nothing.
    loss: of test accuracy, against gold.
  """

  word: str
  way: float | None = None
  loss: float = 0.0


def number(row: Row, key: str) -> float:
  """A number of a row; not a number where it is empty."""
  return float(row.get(key) or 'nan')


def read_csv(lines: Iterable[str]) -> list[Request]:
  """The requests of a sweep's `report.csv`, in its order."""
  found: dict[str, dict[str, Row]] = {}
  for row in csv.DictReader(lines):
    found.setdefault(row['scenario'], {})[row['model']] = row
  return [Request(_title(scenario), _with_cost(rows)) for scenario, rows in found.items()]


def _with_cost(rows) -> dict[str, Row]:
  """The rows, each with its operations as a share of gold's."""
  gold = number(rows.get('gold', {}), 'passes')
  return {name: {**row, 'cost': str(number(row, 'passes') / gold)} for name, row in rows.items()}


def _title(scenario) -> str:
  """'digits-cnn-random_0.5' -> 'digits, 50 % of the images'; other kinds keep their names."""
  dataset, request = scenario.partition('-')[0], scenario.rpartition('-')[2]
  kind, _, value = request.partition('_')
  words = request
  if kind == 'random':
    share = f'{100 * float(value):.0f} % of the images' if '.' in value else f'{value} images'
    words = 'one image' if value == '1' else share
  elif kind == 'class' and '_' not in value:
    words = 'one class'
  elif kind == 'classes':
    words = f'{1 + value.count(",")} classes'
  return f'{dataset}, {words}'


def read_tables(text: str) -> list[Request]:
  """The tables of a report in Markdown, each under a heading that names its request."""
  found = []
  for section in re.split(r'^## ', text, flags=re.MULTILINE)[1:]:
    lines = [_cells(line) for line in section.splitlines() if line.startswith('| ')]
    if lines and lines[0][0] == 'model' and 'AD' in lines[0]:
      rows = {cells[0]: _row(lines[0], cells) for cells in lines[2:]}
      found.append(Request(section.partition('\n')[0], rows))
  return found


def _cells(line) -> list[str]:
  return [cell.strip() for cell in line.strip('| ').split('|')]


def _row(head, cells) -> Row:
  row = {'model': cells[0], 'kind': cells[0] if cells[0] in _STANDING else 'unlearned'}
  for name, text in zip(head, cells, strict=True):
    if name in _COLUMNS and text != '-':
      key, one = _COLUMNS[name]
      row[key] = str(float(text.split()[0]) / one)
      row[f'{key}_at_floor'] = str(text.endswith('='))
  return row


def outcome(request: Request, name: str) -> Outcome | None:
  """What a method did on a request, by the rules of the page; None where it was not run."""
  row = request.rows.get(name)
  if row is None:
    return None
  if row['kind'] in _ENDS:
    return Outcome(row['kind'])
  loss = number(request.gold, 'test_accuracy') - number(row, 'test_accuracy')
  if not loss <= table.HARM and row['test_accuracy_at_floor'] != 'True':
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
  """The methods that have a row, in alphabetical order, without variants and oracles."""
  found = {name for r in requests for name in r.rows} & methods.METHODS.keys()
  oracle = lambda n: methods.GOLD in methods.METHODS[n].sees
  return sorted(name for name in found if not oracle(name))


def markdown(requests: list[Request], sources: Iterable[str]) -> str:
  """The page.

  Args:
    requests: as read.
    sources: the files that they were read from.
  """
  command = ' '.join(['python -m experiments.report.which_method', *sources])
  without = [request.title for request in requests if not request.is_complete]
  requests = [request for request in requests if request.is_complete]
  parts = [_HEAD.format(command=command), _grid_of_requests(requests), _RULES]
  parts += ['## By request', *(_by_request(r, names(requests)) for r in requests)]
  parts += ['## By method', _WORKS, _grid_of_methods(requests), _missing(requests, without)]
  parts += ['## Features', _FEATURES, _grid_of_alignment(requests)]
  return '\n\n'.join(parts) + '\n'


_HEAD = """# Which method for which request

What each method did on each request, made from tables of results by
`{command}`.
The tables say how they were made. [methods.md](methods.md#which-one-to-try) has the advice,
[guarantees.md](guarantees.md) says what a promise covers."""

_RULES = f"""**Rules.** *Harm*: test accuracy on kept classes more than {100 * table.HARM:.0f}
points below gold's, outside the noise floor. *Like gold*: activation distance (AD) on the forget
set within the floor of golds. Otherwise the share of the way from the original's AD to the floor
decides: *half way* ({100 * HALF:.0f} % or more), *a little* ({100 * LEAST_WAY:.0f} % or more),
*no effect*, *away* (further from gold than the original by {100 * LEAST_WAY:.0f} % of the way or
more). Where original and gold are one floor apart or less, forgetting cannot be seen and only
harm is told. Below {LEAST_FLOORS} floors the words are in parentheses: they cannot rank methods.
No method sees gold; these rules do.

**Sizes.** A table of requests from one image to half of all images is made by
`python -m experiments.sweep --flagfile=experiments/flags/sizes_digits.flags`: every method with its
defaults. The benchmark's tables have tuned methods. All have three originals."""

_WORKS = (
  'What a method sees with its defaults, whom it serves, its promise, its operations in trainings '
  'of gold, and on each request the share of the way from original to gold in AD (`=`: within the '
  'floor of golds), or a word. A method without a number has not been run on that request.'
)

_FEATURES = (
  'Dimensional alignment, with its rank k where the table has it. DA says nothing where k is far '
  "from gold's; `=` is within the floor of golds. [metrics.md](metrics.md) explains it."
)


def _grid_of_requests(requests) -> str:
  head = ['request', 'forget, original', 'forget, gold', 'AD, original', 'AD, golds']
  body = []
  for r in requests:
    percent = [f'{100 * number(row, "forget_accuracy"):.1f}' for row in (r.original, r.gold)]
    distances = [f'{number(r.original, "activation_distance"):.3f}', f'{r.floor:.3f}']
    body.append([r.title, *percent, *distances, f'{r.floors:.1f}'])
  return table.grid([[*head, 'floors apart'], *body])


def _by_request(request, all_names) -> str:
  """The methods by what they did, nearest to gold first."""
  groups: dict[str, list[tuple[float, str]]] = {}
  for name in all_names:
    if (found := outcome(request, name)) is not None:
      note = f'`{name}` ({-100 * found.loss:+.0f})' if found.word == 'harm' else f'`{name}`'
      groups.setdefault(found.word, []).append((-(found.way or 0.0), note))
  order = ('like gold', 'half way', 'a little', 'no effect', 'away', 'nothing to tell', 'harm')
  uncertain = 1 < request.floors < LEAST_FLOORS
  lines = []
  for word in (*order, *_ENDS):
    if word in groups:
      shown = f'({word})' if uncertain and word not in ('harm', *_ENDS) else word
      lines.append(f'- *{shown}*: {", ".join(name for _, name in sorted(groups[word]))}')
  return f'**{request.title}**\n\n' + '\n'.join(lines)


def _grid_of_methods(requests) -> str:
  head = ['method', 'sees', 'serves', 'promise', 'of gold', *(r.title for r in requests)]
  body = []
  for name in names(requests):
    seen = methods.in_words(methods.sees(name, hparams.defaults(name), has_unseen=False))
    facts = [f'`{name}`', seen, _serves(name), _promise(name), _cost(requests, name)]
    body.append([*facts, *(_cell(outcome(r, name)) for r in requests)])
  return table.grid([head, *body])


def _missing(requests, without) -> str:
  """The methods that no table has, and the requests that have no table."""
  missing = [f'`{name}`' for name in sorted(methods.METHODS.keys() - set(names(requests)))]
  said = f'In none of these tables: {", ".join(missing)}.'
  return f'{said} Without an original or golds: {"; ".join(without)}.' if without else said


def _cell(found) -> str:
  if found is None:
    return '-'
  if found.word == 'harm':
    return f'harm ({-100 * found.loss:+.0f})'
  if found.way is None:
    return found.word
  return f'{100 * found.way:.0f} %' + (' =' if found.word == 'like gold' else '')


def _serves(name) -> str:
  """The requests that a method does not refuse."""
  method = methods.METHODS[name]
  if method.class_only or method.harmed_by == methods.SINGLE_IMAGES:
    return methods.WHOLE_CLASSES
  if method.people_only:
    return methods.PEOPLE
  if method.harmed_by:
    return f'all but {method.harmed_by}'
  return 'any request' if method.most_share == 1 else f'up to {100 * method.most_share:.0f} %'


def _promise(name) -> str:
  if name == 'retrain':
    return 'exact'
  return '(epsilon, delta)' if methods.METHODS[name].guarantee else 'none'


def _cost(requests, name) -> str:
  """Smallest and largest cost over the requests, in trainings of gold."""
  found = [number(r.rows[name], 'cost') for r in requests if name in r.rows]
  costs = [cost for cost in found if cost == cost]
  low, high = (f'{cost:.2f}' for cost in (min(costs), max(costs))) if costs else ('-', '-')
  return low if low == high else f'{low} to {high}'


def _grid_of_alignment(requests) -> str:
  body = []
  for name in (*_STANDING, *(f'{name}' for name in names(requests))):
    body.append([name, *(_alignment(r.rows.get(name)) for r in requests)])
  return table.grid([['model', *(r.title for r in requests)], *body])


def _alignment(row) -> str:
  if row is None or not row.get('dimensional_alignment'):
    return '-'
  rank = f' (k {number(row, "da_rank"):.1f})' if row.get('da_rank') else ''
  mark = ' =' if row['dimensional_alignment_at_floor'] == 'True' else ''
  return f'{number(row, "dimensional_alignment"):.3f}{rank}{mark}'


def read(path: pathlib.Path) -> list[Request]:
  """The requests of a file, by its ending."""
  text = path.read_text('utf-8')
  return read_csv(text.splitlines()) if path.suffix == '.csv' else read_tables(text)


if __name__ == '__main__':
  _PATHS = [pathlib.Path(argument) for argument in sys.argv[1:]]
  _FOUND = [request for path in _PATHS for request in read(path)]
  print(markdown(_FOUND, [path.as_posix() for path in _PATHS]), end='')

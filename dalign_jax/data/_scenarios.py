"""The table of scenarios: what can be asked to be forgotten."""

import numpy as np

from dalign_jax.data import (
  _at_random,
  _by_class,
  _by_group,
  _by_id,
  _by_score,
  _poison,
  _request,
  _subclass,
)

SCENARIOS: dict[str, _request.Scenario] = {
  'class': _by_class.ONE,
  'classes': _by_class.SEVERAL,
  'random': _at_random.SCENARIO,
  'group': _by_group.NAME,
  'people': _by_group.COUNT,
  'ids': _by_id.SCENARIO,
  'subclass': _subclass.SCENARIO,
  'mislabelled': _poison.MISLABELLED,
  'backdoor': _poison.BACKDOOR,
  'memorised': _by_score.MEMORISED,
  'entangled': _by_score.ENTANGLED,
  'influential': _by_score.INFLUENTIAL,
}
OFFICIAL = 'official'  # the parts that the data set's own benchmark has; see split_dataset


def parse(text: str, name: str = 'forget') -> _request.Forget:
  """Parses a forget request.

  Args:
    text: one of `class:3` (name or number), `class:3:0.1` (a share of its training rows, at least
      one), `class:3:40` (so many of them), `classes:3,5`, `random:0.1` (share of the training
      rows), `random:500` (their number), `group:NAME` (all rows of a person), `people:2`
      (of so many persons, drawn at random), `ids:FILE` (a text or CSV
      file of ids), `official` (what the benchmark of the data set forgets), `subclass:NAME` (a
      group inside a class), `mislabelled:0.1` (training rows that get a wrong label),
      `backdoor:0.1:CLASS` (that get a trigger and the label CLASS, the first where none is named),
      `memorised:0.1` (those that training memorises most), `entangled:0.1` (nearest to their
      class in feature space) or `influential:0.1` (of the largest influence on validation data);
      the last three also with `:low`, `:middle` or `:high`, as in `memorised:0.1:low`.
    name: the argument that errors name.

  Returns:
    The request; nothing is known yet of the data it refers to.

  Raises:
    ValueError: if it has no such form.

  Example:
    >>> parse('random:0.1')
    Forget(kind='random', argument='0.1', text='random:0.1', name='forget')
  """
  kind, _, argument = text.partition(':')
  request = _request.Forget(kind, argument.strip(), text, name)
  is_known = kind == OFFICIAL or kind in SCENARIOS
  if not is_known or bool(request.argument) == (kind == OFFICIAL):
    forms = [form for scenario in SCENARIOS.values() for form in scenario.forms]
    raise request.error(f'must be {", ".join(forms)} or {OFFICIAL}')
  if kind != OFFICIAL:
    SCENARIOS[kind].check(request)
  return request


def rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  """The sorted rows that a request forgets.

  Raises:
    InputError: if the request does not fit the data.
  """
  scenario = SCENARIOS[request.kind]
  if scenario.needs_classes and context.dataset.is_multi_label:
    raise request.error('the labels are several attributes, there are no classes')
  return scenario.rows(request, context)

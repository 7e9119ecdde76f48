"""The table of scenarios: a new one is a line, and its fields say what others must know."""

import numpy as np
import pytest

from dalign_jax import data, errors, types
from dalign_jax.data import _scenarios

_IDS = np.array([f'r{k}' for k in range(40)])
ROWS = types.Dataset(np.full((40, 8, 8, 1), 9, np.uint8), np.arange(40, dtype=np.int32) % 4, _IDS)


def _split(forget):
  return data.split_dataset(ROWS, validation_fraction=0.2, test_fraction=0.2, forget=forget, seed=0)


def test_a_line_in_the_table_adds_a_scenario(monkeypatch):
  odd_rows = lambda context: context.training[context.training % 2 == 1]
  odd = lambda request, context: odd_rows(context)[: int(request.argument)]
  scenario = data.Scenario(forms=('odd:COUNT',), rows=odd)
  monkeypatch.setitem(_scenarios.SCENARIOS, 'odd', scenario)
  forget = _split('odd:3').forget
  assert len(forget) == 3 and np.all(forget % 2 == 1)
  with pytest.raises(errors.InputError, match=r'forget: even:3: must be class:NAME.*odd:COUNT'):
    _split('even:3')


def test_what_poisons_says_how():
  poisons = {kind for kind, scenario in data.SCENARIOS.items() if scenario.poison}
  assert poisons == {'mislabelled', 'backdoor'}
  rng = np.random.default_rng(0)
  request = data.parse_forget('backdoor:0.1:2')
  stamped = data.SCENARIOS['backdoor'].poison(request, ROWS.labels, None)(ROWS, rng)
  assert len(stamped) == 30 and np.all(stamped.labels == 2)
  assert np.all(stamped.images[:, -2:, -2:] == 255) and np.all(stamped.images[:, 0] == 9)
  request = data.parse_forget('mislabelled:0.1')
  wrong = data.SCENARIOS['mislabelled'].poison(request, ROWS.labels, None)(ROWS, rng)
  assert np.all(wrong.labels != ROWS.labels) and wrong.labels.max() <= 3

"""Folded scores by hand."""

import pytest

from dalign_jax import metrics

GOLD = {'FA': 0.75, 'UA': 0.25, 'RA': 1.0, 'TA': 0.8, 'MIA': 0.5}


def test_average_gap_by_hand():
  unlearned = {'UA': 0.05, 'RA': 0.9, 'TA': 0.9, 'MIA': 0.3, 'seconds': 12.0}
  assert metrics.average_gap(unlearned, GOLD) == pytest.approx((0.2 + 0.1 + 0.1 + 0.2) / 4)


def test_tug_of_war_by_hand():
  unlearned = {'FA': 0.95, 'RA': 0.9, 'TA': 0.9, 'MIA': 0.1}
  assert metrics.tug_of_war(unlearned, GOLD) == pytest.approx(0.8 * 0.9 * 0.9)
  got = metrics.tug_of_war(unlearned, GOLD, forget_key='MIA')
  assert got == pytest.approx(0.6 * 0.9 * 0.9)


def test_gold_against_itself_is_perfect():
  assert metrics.average_gap(GOLD, GOLD) == 0
  assert metrics.tug_of_war(GOLD, GOLD) == 1


def test_both_sides_of_gold_count():
  above, below = GOLD | {'UA': 0.35}, GOLD | {'UA': 0.15}
  assert metrics.average_gap(above, GOLD) == pytest.approx(metrics.average_gap(below, GOLD))


def test_the_two_scores_can_disagree():
  # The attack's gap counts in the mean alone.
  test_only, attack_only = GOLD | {'TA': 0.5}, GOLD | {'MIA': 0.1}
  gap = lambda figures: metrics.average_gap(figures, GOLD)
  tow = lambda figures: metrics.tug_of_war(figures, GOLD)
  assert gap(test_only) < gap(attack_only)
  assert tow(test_only) < tow(attack_only)


@pytest.mark.parametrize('metric', [metrics.average_gap, metrics.tug_of_war])
def test_bad_input_is_named(metric):
  missing = {key: value for key, value in GOLD.items() if key != 'TA'}
  with pytest.raises(ValueError, match=r'unlearned must hold .*, got no TA'):
    metric(missing, GOLD)
  with pytest.raises(ValueError, match=r'gold must hold .*, got no TA'):
    metric(GOLD, missing)
  with pytest.raises(ValueError, match=r'gold.*nan'):
    metric(GOLD, GOLD | {'RA': float('nan')})


def test_tug_of_war_needs_fractions():
  with pytest.raises(ValueError, match=r"unlearned\['TA'\] must be in \[0, 1\], got 80"):
    metrics.tug_of_war(GOLD | {'TA': 80.0}, GOLD)

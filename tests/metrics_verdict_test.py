"""Tests with an error rate, error rates of columns, bounds on epsilon, and the two-model attack."""

import math

import numpy as np
import pytest
from scipy import stats

from dalign_jax import errors, metrics
from experiments.benchmarks import verdict_simulation


def _mmd(a, b, width):
  kernel = lambda p, q: math.exp(-float(np.sum((p - q) ** 2)) / width)
  mean = lambda s: np.mean(
    [kernel(p, q) for i, p in enumerate(s) for j, q in enumerate(s) if i != j]
  )
  return mean(a) + mean(b) - 2 * np.mean([kernel(p, q) for p in a for q in b])


def _width(*samples):
  rows = np.concatenate(samples)
  pairs = [np.sum((p - q) ** 2) for i, p in enumerate(rows) for q in rows[:i]]
  return float(np.median(pairs))


def test_statistics_equal_loops():
  rng = np.random.default_rng(0)
  x, y, z = (rng.normal(m, 1, (k, 5)) for m, k in ((0, 3), (0.3, 4), (1, 3)))
  width = _width(x, y, z)
  got = metrics.nearer_to_gold(x, y, z)
  assert got.statistic == pytest.approx(_mmd(x, y, width) - _mmd(x, z, width))
  variances = []
  for k, sample in enumerate((x, y, z)):
    left = [
      [s if j != k else np.delete(s, i, 0) for j, s in enumerate((x, y, z))]
      for i in range(len(sample))
    ]
    values = [_mmd(a, b, width) - _mmd(a, c, width) for a, b, c in left]
    variances.append((len(sample) - 1) * np.var(values))
  welch = sum(variances) ** 2 / sum(v**2 / n for v, n in zip(variances, (2, 3, 2), strict=True))
  expected = stats.t.cdf(got.statistic / math.sqrt(sum(variances)), (welch + 2) / 2)
  assert got.p_value == pytest.approx(expected)
  width = _width(x, y)
  assert metrics.unlike_gold(x, y, seed=0).statistic == pytest.approx(_mmd(x, y, width))
  pooled = metrics.unlike_gold(x, y, seed=0, pool_examples=True)
  columns = [(x[:, [e]], y[:, [e]]) for e in range(5)]
  expected = np.mean([_mmd(a, b, _width(a, b)) for a, b in columns])
  assert pooled.statistic == pytest.approx(expected)


def test_tests_ignore_order_offset_and_scale():
  rng = np.random.default_rng(1)
  x, y, z = (rng.normal(size=(k, 6)) for k in (3, 5, 3))
  got = metrics.nearer_to_gold(x, y, z)
  for changed in (
    metrics.nearer_to_gold(x[::-1], y[::-1], z),
    metrics.nearer_to_gold(x[:, ::-1], y[:, ::-1], z[:, ::-1]),
    metrics.nearer_to_gold(3 * x + 7, 3 * y + 7, 3 * z + 7),
  ):
    np.testing.assert_allclose(changed, got, atol=1e-9)
  swapped = metrics.nearer_to_gold(x, z, y)
  assert swapped.statistic == pytest.approx(-got.statistic)
  assert swapped.p_value == pytest.approx(1 - got.p_value)
  same = np.ones((3, 4))
  assert metrics.unlike_gold(same, same, seed=0).p_value == 1
  assert metrics.nearer_to_gold(same, same, same).p_value == 1


def test_own_originals_are_not_compared():
  """A method that returns its original is not nearer to gold, however near the pairs are."""
  rng = np.random.default_rng(4)
  gold, original = rng.normal(size=(6, 40)), rng.normal(1, 1, size=(3, 40))
  kept = metrics.nearer_to_gold(original, gold, original, paired=True)
  assert kept.statistic > 0 and kept.p_value > 0.5
  # As far from gold as originals are: equal pairs would put the statistic far above zero.
  same = rng.normal(size=(3, 40))
  paired = metrics.nearer_to_gold(same, rng.normal(size=(6, 40)), same, paired=True).statistic
  apart = metrics.nearer_to_gold(same, rng.normal(size=(6, 40)), same).statistic
  assert abs(paired) < 0.1 < apart
  with pytest.raises(errors.InputError, match='unlearned must have 3 models like original'):
    metrics.nearer_to_gold(gold, gold, original, paired=True)
  with pytest.raises(errors.InputError, match='number of original models must be an integer of 3'):
    metrics.nearer_to_gold(gold, gold, original[:2])


def test_verdicts_of_planted_models():
  rng = np.random.default_rng(2)
  level = rng.normal(0, 3, size=60)
  sample = lambda count, shift: level + rng.normal(shift, 1, size=(count, 60))
  gold, original = sample(6, 0), sample(3, 2)
  run = lambda x: (
    metrics.nearer_to_gold(x, gold, original).p_value,
    metrics.unlike_gold(x, gold, seed=0).p_value,
  )
  near, unlike = run(sample(3, 0))
  assert near < 0.05 < unlike
  near, unlike = run(sample(3, 2))
  assert near > 0.5 and unlike < 0.05
  apart = metrics.unlike_gold(sample(3, 9), gold[:3], seed=0)
  assert apart.p_value == apart.smallest_p == pytest.approx(2 / 20)
  two = metrics.unlike_gold(original[:2], gold[:2], seed=0)
  assert two.smallest_p == pytest.approx(2 / 6)  # so few models decide nothing


def test_few_simulated_audits_keep_their_level():
  sizes = verdict_simulation.Sizes(examples=20)
  limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
  for kind in ('nearer_to_gold', 'unlike_gold'):
    assert verdict_simulation.rejections(kind, draws=150, sizes=sizes) < limit
  moved = {'unlearned_shift': 1.0}
  assert verdict_simulation.rejections('unlike_gold', draws=40, sizes=sizes, **moved) > 0.6
  assert (
    verdict_simulation.rejections(
      'nearer_to_gold', draws=100, sizes=sizes, original_shift=1.0, **moved
    )
    < 0.05
  )
  assert verdict_simulation.holm_alarms(400) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
  midway = {'unlearned_shift': 0.5, 'original_shift': 1.0, 'model_effect': 0.3, 'inherited': 0.5}
  assert verdict_simulation.rejections('nearer_to_gold', draws=150, sizes=sizes, **midway) < limit
  row = verdict_simulation.Row
  text = verdict_simulation.markdown([row('a', 'b', 'x', 0.5), row('a', 'b', 'y', 0.25)])
  assert text.splitlines()[-1] == '| `a` | b | 0.500 | 0.250 |'


def test_holm():
  p = np.array([[0.01, 0.04], [0.03, 0.9]])
  np.testing.assert_allclose(metrics.holm(p), [[0.04, 0.09], [0.09, 0.9]])
  np.testing.assert_array_equal(metrics.holm(np.ones(3)), np.ones(3))
  order = np.random.default_rng(0).permutation(4)
  np.testing.assert_allclose(metrics.holm(p.ravel()[order]), metrics.holm(p).ravel()[order])
  with pytest.raises(errors.InputError, match=r'p_values must be in \[0, 1\]'):
    metrics.holm(np.array([2.0]))


def test_bands_around_golds():
  golds = np.array([0.0, 1.0, 2.0, 3.0])
  spread = stats.t.ppf(0.975, 3) * np.std(golds, ddof=1) * math.sqrt(1 / 2 + 1 / 4)
  inside, outside = (1.5 + spread + x for x in (-0.01, 0.01))
  check = lambda value, **o: metrics.outside_golds(np.full(2, value), golds, **o)
  assert not check(inside) and check(outside) and check(3 - outside) and not check(3 - inside)
  assert not check(3 - outside, is_distance=True)  # nearer to gold than golds are
  assert check(inside, is_distance=True)  # 5 % on one side
  assert metrics.outside_golds(np.ones(2), np.zeros(3)) and not metrics.outside_golds(
    np.zeros(2), np.zeros(3)
  )
  odd = np.array([0.0, 0.01, 0.02, 5.0])
  by_hand = [metrics.outside_golds(odd[[i]], np.delete(odd, i)) for i in range(4)]
  assert metrics.held_out_alarms(odd, 1) == np.mean(by_hand) == 0.25
  assert verdict_simulation.band_alarms(200, held_out=3, golds=6) == pytest.approx(0.05, abs=0.03)
  with pytest.raises(errors.InputError, match='number of golds that remain'):
    metrics.held_out_alarms(golds, 3)


def test_epsilon_of_an_attack():
  rng = np.random.default_rng(0)
  same = rng.normal(size=(2, 300))
  assert metrics.attack_epsilon(*same, seed=0).threshold < 0.5
  found = metrics.attack_epsilon(same[0] + 3, same[1], seed=0)
  assert found.threshold > 1.5 and found.one_run > 1.5
  ties = metrics.attack_epsilon(np.zeros(50), np.zeros(50), seed=0)
  assert ties.threshold == 0 and ties.one_run < 0.7
  bounds = np.array([metrics.attack_epsilon(*rng.normal(size=(2, 80)), seed=k) for k in range(200)])
  assert np.all(np.mean(bounds > 0, axis=0) <= 0.05 + 0.046)
  with pytest.raises(errors.InputError, match='number of examples a side'):
    metrics.attack_epsilon(np.ones(3), np.ones(9), seed=0)


def test_column_false_alarms():
  # Three golds at 0, 1, 3: of six triples, those further than the second gold.
  assert metrics.column_false_alarms(np.array([0.0, 1.0, 3.0])) == 0.5
  assert metrics.column_false_alarms(np.zeros(4)) == 0
  values = np.random.default_rng(0).normal(size=12)
  matrix = np.abs(values[:, None] - values)
  assert metrics.column_false_alarms(matrix) == metrics.column_false_alarms(values)
  rates = [metrics.column_false_alarms(values, floors=f) for f in (1, 3, 10)]
  assert rates[0] == 0.5 and rates[0] > rates[1] > rates[2]
  assert metrics.column_false_alarms(4 * values + 1) == pytest.approx(0.5)
  with pytest.raises(errors.InputError, match='number of golds must be an integer of 3 or more'):
    metrics.column_false_alarms(np.zeros(2))
  with pytest.raises(errors.InputError, match='golds must be a symmetric matrix'):
    metrics.column_false_alarms(np.arange(9.0).reshape(3, 3))
  with pytest.raises(errors.InputError, match='floors must be positive'):
    metrics.column_false_alarms(values, floors=0)


@pytest.mark.parametrize('successes, trials', [(0, 7), (3, 20), (20, 20), (499, 1000)])
def test_clopper_pearson_equals_scipy(successes, trials):
  expected = stats.binomtest(successes, trials).proportion_ci(0.9, 'exact')
  got = metrics.clopper_pearson(successes, trials, confidence=0.9)
  np.testing.assert_allclose(got, (expected.low, expected.high), atol=1e-9)


def test_epsilon_lower_bound():
  got = metrics.epsilon_lower_bound(90, 100, 5, 100)
  low = stats.binomtest(90, 100).proportion_ci(0.95, 'exact').low
  high = stats.binomtest(5, 100).proportion_ci(0.95, 'exact').high
  assert got == pytest.approx(math.log(low / high))
  # The attack with exchanged answers has the same bound.
  assert metrics.epsilon_lower_bound(95, 100, 10, 100) == pytest.approx(got)
  assert metrics.epsilon_lower_bound(90, 100, 5, 100, delta=0.1) < got
  assert metrics.epsilon_lower_bound(90, 100, 5, 100, confidence=0.99) < got
  assert metrics.epsilon_lower_bound(0, 10, 10, 10) == 0
  assert verdict_simulation.epsilon_alarms(400, 1.0, verdict_simulation._clopper) <= 0.05
  with pytest.raises(errors.InputError, match='successes must be at most trials 5, got 6'):
    metrics.epsilon_lower_bound(6, 5, 0, 5)


def test_one_run_epsilon():
  # Without delta: the one-sided Clopper-Pearson bound on the rate of right guesses.
  low = stats.beta.ppf(0.05, 95, 6)
  assert metrics.one_run_epsilon(1000, 100, 95) == pytest.approx(math.log(low / (1 - low)))
  bounds = [metrics.one_run_epsilon(1000, 100, 95, delta=d) for d in (0, 1e-5, 1e-3)]
  assert bounds[0] > bounds[1] > bounds[2]
  assert metrics.one_run_epsilon(100, 100, 40) == metrics.one_run_epsilon(10, 5, 0) == 0
  assert np.isfinite(metrics.one_run_epsilon(500, 500, 500))
  assert verdict_simulation.epsilon_alarms(400, 1.0, verdict_simulation._one_run) <= 0.05 + 0.033
  with pytest.raises(errors.InputError, match='num_correct must be at most num_guesses'):
    metrics.one_run_epsilon(10, 5, 6)


def _changes(rng, count, moved=0.0):
  labels = rng.integers(0, 3, count)
  before, features = rng.normal(size=(count, 3)), rng.normal(size=(count, 4))
  after = before + 0.1 * rng.normal(size=before.shape)
  after[np.arange(count), labels] -= moved
  new = features + 0.1 * rng.normal(size=features.shape)
  return metrics.update_features(before, after, features, new, labels)


def test_update_leakage_finds_a_planted_change_only():
  rng = np.random.default_rng(0)
  forget, retain, same = _changes(rng, 150, moved=2.0), _changes(rng, 300), _changes(rng, 150)
  assert forget.shape == (150, len(('loss', 'margin', 'logits', 'features')))
  found = metrics.update_leakage(forget, retain, seed=0, num_bootstrap=20)
  assert found.auc > 0.95 and found.tpr_at_1_percent > 0.5 and found.num_pairs == 150
  floor = metrics.update_floor(150, 300, seed=0, num_draws=20)
  assert 0 < floor.mean < floor.p95 <= floor.maximum < 0.2
  null = metrics.update_leakage(same, retain, seed=0, num_bootstrap=20)
  assert abs(null.auc - 0.5) <= floor.maximum + 0.02


def test_update_features_by_hand():
  logits = np.array([[0.0, 1.0], [2.0, 0.0]])
  labels, features = np.array([1, 0]), np.ones((2, 3))
  still = metrics.update_features(logits, logits, features, features, labels)
  np.testing.assert_array_equal(still, np.zeros((2, 4)))
  moved = metrics.update_features(logits, logits[:, ::-1], features, 3 * features, labels)
  loss = lambda margin: math.log1p(math.exp(-margin))
  np.testing.assert_allclose(moved[0], [loss(-1) - loss(1), -2, math.sqrt(2), 2 * math.sqrt(3)])
  with pytest.raises(errors.InputError, match='features_before must have 2 rows, got 1'):
    metrics.update_features(logits, logits, features[:1], features[:1], labels)


def test_choices_of_many_golds_are_drawn_and_not_walked_through():
  """Of 100 golds, 16 can be chosen in 10^18 ways."""
  found = metrics.held_out_choices(100, 16, most=50)
  assert len({tuple(chosen) for chosen in found}) == 50
  assert all(len(set(chosen)) == 16 and sorted(chosen) == chosen for chosen in found)
  assert max(map(max, found)) < 100
  assert found == metrics.held_out_choices(100, 16, most=50)
  assert len(metrics.held_out_choices(9, 3, most=84)) == 84
  golds = np.random.default_rng(0).normal(size=100)
  assert metrics.held_out_alarms(golds, 16) < 0.2


def test_golds_that_agree_leave_a_band_of_one_step():
  golds, near, far = np.zeros(6), np.full(3, 0.0005), np.full(3, 0.002)
  assert metrics.outside_golds(near, golds)
  assert not metrics.outside_golds(near, golds, resolution=0.001)
  assert metrics.outside_golds(far, golds, resolution=0.001)
  assert metrics.held_out_alarms(np.array([0, 0, 0, 0, 1.0]), 1, resolution=1.0) == 0
  assert metrics.held_out_alarms(np.array([0, 0, 0, 0, 1.0]), 1) > 0

"""Attacks and distances over ensembles: direct loops, floors, planted leaks."""

import math

import numpy as np
import pytest
from scipy import stats

from dalign_jax import metrics


def _shadows(seed=0, models=32, examples=60, leak=3.0):
  """Margins, per-example levels far apart, `leak` higher where the model holds the example."""
  rng = np.random.default_rng(seed)
  members = np.zeros((models + 1, examples), bool)
  for column in members.T:
    column[rng.permutation(models + 1)[: models // 2]] = True
  level = rng.normal(0, 5, size=examples)
  margins = level + leak * members + rng.normal(size=members.shape)
  return margins[0], members[0], margins[1:], members[1:]


def test_lira_equals_scipy_normals():
  target, _, shadow, members = _shadows()
  got = metrics.lira(target, shadow, members)
  for i in range(len(target)):
    inside, outside = shadow[members[:, i], i], shadow[~members[:, i], i]
    expected = stats.norm.logpdf(target[i], inside.mean(), inside.std(ddof=1))
    expected -= stats.norm.logpdf(target[i], outside.mean(), outside.std(ddof=1))
    assert got[i] == pytest.approx(expected, rel=1e-9)


def test_lira_pooled_takes_each_spread_from_its_own_side():
  rng = np.random.default_rng(0)
  members = np.arange(40)[:, None] % 2 * np.ones((1, 300)) > 0
  shadow = np.where(members, 0.5, 2.0) * rng.normal(size=members.shape)
  target = np.array([0.0, 3.0] * 150)
  got = metrics.lira(target, shadow, members, pooled_variance=True)
  expected = stats.norm.logpdf(target, 0, 0.5) - stats.norm.logpdf(target, 0, 2.0)
  assert got[0::2].mean() == pytest.approx(expected[0], abs=0.1)
  assert got[1::2].mean() == pytest.approx(expected[1], rel=0.1)


def test_lira_finds_a_planted_leak_that_the_population_attack_misses():
  target, truth, shadow, members = _shadows(examples=600, leak=2.0)
  scores = metrics.lira(target, shadow, members)
  figures = metrics.attack_metrics(scores[truth], scores[~truth], seed=0)
  population = metrics.population_attack(target[truth], target[~truth], seed=0)
  assert figures.auc > 0.88
  assert figures.balanced_accuracy > 0.8
  assert population.auc < 0.7
  assert figures.tpr_at_1_percent > population.tpr_at_1_percent


def test_lira_without_a_leak_is_blind():
  target, truth, shadow, members = _shadows(examples=600, leak=0.0)
  scores = metrics.lira(target, shadow, members)
  assert 0.43 < metrics.attack_metrics(scores[truth], scores[~truth], seed=0).auc < 0.57


@pytest.mark.parametrize('leak, low, high', [(0.0, 0.43, 0.57), (3.0, 0.93, 1.0)])
def test_u_lira_tells_unlearned_from_unseen_only_by_a_leak(leak, low, high):
  rng = np.random.default_rng(0)
  role = rng.permuted(np.tile(np.arange(48)[:, None] % 3, (1, 400)), axis=0)  # 2: trained and kept
  margins = rng.normal(0, 5, size=400) + rng.normal(size=role.shape)
  margins += np.where(role == 2, 9.0, np.where(role == 0, leak, 0))
  targets, truth = margins[:4], role[:4]
  got = metrics.u_lira(targets, margins[4:], role[4:] == 0, role[4:] == 1)
  assert got.shape == (4, 400)
  assert ((got >= 0) & (got <= 1)).all()
  assert low < metrics.attack_metrics(got[truth == 0], got[truth == 1], seed=0).auc <= high
  # A score in [0, 1] with threshold .5.
  if leak:
    single = metrics.u_lira(targets[0], margins[4:], role[4:] == 0, role[4:] == 1)
    np.testing.assert_array_equal(single, got[0])


def test_likelihoods_stay_finite_where_models_agree():
  members = np.arange(8)[:, None] % 2 * np.ones((1, 3)) > 0
  shadow = np.where(members, 1e4, -1e4)
  got = metrics.lira(np.array([1e4, -1e4, 0.0]), shadow, members)
  assert np.isfinite(got).all()
  assert got[0] > 0 > got[1]
  got = metrics.u_lira(np.array([1e4, -1e4, 0.0]), shadow, members, ~members)
  np.testing.assert_array_equal(got, [1, 0, 0.5])


def test_rmia_equals_a_double_loop():
  rng = np.random.default_rng(0)
  x, z = rng.uniform(0.05, 1, size=12), rng.uniform(0.05, 1, size=30)
  x_out, z_out = rng.uniform(0.05, 1, size=(4, 12)), rng.uniform(0.05, 1, size=(4, 30))
  got = metrics.rmia(*(np.log(p) for p in (x, x_out, z, z_out)), gamma=1.2, offline_a=0.3)
  for i in range(12):
    ratio = x[i] / ((1.3 * x_out[:, i].mean() + 0.7) / 2)
    beaten = [ratio / (z[j] / z_out[:, j].mean()) >= 1.2 for j in range(30)]
    assert got[i] == pytest.approx(np.mean(beaten))


@pytest.mark.parametrize('leak, low, high', [(0.0, 0.43, 0.57), (3.0, 0.85, 1.0)])
def test_rmia_finds_a_planted_leak_only(leak, low, high):
  rng = np.random.default_rng(0)
  level = rng.normal(0, 3, size=900)
  log_p = lambda margins: -np.logaddexp(0, -margins)
  target = level + 0.5 * rng.normal(size=900) + leak * (np.arange(900) < 300)
  reference = log_p(level + 0.5 * rng.normal(size=(8, 900)))
  x, z = slice(0, 600), slice(600, 900)
  scores = metrics.rmia(
    log_p(target)[x], reference[:, x], log_p(target)[z], reference[:, z], gamma=1, offline_a=1.0
  )
  assert low < metrics.attack_metrics(scores[:300], scores[300:], seed=0).auc <= high


def test_u_lira_pools_variances_where_models_are_few():
  rng = np.random.default_rng(0)
  for models, is_pooled in ((30, True), (32, False)):
    margins, unlearned = rng.normal(size=(models, 20)), np.arange(models)[:, None] % 2 > 0
    unlearned = np.broadcast_to(unlearned, margins.shape)
    sides = (margins[0], margins, unlearned, ~unlearned)
    assert metrics.needs_pooled_variance(unlearned, ~unlearned) == is_pooled
    got = metrics.u_lira(*sides)
    np.testing.assert_array_equal(got, metrics.u_lira(*sides, pooled_variance=is_pooled))
    assert np.abs(got - metrics.u_lira(*sides, pooled_variance=not is_pooled)).max() > 0.01


def test_tuned_a_is_the_best_of_the_grid():
  rng = np.random.default_rng(0)
  log_p = lambda margins: -np.logaddexp(0, -margins)
  level, members = rng.normal(0, 3, size=300), np.arange(300) < 100
  target = log_p(level + rng.normal(size=300) + 1.5 * members)
  other = log_p(level + rng.normal(size=(1, 300)))
  rest = (other[:, :200], target[200:], other[:, 200:])
  best = metrics.tune_offline_a(target[:200], members[:200], *rest, gamma=1.0)

  def auc(a):
    scores = metrics.rmia(target[:200], *rest, gamma=1.0, offline_a=a)
    return metrics.attack_metrics(scores[:100], scores[100:], seed=0, num_bootstrap=1).auc

  aucs = [auc(tenths / 10) for tenths in range(11)]
  assert auc(best) == max(aucs) > min(aucs)
  with pytest.raises(ValueError, match='target_members must hold a member and a non-member'):
    metrics.tune_offline_a(target[:200], members[:200] | True, *rest)


def test_rmia_at_extreme_probabilities():
  x, z = np.array([0.0, -2e4]), np.array([-1.0, -3e4])
  got = metrics.rmia(x, np.array([[-2e4, 0.0]]), z, np.array([[-1.0, -3e4]]))
  np.testing.assert_array_equal(got, [1, 0])


def test_ensemble_attacks_name_bad_input():
  target, _, shadow, members = _shadows(models=6)
  few = members.copy()
  few[:, 0] = [True] + [False] * 5
  log_p = -np.ones((3, 4))
  cases = [
    (lambda: metrics.lira(target[1:], shadow, members), 'shadow_scores must have 59 columns'),
    (lambda: metrics.lira(target, shadow, members * 1), 'shadow_members must be bool'),
    (lambda: metrics.lira(target, shadow, members[1:]), 'shadow_members must be bool'),
    (lambda: metrics.lira(target, shadow, few), 'shadow_members must give every example 2 models'),
    (lambda: metrics.lira(target, shadow, members | True), 'shadow_members must give every'),
    (lambda: metrics.lira(target * np.nan, shadow, members), 'target_scores must be finite'),
    (lambda: metrics.u_lira(target, shadow, members, members), 'shadow_unseen must be False where'),
    (lambda: metrics.rmia(log_p[0], log_p, -log_p[0], log_p), 'population_log_probabilities must'),
    (lambda: metrics.rmia(log_p[0], log_p[:, 1:], log_p[0], log_p), 'reference_log_probabilities'),
    (lambda: metrics.rmia(log_p[0], log_p, log_p[0], log_p, gamma=0), 'gamma must be positive'),
    (lambda: metrics.rmia(log_p[0], log_p, log_p[0], log_p, offline_a=2), 'offline_a must be in'),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()


def test_klom_equals_numpy_histograms():
  rng = np.random.default_rng(0)
  unlearned, gold = rng.normal(1, 1, size=(80, 9)), rng.normal(0, 2, size=(120, 9))
  unlearned[0] = 500  # clipped to 100
  got = metrics.klom(unlearned, gold)
  expected = []
  for u, g in zip(np.clip(unlearned, -100, 100).T, gold.T, strict=True):
    edges = np.linspace(min(u.min(), g.min()), max(u.max(), g.max()), 21)
    p, q = (np.histogram(values, edges)[0] / len(values) + 1e-5 for values in (u, g))
    expected.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
  np.testing.assert_allclose(got.per_example, expected, rtol=1e-9)
  assert got.mean == pytest.approx(np.mean(expected))
  assert got.p95 == pytest.approx(np.percentile(expected, 95))


def test_klom_floors():
  got = metrics.klom_floor(100, 100, seed=0)
  assert got.mean == pytest.approx(0.34, abs=0.03)
  assert got.p95 == pytest.approx(0.66, abs=0.05)
  got = metrics.klom_floor(200, 200, seed=0)
  assert got.mean == pytest.approx(0.142, abs=0.015)
  assert got.p95 == pytest.approx(0.269, abs=0.03)


def test_klom_invariances():
  rng = np.random.default_rng(0)
  unlearned, gold = rng.normal(size=(2, 50, 7))
  got = metrics.klom(unlearned, gold)
  assert metrics.klom(gold, gold).mean == 0
  np.testing.assert_allclose(metrics.klom(unlearned[::-1], gold).per_example, got.per_example)
  np.testing.assert_allclose(metrics.klom(4 * unlearned, 4 * gold).mean, got.mean)
  assert metrics.klom(unlearned + 3, gold).mean > 5 * got.mean
  constant = metrics.klom(np.ones((5, 2)), np.ones((6, 2)))
  np.testing.assert_array_equal(constant.per_example, [0, 0])


def _epsilon_by_hand(unlearned, gold, delta):
  """Loops over both families of attacks, for scores that are multiples of .1."""
  u, g = np.rint(20 * unlearned).astype(int), np.rint(20 * gold).astype(int)  # even numbers
  higher, lower = (g, u) if np.median(g) > np.median(u) else (u, g)
  peaked, wide = (g, u) if np.ptp(u) >= np.ptp(g) else (u, g)
  pairs = [(np.mean(lower >= t), np.mean(higher < t)) for t in np.concatenate([u, g])]
  for right in range(peaked.max() - 40, peaked.max() + 41):
    for left in range(right - np.ptp(peaked) - 40, right - np.ptp(peaked) + 41):
      hit = lambda x, a=left, b=right: np.mean((a <= x) & (x <= b))
      pairs.append((hit(wide), 1 - hit(peaked)))
  best = 0.0
  for fpr, fnr in pairs:
    if fpr < 1e-12 and fnr < 1e-12:
      return 50.0
    for a, b in ((fpr, fnr), (fnr, fpr)):
      if min(fpr, fnr) > 1e-12 and 1 - delta - a > 1e-12:
        best = max(best, math.log(1 - delta - a) - math.log(b))
  return min(best, 50.0)


def test_forgetting_quality_equals_a_loop_over_attacks():
  rng = np.random.default_rng(0)
  unlearned = rng.normal(0.5, 1.5, size=(14, 4)).round(1)
  gold = rng.normal(size=(20, 4)).round(1)
  unlearned[:, 0] += 50
  value, epsilons = metrics.forgetting_quality(unlearned, gold)
  expected = [_epsilon_by_hand(u, g, 1e-5) for u, g in zip(unlearned.T, gold.T, strict=True)]
  np.testing.assert_allclose(epsilons, expected, rtol=1e-9)
  assert epsilons[0] == 50
  assert value == pytest.approx(np.mean([2.0 ** -(e // 0.5) * (e < 3) for e in expected]))
  equal = np.zeros((9, 2))
  assert metrics.forgetting_quality(equal, equal).value == 1
  assert metrics.forgetting_quality(equal, equal + 1).value == 0


def test_forgetting_quality_floor_and_order():
  assert metrics.forgetting_quality_floor(64, 64, seed=0) == pytest.approx(0.16, abs=0.03)
  rng = np.random.default_rng(0)
  gold, same = rng.normal(size=(2, 64, 200))
  values = [metrics.forgetting_quality(same + shift, gold).value for shift in (0, 1, 3)]
  assert values[0] > 2 * values[1] > 4 * values[2]
  # A law with equal median and another spread is caught by the two-sided attack.
  assert metrics.forgetting_quality(5 * same, gold).value < values[0] / 2


def test_distributional_metrics_name_bad_input():
  good = np.zeros((5, 3))
  for metric, what in ((metrics.klom, 'margins'), (metrics.forgetting_quality, 'scores')):
    cases = [
      (good[:0], good, f'unlearned_{what} must not be empty'),
      (good[0], good, rf'unlearned_{what} must have shape \[K, N\]'),
      (good, good + np.nan, f'gold_{what} must be finite'),
      (good, good[:, :2], f'gold_{what} must have 3 columns like unlearned_{what}'),
    ]
    for unlearned, gold, message in cases:
      with pytest.raises(ValueError, match=message):
        metric(unlearned, gold)
  with pytest.raises(ValueError, match='smoothing must be positive and finite, got 0'):
    metrics.klom(good, good, smoothing=0)
  with pytest.raises(ValueError, match=r'delta must be in \[0, 1\), got 1'):
    metrics.forgetting_quality(good, good, delta=1)
  with pytest.raises(ValueError, match='num_gold must be an integer of 1 or more, got 0'):
    metrics.klom_floor(5, 0, seed=0)

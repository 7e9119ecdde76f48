"""Attacks on one model: planted leaks are found, equal laws are not, figures equal sklearn's."""

import time

import numpy as np
import pytest
from sklearn import linear_model
from sklearn import metrics as sklearn_metrics

from dalign_jax import metrics
from dalign_jax.metrics import _nomus


def _losses(seed, members=400, nonmembers=700, leak=1.0):
  rng = np.random.default_rng(seed)
  return rng.exponential(leak, size=members), rng.exponential(1.0, size=nonmembers)


def test_attack_metrics_equal_sklearn():
  rng = np.random.default_rng(0)
  members, nonmembers = rng.normal(0.7, 1, 2000).round(2), rng.normal(0, 1, 2000).round(2)  # ties
  got = metrics.attack_metrics(members, nonmembers, seed=0, threshold=0.3)
  truth, scores = np.repeat([1, 0], 2000), np.concatenate([members, nonmembers])
  assert got.auc == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores), abs=1e-12)
  expected = sklearn_metrics.balanced_accuracy_score(truth, scores > 0.3)
  assert got.balanced_accuracy == pytest.approx(expected, abs=1e-12)
  fpr, tpr, _ = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
  assert got.tpr_at_1_percent == pytest.approx(tpr[fpr <= 0.01].max(), abs=1e-12)
  assert got.tpr_at_01_percent == pytest.approx(tpr[fpr <= 0.001].max(), abs=1e-12)
  assert got.num_pairs == 2000
  assert 0 < got.tpr_at_01_percent < got.tpr_at_1_percent


def test_bootstrap_interval_has_the_textbook_width():
  rng = np.random.default_rng(0)
  got = metrics.attack_metrics(rng.normal(size=500), rng.normal(size=500), seed=0)
  low, high = got.auc_interval
  # Standard error of the AUC of equal laws: sqrt((2n + 1) / (12 n^2)).
  assert high - low == pytest.approx(2 * 1.96 * np.sqrt(1001 / 12) / 500, rel=0.15)
  low, high = got.balanced_accuracy_interval
  assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 1000), rel=0.15)
  for name in ('auc', 'balanced_accuracy', 'tpr_at_1_percent', 'tpr_at_01_percent'):
    low, high = getattr(got, f'{name}_interval')
    assert low <= getattr(got, name) <= high


def test_attack_metrics_at_the_ends():
  apart = metrics.attack_metrics(np.full(30, 5.0), np.full(20, -5.0), seed=0)
  assert apart[:4] == (1, 1, 1, 1)
  assert apart.auc_interval == (1, 1)
  same = metrics.attack_metrics(np.zeros(30), np.zeros(20), seed=0)
  assert same[:4] == (0.5, 0.5, 0, 0)
  never_called = metrics.attack_metrics(np.arange(9.0), np.arange(9.0), seed=0, threshold=99)
  assert never_called.balanced_accuracy == 0.5


@pytest.mark.parametrize('leak, low, high', [(1.0, 0.43, 0.57), (0.3, 0.65, 0.85)])
def test_population_attack_finds_a_planted_leak_only(leak, low, high):
  members, nonmembers = _losses(0, leak=leak)
  got = metrics.population_attack(members, nonmembers, seed=0)
  assert low < got.auc < high
  assert low < got.balanced_accuracy < high
  assert got.num_pairs == 400
  assert (got.auc_interval[0] > 0.6) == (leak < 1)


def test_population_attack_combines_scores():
  rng = np.random.default_rng(0)
  common = rng.normal(size=(600, 1)) * 10
  scores = np.concatenate([common + rng.normal(size=(600, 1)), common], axis=1)
  scores[:300, 0] += 2  # shows in the difference of the two scores only
  alone = metrics.population_attack(scores[:300, 0], scores[300:, 0], seed=0)
  both = metrics.population_attack(scores[:300], scores[300:], seed=0)
  assert alone.auc < 0.65
  assert both.auc > 0.85


def test_population_attack_does_not_fit_noise():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(160, 60))  # would be separated perfectly if scored in fold
  assert 0.35 < metrics.population_attack(scores[:80], scores[80:], seed=0).auc < 0.65


def test_population_attack_ignores_unit_and_repeats_with_its_seed():
  members, nonmembers = _losses(0, leak=0.6)
  expected = metrics.population_attack(members, nonmembers, seed=3)
  assert metrics.population_attack(members, nonmembers, seed=3) == expected
  scaled = metrics.population_attack(1e6 * members + 4, 1e6 * nonmembers + 4, seed=3)
  np.testing.assert_allclose(scaled[:4], expected[:4], atol=0.01)
  constant = metrics.population_attack(np.ones(40), np.ones(50), seed=0)
  assert constant[:2] == (0.5, 0.5)


def test_attack_efficacy_is_the_share_called_nonmember():
  rng = np.random.default_rng(0)
  retain, test = rng.normal(0, 0.1, size=900), rng.normal(4, 0.1, size=300)
  target = np.array([0.0, 0.1, 4.0, 3.9, 4.1])
  assert metrics.attack_efficacy(retain, test, target, seed=0) == pytest.approx(3 / 5)
  assert metrics.attack_efficacy(test, retain, target, seed=0) == pytest.approx(2 / 5)


def test_match_classes_balances_every_class():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 5, size=300), rng.integers(2, 8, size=120)
  first, second = metrics.match_classes(a, b, seed=0)
  counts = np.minimum(np.bincount(a, minlength=8), np.bincount(b, minlength=8))
  np.testing.assert_array_equal(np.bincount(a[first], minlength=8), counts)
  np.testing.assert_array_equal(np.bincount(b[second], minlength=8), counts)
  assert len(set(first)) == len(first) == len(second) == counts.sum()
  other, _ = metrics.match_classes(a, b, seed=1)
  assert not np.array_equal(first, other)


def test_one_feature_attack_equals_cross_validated_sklearn_fits():
  forget, unseen = _losses(0, members=300, nonmembers=300, leak=0.5)
  scores = []
  for seed in range(6):
    scores.append(metrics.one_feature_attack(forget, unseen, seed=seed))
  both = np.concatenate([forget, unseen])[:, None]
  both = (both - both.mean()) / both.std()
  truth = np.arange(600) < 300
  fit = linear_model.LogisticRegression().fit(both, truth)
  assert np.mean(scores) == pytest.approx(fit.score(both, truth), abs=0.02)


@pytest.mark.parametrize('law', ['plain', 'separable', 'heavy', 'outlier'])
def test_logistic_fit_equals_sklearn(law):
  rng = np.random.default_rng(0)
  a, b = rng.exponential(size=(2, 200))
  if law == 'separable':
    b = 1e4 * b + 50
  if law == 'heavy':
    a, b = a**8, b**8
  if law == 'outlier':
    b[0] = 1e6
  x = np.concatenate([a, b])
  x, truth = (x - x.mean()) / x.std(), np.arange(400) < 200
  slope, intercept = _nomus._fit(np.stack([x, x[::-1]]), truth)
  fit = linear_model.LogisticRegression(tol=1e-10, max_iter=10_000).fit(x[:, None], truth)
  assert slope[0, 0] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
  assert intercept[0, 0] == pytest.approx(fit.intercept_[0], abs=1e-4)
  assert slope[1, 0] == pytest.approx(-fit.coef_[0, 0], abs=1e-4)


def test_one_feature_attack_bounds_and_speed():
  forget, unseen = _losses(0, 1500, 1504)
  assert metrics.one_feature_attack(forget, unseen + 50, seed=0) == 1
  assert metrics.one_feature_attack(1e5 * forget + 1e6, 1e-9 * unseen, seed=0) == 1
  assert metrics.one_feature_attack(np.ones(20), np.ones(30), seed=0) == 0.5
  start = time.perf_counter()
  assert metrics.one_feature_attack(forget, unseen, seed=0) == pytest.approx(0.5, abs=0.04)
  assert time.perf_counter() - start < 1


def test_one_feature_attack_is_balanced():
  # Nine times more forget than unseen: calling all of them forget must not pay.
  forget, unseen = _losses(1, 1800, 200)
  assert abs(metrics.one_feature_attack(forget, unseen, seed=0) - 0.5) < 0.1


@pytest.mark.parametrize(
  'sizes, mean, low, high',
  [((1500, 1504), 0.010, 0.02, 0.05), ((300, 300), 0.023, 0.04, 0.11)],
)
def test_null_spread_is_that_of_equal_laws(sizes, mean, low, high):
  got = metrics.attack_null_spread(*sizes, seed=0)
  assert got.mean == pytest.approx(mean, rel=0.2)
  assert low < got.maximum < high
  assert got.mean < got.p95 < got.maximum
  score = metrics.forgetting_score(metrics.one_feature_attack(*_losses(5, *sizes), seed=0))
  assert score <= got.maximum


def test_nomus_by_hand():
  assert metrics.nomus(0.9, 0.5) == pytest.approx(0.95)
  assert metrics.nomus(0.9, 1.0) == metrics.nomus(0.9, 0.0) == pytest.approx(0.45)
  assert metrics.forgetting_score(0.2) == pytest.approx(0.3)
  with pytest.raises(ValueError, match=r'utility_accuracy must be in \[0, 1\], got 90'):
    metrics.nomus(90, 0.5)
  with pytest.raises(ValueError, match=r'm must be in \[0, 1\], got nan'):
    metrics.forgetting_score(float('nan'))


@pytest.mark.parametrize(
  'attack, first, second',
  [
    (metrics.population_attack, 'member_scores', 'nonmember_scores'),
    (metrics.attack_metrics, 'member_scores', 'nonmember_scores'),
    (metrics.one_feature_attack, 'forget_losses', 'unseen_losses'),
  ],
)
def test_bad_scores_are_named(attack, first, second):
  good = np.arange(20.0)
  cases = [
    (good[:0], good, f'{first} must not be empty'),
    (good, good[:0], f'{second} must not be empty'),
    (good, np.where(good > 3, np.nan, good), f'{second} must be finite, got 16 NaN'),
    (good[:, None, None], good, f'{first} must have shape'),
    (np.float64(3), good, f'{first} must have shape'),
  ]
  for a, b, message in cases:
    with pytest.raises(ValueError, match=message):
      attack(a, b, seed=0)


def test_bad_attack_settings_are_named():
  good = np.arange(20.0)
  with pytest.raises(ValueError, match='nonmember_scores must have 2 columns like member_scores'):
    metrics.population_attack(np.ones((9, 2)), np.ones((9, 3)), seed=0)
  with pytest.raises(ValueError, match='num_folds must be at most the 3 examples a side, got 5'):
    metrics.population_attack(good, good[:3], seed=0)
  with pytest.raises(ValueError, match='num_folds must be an integer of 2 or more, got 1'):
    metrics.population_attack(good, good, seed=0, num_folds=1)
  with pytest.raises(ValueError, match='unseen_losses must have two examples or more, got 1'):
    metrics.one_feature_attack(good, good[:1], seed=0)
  with pytest.raises(ValueError, match='target_scores must have 1 columns like member_scores'):
    metrics.attack_efficacy(good, good, np.ones((3, 2)), seed=0)
  with pytest.raises(ValueError, match='n_unseen must be an integer of 2 or more, got 1'):
    metrics.attack_null_spread(5, 1, seed=0)
  with pytest.raises(ValueError, match='labels_b must share a class with labels_a'):
    metrics.match_classes(np.array([0, 1]), np.array([2]), seed=0)


def test_roc_curve_equals_sklearns_steps():
  rng = np.random.default_rng(1)
  members, nonmembers = rng.normal(0.5, 1, 300).round(1), rng.normal(0, 1, 200).round(1)  # ties
  truth, scores = np.repeat([1, 0], [300, 200]), np.concatenate([members, nonmembers])
  fpr, tpr, _ = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
  rates = np.array([0.0, 0.001, 0.01, 0.1, 0.5, 1.0])
  expected = [tpr[fpr <= rate + 1e-12].max() for rate in rates]
  np.testing.assert_allclose(metrics.roc_curve(members, nonmembers, rates), expected, atol=1e-12)
  with pytest.raises(ValueError, match=r'rates must be in \[0, 1\], got 0.0 to 1.5'):
    metrics.roc_curve(members, nonmembers, np.array([0.0, 1.5]))


def test_svc_attack_finds_what_a_line_cannot():
  rng = np.random.default_rng(0)
  members, nonmembers = (
    rng.normal(0, 0.3, (400, 2)),
    rng.normal(0, 1.5, (500, 2)),
  )  # inside, outside
  curved = metrics.svc_attack(members, nonmembers, seed=0, num_bootstrap=50)
  straight = metrics.population_attack(members, nonmembers, seed=0, num_bootstrap=50)
  assert curved.auc > 0.9 > 0.6 > straight.auc
  assert curved.num_pairs == 400
  small = metrics.svc_attack(members, nonmembers, seed=0, num_bootstrap=50, max_examples=100)
  assert small.num_pairs == 100
  with pytest.raises(ValueError, match='max_examples'):
    metrics.svc_attack(members, nonmembers, seed=0, max_examples=2)


def test_svc_attack_on_equal_laws_is_blind():
  rng = np.random.default_rng(2)
  aucs = [
    metrics.svc_attack(rng.normal(size=150), rng.normal(size=150), seed=s, num_bootstrap=1).auc
    for s in range(10)
  ]
  assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / np.sqrt(10) + 0.02


def test_population_scores_are_those_behind_the_attack():
  members, nonmembers = _losses(0, leak=0.4)
  scores = metrics.population_scores(members, nonmembers, seed=3)
  assert scores[0].shape == scores[1].shape == (400,)
  expected = metrics.population_attack(members, nonmembers, seed=3, num_bootstrap=5)
  assert metrics.attack_metrics(*scores, seed=3, num_bootstrap=5) == expected


def test_attack_features_are_the_four_scores():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(20, 5)), rng.integers(0, 5, 20)
  features = metrics.attack_features(logits, labels)
  np.testing.assert_array_equal(features[:, 0], metrics.cross_entropy_scores(logits, labels))
  np.testing.assert_array_equal(features[:, 3], metrics.modified_entropy(logits, labels))

"""Distances between outputs against SciPy, explicit Gram matrices and closed forms."""

import math

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial import distance

from dalign_jax import metrics

PAIRS = (
  metrics.activation_distance,
  metrics.js_divergence,
  metrics.agreement,
  metrics.zrf,
)


def _pair(seed=0, size=40, classes=6):
  rng = np.random.default_rng(seed)
  return 2 * rng.normal(size=(2, size, classes))


def test_js_divergence_check_value():
  got = metrics.js_divergence(np.log([[0.9, 0.1]]), np.log([[0.1, 0.9]]))
  assert got == pytest.approx(0.3681, abs=5e-5)


def test_js_divergence_equals_scipy():
  a, b = _pair()
  p, q = special.softmax(a, 1), special.softmax(b, 1)
  expected = np.mean(distance.jensenshannon(p, q, axis=1) ** 2)
  assert metrics.js_divergence(a, b) == pytest.approx(expected, rel=1e-10)


def test_zrf_uses_bits():
  a, b = _pair()
  p, q = special.softmax(a, 1), special.softmax(b, 1)
  expected = 1 - np.mean(distance.jensenshannon(p, q, base=2, axis=1) ** 2)
  assert metrics.zrf(a, b) == pytest.approx(expected, rel=1e-10)


def test_activation_distance_and_agreement_by_hand():
  a, b = np.log([[0.5, 0.5], [0.2, 0.8]]), np.log([[0.8, 0.2], [0.1, 0.9]])
  expected = (math.hypot(0.3, 0.3) + math.hypot(0.1, 0.1)) / 2
  assert metrics.activation_distance(a, b) == pytest.approx(expected)
  assert metrics.agreement(a, b) == 1.0
  assert metrics.agreement(a, b[[0, 0]]) == 0.5


@pytest.mark.parametrize('metric, floor', list(zip(PAIRS, (0.0, 0.0, 1.0, 1.0), strict=True)))
def test_identical_outputs_are_at_the_floor(metric, floor):
  a, _ = _pair()
  assert metric(a, a) == floor


@pytest.mark.parametrize('metric', PAIRS, ids=lambda metric: metric.__name__)
def test_symmetric_and_unchanged_by_order(metric):
  a, b = _pair()
  order = np.random.default_rng(1).permutation(len(a))
  assert metric(b, a) == pytest.approx(metric(a, b), rel=1e-12)
  assert metric(a[order], b[order]) == pytest.approx(metric(a, b), rel=1e-12)


@pytest.mark.parametrize('gap', [1e4, 744.5, 745.5])
def test_opposite_certainties_reach_the_bounds(gap):
  a, b = np.array([[gap, 0.0]]), np.array([[0.0, gap]])
  assert metrics.js_divergence(a, b) == pytest.approx(math.log(2))
  assert metrics.zrf(a, b) == pytest.approx(0, abs=1e-12)
  assert metrics.activation_distance(a, b) == pytest.approx(math.sqrt(2))


def test_subnormal_probabilities_stay_finite():
  a = np.array([[0.0, -744.4], [0.0, -1e4]])
  assert metrics.js_divergence(a, np.zeros_like(a) - [0.0, 800.0]) == pytest.approx(0, abs=1e-300)


def test_linear_cka_equals_the_gram_form():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(30, 7)), rng.normal(size=(30, 4))
  b[:, :2] += a[:, :2]
  centring = np.eye(30) - 1 / 30
  gram_a, gram_b = centring @ a @ a.T @ centring, centring @ b @ b.T @ centring
  expected = np.sum(gram_a * gram_b) / np.sqrt(np.sum(gram_a**2) * np.sum(gram_b**2))
  assert metrics.linear_cka(a, b) == pytest.approx(expected, rel=1e-10)
  assert metrics.linear_cka(b, a) == pytest.approx(expected, rel=1e-10)


def test_linear_cka_ignores_rotation_scale_and_shift():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 30, 7))
  rotation = stats.ortho_group.rvs(7, random_state=0)
  got = metrics.linear_cka(3e5 * a @ rotation + 2, b)
  assert got == pytest.approx(metrics.linear_cka(a, b), rel=1e-8)
  assert metrics.linear_cka(a, -2 * a @ rotation) == pytest.approx(1)
  assert metrics.linear_cka(a, b) < 0.7


def test_linear_cka_rejects_bad_features():
  good = np.eye(4)
  with pytest.raises(ValueError, match='features_b must vary over the examples, got 4 equal rows'):
    metrics.linear_cka(good, np.full((4, 2), 0.1))
  with pytest.raises(ValueError, match='features_b must have 4 rows like features_a, got 3'):
    metrics.linear_cka(good, good[:3])
  with pytest.raises(ValueError, match='features_a must be finite'):
    metrics.linear_cka(np.where(good, np.nan, 0), good)


@pytest.mark.parametrize('metric', PAIRS, ids=lambda metric: metric.__name__)
def test_bad_input_is_named(metric):
  a, b = _pair()
  first, second = metric.__code__.co_varnames[:2]
  with pytest.raises(ValueError, match=f'{second} must have the shape of {first}'):
    metric(a, b[:-1])
  with pytest.raises(ValueError, match=f'{first} must not be empty'):
    metric(a[:0], b[:0])
  with pytest.raises(ValueError, match=f'{second} must be finite'):
    metric(a, np.where(b > 0, np.inf, b))
  with pytest.raises(ValueError, match=rf'{first} must have shape \[N, C\]'):
    metric(a[0], b[0])

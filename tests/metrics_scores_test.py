"""Accuracy and per-example scores against direct formulas, at ordinary and extreme logits."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from dalign_jax import metrics

SCORES = (
  metrics.cross_entropy_scores,
  metrics.confidence,
  metrics.modified_entropy,
  metrics.logit_scaled_confidence,
)


def _batch(seed=0, size=60, classes=5, scale=2.0):
  rng = np.random.default_rng(seed)
  return scale * rng.normal(size=(size, classes)), rng.integers(classes, size=size)


def _softmax(row):
  exponentials = [math.exp(value) for value in row]
  return [value / math.fsum(exponentials) for value in exponentials]


def _by_hand(name, row, label):
  p = _softmax(row)
  others = [value for j, value in enumerate(p) if j != label]
  return {
    'cross_entropy_scores': lambda: -math.log(p[label]),
    'confidence': lambda: p[label],
    'logit_scaled_confidence': lambda: math.log(p[label] / math.fsum(others)),
    'modified_entropy': lambda: (
      -(1 - p[label]) * math.log(p[label]) - math.fsum(q * math.log(1 - q) for q in others)
    ),
  }[name]()


def test_accuracy_equals_sklearn():
  logits, labels = _batch()
  expected = sklearn_metrics.accuracy_score(labels, logits.argmax(1))
  assert metrics.accuracy(logits, labels) == pytest.approx(expected)


def test_per_class_accuracy_equals_recall_and_marks_absent_classes():
  logits, labels = _batch()
  labels[labels == 3] = 2
  got = metrics.per_class_accuracy(logits, labels, 5)
  recall = sklearn_metrics.recall_score(
    labels, logits.argmax(1), labels=[0, 1, 2, 4], average=None, zero_division=0
  )
  np.testing.assert_allclose(got[[0, 1, 2, 4]], recall)
  assert np.isnan(got[3])


@pytest.mark.parametrize('score', SCORES, ids=lambda score: score.__name__)
def test_score_equals_its_formula(score):
  logits, labels = _batch()
  expected = [_by_hand(score.__name__, *pair) for pair in zip(logits, labels, strict=True)]
  np.testing.assert_allclose(score(logits, labels), expected, rtol=1e-9)


def test_entropy_equals_its_formula():
  logits, _ = _batch()
  expected = [-math.fsum(p * math.log(p) for p in _softmax(row)) for row in logits]
  np.testing.assert_allclose(metrics.entropy(logits), expected, rtol=1e-12)


def test_modified_entropy_of_two_classes_has_a_closed_form():
  # With two classes both terms are equal: -2 (1 - p) log p.
  p = np.array([0.01, 0.5, 0.99])
  logits = np.stack([np.log(p), np.log1p(-p)], axis=1)
  got = metrics.modified_entropy(logits, np.zeros(3, int))
  np.testing.assert_allclose(got, -2 * (1 - p) * np.log(p), rtol=1e-12)


def test_modified_entropy_is_not_entropy():
  logits = np.log([[0.9, 0.1], [0.1, 0.9]])
  right, wrong = metrics.modified_entropy(logits, np.array([0, 0]))
  assert wrong > 10 * right
  assert np.ptp(metrics.entropy(logits)) == pytest.approx(0)


def test_scores_at_extreme_logits_are_exact():
  logits = np.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], np.float32)
  labels = np.array([0, 1])
  np.testing.assert_allclose(metrics.cross_entropy_scores(logits, labels), [0, 2e4])
  np.testing.assert_allclose(metrics.logit_scaled_confidence(logits, labels), [1e4, -2e4])
  # Right: all is 0. Wrong: -(1 - 0) log p_1 = 2e4, and -1 log(1 - p_0) = 1e4.
  np.testing.assert_allclose(metrics.modified_entropy(logits, labels), [0, 3e4])
  np.testing.assert_allclose(metrics.entropy(logits), [0, 0])


def test_modified_entropy_keeps_digits_near_certainty():
  # p_0 = 1 - 2e-18, which float64 rounds to 1: log(1 - p_0) must come from the other logits.
  logits = np.array([[0.0, math.log(1e-18), math.log(1e-18)]])
  got = metrics.modified_entropy(logits, np.array([1]))[0]
  expected = -math.log(1e-18) - math.log(2e-18)
  assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('score', SCORES, ids=lambda score: score.__name__)
def test_scores_follow_a_permutation_and_ignore_a_shift(score):
  logits, labels = _batch()
  order = np.random.default_rng(1).permutation(len(labels))
  np.testing.assert_array_equal(score(logits[order], labels[order]), score(logits, labels)[order])
  np.testing.assert_allclose(score(logits + 7, labels), score(logits, labels), rtol=1e-9)


@pytest.mark.parametrize(
  'logits, labels, message',
  [
    (np.zeros((0, 3)), np.zeros(0, int), 'logits must not be empty'),
    (np.zeros(3), np.zeros(3, int), r'logits must have shape \[N, C\]'),
    (np.zeros((3, 1)), np.zeros(3, int), 'logits must have two classes'),
    (np.full((3, 2), np.nan), np.zeros(3, int), 'logits must be finite, got 6'),
    ([['a', 'b']], np.zeros(1, int), 'logits must be an array of numbers'),
    (np.zeros((3, 2)), np.zeros(2, int), r'labels must have shape \[3\], got \[2\]'),
    (np.zeros((3, 2)), np.zeros(3), 'labels must be integers, got float64'),
    (np.zeros((3, 2)), np.full(3, 2), r'labels must be in \[0, 2\), got 2 to 2'),
    (np.zeros((3, 2)), np.full(3, -1), r'labels must be in \[0, 2\)'),
  ],
)
@pytest.mark.parametrize(
  'score', [metrics.accuracy, *SCORES], ids=lambda function: function.__name__
)
def test_bad_input_is_named(score, logits, labels, message):
  with pytest.raises(ValueError, match=message):
    score(logits, labels)


def test_wrong_number_of_classes_is_named():
  with pytest.raises(ValueError, match='num_classes must be 2 as in logits, got 3'):
    metrics.per_class_accuracy(np.zeros((4, 2)), np.zeros(4, int), 3)

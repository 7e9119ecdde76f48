"""Dimensional alignment, probes and clusters against SVDs, brute force and invariances."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import cluster
from sklearn import metrics as sklearn_metrics

from dalign_jax import metrics


def _features(seed=0, sizes=(20, 50), width=12):
  """Non-negative features, some directions much stronger than others, one of them dead."""
  rng = np.random.default_rng(seed)
  scales = np.append(2.0 ** -np.arange(width - 1), 0)
  return [np.maximum(rng.normal(0.3, 1, size=(size, width)), 0) * scales for size in sizes]


def _alignment_by_svd(forget, retain, energy):
  """The definition, one eigenvector after another, from an SVD of the features."""
  _, singular, rows = np.linalg.svd(retain)
  weights = singular**2
  rank, held = 0, 0.0
  while held < energy * weights.sum():
    held += weights[rank]
    rank += 1
  inside = sum(float(np.sum((forget @ rows[i]) ** 2)) for i in range(rank))
  return inside / np.linalg.norm(forget) ** 2, rank


@pytest.mark.parametrize('sizes', [(20, 50), (3, 7), (50, 12)])
@pytest.mark.parametrize('energy', [0.5, 0.9, 0.95, 0.999])
def test_alignment_equals_explicit_svd(sizes, energy):
  forget, retain = _features(sizes=sizes)
  value, rank = metrics.dimensional_alignment(forget, retain, energy=energy)
  expected_value, expected_rank = _alignment_by_svd(forget, retain, energy)
  assert rank == expected_rank
  assert value == pytest.approx(expected_value, abs=1e-10)


def test_centring():
  forget, retain = _features()
  mean = retain.mean(0)
  for centering, shift in (('retain_mean', mean), ('own_mean', forget.mean(0))):
    got = metrics.dimensional_alignment(forget, retain, energy=0.8, centering=centering)
    expected = _alignment_by_svd(forget - shift, retain - mean, 0.8)
    assert got.rank == expected[1]
    assert got.value == pytest.approx(expected[0], abs=1e-10)
  assert got.value != metrics.dimensional_alignment(forget, retain, energy=0.8).value


@pytest.mark.parametrize('sizes', [(20, 50), (3, 7)])
@pytest.mark.parametrize('scale', [1e-6, 1.0, 3e5])
def test_alignment_from_moments_equals_that_of_features(sizes, scale):
  forget, retain = _features(sizes=sizes)
  got = metrics.dimensional_alignment_from_moments(
    scale * forget.T @ forget, retain.T @ retain / scale, energy=0.9
  )
  expected = metrics.dimensional_alignment(forget, retain, energy=0.9)
  assert got.rank == expected.rank
  assert got.value == pytest.approx(expected.value, abs=1e-10)


def test_alignment_curve_agrees_with_single_calls_and_rises():
  forget, retain = _features()
  energies = [0.5, 0.8, 0.9, 0.99, 1.0]
  values, ranks = metrics.alignment_curve(forget, retain, energies)
  for energy, value, rank in zip(energies, values, ranks, strict=True):
    assert metrics.dimensional_alignment(forget, retain, energy=energy) == (value, rank)
  assert (np.diff(values) >= 0).all()
  assert (np.diff(ranks) >= 0).all()
  assert values[-1] == pytest.approx(1)  # the dead direction holds nothing
  assert ranks[-1] == 11


def test_alignment_ignores_scale_rotation_and_order():
  forget, retain = _features()
  rotation = stats.ortho_group.rvs(12, random_state=1)
  order = np.random.default_rng(1).permutation(len(retain))
  expected = metrics.dimensional_alignment(forget, retain)
  for f, r in (
    (1e-5 * forget, 1e-5 * retain),
    (3e7 * forget, 3e7 * retain),
    (forget @ rotation, retain @ rotation),
    (forget[::-1], retain[order]),
  ):
    got = metrics.dimensional_alignment(f, r)
    assert got.rank == expected.rank
    assert got.value == pytest.approx(expected.value, abs=1e-9)


def test_orthogonal_and_contained_features_are_at_the_bounds():
  retain = np.diag([3.0, 2.0, 0.0, 0.0])
  assert metrics.dimensional_alignment(np.eye(4)[2:], retain, energy=1.0) == (0.0, 2)
  assert metrics.dimensional_alignment(np.eye(4)[:2], retain, energy=1.0) == (1.0, 2)


def test_rank_counts_the_fewest_eigenvectors():
  retain = np.diag(np.sqrt([6.0, 3.0, 1.0]))
  ranks = metrics.alignment_curve(np.eye(3), retain, [0.59, 0.6, 0.61, 0.9, 0.91, 1.0]).ranks
  np.testing.assert_array_equal(ranks, [1, 1, 2, 2, 3, 3])


def test_spectrum_equals_squared_singular_values():
  _, retain = _features(sizes=(1, 7))
  singular = np.linalg.svd(retain, compute_uv=False)
  expected = np.append(singular**2, np.zeros(5)) / np.sum(retain**2)
  np.testing.assert_allclose(metrics.spectrum(retain), expected, atol=1e-12)
  np.testing.assert_allclose(metrics.spectrum(np.tile(retain, (9, 1))), expected, atol=1e-12)


def test_subspace_overlap_is_the_mean_squared_cosine():
  angle = 0.4
  forget = np.array([[np.cos(angle), np.sin(angle), 0.0]])
  retain = np.array([[2.0, 0.0, 0.0]])
  assert metrics.subspace_overlap(forget, retain) == pytest.approx(np.cos(angle) ** 2)
  assert metrics.subspace_overlap(retain, np.eye(3), energy=1.0) == pytest.approx(1)
  assert metrics.subspace_overlap(np.eye(3), retain, energy=1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
  'metric',
  [
    metrics.dimensional_alignment,
    metrics.subspace_overlap,
    lambda forget, retain: metrics.alignment_curve(forget, retain, [0.9]),
  ],
)
def test_bad_features_are_named(metric):
  forget, retain = _features()
  cases = [
    (forget[:0], retain, 'forget_features must not be empty'),
    (forget[0], retain, r'forget_features must have shape \[Nf, D\], got \[12\]'),
    (forget, np.where(retain > 1, np.nan, retain), 'retain_features must be finite'),
    (forget, retain[:, :5], 'retain_features must have 12 columns like forget_features'),
    (0 * forget, retain, 'forget_features must not be all zero'),
    (forget, 0 * retain, 'retain_features must not be all zero'),
  ]
  for bad_forget, bad_retain, message in cases:
    with pytest.raises(ValueError, match=message):
      metric(bad_forget, bad_retain)


def test_bad_settings_are_named():
  forget, retain = _features()
  for energy in (0.0, 1.01, float('nan')):
    with pytest.raises(ValueError, match=rf'energy must be in \(0, 1\], got {energy}'):
      metrics.dimensional_alignment(forget, retain, energy=energy)
  with pytest.raises(ValueError, match=r"centering must be one of none, .*, got 'mean'"):
    metrics.dimensional_alignment(forget, retain, centering='mean')
  with pytest.raises(ValueError, match='energies must not be empty'):
    metrics.alignment_curve(forget, retain, [])
  same = np.full((4, 3), 0.1)
  with pytest.raises(ValueError, match='retain_features must not be all zero after centring'):
    metrics.dimensional_alignment(np.eye(3), same, centering='own_mean')


def test_bad_moments_are_named():
  good = np.eye(3)
  cases = [
    (np.ones((3, 2)), good, 'forget_moment must be square'),
    (good, np.triu(np.ones((3, 3))), 'retain_moment must be symmetric'),
    (good, 0 * good, 'retain_moment must have a positive trace'),
    (good, np.eye(4), 'retain_moment must have the shape of forget_moment'),
    (good * np.nan, good, 'forget_moment must be finite'),
  ]
  for forget, retain, message in cases:
    with pytest.raises(ValueError, match=message):
      metrics.dimensional_alignment_from_moments(forget, retain)


def _clusters(seed=0, size=90, classes=3, width=8, spread=0.3):
  rng = np.random.default_rng(seed)
  labels = np.arange(size) % classes
  return 2 * np.eye(width)[labels] + spread * rng.normal(size=(size, width)), labels


def test_linear_probe_reads_separable_features_and_not_noise():
  train, train_labels = _clusters(0)
  test, test_labels = _clusters(1)
  assert metrics.linear_probe(train, train_labels, test, test_labels).accuracy == 1
  noise = np.random.default_rng(2).normal(size=(2, 90, 8))
  assert metrics.linear_probe(noise[0], train_labels, noise[1], test_labels).accuracy < 0.6


def test_linear_probe_counts_forget_classes_apart():
  train, train_labels = _clusters(0)
  test, test_labels = _clusters(1)
  train[train_labels == 2], test[test_labels == 2] = (
    train[train_labels == 1],
    test[test_labels == 1],
  )
  got = metrics.linear_probe(train, train_labels, test, test_labels, forget_classes=[0])
  assert got.forget_accuracy == 1
  assert got.accuracy < 0.8
  got = metrics.linear_probe(train, train_labels, test, test_labels, forget_classes=[1, 2])
  assert got.accuracy == pytest.approx((1 + 2 * got.forget_accuracy) / 3)


def test_linear_probe_ignores_scale_shift_and_order():
  train, labels = _clusters(0, spread=2.0)
  test, _ = _clusters(1, spread=2.0)
  expected = metrics.linear_probe(train, labels, test, labels).accuracy
  assert 0.4 < expected < 1
  order = np.random.default_rng(3).permutation(len(labels))
  scale = np.logspace(-4, 4, 8)
  got = metrics.linear_probe((train * scale + 5)[order], labels[order], test * scale + 5, labels)
  assert got.accuracy == pytest.approx(expected, abs=0.012)


def test_linear_probe_survives_dead_and_collinear_features():
  features, labels = _clusters(0)
  features = np.concatenate([features, features[:, :3] * 2, np.zeros((90, 4))], axis=1)
  assert metrics.linear_probe(features, labels, features, labels).accuracy == 1


def test_clustering_scores_equal_pair_counting():
  features, labels = _clusters(size=45, spread=1.3)
  got = metrics.clustering_scores(features, labels, seed=0)
  found = cluster.KMeans(3, n_init=10, random_state=0).fit_predict(features)
  pairs = list(itertools.combinations(range(45), 2))
  same_class = np.array([labels[i] == labels[j] for i, j in pairs])
  same_cluster = np.array([found[i] == found[j] for i, j in pairs])
  assert got.f1 == pytest.approx(sklearn_metrics.f1_score(same_class, same_cluster))
  joint = np.array([[np.mean((labels == c) & (found == k)) for k in range(3)] for c in range(3)])
  p, q = joint.sum(1), joint.sum(0)
  filled = joint > 0
  information = np.sum(joint[filled] * np.log((joint / np.outer(p, q))[filled]))
  expected = 2 * information / (stats.entropy(p) + stats.entropy(q))
  assert got.nmi == pytest.approx(expected)
  assert 0.05 < got.nmi < 0.95


def test_clustering_ignores_scale_and_class_names():
  features, labels = _clusters(spread=0.8)
  expected = metrics.clustering_scores(features, labels, seed=0)
  renamed = np.array([7, 0, 4])[labels]
  np.testing.assert_allclose(
    metrics.clustering_scores(1e3 * features, renamed, seed=0), expected, rtol=1e-9
  )


def test_clustering_of_a_collapsed_model_is_at_the_floor():
  _, labels = _clusters()
  nmi, f1 = metrics.clustering_scores(np.ones((90, 8)), labels, seed=0)
  assert nmi == 0
  assert f1 == pytest.approx(2 * 3 * 435 / (3 * 435 + 4005))  # one cluster holds all pairs


def test_probe_and_clustering_name_bad_input():
  features, labels = _clusters()
  one_class = np.zeros_like(labels)
  probe = metrics.linear_probe
  cases = [
    (lambda: probe(features, one_class, features, labels), 'train_labels must have two classes'),
    (lambda: probe(features, labels, features[:, :2], labels), 'test_features must have 8 columns'),
    (lambda: probe(features, labels, features[:0], labels[:0]), 'test_features must not be empty'),
    (lambda: probe(features, labels[1:], features, labels), r'train_labels must have shape \[90\]'),
    (lambda: probe(features, labels, features, labels, forget_classes=[5]), 'forget_classes must'),
    (
      lambda: metrics.clustering_scores(features, one_class, seed=0),
      'labels must have two classes',
    ),
    (lambda: metrics.clustering_scores(features, np.arange(90), seed=0), 'labels must have two'),
    (
      lambda: metrics.clustering_scores(features, labels, num_clusters=91, seed=0),
      'num_clusters must be at most 90, got 91',
    ),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()

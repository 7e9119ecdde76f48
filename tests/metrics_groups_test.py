"""Strata of difficulty, metrics by group, and measures without gold."""

import jax
import numpy as np
import pytest
from scipy import stats

from dalign_jax import errors, evaluation, influence, losses, metrics, training, types
from tests import tiny


def test_strata_cover_all_and_ignore_monotone_changes():
  scores = np.random.default_rng(0).normal(size=11)
  parts = [metrics.strata(scores, which) for which in ('low', 'middle', 'high')]
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(11))
  assert sorted(map(len, parts)) == [3, 4, 4]
  assert scores[parts[0]].max() < scores[parts[1]].min() < scores[parts[2]].min()
  np.testing.assert_array_equal(metrics.strata(np.exp(scores), 'high'), parts[2])
  assert metrics.strata(np.zeros(3), 'high').tolist() == [2]
  with pytest.raises(errors.InputError, match="which must be one of low, middle, high, got 'top'"):
    metrics.strata(scores, 'top')


def test_entanglement_distances_equal_a_loop(monkeypatch):
  monkeypatch.setattr('dalign_jax.metrics._strata._BLOCK', 2)
  rng = np.random.default_rng(0)
  forget, retain = rng.normal(size=(6, 3)), rng.normal(size=(20, 3))
  labels, others = np.arange(6) % 2, np.arange(20) % 2
  got = metrics.entanglement_distances(forget, labels, retain, others)
  for i in range(6):
    near = [np.linalg.norm(forget[i] - retain[j]) for j in range(20) if others[j] == labels[i]]
    assert got[i] == pytest.approx(np.mean(near))
  moved = metrics.entanglement_distances(forget + 5, labels, retain + 5, others)
  np.testing.assert_allclose(moved, got)
  with pytest.raises(errors.InputError, match='retain_labels must hold every class'):
    metrics.entanglement_distances(forget, labels + 1, retain, others)


def test_influence_scores_are_dot_products(tiny_problem):
  p = tiny_problem
  some, held_out = p.forget.take(np.arange(7)), p.validation.take(np.arange(40))
  got = influence.influence_scores(p.apply_fn, p.original, some, held_out, devices=p.devices)

  def gradient(data):
    def loss(params):
      state = p.original._replace(params=params)
      outputs, _ = tiny.apply_fn(state, training.to_float(data.images), train=False)
      return losses.label_loss(data.labels, outputs.logits).mean()

    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.grad(loss)(p.original.params))])

  whole = gradient(held_out)
  expected = [gradient(some.take([i])) @ whole for i in range(7)]
  np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


@jax.custom_vjp
def _own_derivative(x):
  return 2 * x


_own_derivative.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


def test_influence_of_networks_with_derivatives_of_their_own(tiny_problem):
  """Convolutions of our networks have them; forward differentiation refuses."""
  p = tiny_problem

  def apply_fn(state, images, *, train):
    outputs, stats = tiny.apply_fn(state, images, train=train)
    return outputs._replace(logits=_own_derivative(outputs.logits) / 2), stats

  run = lambda network: influence.influence_scores(
    network, p.original, p.forget.take(np.arange(5)), p.validation, devices=p.devices
  )
  np.testing.assert_allclose(run(apply_fn), run(tiny.apply_fn), rtol=1e-3, atol=1e-7)


def test_groups():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
  groups = rng.integers(4, 7, 60)
  got = metrics.group_accuracy(logits, labels, groups)
  assert got.groups.tolist() == [4, 5, 6] and got.sizes.sum() == 60
  assert got.values @ got.sizes / 60 == pytest.approx(metrics.accuracy(logits, labels))
  assert got.values[1] == np.mean((logits.argmax(1) == labels)[groups == 5])
  np.testing.assert_array_equal(metrics.group_gaps(got, got).values, np.zeros(3))
  part = metrics.GroupValues(np.array([5]), np.array([1.0]), np.array([2]))
  gap = metrics.group_gaps(got, part)
  assert gap.groups.tolist() == [5] and gap.values[0] == got.values[1] - 1
  with pytest.raises(errors.InputError, match='gold must share a group'):
    metrics.group_gaps(got, part._replace(groups=np.array([9])))
  with pytest.raises(errors.InputError, match='arrays must have 60 rows like groups, got 59'):
    metrics.by_group(np.mean, groups, labels[1:])
  with pytest.raises(errors.InputError, match='groups must have one of 99 examples'):
    metrics.by_group(np.mean, groups, labels, least=99)


@pytest.mark.parametrize(
  ('labels', 'wanted'),
  [
    ([0, 0, 0, 0, 0, 1, 1], (4 / 5 + 1 / 2) / 2),  # each class alike
    ([0, 0, 0, 0, 1, 1], None),  # not over twice as many
    ([0, 0, 0, 0, 0, 0], None),  # one class
    ([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2], (4 / 5 + 1 / 2) / 2),  # 2 is forgotten
  ],
)
def test_balanced_accuracy_is_for_uneven_classes(labels, wanted):
  labels = np.array(labels, np.int32)
  said = labels.copy()
  said[np.unique(labels, return_index=True)[1]] += 1  # the first of each class is wrong
  said %= 3
  dataset = lambda name, y: types.Dataset(
    np.zeros((len(y), 1, 1, 1), np.uint8), y, np.char.add(name, np.arange(len(y)).astype(str))
  )
  kept = labels[labels < 2]
  gone = labels[labels == 2] if 2 in labels else labels[:1]
  sets = {'retain': dataset('r', kept), 'forget': dataset('f', gone), 'test': dataset('t', labels)}
  outputs = {'test': types.Outputs(np.eye(3, dtype=np.float32)[said], np.ones((len(labels), 2)))}
  case = evaluation.Case(sets=sets, outputs=outputs, original=outputs, gold=None, num_classes=3)
  got = evaluation.measure(case, keys=['test_accuracy_balanced'])
  assert got.get('test_accuracy_balanced') == (wanted and pytest.approx(wanted))


def test_group_attack_finds_the_group_that_leaks():
  rng = np.random.default_rng(0)
  groups = np.arange(200) % 2
  members, others = rng.normal(size=200) + 3 * (groups == 1), rng.normal(size=200)
  got = metrics.group_attack(members, groups, others, groups, seed=0)
  assert got.groups.tolist() == [0, 1] and got.sizes.tolist() == [100, 100]
  assert got.values[1] > 0.95 and abs(got.values[0] - 0.5) < 0.2
  with pytest.raises(errors.InputError, match='member_groups must share a group of 101'):
    metrics.group_attack(members, groups, others, groups, seed=0, least=101)


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_mixture_share_finds_a_planted_share(share):
  rng = np.random.default_rng(0)
  member, unseen = rng.exponential(0.2, 4000), rng.exponential(1.5, 4000)
  count = round(3000 * share)
  forget = np.concatenate([rng.exponential(0.2, count), rng.exponential(1.5, 3000 - count)])
  got = metrics.mixture_share(forget, member, unseen)
  assert got == pytest.approx(share, abs=0.04)
  assert metrics.mixture_share(-2 * forget, -2 * member, -2 * unseen) == pytest.approx(got)
  assert np.isnan(metrics.mixture_share(forget, member, member))


def test_short_training_gap_and_rank_correlation():
  rng = np.random.default_rng(0)
  original, short, model = rng.normal(size=(3, 30, 4))
  assert metrics.short_training_gap(original, original, short) == 1
  assert metrics.short_training_gap(short, original, short) == 0
  assert np.isnan(metrics.short_training_gap(model, short, short))
  a, b = rng.normal(size=20).round(1), rng.normal(size=20).round(1)
  got = metrics.rank_correlation(a, b)
  assert got == pytest.approx(stats.spearmanr(a, b).statistic)
  assert metrics.rank_correlation(np.exp(a), -b) == pytest.approx(-got)
  assert np.isnan(metrics.rank_correlation(a, np.ones(20)))
  with pytest.raises(errors.InputError, match='true_gap must have the shape of measure'):
    metrics.rank_correlation(a, b[1:])


def test_rf_jsd_bounds_and_bad_input():
  p, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])
  assert metrics.rf_jsd(p, labels, p[::-1], labels[::-1]) == 0
  assert metrics.rf_jsd(p, labels, np.roll(p, 1, axis=1), labels) == pytest.approx(np.log(2))
  with pytest.raises(errors.InputError, match='forget_probabilities must be rows that sum to 1'):
    metrics.rf_jsd(2 * p, labels, p, labels)
  with pytest.raises(errors.InputError, match='unseen_labels must share a class'):
    metrics.rf_jsd(p[:1], labels[:1], p[1:2], labels[1:2])


def test_completeness_orders_hidden_and_forgotten():
  rng = np.random.default_rng(0)
  shadow, original = rng.normal(size=(8, 30)), np.full(30, 6.0)
  kept = metrics.completeness_scores(original, original, shadow)
  gone = metrics.completeness_scores(rng.normal(size=30), original, shadow)
  assert kept.max() < 0.05 and gone.min() > 0.5
  moved = metrics.completeness_scores(2 * original + 1, 2 * original + 1, 2 * shadow + 1)
  np.testing.assert_allclose(moved, kept, atol=1e-12)
  same = metrics.completeness_scores(np.ones(2), np.ones(2), np.ones((3, 2)))
  np.testing.assert_allclose(same, 0.5)
  with pytest.raises(errors.InputError, match='shadow must have two models or more'):
    metrics.completeness_scores(original, original, shadow[:1])

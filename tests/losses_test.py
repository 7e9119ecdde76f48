"""Losses: closed forms, exact gradients, degenerate inputs."""

import chex
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest
import scipy.special

from dalign_jax import losses


def _normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _alignment(features, retain, energy=0.9):
  """The definition in NumPy: singular vectors of the retain features, float64."""
  _, singular, rows = np.linalg.svd(np.asarray(retain, np.float64), full_matrices=False)
  share = np.cumsum(singular**2) / np.sum(singular**2)
  k = int(np.searchsorted(share, energy) + 1)
  features = np.asarray(features, np.float64)
  return k, np.sum((features @ rows[:k].T) ** 2) / np.sum(features**2)


def test_cross_entropy_matches_scipy():
  logits, labels = _normal(0, 6, 4), jnp.array([0, 1, 2, 3, 0, 1])
  log_probs = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
  expected = -log_probs[np.arange(6), np.asarray(labels)]
  chex.assert_trees_all_close(losses.cross_entropy(labels, logits), expected, rtol=1e-5)
  smoothed = 0.8 * expected - 0.2 * log_probs.mean(axis=1)
  chex.assert_trees_all_close(
    losses.cross_entropy(labels, logits, label_smoothing=0.2), smoothed, rtol=1e-5
  )


def test_distillation_matches_scipy():
  teacher, student = _normal(1, 5, 3), _normal(2, 5, 3)
  p = scipy.special.softmax(np.asarray(teacher, np.float64) / 2, axis=1)
  q = scipy.special.softmax(np.asarray(student, np.float64) / 2, axis=1)
  expected = 4 * scipy.special.rel_entr(p, q).sum(axis=1)
  chex.assert_trees_all_close(
    losses.distillation(teacher, student, temperature=2.0), expected, rtol=1e-4
  )


def test_self_distillation_from_own_logits_is_minus_log_one_minus_p():
  logits, labels = 3 * _normal(3, 7, 5), jnp.arange(7) % 5
  probs = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
  others = 1 - probs[np.arange(7), np.asarray(labels)]
  chex.assert_trees_all_close(
    losses.self_distillation(logits, logits, labels), -np.log(others), rtol=1e-4, atol=1e-6
  )


def test_self_distillation_ignores_the_teachers_true_logit():
  teacher, student, labels = _normal(4, 3, 4), _normal(5, 3, 4), jnp.array([0, 1, 2])
  other = teacher.at[jnp.arange(3), labels].add(7.0)
  chex.assert_trees_all_equal(
    losses.self_distillation(teacher, student, labels),
    losses.self_distillation(other, student, labels),
  )


@pytest.mark.parametrize('scale', [1e4, -1e4])
def test_extreme_logits_are_finite(scale):
  logits = jnp.array([[scale, 0.0, -scale], [0.0, 0.0, 0.0]])
  labels = jnp.array([0, 1])

  def total(student):
    return jnp.sum(
      losses.cross_entropy(labels, student)
      + losses.distillation(logits, student)
      + losses.self_distillation(logits, student, labels)
    )

  value, gradient = jax.value_and_grad(total)(-logits)
  chex.assert_tree_all_finite((value, gradient))


def test_no_gradient_flows_into_teachers():
  labels, student = jnp.array([0, 1]), _normal(6, 2, 3)
  for loss in (
    lambda t: losses.distillation(t, student).sum(),
    lambda t: losses.self_distillation(t, student, labels).sum(),
  ):
    assert not jnp.any(jax.grad(loss)(_normal(7, 2, 3)))


def test_gradients_are_exact():
  labels = jnp.array([0, 2, 1])
  student, teacher = _normal(8, 3, 4), _normal(9, 3, 4)
  basis = losses.principal_basis(losses.second_moment(_normal(10, 12, 4)), energy=0.7)
  weights = jnp.array([1.0, 0.5, 2.0])
  cases = [
    lambda x: losses.cross_entropy(labels, x, label_smoothing=0.1),
    lambda x: losses.distillation(teacher, x, temperature=2.0),
    lambda x: losses.self_distillation(teacher, x, labels),
    lambda x: losses.dimensional_alignment_loss(x, basis, weights=weights),
    lambda x: losses.second_moment(x, weights=weights),
    lambda x: losses.quadratic(teacher, x, weights=jnp.abs(teacher)),
    lambda x: losses.weighted_mean(x[:, 0], weights),
    losses.l1,
  ]
  for case in cases:
    check_grads(case, (student,), order=1, modes=['rev'], eps=1e-2, rtol=2e-2, atol=2e-2)


def test_alignment_is_the_definition():
  retain = _normal(11, 200, 8) * jnp.array([[8.0, 4, 2, 1, 1, 0.5, 0.2, 0.1]])
  forget = _normal(12, 30, 8)
  rank, expected = _alignment(forget, retain)
  basis = losses.principal_basis(losses.second_moment(retain), energy=0.9)
  assert int(losses.basis_rank(basis)) == rank
  assert 1 - losses.dimensional_alignment_loss(forget, basis) == pytest.approx(expected, rel=1e-4)
  assert 1 - losses.dimensional_alignment_loss(3 * forget, basis) == pytest.approx(
    expected, rel=1e-4
  )


def test_alignment_ends_are_zero_and_one():
  basis = losses.principal_basis(jnp.diag(jnp.array([2.0, 1.0, 0.0])), energy=1.0)
  inside, outside = jnp.array([[1.0, 2.0, 0.0]]), jnp.array([[0.0, 0.0, 5.0]])
  assert losses.dimensional_alignment_loss(inside, basis) == pytest.approx(0.0, abs=1e-6)
  assert losses.dimensional_alignment_loss(outside, basis) == pytest.approx(1.0, abs=1e-6)


def test_rank_follows_energy_under_one_compilation():
  moment = jnp.diag(jnp.array([5.0, 3.0, 1.0, 1.0]))
  for energy, rank in ((0.5, 1), (0.51, 2), (0.8, 2), (0.9, 3), (1.0, 4)):
    assert int(losses.basis_rank(losses.principal_basis(moment, energy=energy))) == rank

  @jax.jit
  @chex.assert_max_traces(n=1)
  def rank_of(moment):
    return losses.basis_rank(losses.principal_basis(moment, energy=0.9))

  assert [int(rank_of(jnp.diag(jnp.array(d)))) for d in ([1.0, 0, 0], [1.0, 1, 1])] == [1, 3]


def test_streamed_second_moment_equals_whole():
  features = _normal(13, 10, 5)
  first, second = losses.second_moment(features[:4]), losses.second_moment(features[4:])
  chex.assert_trees_all_close(0.4 * first + 0.6 * second, losses.second_moment(features), atol=1e-6)


def test_padding_with_zero_weights_changes_nothing():
  features = _normal(14, 6, 5)
  padded = jnp.concatenate([features, jnp.full((3, 5), 7.0)])
  weights = jnp.array([1.0] * 6 + [0.0] * 3)
  basis = losses.principal_basis(losses.second_moment(_normal(15, 20, 5)), energy=0.6)
  chex.assert_trees_all_close(
    losses.second_moment(padded, weights=weights), losses.second_moment(features), rtol=1e-6
  )
  chex.assert_trees_all_close(
    losses.dimensional_alignment_loss(padded, basis, weights=weights),
    losses.dimensional_alignment_loss(features, basis),
    rtol=1e-6,
  )
  nan = padded[:, 0].at[6:].set(jnp.nan)
  assert jnp.isfinite(losses.weighted_mean(nan, weights))


_DEGENERATE = {
  'equal eigenvalues': jnp.eye(6),
  'ties across the cut': jnp.diag(jnp.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])),
  'fewer examples than dimensions': losses.second_moment(
    np.random.default_rng(0).normal(size=(2, 6))
  ),
  'zero': jnp.zeros((6, 6)),
}


@pytest.mark.parametrize('name', _DEGENERATE)
def test_degenerate_moments_give_finite_values_and_gradients(name):
  forget = _normal(16, 4, 6)

  def loss(moment, forget):
    with_basis = losses.dimensional_alignment_loss(
      forget, losses.principal_basis(moment, energy=0.5)
    )
    projector = losses.principal_projector(moment, energy=0.5)
    return with_basis + losses.dimensional_alignment_loss(forget, projector)

  for features in (forget, jnp.zeros_like(forget)):
    result = jax.value_and_grad(loss, argnums=(0, 1))(_DEGENERATE[name], features)
    chex.assert_tree_all_finite(result)


def test_projector_gradient_is_exact_where_the_gap_is_open():
  basis = jnp.linalg.qr(_normal(17, 5, 5))[0]
  moment = basis @ jnp.diag(jnp.array([5.0, 5.0, 4.0, 0.5, 0.5])) @ basis.T
  probe = _normal(18, 5, 5)

  def value(perturbation):
    symmetric = moment + perturbation + perturbation.T
    return jnp.sum(losses.principal_projector(symmetric, energy=0.9) * probe)

  # Eigenvalues repeat inside both parts, where the derivative of eigh itself is infinite.
  check_grads(value, (jnp.zeros((5, 5)),), order=1, modes=['rev'], eps=1e-2, rtol=1e-2, atol=1e-2)
  assert jnp.abs(jax.grad(value)(jnp.zeros((5, 5)))).max() > 0.01


def test_basis_carries_no_gradient_and_the_projector_does():
  retain, forget = _normal(19, 9, 4), _normal(20, 5, 4)

  def loss(retain, subspace):
    return losses.dimensional_alignment_loss(
      forget, subspace(losses.second_moment(retain), energy=0.7)
    )

  assert not jnp.any(jax.grad(loss)(retain, losses.principal_basis))
  assert jnp.any(jax.grad(loss)(retain, losses.principal_projector))
  assert loss(retain, losses.principal_basis) == pytest.approx(
    float(loss(retain, losses.principal_projector)), rel=1e-4
  )


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: losses.principal_basis(jnp.eye(2), energy=0.0), 'energy'),
    (lambda: losses.principal_projector(jnp.eye(2), energy=1.5), 'energy'),
    (lambda: losses.distillation(jnp.eye(2), jnp.eye(2), temperature=0), 'temperature'),
    (
      lambda: losses.cross_entropy(jnp.array([0, 1]), jnp.eye(2), label_smoothing=1.0),
      'label_smoothing',
    ),
  ],
)
def test_bad_numbers_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize(
  'call',
  [
    lambda: losses.cross_entropy(jnp.zeros(3, int), jnp.zeros((2, 4))),
    lambda: losses.cross_entropy(jnp.zeros(2), jnp.zeros((2, 4))),
    lambda: losses.distillation(jnp.zeros((2, 3)), jnp.zeros((2, 4))),
    lambda: losses.dimensional_alignment_loss(jnp.zeros((2, 3)), jnp.eye(4)),
    lambda: losses.second_moment(jnp.zeros((2, 3)), weights=jnp.ones(3)),
  ],
)
def test_wrong_shapes_are_refused(call):
  with pytest.raises(AssertionError):
    call()

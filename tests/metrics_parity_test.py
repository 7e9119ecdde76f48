"""Metrics against numbers that the authors' released code gave, on stored inputs.

The numbers were made once, in float64, with the releases' known defects repaired where a test says
so; no code of theirs is here.
"""

import pathlib

import numpy as np
import pytest

from dalign_jax import metrics


@pytest.fixture(scope='module')
def stored():
  with np.load(pathlib.Path(__file__).parent / 'parity' / 'metrics.npz') as arrays:
    return dict(arrays)


@pytest.mark.parametrize('case', ['equal', 'shift_half', 'shift_two', 'narrow', 'apart', 'point'])
def test_forgetting_quality(stored, case):
  unlearned, gold, epsilon, quality = (
    stored[f'forgetting_quality__k32_{case}__{name}']
    for name in ('unlearned', 'gold', 'epsilon', 'quality')
  )
  got = metrics.forgetting_quality(unlearned, gold)
  assert got.value == pytest.approx(float(quality))
  # The release tries a grid of .01: it can miss an attack, and never finds a stronger one.
  assert np.all(got.epsilons >= epsilon - 1e-6) and np.all(got.epsilons <= epsilon + 0.11)


@pytest.mark.parametrize('case', ['equal', 'shift_half', 'shift_two', 'narrow'])
def test_klom_with_the_last_bin_closed(stored, case):
  unlearned, gold, repaired = (
    stored[f'klom__k20_{case}__{name}'] for name in ('unlearned', 'gold', 'repaired')
  )
  got = metrics.klom(unlearned, gold).per_example
  np.testing.assert_allclose(got, repaired, atol=0.0012)


def test_lira_with_means_and_unbiased_deviations(stored):
  members = stored['lira__is_member'].astype(bool)
  got = metrics.lira(stored['lira__target_scores'], stored['lira__scores'], members)
  np.testing.assert_allclose(got, -stored['lira__online__mean_and_ddof1'], rtol=1e-9, atol=1e-9)


def test_rmia(stored):
  log = lambda name: np.log(stored[f'rmia__{name}']).T
  arrays = (
    log('signals')[0],
    log('out_signals_used'),
    log('population_signals')[0],
    log('population_out_signals_used'),
  )
  # The release counts ratios above gamma, ours those at gamma too: there are none.
  got = metrics.rmia(*arrays, gamma=1.0, offline_a=1.0)
  np.testing.assert_allclose(got, stored['rmia__scores_a10'], atol=1e-12)
  got = metrics.rmia(*arrays, gamma=1.0, offline_a=0.3)
  assert 0.05 < np.abs(got - stored['rmia__scores_a03']).max() < 0.3  # ours has no `a` in p(z)


@pytest.mark.parametrize('shape', ['tall', 'wide'])
def test_linear_cka(stored, shape):
  got = metrics.linear_cka(stored[f'cka__{shape}_a'], stored[f'cka__{shape}_b'])
  assert got == pytest.approx(float(stored[f'cka__{shape}_cka']), abs=1e-12)


@pytest.mark.parametrize('case', ['shift30', 'shift100', 'null'])
def test_one_feature_attack_within_the_spread_of_splits(stored, case):
  forget, unseen, theirs = (
    stored[f'nomus__{case}__{name}']
    for name in ('forget_losses', 'unseen_losses', 'attack_accuracy_12_split_seeds')
  )
  ours = [metrics.one_feature_attack(forget, unseen, seed=seed) for seed in range(12)]
  spread = np.std(theirs, ddof=1)
  assert abs(np.mean(ours) - np.mean(theirs)) <= 2 * spread


@pytest.mark.parametrize('kind', ['own_2', 'own_100', 'fixed_100', 'one_shadow_100'])
def test_completeness_scores(stored, kind):
  unlearned, original, shadow = (
    stored[f'iam__signal_{name}'] for name in ('unlearned', 'original', 'shadow')
  )
  shadow = shadow[:1] if kind.startswith('one') else shadow
  got = metrics.completeness_scores(
    unlearned,
    original,
    shadow,
    num_points=int(kind.split('_')[-1]),
    shared_deviation=not kind.startswith('own'),
  )
  np.testing.assert_allclose(got, stored[f'iam__score_norm_{kind}points'], atol=1e-12)


def test_rf_jsd_is_the_mean_over_classes_and_not_the_release(stored):
  get = lambda name: stored[f'rf_jsd__{name}']
  got = metrics.rf_jsd(
    get('forget_probabilities_unlearned'),
    get('forget_labels'),
    get('test_probabilities_original'),
    get('test_labels'),
  )
  assert got == pytest.approx(float(get('js_mean_over_classes')), rel=1e-6)
  assert got == pytest.approx(get('js_per_class').mean(), rel=1e-6)
  assert got > 3 * float(get('released_unrounded'))


def test_scores_and_distances_of_outputs(stored):
  get = lambda name: stored[f'outputs__{name}']
  a, b, labels = get('logits_a'), get('logits_b'), get('labels')
  np.testing.assert_allclose(metrics.logit_scaled_confidence(a, labels), get('phi_a'), rtol=1e-9)
  np.testing.assert_allclose(metrics.entropy(a), get('entropy_a'), rtol=1e-9)
  got = metrics.modified_entropy(a, labels)
  np.testing.assert_allclose(got, get('modified_entropy_a'), rtol=1e-9, atol=1e-14)
  distance = metrics.activation_distance(a, b)
  assert distance == pytest.approx(float(get('activation_distance')), rel=1e-9)
  divergence = metrics.js_divergence(a, b)
  assert divergence == pytest.approx(float(get('js_mean')), rel=1e-9)
  for release in ('bad_teaching', 'lotus'):
    assert abs(divergence - float(get(f'js_released_{release}'))) > 0.01 * divergence

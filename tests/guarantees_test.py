"""Guarantees: accounting, exactness, bounds that hold, and audits below what is claimed."""

import dataclasses
import pathlib
import re
import secrets

import chex
import jax
import numpy as np
import pytest

from dalign_jax import errors, guarantees, methods, metrics, training, types
from dalign_jax.deletion import summary
from dalign_jax.methods import _noisy_finetune
from tests import parity_network, tiny

KEY = jax.random.key(3)


def _certified(name):
  return parity_network.stored()[f'certified__{name}']


class TestAccounting:
  def test_hockey_stick_equals_the_authors_numbers(self):
    values = _certified('theta__value_stable')
    for row, epsilon in enumerate(_certified('theta__epsilon')):
      for column, ratio in enumerate(_certified('theta__ratio')):
        got = guarantees.hockey_stick(float(epsilon), float(ratio))
        assert got == pytest.approx(float(values[row, column]), rel=1e-9, abs=1e-15)

  @pytest.mark.parametrize('case', range(6))
  def test_contraction_equals_the_authors_numbers(self, case):
    epsilon, _, ratio = (
      float(x) for x in _certified('contractive__cases_epsilon_delta_ratio')[case]
    )
    for step, theirs in enumerate(_certified(f'contractive__delta_path_case{case}'), start=1):
      got = guarantees.contracted_delta(epsilon, ratio, num_steps=step)
      assert got == pytest.approx(float(theirs), rel=1e-6, abs=1e-14)

  def test_noise_equals_the_authors_numbers(self):
    table = _certified('contractive__noise_multiplier')
    for i, epsilon in enumerate(_certified('contractive__epsilon')):
      for j, delta in enumerate(_certified('contractive__delta')):
        for k, steps in enumerate(_certified('contractive__steps')):
          got = guarantees.contraction_noise(float(epsilon), float(delta), num_steps=int(steps))
          assert got == pytest.approx(float(table[i, j, k]), rel=1e-4)

  def test_epsilon_is_the_inverse_of_delta(self):
    for ratio in (0.1, 1.0, 3.0):
      epsilon = guarantees.gaussian_epsilon(1e-5, ratio)
      assert guarantees.hockey_stick(epsilon, ratio) == pytest.approx(1e-5, rel=1e-6)
    assert guarantees.gaussian_epsilon(0.5, 0.1) == 0

  def test_edges(self):
    assert guarantees.hockey_stick(0.0, 0.0) == 0 and guarantees.hockey_stick(1.0, np.inf) == 1
    assert guarantees.contracted_delta(1.0, 1.0, num_steps=0) == 1
    for bad in ({'epsilon': 0.0}, {'delta': 1.0}, {'num_steps': 0}):
      values = {'epsilon': 1.0, 'delta': 1e-5, 'num_steps': 1} | bad
      with pytest.raises(errors.InputError, match=next(iter(bad))):
        guarantees.contraction_noise(
          values['epsilon'], values['delta'], num_steps=values['num_steps']
        )


def _audited(first, second, delta):
  """A lower bound of epsilon from samples of two distributions on the line.

  The threshold is chosen on the first half, and counted on the second.
  """
  half = len(first) // 2
  grid = np.quantile(np.concatenate([first[:half], second[:half]]), np.linspace(0.01, 0.99, 99))

  def bound(threshold, rows):
    counts = [int((x[rows] > threshold).sum()) for x in (first, second)]
    size = len(first[rows])
    return metrics.epsilon_lower_bound(
      counts[0], size, counts[1], size, delta=delta, confidence=0.99
    )

  best = max(grid, key=lambda threshold: bound(threshold, slice(half)))
  return bound(best, slice(half, None))


class TestNoisyFinetune:
  @pytest.mark.parametrize('num_steps', [1, 3])
  def test_audited_epsilon_is_below_the_claim(self, num_steps):
    """One weight, from both ends of the ball, with the steepest gradients apart."""
    epsilon, delta, radius, reach = 1.0, 1e-3, 1.0, 0.1
    sigma = 2 * (radius + reach) * guarantees.contraction_noise(epsilon, delta, num_steps=num_steps)
    rng = np.random.default_rng(0)
    ends = []
    for sign in (1, -1):
      weight = np.full(200_000, sign * radius)
      for _ in range(num_steps):
        weight = np.clip(weight, -radius, radius) + sign * reach
        weight = weight + sigma * rng.standard_normal(len(weight))
      ends.append(weight)
    audited = _audited(*ends, delta)
    assert 0.05 < audited <= epsilon
    if num_steps == 1:  # the bound is tight, and half the noise breaks it
      weight = ends[0] - ends[0].mean()
      assert _audited(ends[0].mean() + weight / 2, ends[1].mean() - weight / 2, delta) > epsilon

  def test_noise_is_that_of_the_accounting(self, tiny_problem):
    options = {'privacy_epsilon': 4.0, 'noisy_steps': 1, 'radius': 0.5, 'num_epochs': 0}
    result = methods.noisy_finetune(**options, learning_rate=1e-9)(tiny_problem, KEY)
    sigma = guarantees.contraction_noise(4.0, 1e-5, num_steps=1) * 2 * 0.5
    original = tiny_problem.original.params
    kernels = [original[layer]['kernel'] for layer in ('hidden', 'head')]
    length = np.sqrt(sum(np.sum(k**2) for k in kernels))
    assert length > 0.5
    noise = [
      np.ravel(result.params[layer]['kernel'] - original[layer]['kernel'] * 0.5 / length)
      for layer in ('hidden', 'head')
    ]
    noise = np.concatenate(noise)
    assert np.std(noise) == pytest.approx(sigma, rel=0.06)
    assert abs(np.mean(noise)) < 4 * sigma / np.sqrt(len(noise))

  def test_the_training_behind_the_noise_is_the_recipe_s(self, tiny_problem, monkeypatch):
    seen = []
    monkeypatch.setattr(
      training, 'recipe_optimizer', lambda recipe, size: seen.append((recipe, size)) or 1 / 0
    )
    for num_epochs in (None, 3):
      with pytest.raises(ZeroDivisionError):
        methods.noisy_finetune(noisy_steps=1, num_epochs=num_epochs)(tiny_problem, KEY)
    recipe = tiny_problem.recipe
    size = len(tiny_problem.retain)
    assert seen == [(recipe, size), (dataclasses.replace(recipe, num_epochs=3), size)]

  def test_nothing_but_kernels_comes_from_the_original(self, tiny_problem):
    """With the kernels shrunken to nothing, two originals give one result."""
    other = jax.tree.map(lambda x: np.asarray(x) * np.float32(-2), tiny_problem.original)
    problems = (tiny_problem, dataclasses.replace(tiny_problem, original=other))
    make = methods.noisy_finetune(radius=1e-12, num_epochs=1)
    results = [make(problem, KEY) for problem in problems]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)

  def test_steps_stay_in_reach(self):
    """Before the noise, no step ends farther than C + eta G from 0."""
    tx = guarantees.noisy_descent(0.1, radius=0.5, max_norm=2.0, noise=0.0, key=KEY)
    rng = np.random.default_rng(0)
    params = {'w': (100 * rng.normal(size=(4, 5))).astype(np.float32)}
    slopes = {'w': (100 * rng.normal(size=(4, 5))).astype(np.float32)}
    updates, _ = tx.update(slopes, tx.init(params), params)
    assert np.linalg.norm(params['w'] + updates['w']) <= 0.5 + 0.1 * 2.0 + 1e-5

  def test_record_of_a_request_names_the_promise_and_what_it_leaves_out(self):
    hparams = {'privacy_epsilon': 2.0, 'privacy_delta': 1e-6}
    found = {'method': {'name': 'noisy_finetune'}, 'request': {'ids': []}}
    said = summary._limits(found | {'guarantee': _noisy_finetune.promise(hparams)})[0]
    assert '(2.0, 1e-06)-indistinguishable' in said and 'does not cover one who knows' in said
    assert 'approximate' in summary._limits(found)[0]
    promising = {n for n, method in methods.METHODS.items() if method.guarantee}
    assert promising == {'noisy_finetune'}


@pytest.fixture(scope='module')
def rows():
  """Digits as features of length 1 or less, and their labels."""
  data = tiny.dataset().take(np.arange(600))
  features = data.images.reshape(600, -1)[:, 10:40] / 255
  return features / np.linalg.norm(features, axis=1).max(), data.labels


class TestLinearHead:
  def test_fit_ends_at_a_minimum_that_classifies(self, rows):
    head = guarantees.fit_head(*rows, num_classes=10, rng=np.random.default_rng(0), noise=0.1)
    assert head.residual < 1e-6
    assert np.mean((head.features @ head.weights).argmax(axis=1) == head.labels) > 0.8

  def test_arrays_of_the_caller_stay(self):
    features, labels = 5.0 * np.eye(4), np.arange(4)
    head = guarantees.fit_head(features, labels, num_classes=4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(features, 5.0 * np.eye(4))
    features[:], labels[:] = 0, 0
    assert head.features.max() == 1 and list(head.labels) == [0, 1, 2, 3]

  def test_residual_is_below_its_bound_and_far_below_doing_nothing(self, rows):
    rng = np.random.default_rng(0)
    head = guarantees.fit_head(*rows, num_classes=10, rng=rng, regularization=1e-2)
    for count in (1, 5, 30):
      rest = np.random.default_rng(count).permutation(len(head.features))[:count]
      removed = guarantees.remove_rows(head, rest)
      actual = np.linalg.norm(guarantees.gradient_of(removed, removed.weights))
      untouched = np.linalg.norm(guarantees.gradient_of(removed, head.weights))
      assert actual <= removed.residual < 0.2 * untouched
      assert len(removed.features) == len(head.features) - count
      head = removed

  def test_removal_ends_at_the_head_of_the_remaining_rows(self, rows):
    features, labels = rows
    options = {'num_classes': 10, 'regularization': 1e-2}
    head = guarantees.fit_head(features, labels, rng=np.random.default_rng(5), **options)
    removed = guarantees.remove_rows(head, range(20))
    by_mask = guarantees.remove_rows(head, np.arange(len(features)) < 20)
    np.testing.assert_array_equal(by_mask.weights, removed.weights)
    with pytest.raises(errors.InputError, match=r'rows must be integers, or a mask'):
      guarantees.remove_rows(head, [0.5, 2.0])
    again = guarantees.fit_head(features[20:], labels[20:], rng=np.random.default_rng(5), **options)
    np.testing.assert_array_equal(again.perturbation, removed.perturbation)
    gap = np.linalg.norm(removed.weights - again.weights)
    assert gap < 0.05 * np.linalg.norm(head.weights - again.weights)

  def test_epsilon_grows_with_what_is_removed_and_ends(self, rows):
    make = lambda noise: guarantees.fit_head(
      *rows, num_classes=10, rng=np.random.default_rng(0), noise=noise, regularization=1e-2
    )
    spent = [guarantees.remove_rows(make(1.0), range(n)).epsilon(1e-5) for n in (1, 10)]
    assert 0 < spent[0] < spent[1] <= 1
    assert guarantees.remove_rows(make(0.0), [0]).epsilon(1e-5) == np.inf
    assert guarantees.remove_rows(make(1e-6), range(50)).epsilon(1e-5) == np.inf

  def test_audited_epsilon_is_below_the_claim(self):
    """A few rows and little noise; many draws of the perturbation, the largest row removed."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 2))
    features /= np.linalg.norm(features, axis=1).max()
    labels = (features[:, 0] + 0.3 * rng.normal(size=12) > 0).astype(int)
    gone = int(np.argmax(np.linalg.norm(features, axis=1)))
    options = {'num_classes': 2, 'regularization': 0.2, 'noise': 0.05}
    delta, draws, claimed, ends = 0.05, 1500, 0.0, ([], [])
    for _ in range(draws):
      head = guarantees.fit_head(features, labels, rng=rng, **options)
      removed = guarantees.remove_rows(head, [gone])
      claimed = max(claimed, removed.epsilon(delta))
      again = guarantees.fit_head(
        np.delete(features, gone, 0), np.delete(labels, gone), rng=rng, **options
      )
      for end, weights in zip(ends, (removed.weights, again.weights), strict=True):
        end.append(features[gone] @ (weights[:, 1] - weights[:, 0]))
    assert 0 < claimed <= 1
    assert _audited(*(np.array(end) for end in ends), delta) <= claimed

  @pytest.mark.parametrize('rows_to_remove', [[-1], [600], range(600)])
  def test_wrong_rows_are_named(self, rows, rows_to_remove):
    head = guarantees.fit_head(*rows, num_classes=10, rng=np.random.default_rng(0))
    with pytest.raises(errors.InputError, match='rows must'):
      guarantees.remove_rows(head, rows_to_remove)


def test_code_of_the_page_runs(rows, tiny_problem):
  page = pathlib.Path(__file__).parents[1] / 'docs/guarantees.md'
  blocks = re.findall(r'```python\n(.*?)```', page.read_text(encoding='utf-8'), flags=re.DOTALL)
  scope = {
    **{'guarantees': guarantees, 'jax': jax, 'methods': methods, 'np': np, 'secrets': secrets},
    **{'apply_fn': tiny.apply_fn, 'init_fn': tiny.init_fn, 'problem': tiny_problem},
    'recipe': types.Recipe(num_epochs=1, batch_size=64),
    'dataset': tiny.dataset().take(np.arange(200)),
    'images': tiny.dataset().images[:50],
    **dict(zip(('features', 'labels'), rows, strict=True)),
  }
  for block in blocks:
    exec(block, scope)
  assert len(blocks) == 4
  assert scope['probabilities'].shape == (50, 10) and len(scope['dataset']) == 197
  assert 0 < scope['epsilon'] <= 1
  distance = np.linalg.norm(scope['published'] - scope['weights'])
  assert distance == pytest.approx(scope['deviation'] * np.sqrt(scope['weights'].size), rel=0.2)
  chex.assert_tree_all_finite(scope['model'])


class TestRewind:
  @pytest.mark.parametrize('num_rewound', [1, 40, 100])
  @pytest.mark.parametrize('count', [1, 30])
  def test_distance_is_below_its_bound(self, rows, num_rewound, count):
    features, labels = rows
    descent = guarantees.Descent(10, num_steps=100, num_rewound=num_rewound)
    checkpoint, _ = descent.train(features, labels)
    deleted = descent.delete(checkpoint, features[count:], labels[count:])
    _, retrained = descent.train(features[count:], labels[count:])
    distance = np.linalg.norm(deleted - retrained)
    assert distance <= descent.sensitivity(len(features), count) + 1e-12
    if num_rewound == 100:
      assert distance == 0  # back to the start is retraining
    else:
      assert distance > 0

  def test_audited_epsilon_is_below_the_claim(self, rows):
    features, labels = (x[:60] for x in rows)
    descent = guarantees.Descent(10, num_steps=60, num_rewound=20)
    epsilon, delta, count = 1.0, 1e-3, 3
    sigma = descent.noise(60, count, epsilon=epsilon, delta=delta)
    checkpoint, _ = descent.train(features, labels)
    deleted = descent.delete(checkpoint, features[count:], labels[count:])
    _, retrained = descent.train(features[count:], labels[count:])
    distance = float(np.linalg.norm(deleted - retrained))
    assert guarantees.hockey_stick(epsilon, distance / sigma) <= delta
    rng = np.random.default_rng(0)  # along the line between the means: all that tells them apart
    ends = [mean + sigma * rng.standard_normal(100_000) for mean in (distance, 0.0)]
    assert _audited(*ends, delta) <= epsilon
    ends = [mean + sigma / 100 * rng.standard_normal(100_000) for mean in (distance, 0.0)]
    assert _audited(*ends, delta) > epsilon

  @pytest.mark.parametrize(
    'bad', [{'learning_rate': 5.0}, {'regularization': 0.0}, {'num_rewound': 201}]
  )
  def test_settings_outside_of_the_theorem_are_refused(self, bad):
    with pytest.raises(errors.InputError, match=next(iter(bad))):
      guarantees.Descent(10, **bad)

  def test_long_features_are_refused(self):
    with pytest.raises(errors.InputError, match='length 1'):
      guarantees.Descent(2).train(np.full((3, 4), 2.0), np.zeros(3, int))


@pytest.fixture(scope='module')
def sisa():
  recipe = types.Recipe(num_epochs=3, batch_size=32)
  return guarantees.Sisa(
    tiny.apply_fn,
    tiny.init_fn,
    recipe,
    num_shards=3,
    num_slices=2,
    devices=tuple(jax.devices()[:1]),
  )


@pytest.fixture(scope='module')
def trained(sisa):
  dataset = tiny.dataset().take(np.arange(500))
  return dataset, guarantees.train(sisa, dataset)


class TestSisa:
  def test_forgetting_is_training_on_the_rest_to_the_bit(self, sisa, trained):
    dataset, ensemble = trained
    shards, slices = guarantees.place(sisa, dataset.ids)
    late = np.flatnonzero((shards == 1) & (slices == 1))[:3]
    for rows, touched, count in (
      (late, {1}, 1),  # one shard, from its second slice on
      (np.arange(40), {0, 1, 2}, 6),
    ):
      result, rest = guarantees.forget(sisa, ensemble, dataset, dataset.ids[rows])
      assert len(rest) == len(dataset) - len(rows) and result.trained == count
      for shard in range(3):
        is_same = result.checkpoints[shard] is ensemble.checkpoints[shard]
        assert is_same == (shard not in touched)
      again = guarantees.train(sisa, rest)
      chex.assert_trees_all_equal(result.checkpoints, again.checkpoints)
      assert result.counts == again.counts

  def test_models_depend_on_the_rows(self, sisa, trained):
    dataset, ensemble = trained
    result, _ = guarantees.forget(sisa, ensemble, dataset, dataset.ids[:1])
    shard = int(guarantees.place(sisa, dataset.ids[:1])[0][0])
    before, after = (e.checkpoints[shard][-1].params['head']['bias'] for e in (ensemble, result))
    assert np.abs(before - after).max() > 1e-6

  def test_places_do_not_depend_on_other_rows(self, sisa, trained):
    ids = trained[0].ids
    for all_rows, some in zip(
      guarantees.place(sisa, ids), guarantees.place(sisa, ids[100:]), strict=True
    ):
      np.testing.assert_array_equal(all_rows[100:], some)
      assert len(np.unique(all_rows)) == all_rows.max() + 1

  def test_mean_of_the_models_classifies(self, sisa, trained):
    held_out = tiny.dataset().take(np.arange(600, 900))
    probabilities = guarantees.predict(sisa, trained[1], held_out.images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(axis=1) == held_out.labels) > 0.7

  def test_a_shard_without_rows_has_no_vote(self, sisa, trained):
    dataset, ensemble = trained
    shards, _ = guarantees.place(sisa, dataset.ids)
    result, rest = guarantees.forget(sisa, ensemble, dataset, dataset.ids[shards == 2])
    assert result.counts[2] == 0
    chex.assert_trees_all_equal(result.checkpoints, guarantees.train(sisa, rest).checkpoints)
    two = dataclasses.replace(result, checkpoints=result.checkpoints[:2], counts=result.counts[:2])
    np.testing.assert_array_equal(
      guarantees.predict(sisa, result, rest.images), guarantees.predict(sisa, two, rest.images)
    )

  def test_wrong_ids_and_settings_are_named(self, sisa, trained):
    dataset, ensemble = trained
    with pytest.raises(errors.InputError, match="'nobody' is not in it"):
      guarantees.forget(sisa, ensemble, dataset, ['nobody'])
    with pytest.raises(errors.InputError, match='leave one row'):
      guarantees.forget(sisa, ensemble, dataset, dataset.ids)
    with pytest.raises(errors.InputError, match='num_shards must be 1'):
      dataclasses.replace(sisa, num_shards=0)

"""Measures without gold: what they say, which are shown, and their benchmark."""

import jax
import numpy as np
import pytest

from dalign_jax import methods, metrics, training, types
from dalign_jax.deletion import without_gold
from experiments.benchmarks import without_gold as benchmark
from tests import tiny


@pytest.fixture(scope='module')
def models(tiny_problem):
  """The original, the class hidden by the head's bias, and gold."""
  p = tiny_problem
  recipe = types.Recipe(num_epochs=8, batch_size=64)
  gold = training.fit(
    p.apply_fn,
    tiny.init_fn(jax.random.key(5)),
    p.retain,
    recipe,
    jax.random.key(5),
    devices=p.devices,
  )
  hidden = methods.METHODS['head_only'].make()(p, jax.random.key(0))
  return {'original': p.original, 'hidden': hidden, 'gold': gold}


def _case(problem, model):
  return without_gold.Case(problem=problem, held_out=problem.validation, model=model, seed=0)


def test_measures_fall_from_the_original_to_gold(tiny_problem, models):
  for key in ('mixture_share', 'short_training_gap'):
    values = {n: without_gold.MEASURES[key](_case(tiny_problem, m)) for n, m in models.items()}
    assert values['gold'] < 0.8 * values['original'], key
  assert without_gold.MEASURES['short_training_gap'](
    _case(tiny_problem, tiny_problem.original)
  ) == pytest.approx(1)
  # The original treats forgotten and unseen images of a class alike: RF-JSD is blind to a class.
  jsd = {n: without_gold.MEASURES['rf_jsd'](_case(tiny_problem, m)) for n, m in models.items()}
  assert jsd['original'] < 0.1 < jsd['gold'] <= np.log(2)


def test_only_measures_that_predict_in_every_problem_are_shown(tiny_problem, models, monkeypatch):
  run = lambda: without_gold.measure(tiny_problem, models['gold'], tiny_problem.validation, seed=0)
  monkeypatch.setattr(
    without_gold,
    'CORRELATIONS',
    {'classes': {'rf_jsd': (0.9, 0.1), 'mixture_share': (0.9, 0.75)}, 'samples': {}},
  )
  assert without_gold.predicting('classes') == ['mixture_share']
  assert without_gold.predicting('samples') == []
  found = run()
  assert set(found) == {'mixture_share'} and found['mixture_share']['rank_correlations'] == [
    0.9,
    0.75,
  ]
  (line,) = without_gold.sentences(found)
  assert 'mixture_share' in line and '0.75 or more' in line and '(2)' in line
  found = {'classes': {'rf_jsd': (0.9, 0.1)}, 'samples': {'rf_jsd': (0.9,)}}
  monkeypatch.setattr(without_gold, 'CORRELATIONS', found)
  assert run() == {} and without_gold.sentences({}) == []


def test_stored_correlations_are_of_known_measures():
  assert set(without_gold.CORRELATIONS) == {'classes', 'samples'}
  for of_kind in without_gold.CORRELATIONS.values():
    assert set(of_kind) <= set(without_gold.MEASURES) == set(without_gold.MEANINGS)
    assert len({len(of) for of in of_kind.values()}) <= 1


def test_benchmark_correlates_over_rows():
  rows = {
    name: {'gap': gap, 'rf_jsd': -gap, 'mixture_share': gap**2, 'short_training_gap': None}
    for name, gap in (('a', 0.1), ('b', 0.5), ('original', 0.9))
  }
  rows[benchmark.SECOND] = {'gap': 0.2} | dict.fromkeys(without_gold.MEASURES)
  rates = benchmark.correlations(rows)
  assert rates == {'rf_jsd': -1.0, 'mixture_share': 1.0}
  assert rates['mixture_share'] == metrics.rank_correlation([1, 4, 9], [1, 2, 3])
  text = benchmark.markdown({'class:3': rows}).splitlines()
  assert text[-1] == '| class:3 | rank correlation | | -1.00 | 1.00 | - |'
  kinds = {'class:3': 'classes', 'random:0.1': 'samples'}
  found = benchmark.stored(dict.fromkeys(kinds, rows), kinds)
  expected = {'rf_jsd': (-1.0,), 'mixture_share': (1.0,)}
  assert found == {'classes': expected, 'samples': expected}
  rows[benchmark.SECOND]['gap'] = 0.4
  assert benchmark.stored({'class:3': rows}, kinds) == {'classes': {}, 'samples': {}}
  assert not benchmark.counts(rows)
  assert '(does not count)' in benchmark.markdown({'class:3': rows})
  assert text[2] == '| class:3 | a | 0.100 | -0.100 | 0.010 | - |'

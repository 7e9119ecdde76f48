"""Benchmarks compute the same thing in both ways, and report ratios of interleaved rounds."""

from experiments.benchmarks import alignment, harness, loops


def test_rounds_are_interleaved_and_compared():
  calls = []
  functions = {name: lambda name=name: calls.append(name) for name in ('ours', 'other')}
  timings = harness.interleave(functions, rounds=3)
  row = harness.row('case', timings, [('ours', 'other')])
  assert sorted(calls[-2:]) == ['other', 'ours'] and len(calls) >= 6
  ratio = row['ratios']['ours / other']
  assert 0 < ratio['low'] <= ratio['median'] <= ratio['high']
  assert set(row['seconds']) == {'ours', 'other'}


def test_loops_compute_the_same_with_either_convolution():
  rows = loops.measure(quick=True)
  assert [row['name'] for row in rows] == ['8 training steps', 'per-example gradient norms']
  for row in rows:
    assert row['largest_value_difference'] < 1e-4
    assert all(r['median'] > 0 for r in row['ratios'].values())


def test_streamed_alignment_is_that_of_all_features():
  for row in alignment.measure(quick=True):
    assert row['largest_value_difference'] < 1e-4
    assert len(set(row['ranks'].values())) == 1

"""Error rates of the verdict's tests, by simulation: false alarms and power, as a table.

Usage: python -m experiments.benchmarks.verdict_simulation [--simulation_draws=500]

Outputs of a model are `level + shift + model effect + noise`: `level` is common to all models, the
shift to all models of one kind, the model effect to all examples of one model.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import app, flags
import numpy as np

from dalign_jax import metrics

_DRAWS = flags.DEFINE_integer('simulation_draws', 500, 'Simulated audits behind each number.')
ALPHA = 0.05


class Sizes(NamedTuple):
  """Unlearned, gold and original models, and examples."""

  unlearned: int = 3
  gold: int = 6
  original: int = 3
  examples: int = 50


class Row(NamedTuple):
  """A line of the table: the share of draws in which a test rejects, and what is allowed."""

  test: str
  case: str
  share: float
  allowed: float  # of false alarms; NaN where the share is power


def models(rng, count: int, level: np.ndarray, shift: float, model_effect: float) -> np.ndarray:
  """Outputs `[count, N]` of independent models of one kind."""
  common = model_effect * rng.normal(size=(count, 1))
  return level + shift + common + rng.normal(size=(count, len(level)))


def rejections(
  kind: str,
  *,
  draws: int,
  sizes: Sizes,
  unlearned_shift: float = 0.0,
  original_shift: float = 0.0,
  model_effect: float = 0.0,
  pool_examples: bool = False,
) -> float:
  """Share of draws in which `nearer_to_gold` or `unlike_gold` (the kind) has p < .05.

  The kind `like_gold` is the verdict of both: nearer to gold, and not unlike it.
  """
  count = 0
  for draw in range(draws):
    rng = np.random.default_rng([draw, 7])
    level = rng.normal(0, 3, size=sizes.examples)
    sample = lambda n, shift, r=rng, at=level: models(r, n, at, shift, model_effect)
    golds, unlearned = sample(sizes.gold, 0.0), sample(sizes.unlearned, unlearned_shift)
    options = {'seed': draw, 'num_permutations': 199, 'pool_examples': pool_examples}
    found = True
    if kind != 'unlike_gold':
      originals = sample(sizes.original, original_shift)
      found = metrics.nearer_to_gold(unlearned, golds, originals, **options).p_value < ALPHA
    if kind != 'nearer_to_gold':
      is_unlike = metrics.unlike_gold(unlearned, golds, **options).p_value < ALPHA
      found = found and is_unlike == (kind == 'unlike_gold')
    count += found
  return count / draws


def holm_alarms(draws: int, tests: int = 12) -> float:
  """Share of draws in which any of several true null hypotheses is rejected after correction."""
  rng = np.random.default_rng(0)
  return float(np.mean([metrics.holm(rng.uniform(size=tests)).min() < ALPHA for _ in range(draws)]))


def epsilon_alarms(draws: int, epsilon: float, bound: Callable[[int, int, int], float]) -> float:
  """Share of draws in which a bound exceeds the epsilon of a randomised response (200 a side)."""
  rng = np.random.default_rng(1)
  rate = 1 / (1 + np.exp(-epsilon))
  hits = rng.binomial(200, rate, size=(draws, 2))
  return float(np.mean([bound(int(a), 200, int(200 - b)) > epsilon for a, b in hits]))


def _clopper(true, size, false):
  return metrics.epsilon_lower_bound(true, size, false, size)


def _one_run(true, size, false):
  return metrics.one_run_epsilon(2 * size, 2 * size, true + size - false)


def table(draws: int, shifts: Sequence[float] = (0.25, 0.5, 1.0)) -> list[Row]:
  """All rows."""
  rows = []
  alike = ('method = gold = original', {})
  as_original = {'unlearned_shift': 1.0, 'original_shift': 1.0}
  midway = {'unlearned_shift': 0.5, 'original_shift': 1.0}
  kept = ('method = original, 1 from gold', as_original)
  between = ('method midway, original 1 from gold', midway)
  names = {
    'nearer_to_gold': (alike, kept, between),
    'unlike_gold': (('method = gold', {}),),
    'like_gold': (alike, kept, between),
  }
  layouts = (
    ('3/6/3 models', Sizes(), {}),
    ('3/6/3, model effect .3', Sizes(), {'model_effect': 0.3}),
    ('8/8/8 models', Sizes(8, 8, 8), {}),
    ('3/3/3 pooled', Sizes(3, 3, 3), {'pool_examples': True}),
    ('3/3/3 pooled, model effect .3', Sizes(3, 3, 3), {'pool_examples': True, 'model_effect': 0.3}),
  )
  for layout, sizes, options in layouts:
    for kind, cases in names.items():
      run = lambda k=kind, s=sizes, o=options, **c: rejections(k, draws=draws, sizes=s, **o, **c)
      rows += [Row(f'{kind}, {layout}', name, run(**case), ALPHA) for name, case in cases]
      moved = 'unlearned_shift' if kind == 'unlike_gold' else 'original_shift'
      for shift in shifts:
        name = f'{moved.split("_")[0]} {shift:g} from gold'
        rows.append(Row(f'{kind}, {layout}', name, run(**{moved: shift}), np.nan))
  rows.append(Row('holm', '12 true null hypotheses', holm_alarms(draws), ALPHA))
  for name, bound in (('epsilon_lower_bound', _clopper), ('one_run_epsilon', _one_run)):
    for epsilon in (0.0, 1.0):
      share = epsilon_alarms(draws, epsilon, bound)
      rows.append(Row(name, f'true epsilon {epsilon:g}', share, ALPHA))
  return rows


def markdown(rows: Sequence[Row]) -> str:
  """The table in Markdown."""
  lines = ['| test | case | rejects | false alarms allowed |', '|---|---|---:|---:|']
  for row in rows:
    allowed = 'power' if np.isnan(row.allowed) else f'{row.allowed:.2f}'
    lines.append(f'| {row.test} | {row.case} | {row.share:.3f} | {allowed} |')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  print(markdown(table(_DRAWS.value)))


if __name__ == '__main__':
  app.run(main)

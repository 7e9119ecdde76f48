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
  """A number of the table: the share of draws in which a test rejects, in a case and a layout."""

  test: str
  case: str
  layout: str
  share: float


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
  inherited: float = 0.0,
  pool_examples: bool = False,
) -> float:
  """Share of draws in which `nearer_to_gold` or `unlike_gold` (the kind) has p < .05.

  The kind `like_gold` is the verdict of both: nearer to gold, and not unlike it.

  Args:
    kind: of the test.
    draws: how many audits are simulated.
    sizes: numbers of models and examples.
    unlearned_shift: how far unlearned models are from gold.
    original_shift: how far originals are.
    model_effect: standard deviation of what all examples of a model share.
    inherited: share of the variance that an unlearned model takes over from its own original.
    pool_examples: of `unlike_gold`.
  """
  count = 0
  for draw in range(draws):
    rng = np.random.default_rng([draw, 7])
    level = rng.normal(0, 3, size=sizes.examples)
    sample = lambda n, shift, r=rng, at=level: models(r, n, at, shift, model_effect)
    golds, unlearned = sample(sizes.gold, 0.0), sample(sizes.unlearned, unlearned_shift)
    originals = sample(sizes.original, original_shift)
    if inherited:
      centred = unlearned - level - unlearned_shift, originals - level - original_shift
      own, taken = np.sqrt([1 - inherited, inherited])
      unlearned = level + unlearned_shift + own * centred[0] + taken * centred[1]
    found = True
    if kind != 'unlike_gold':
      test = metrics.nearer_to_gold(unlearned, golds, originals, paired=inherited > 0)
      found = test.p_value < ALPHA
    if kind != 'nearer_to_gold':
      options = {'seed': draw, 'num_permutations': 199, 'pool_examples': pool_examples}
      is_unlike = metrics.unlike_gold(unlearned, golds, **options).p_value < ALPHA
      found = found and is_unlike == (kind == 'unlike_gold')
    count += found
  return count / draws


def band_alarms(draws: int, *, held_out: int, golds: int, degrees: int = 0) -> float:
  """Mean share of held-out golds that `outside_golds` rejects; golds are normal or Student's."""
  rng = np.random.default_rng(2)
  draw = lambda: rng.standard_t(degrees, golds) if degrees else rng.normal(size=golds)
  return float(np.mean([metrics.held_out_alarms(draw(), held_out) for _ in range(draws)]))


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


LAYOUTS = {
  '3/6/3 models': (Sizes(), {}),
  '3/6/3, model effect .3': (Sizes(), {'model_effect': 0.3}),
  '3/6/3, half inherited': (Sizes(), {'inherited': 0.5}),
  '3/6/3, half inherited, model effect .3': (Sizes(), {'inherited': 0.5, 'model_effect': 0.3}),
  '8/16/8, half inherited, model effect .3': (
    Sizes(8, 16, 8),
    {'inherited': 0.5, 'model_effect': 0.3},
  ),
}
_ORIGINALS = {  # case -> shifts of unlearned models and originals
  'method = gold = original': (0.0, 0.0),
  'method = original, 1 from gold': (1.0, 1.0),
  'method midway, original 1 from gold': (0.5, 1.0),
  'method midway, original 2 from gold': (1.0, 2.0),
  'original 0.25 from gold': (0.0, 0.25),
  'original 0.5 from gold': (0.0, 0.5),
  'original 1 from gold': (0.0, 1.0),
  'original 2 from gold': (0.0, 2.0),
}
_UNLEARNED = {f'unlearned {shift:g} from gold': (shift, 0.0) for shift in (0.25, 0.5, 1.0)}
CASES = {
  'nearer_to_gold': _ORIGINALS,
  'unlike_gold': {'method = gold': (0.0, 0.0), **_UNLEARNED},
  'like_gold': _ORIGINALS,
}


def table(draws: int) -> list[Row]:
  """The tests in every case and layout."""
  rows = []
  for layout, (sizes, options) in LAYOUTS.items():
    for kind, cases in CASES.items():
      for case, shifts in cases.items():
        moved = dict(zip(('unlearned_shift', 'original_shift'), shifts, strict=True))
        share = rejections(kind, draws=draws, sizes=sizes, **moved, **options)
        rows.append(Row(kind, case, layout, share))
  return rows


def bounds(draws: int) -> list[Row]:
  """Holm's correction, bands of columns and bounds on epsilon."""
  rows = [Row('holm', '12 true null hypotheses', 'exceeds', holm_alarms(draws))]
  for golds, held_out in ((6, 3), (16, 8)):
    for name, degrees in (('normal', 0), ('Student, 3 degrees', 3)):
      share = band_alarms(draws, held_out=held_out, golds=golds, degrees=degrees)
      case = f'{held_out} of {golds} golds held out, {name}'
      rows.append(Row('held_out_alarms', case, 'exceeds', share))
  for name, bound in (('epsilon_lower_bound', _clopper), ('one_run_epsilon', _one_run)):
    for epsilon in (0.0, 1.0):
      share = epsilon_alarms(draws, epsilon, bound)
      rows.append(Row(name, f'true epsilon {epsilon:g}', 'exceeds', share))
  return rows


def markdown(rows: Sequence[Row]) -> str:
  """Rows as a table in Markdown, layouts side by side."""
  layouts = list(dict.fromkeys(row.layout for row in rows))
  found = {(row.test, row.case, row.layout): row.share for row in rows}
  lines = [f'| test | case | {" | ".join(layouts)} |', f'|---|---|{"---:|" * len(layouts)}']
  for test, case in dict.fromkeys((row.test, row.case) for row in rows):
    shares = ' | '.join(f'{found[test, case, layout]:.3f}' for layout in layouts)
    lines.append(f'| `{test}` | {case} | {shares} |')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  for part in (table, bounds):
    print(markdown(part(_DRAWS.value)), end='\n\n')


if __name__ == '__main__':
  app.run(main)

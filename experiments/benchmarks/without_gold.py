"""Do measures without gold predict the gap to gold? Rank correlations over methods and problems.

python -m experiments.benchmarks.without_gold --flagfile=experiments/flags/without_gold_digits.flags

Runs the flags of `experiments.run` on each `--gold_scenario`; what is there is not run again. The
true gap is Avg Gap. Only problems whose original is at least three times as far from gold as the
second gold count: elsewhere there is nothing to predict. The printed `CORRELATIONS` belong into
dalign_jax/deletion/without_gold.py.
"""

from collections.abc import Sequence
import dataclasses

from absl import flags

from dalign_jax import command, metrics
from dalign_jax.deletion import without_gold
from experiments import run as run_lib

_SCENARIOS = flags.DEFINE_multi_string(
  'gold_scenario',
  ['class:3', 'class:8', 'random:0.1', 'memorised:0.1'],
  'A value of --forget. Repeatable.',
)


SECOND = 'second gold'
LEAST_FLOORS = 3.0  # between original and gold


def values_of(config) -> tuple[str, dict[str, dict[str, float]]]:
  """What a finished run forgets, and every row's measures and true gap (second gold: the gap)."""
  from dalign_jax import checkpoints
  from experiments import stages
  from experiments.measure import evaluate
  from experiments.problem import folders
  from experiments.report import table

  job = stages.prepare(config, folders.problem_folder(config))
  rows = evaluate.read_rows(job)
  load = lambda path: checkpoints.restore(path, job.template)[0]
  original = load(job.original_folder(job.original_seeds[0]) / 'model')
  gaps = {line.row.name: line.average_gap for line in table.lines(rows)}
  found = {SECOND: {'gap': gaps[SECOND]} | dict.fromkeys(without_gold.MEASURES)}
  for row in (rows.original, *(r for r in rows if r.kind in ('unlearned', 'control'))):
    model = original if row is rows.original else load(row.folder / 'unlearned')
    case = without_gold.Case(
      problem=job.problem(original), held_out=job.sets['test'], model=model, seed=0
    )
    found[row.name] = {'gap': gaps[row.name]}
    found[row.name] |= {key: m(case) for key, m in without_gold.MEASURES.items()}
  return without_gold.kind(job.problem(original)), found


def counts(found: dict[str, dict[str, float]]) -> bool:
  """Whether original and gold are far enough apart to predict anything."""
  return found['original']['gap'] >= LEAST_FLOORS * found[SECOND]['gap']


def correlations(found: dict[str, dict[str, float]]) -> dict[str, float]:
  """Rank correlation of each measure with the true gap over the original and the methods."""
  found = {name: values for name, values in found.items() if name != SECOND}
  gaps = [values['gap'] for values in found.values()]
  return {
    key: metrics.rank_correlation([values[key] for values in found.values()], gaps)
    for key in without_gold.MEASURES
    if all(values[key] is not None for values in found.values())
  }


def markdown(found: dict[str, dict[str, dict[str, float]]]) -> str:
  """The measures of every row and problem, with the correlations below."""
  keys = ('gap', *without_gold.MEASURES)
  lines = [f'| problem | model | {" | ".join(keys)} |', f'|---|---|{"---:|" * len(keys)}']
  for problem, rows in found.items():
    for name, values in rows.items():
      cells = ['-' if values[k] is None else f'{values[k]:.3f}' for k in keys]
      lines.append(f'| {problem} | {name} | {" | ".join(cells)} |')
    rates = correlations(rows)
    cells = [f'{rates[k]:.2f}' if k in rates else '-' for k in without_gold.MEASURES]
    note = '' if counts(rows) else ' (does not count)'
    lines.append(f'| {problem} | rank correlation{note} | | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main(arguments: Sequence[str]) -> None:
  config = run_lib.read_config(arguments)
  command.start_platform(config)
  from experiments import stages

  found, kinds = {}, {}
  for scenario in _SCENARIOS.value:
    changed = dataclasses.replace(config, forget=scenario, problem='')
    stages.run(changed)
    kinds[scenario], found[scenario] = values_of(changed)
  print(markdown(found))
  print(f'CORRELATIONS = {stored(found, kinds)}')


def stored(
  found: dict[str, dict[str, dict[str, float]]], kinds: dict[str, str]
) -> dict[str, dict[str, tuple[float, ...]]]:
  """The correlations of the problems that count, by what they forget and by measure."""
  table: dict[str, dict[str, tuple[float, ...]]] = {'classes': {}, 'samples': {}}
  for kind, of_kind in table.items():
    rates = [correlations(rows) for s, rows in found.items() if kinds[s] == kind and counts(rows)]
    for key in without_gold.MEASURES:
      if rates and all(key in of for of in rates):
        of_kind[key] = tuple(round(of[key], 2) for of in rates)
  return table


if __name__ == '__main__':
  command.launch(main, 'workdir')

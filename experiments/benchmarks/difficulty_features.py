"""Which features tell what gold would know? Predictors of `tmu` by every set of features.

python -m experiments.benchmarks.difficulty_features --runs=DIR/runs/tmu:all

Reads the `reliability.npz` of runs of `tmu` with `features=all` (of several seeds: means), whose
forget sets are drawn like the held-out data. `num_epochs=0` makes them without any unlearning.
"""

from collections.abc import Iterable, Sequence
import itertools
import pathlib

from absl import app, flags
import numpy as np

from dalign_jax import metrics, twin
from experiments.measure import predictions

_RUNS = flags.DEFINE_multi_string('runs', [], 'Folder of a run of tmu, of all seeds. Repeatable.')
COLUMNS = ('AUC held out', 'AUC gold', 'easy', 'known to gold', 'as gold')


def measured(arrays: dict[str, np.ndarray], features: Sequence[int]) -> tuple[float, ...]:
  """The `COLUMNS` of a predictor that sees these columns of the features; the last three in %."""
  known, right = arrays['known_to_gold'], arrays['held_out_easy']
  of_held_out = arrays['held_out_features'][:, features]
  chance, own = twin.learn('logistic', of_held_out, right, arrays['features'][:, features])
  easy = chance > twin.threshold(own, right)
  auc = lambda chances, outcomes: (
    metrics.prediction_auc(chances[None], outcomes[None], seed=0, num_bootstrap=1).auc
  )
  as_gold = (np.mean(easy[known]) + np.mean(~easy[~known])) / 2
  shares = (100 * float(share) for share in (easy.mean(), known.mean(), as_gold))
  return auc(own, right), auc(chance, known), *shares


def markdown(seeds: Sequence[dict[str, np.ndarray]]) -> str:
  """The table of all sets of features, means over seeds."""
  names = seeds[0]['names'].tolist()
  lines = [f'| features | {" | ".join(COLUMNS)} |', f'|---|{"---:|" * len(COLUMNS)}']
  for features in _sets(len(names)):
    values = np.mean([measured(arrays, features) for arrays in seeds], axis=0)
    cells = [f'{v:.3f}' for v in values[:2]] + [f'{v:.1f}' for v in values[2:]]
    lines.append(f'| {"+".join(names[k] for k in features)} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def _sets(count: int) -> Iterable[tuple[int, ...]]:
  for size in range(1, count + 1):
    yield from itertools.combinations(range(count), size)


def read(run: str) -> list[dict[str, np.ndarray]]:
  """The predictions of all seeds of a run."""
  paths = sorted(pathlib.Path(run).glob(f'seed_*/{predictions.FILE}'))
  if not paths:
    raise app.UsageError(f'no seed_*/{predictions.FILE} in {run}; run the stage evaluate first')
  seeds = []
  for path in paths:
    with np.load(path) as there:
      seeds.append(dict(there))
  return seeds


def main(arguments: Sequence[str]) -> None:
  if arguments[1:] or not _RUNS.value:
    raise app.UsageError('name the folders of runs by --runs')
  for run in _RUNS.value:
    seeds = read(run)
    print(f'{run}, {len(seeds)} seeds\n\n{markdown(seeds)}\n')


if __name__ == '__main__':
  app.run(main)

"""The verdict on each method: nearer to gold than to the original, and not told apart from gold?

Models are the samples. Both tests are of `dalign_jax.metrics`, with Holm's correction over methods
and tested outputs; docs/verdict.md has their simulated error rates.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
import pathlib
from typing import NamedTuple

import numpy as np

from dalign_jax import evaluation, metrics
from dalign_jax.store import files
from experiments.measure import rows as rows_lib
from experiments.problem import preparation

ALPHA = 0.05
TESTED = {
  'outputs': 'margins of the forget examples',
  'features': "cosines of the forget features with the classes' mean retain features",
  'held_out': 'margins of the test examples',
}
LIKE, NEARER, BETWEEN, NOT_NEARER = (
  'like gold',
  'nearer to gold, with too few models to tell it from gold',
  'nearer to gold, but unlike it',
  'not nearer to gold',
)
_FILE = 'representation.npz'
_MOST_EXAMPLES, _MOST_AUDITS = 1000, 100


class Tested(NamedTuple):
  """One kind of output: whether originals differ from golds in it, and its false alarms.

  Attributes:
    key: of `TESTED`.
    original_p: Holm-corrected p of "originals are unlike gold".
    smallest_p: the smallest p that these numbers of models allow there, uncorrected.
    false_alarms: share of held-out sets of golds that fail the audit; None where too few are left.
  """

  key: str
  original_p: float
  smallest_p: float
  false_alarms: float | None

  @property
  def can_rank(self) -> bool:
    """Whether originals are told from golds, so that "nearer to gold" means something."""
    return self.original_p < ALPHA


class Judgement(NamedTuple):
  """Corrected p-values of a row, by what was tested, and the words."""

  name: str
  nearer: Mapping[str, float]
  unlike: Mapping[str, float]
  words: str


class Verdict(NamedTuple):
  """All judgements; `reason` says why nothing can be ranked, and is empty if something can."""

  tested: tuple[Tested, ...]
  judgements: tuple[Judgement, ...]
  reason: str


def write(job: preparation.Job, folder: pathlib.Path, outputs: evaluation.Outputs) -> None:
  """Keeps what the tests need of a model; not of one with several attributes."""
  if not job.is_multi_label:
    files.write_arrays(folder / _FILE, _representation(job, evaluation.finite(outputs)))


def judge(rows: rows_lib.Results, *, seed: int) -> Verdict:
  """Tests every method and control against golds and originals.

  Args:
    rows: of the table, with the folders of all members.
    seed: of the relabellings.
  """
  golds = _stack([f for row in (rows.gold, *rows.second_golds) for f in row.folders])
  originals = _stack(rows.original.folders)
  if not golds or not originals:
    return Verdict((), (), 'outputs of these models were not kept for the tests')
  counts = [len(next(iter(of.values()))) for of in (originals, golds)]
  smallest = 1 / math.comb(sum(counts), counts[0])
  if smallest >= ALPHA or min(counts) < 3:
    return Verdict(
      (),
      (),
      f'originals: {counts[0]}, gold models: {counts[1]}; three and six are needed for a test '
      f'(--evaluation=recovery makes them), and these allow no p below {smallest:.2f}',
    )
  gates = {k: metrics.unlike_gold(originals[k], golds[k], seed=seed) for k in TESTED}
  corrected = metrics.holm(np.array([gate.p_value for gate in gates.values()]))
  rankable = [k for k, p in zip(gates, corrected, strict=True) if p < ALPHA]
  judged = {row.name: _stack(row.folders) for row in _judged(rows)}
  judged = {name: arrays for name, arrays in judged.items() if arrays}
  tests = len(judged) * len(rankable), len(judged) * len(TESTED)
  tested = tuple(
    Tested(
      key,
      float(p),
      gate.smallest_p,
      _false_alarms(golds[key], originals[key], key in rankable, tests, seed),
    )
    for (key, gate), p in zip(gates.items(), corrected, strict=True)
  )
  reason = ''
  if not rankable:
    told = ', '.join(f'{p:.2f} in {key}' for key, p in zip(gates, corrected, strict=True))
    reason = f'originals are not told from gold models (p = {told})'
  judgements = _judgements(judged, golds, originals, rankable, seed) if rankable else ()
  return Verdict(tested, judgements, reason)


def _judged(rows) -> list[rows_lib.Row]:
  return [row for row in rows if row.kind in ('unlearned', 'control', 'oracle')]


def _judgements(judged, golds, originals, rankable, seed) -> tuple[Judgement, ...]:
  near, far, smallest = {}, {}, 0.0
  for name, own in judged.items():
    for key in TESTED:
      test = metrics.unlike_gold(own[key], golds[key], seed=seed)
      far[name, key], smallest = test.p_value, max(smallest, test.smallest_p)
      if key in rankable:
        paired = len(own[key]) == len(originals[key])
        near[name, key] = metrics.nearer_to_gold(
          own[key], golds[key], originals[key], paired=paired
        ).p_value
  near, far = ({k: p for k, p in zip(of, _holm(of), strict=True)} for of in (near, far))
  can_tell = smallest * len(far) < ALPHA
  found = []
  for name in judged:
    of = lambda family, name=name: {key: p for (other, key), p in family.items() if other == name}
    words = _words(of(near), of(far), can_tell=can_tell)
    found.append(Judgement(name, of(near), of(far), words))
  return tuple(found)


def _holm(family):
  return metrics.holm(np.array([*family.values()])).tolist() if family else []


def _words(nearer, unlike, *, can_tell):
  if max(nearer.values()) >= ALPHA:
    return NOT_NEARER
  if min(unlike.values()) < ALPHA:
    return BETWEEN
  return LIKE if can_tell else NEARER


def _false_alarms(golds, originals, is_rankable, tests, seed) -> float | None:
  """Share of held-out sets of golds, as many as originals, that fail as if they were a method.

  A p is multiplied by the number of tests of its family, as Holm's first step does.
  """
  held_out = len(originals)
  if len(golds) - held_out < 3:
    return None
  choices = itertools.combinations(range(len(golds)), held_out)
  step = -(-math.comb(len(golds), held_out) // _MOST_AUDITS)
  fails = []
  for chosen in itertools.islice(choices, 0, None, step):
    own, others = golds[[*chosen]], np.delete(golds, chosen, axis=0)
    fail = metrics.unlike_gold(own, others, seed=seed).p_value * max(tests[1], 1) < ALPHA
    if is_rankable:
      p = metrics.nearer_to_gold(own, others, originals).p_value
      fail = fail or p * max(tests[0], 1) >= ALPHA
    fails.append(fail)
  return float(np.mean(fails))


def _stack(folders: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
  """What was kept of some models, stacked; empty where it is not there for all."""
  paths = [folder / _FILE for folder in folders]
  if not paths or not all(path.exists() for path in paths):
    return {}
  found = [files.read_arrays(path) for path in paths]
  return {key: np.stack([of_model[key] for of_model in found]) for key in TESTED}


def _representation(job, outputs) -> dict[str, np.ndarray]:
  """Margins, and features in a form that turning a model's feature space does not change."""
  forget, test, retain = (outputs[name] for name in ('forget', 'test', 'retain'))
  rows = {name: _sample(len(job.sets[name])) for name in ('forget', 'test')}
  margins = {
    name: metrics.logit_scaled_confidence(
      np.asarray(of.logits)[rows[name]], job.sets[name].labels[rows[name]]
    )
    for name, of in (('forget', forget), ('test', test))
  }
  labels = job.sets['retain'].labels
  means = metrics.class_means(np.asarray(retain.features), labels, job.num_classes)
  means = means[np.isfinite(means).all(axis=1)]
  centre = means.mean(axis=0)
  unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  features = np.asarray(forget.features, np.float64)[rows['forget']]
  cosines = unit(features - centre) @ unit(means - centre).T
  arrays = {'outputs': margins['forget'], 'features': cosines.ravel(), 'held_out': margins['test']}
  return {name: values.astype(np.float32) for name, values in arrays.items()}


def _sample(size):
  return np.sort(np.random.default_rng(0).permutation(size)[:_MOST_EXAMPLES])

"""The verdict on each method: nearer to gold than to the original, and not told apart from gold?

Models are the samples. Both tests are of `dalign_jax.metrics`; docs/verdict_error_rates.md has
their simulated error rates. A method must be nearer to gold in every kind of output in which
originals are told from golds, so only methods are corrected for (by Holm), not kinds of output.
Held-out golds go through the same audit: where they fail it too often, an output decides nothing.
"""

from collections.abc import Collection, Mapping, Sequence
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
  'features': "share of each forget feature inside the retain features' principal eigenspace",
  'held_out': 'margins of the test examples of retained classes and subclasses',
}
LIKE, NEARER, BETWEEN, HARMFUL, NOT_NEARER = (
  'like gold',
  'nearer to gold, with too few models to tell it from gold',
  'nearer to gold, but unlike it',
  'harms what it should keep',
  'not shown to be nearer to gold',
)
MOST_ALARMS = 0.2  # of held-out golds: an output that fails more decides nothing
FILE = 'representation.npz'  # next to each model
_MOST_EXAMPLES, _MOST_AUDITS = 1000, 100


class Tested(NamedTuple):
  """One kind of output: whether originals differ from golds in it, and its false alarms.

  Attributes:
    key: of `TESTED`.
    original_p: Holm-corrected p of "originals are unlike gold".
    false_alarms: share of held-out sets of golds that fail the audit in it; None where too few
      golds are left.
  """

  key: str
  original_p: float
  false_alarms: float | None

  @property
  def is_told(self) -> bool:
    """Whether originals are told from golds, so that "nearer to gold" means something."""
    return self.original_p < ALPHA

  @property
  def decides(self) -> bool:
    """Whether a method must be nearer to gold in it."""
    return self.is_told and (self.false_alarms or 0.0) <= MOST_ALARMS


class Judgement(NamedTuple):
  """The tests of a row.

  Attributes:
    name: of the row.
    nearer: p of the relative test, by output in which originals are told from golds.
    unlike: p of the two-sample test against golds, by output, corrected.
    nearer_p: the largest of `nearer` over the outputs that decide, corrected.
    words: one of the module's.
  """

  name: str
  nearer: Mapping[str, float]
  unlike: Mapping[str, float]
  nearer_p: float
  words: str


class Verdict(NamedTuple):
  """All judgements; `reason` says why nothing can be ranked, and is empty if something can."""

  tested: tuple[Tested, ...]
  judgements: tuple[Judgement, ...]
  reason: str


def representation(job: preparation.Job, outputs: evaluation.Outputs) -> dict[str, np.ndarray]:
  """What the tests need of a model, for `FILE`; nothing of one with several attributes.

  Features are in a form that turning a model's feature space does not change.
  """
  return {} if job.is_multi_label else _representation(job, evaluation.finite(outputs))


def is_kept(folder: pathlib.Path) -> bool:
  """Whether a model has what the tests need."""
  return (folder / FILE).exists()


def judge(rows: rows_lib.Results, *, seed: int, harmful: Collection[str] = frozenset()) -> Verdict:
  """Tests every method and control against golds and originals.

  Args:
    rows: of the table, with the folders of all members.
    seed: of the relabellings.
    harmful: names of those that lost what they should keep, or whose outputs are not finite: they
      pass no test, since forget examples alone do not show it, and few models may not either.
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
  gates = [metrics.unlike_gold(originals[k], golds[k], seed=seed).p_value for k in TESTED]
  corrected = metrics.holm(np.array(gates)).tolist()
  judged = {row.name: _stack(row.folders) for row in _judged(rows)}
  judged = {name: arrays for name, arrays in judged.items() if arrays}
  methods = [row.name for row in rows.methods if row.name in judged]
  family = max(len(methods), 1)
  tested = tuple(
    Tested(key, p, _false_alarms(golds[key], originals[key], p < ALPHA, family, seed))
    for key, p in zip(TESTED, corrected, strict=True)
  )
  if not any(t.decides for t in tested):
    return Verdict(tested, (), _why(tested))
  return Verdict(tested, _judgements(judged, methods, golds, originals, tested, seed, harmful), '')


def _judged(rows) -> list[rows_lib.Row]:
  return [row for row in rows if row.kind in ('unlearned', 'control', 'oracle')]


def _why(tested) -> str:
  """Why nothing can be ranked."""
  name = lambda t: t.key.replace('_', ' ')
  if not any(t.is_told for t in tested):
    told = ', '.join(f'{t.original_p:.2f} in {name(t)}' for t in tested)
    return f'originals are not told from gold models (corrected p = {told})'
  failed = ', '.join(f'{100 * t.false_alarms:.0f} % in {name(t)}' for t in tested if t.is_told)
  return f'held-out gold models fail the same audit ({failed}): more seeds or fewer methods'


def _judgements(judged, methods, golds, originals, tested, seed, harmful) -> tuple[Judgement, ...]:
  near, far, smallest = {}, {}, 0.0
  for name, own in judged.items():
    tests = {k: metrics.unlike_gold(own[k], golds[k], seed=seed) for k in TESTED}
    smallest = max(smallest, *(test.smallest_p for test in tests.values()))
    far[name] = {k: test.p_value for k, test in tests.items()}
    near[name] = {t.key: _nearer(own, golds, originals, t.key) for t in tested if t.is_told}
  decides = [t.key for t in tested if t.decides]
  passing = {name: max(near[name][k] for k in decides) for name in judged}
  family = len(TESTED) * max(len(methods), 1)
  near_p = _holm({name: passing[name] for name in methods})
  far_p = _holm({(name, k): far[name][k] for name in methods for k in TESTED})
  found = []
  for name in judged:  # a control is corrected like the first of as many methods
    p = near_p.get(name, min(1.0, passing[name] * max(len(methods), 1)))
    unlike = {k: far_p.get((name, k), min(1.0, far[name][k] * family)) for k in TESTED}
    words = HARMFUL if name in harmful else _words(p, unlike, can_tell=smallest * family < ALPHA)
    undecided = [t.key.replace('_', ' ') for t in tested if t.is_told and not t.decides]
    if words not in (NOT_NEARER, HARMFUL) and undecided:
      words += f', undecided in {", ".join(undecided)}'
    found.append(Judgement(name, near[name], unlike, p, words))
  return tuple(found)


def _nearer(own, golds, originals, key) -> float:
  paired = len(own[key]) == len(originals[key])
  return metrics.nearer_to_gold(own[key], golds[key], originals[key], paired=paired).p_value


def _holm(family: dict) -> dict:
  if not family:
    return {}
  return dict(zip(family, metrics.holm(np.array([*family.values()])).tolist(), strict=True))


def _words(nearer_p, unlike, *, can_tell):
  if nearer_p >= ALPHA:
    return NOT_NEARER
  if min(unlike.values()) < ALPHA:
    return BETWEEN
  return LIKE if can_tell else NEARER


def _false_alarms(golds, originals, is_told, family, seed) -> float | None:
  """Share of held-out sets of golds, as many as originals, that fail as if they were a method.

  A p is multiplied by the number of tests of its family, as Holm's first step does.
  """
  held_out = len(originals)
  if len(golds) - held_out < 3:
    return None
  fails = []
  for chosen in metrics.held_out_choices(len(golds), held_out, most=_MOST_AUDITS):
    own, others = golds[chosen], np.delete(golds, chosen, axis=0)
    p = metrics.unlike_gold(own, others, seed=seed).p_value
    fail = p * family * len(TESTED) < ALPHA
    if is_told:
      fail = fail or metrics.nearer_to_gold(own, others, originals).p_value * family >= ALPHA
    fails.append(fail)
  return float(np.mean(fails))


def _stack(folders: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
  """What was kept of some models, stacked; empty where it is not there for all."""
  paths = [folder / FILE for folder in folders]
  if not paths or not all(path.exists() for path in paths):
    return {}
  found = [files.read_arrays(path) for path in paths]
  if any(set(TESTED) - of_model.keys() for of_model in found):
    return {}
  return {key: np.stack([of_model[key] for of_model in found]) for key in TESTED}


def _representation(job, outputs) -> dict[str, np.ndarray]:
  rows = {'forget': _sample(np.arange(len(job.sets['forget']))), 'test': _sample(_retained(job))}
  margins = {
    name: metrics.logit_scaled_confidence(
      np.asarray(outputs[name].logits)[picked], job.sets[name].labels[picked]
    )
    for name, picked in rows.items()
  }
  retain = np.asarray(outputs['retain'].features, np.float64)
  forget = np.asarray(outputs['forget'].features, np.float64)[rows['forget']]
  shares = _shares(forget, retain, job.config.da_energy)
  arrays = {'outputs': margins['forget'], 'features': shares, 'held_out': margins['test']}
  return {name: values.astype(np.float32) for name, values in arrays.items()}


def _retained(job) -> np.ndarray:
  """Test rows of no forgotten class or subclass; all where there are no others."""
  test = job.sets['test']
  is_forgotten = np.isin(test.labels, job.forgets_classes)
  if job.forgets_subclass is not None:
    is_forgotten |= np.asarray(test.group == job.forgets_subclass)
  return np.flatnonzero(~is_forgotten if not is_forgotten.all() else is_forgotten)


def _shares(forget, retain, energy) -> np.ndarray:
  """DA of each example: its share inside the eigenspace that holds the energy of retain."""
  values, vectors = np.linalg.eigh(retain.T @ retain)
  values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
  held = np.cumsum(values) / max(values.sum(), 1e-300)
  space = vectors[:, : 1 + int(np.sum(held < energy - 1e-12))]
  inside = np.sum((forget @ space) ** 2, axis=1)
  return inside / np.maximum(np.sum(forget**2, axis=1), 1e-300)


def _sample(rows):
  return np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_EXAMPLES])

"""Evaluation: the one place that turns a model's outputs into metrics.

`measure` gives the scalars of a model by the keys of `MEASURES`; tables, deletion records, tuning
and `compare`, which is for your own model and data, all use it.
"""

from dalign_jax.evaluation._case import Case, Outputs, finite
from dalign_jax.evaluation._compare import compare, markdown
from dalign_jax.evaluation._matching import matched_rows, other_side
from dalign_jax.evaluation._measures import MEASURES, Measure, measure

__all__ = [
  'MEASURES',
  'Case',
  'Measure',
  'Outputs',
  'compare',
  'finite',
  'markdown',
  'matched_rows',
  'measure',
  'other_side',
]

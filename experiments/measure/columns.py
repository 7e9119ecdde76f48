"""The columns of the tables: measures of one model, then those of a group of models."""

import functools

from dalign_jax import evaluation
from experiments.measure import attacks

Column = evaluation.Measure

_full = functools.partial(Column, compute=None, part='full')


def _of_attack(attack: attacks.Attack) -> tuple[Column, Column]:
  rate = 'Its true-positive rate at 1 % false positives, %, over all models together.'
  return (
    _full(f'{attack.key}_auc', attack.head, attack.meaning),
    _full(f'{attack.key}_tpr_at_1_percent', f'{attack.head} @1%', rate, scale=100.0, digits=1),
  )


GROUP_MEASURES: tuple[Column, ...] = (  # computed in `many_seeds`
  _full(
    'klom_forget',
    'KLOM F',
    "KL divergence of a forget example's margins over the seeds from those over golds: mean, nats.",
    digits=2,
    is_distance=True,
  ),
  _full(
    'klom_forget_p95',
    'KLOM F 95',
    'Its 95th percentile over examples.',
    digits=2,
    is_distance=True,
  ),
  _full('klom_retain', 'KLOM R', 'KLOM on retain examples.', digits=2, is_distance=True),
  _full('klom_validation', 'KLOM V', 'KLOM on validation examples.', digits=2, is_distance=True),
  _full(
    'forgetting_quality',
    'FQ',
    'Forgetting quality: 1 when no threshold tells the seeds from golds; never near 1 in practice.',
  ),
  *(column for attack in attacks.ATTACKS for column in _of_attack(attack)),
  _full(
    'relearn_epochs',
    'relearn',
    "Epochs of fine-tuning on forget until its loss is the original's: fewer than gold's means "
    'that knowledge was only hidden. First seed; one more than the most tried where never.',
    digits=0,
  ),
)

COLUMNS = tuple(m for m in (*evaluation.MEASURES, *GROUP_MEASURES) if m.head)

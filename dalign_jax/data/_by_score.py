"""Forgetting by a score of each example: what training memorises, entangled or influential rows."""

import numpy as np

from dalign_jax.data import _request

STRATA = ('low', 'middle', 'high')


def _check(request: _request.Forget) -> tuple[float, str]:
  """The share of the training rows, and the stratum."""
  _, colon, stratum = request.argument.partition(':')
  if colon and stratum not in STRATA:
    raise request.error(f'the stratum must be {", ".join(STRATA)}, got {stratum!r}')
  return _request.share(request), stratum or 'high'


def rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  """The rows with the highest or lowest scores, or those around the median.

  Rows without a score, those that its models were not trained on, are not chosen.
  """
  if context.scores is None:
    raise request.error(f'needs scores: {request.kind}')
  share, stratum = _check(request)
  known = context.training[np.isfinite(context.scores[context.training])]
  order = np.argsort(-context.scores[known], kind='stable')
  count = min(max(round(share * len(context.training)), 1), len(known))
  first = {'high': 0, 'middle': (len(order) - count) // 2, 'low': len(order) - count}[stratum]
  return np.sort(known[order[first : first + count]])


def _scenario(kind: str) -> _request.Scenario:
  forms = (f'{kind}:SHARE', f'{kind}:SHARE:STRATUM')
  return _request.Scenario(forms=forms, check=_check, rows=rows, needs_scores=True)


MEMORISED, ENTANGLED, INFLUENTIAL = map(_scenario, ('memorised', 'entangled', 'influential'))

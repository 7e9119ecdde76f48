"""Forgetting what training memorises most."""

import numpy as np

from dalign_jax.data import _request


def _rows(request: _request.Forget, context: _request.Context) -> np.ndarray:
  if context.scores is None:
    raise request.error('needs memorisation scores')
  count = max(round(_request.share(request) * len(context.training)), 1)
  order = np.argsort(-context.scores[context.training], kind='stable')
  return np.sort(context.training[order[:count]])


SCENARIO = _request.Scenario(
  forms=('memorised:SHARE',), check=_request.share, rows=_rows, needs_scores=True
)

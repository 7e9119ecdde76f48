"""Forgetting rows drawn at random."""

from dalign_jax.data import _request

SCENARIO = _request.Scenario(
  forms=('random:SHARE', 'random:COUNT'),
  check=lambda request: _request.amount(request, request.argument),
  rows=lambda request, context: _request.part(
    request, request.argument, context.training, context.rng
  ),
  needs_classes=False,
)

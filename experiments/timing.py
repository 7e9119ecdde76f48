"""Seconds spent compiling, so that run times can be given without them."""

import jax

_total = 0.0


def _listen(event: str, duration: float, **kwargs) -> None:
  del kwargs
  global _total
  if event.startswith('/jax/core/compile/'):
    _total += duration


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_seconds() -> float:
  """Seconds that JAX has spent tracing and compiling since the process started."""
  return _total

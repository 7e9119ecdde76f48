"""Seconds spent compiling, so that run times can be given without them."""

from collections.abc import Iterator
import contextlib
import time

import jax

_total = 0.0


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
  del kwargs
  global _total
  if event.startswith('/jax/core/compile/'):
    _total += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_seconds() -> float:
  """Seconds that JAX has spent tracing and compiling since the process started."""
  return _total


class Stopwatch:
  """Sums seconds of running, and seconds of compiling apart from them."""

  def __init__(self):
    self.seconds = self.compile_seconds = 0.0

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Counts what is done within."""
    start, compiled = time.monotonic(), compile_seconds()
    try:
      yield
    finally:
      compiling = compile_seconds() - compiled
      self.compile_seconds += compiling
      self.seconds += time.monotonic() - start - compiling

  @contextlib.contextmanager
  def stopped(self) -> Iterator[None]:
    """Leaves out what is done within, inside `running`."""
    aside = Stopwatch()
    try:
      with aside.running():
        yield
    finally:
      self.seconds -= aside.seconds
      self.compile_seconds -= aside.compile_seconds

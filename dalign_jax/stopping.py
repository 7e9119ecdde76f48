"""SIGINT, SIGTERM and time limits: work ends after its current step, and says how to go on.

The handler notes the signal, and whoever reports progress asks for it: an exception raised by a
handler can be lost in a callback of a library, or leave its files and loops open; a note cannot.
Where nothing asks for some seconds, the exception is raised all the same.
"""

import atexit
from collections.abc import Iterator
import contextlib
import contextvars
import os
import signal
import threading
import time
from typing import Any

PARENT = 'DALIGN_JAX_PARENT'  # environment: the process without which this one must not go on
_GRACE_SECONDS = 10.0
_AGAIN_SECONDS = 60.0  # for cleaning up; then it is raised again, since a library may have lost it
_received: list[int] = []
_limit = contextvars.ContextVar[tuple[float, Exception] | None]('limit', default=None)


class Stopped(BaseException):
  """The command was asked to stop; `signal` is the number."""

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.signal = number


def check() -> None:
  """Raises `Stopped` if a signal came, and the error of `time_limit` if its time is over."""
  limit = _limit.get()
  if not _received and (limit is None or time.monotonic() <= limit[0]):
    return
  if threading.current_thread() is threading.main_thread() and _is_waiting():
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
  if _received:
    raise Stopped(_received[0])
  assert limit is not None
  raise limit[1]


def _is_waiting() -> bool:
  return signal.getitimer(signal.ITIMER_REAL)[0] > 0


@contextlib.contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
  """Work that reports progress raises `error` after its first step beyond `seconds`.

  Where nothing is reported for some seconds more, the main thread raises it all the same.
  """
  token = _limit.set((time.monotonic() + seconds, error))
  in_main = threading.current_thread() is threading.main_thread()
  if in_main:
    before = signal.signal(signal.SIGALRM, lambda *_: check())
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS, _AGAIN_SECONDS)
  try:
    yield
  finally:
    _limit.reset(token)
    if in_main:
      signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS if _received else 0.0, _AGAIN_SECONDS)
      signal.signal(signal.SIGALRM, before)


def disarm() -> None:
  """Ignores signals from now on, and ends the waiting after an earlier one.

  The work is done and the exit code settled. Python takes its handlers away while it shuts down: a
  signal, or the timer of one that came before, would turn the exit code into another.
  """
  signal.setitimer(signal.ITIMER_REAL, 0.0)
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)


def install() -> None:
  """Handles SIGINT and SIGTERM from now on, and ends with the parent that `PARENT` names."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, _note)
  signal.signal(signal.SIGALRM, lambda *_: check())
  atexit.register(disarm)  # first: so it is called last
  if os.environ.get(PARENT):
    threading.Thread(target=_watch, args=(int(os.environ[PARENT]),), daemon=True).start()


def _note(number: int, frame: Any) -> None:
  del frame
  if _received:  # asked twice
    raise Stopped(number)
  _received.append(number)
  signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS, _AGAIN_SECONDS)


def _watch(parent: int) -> None:
  """Ends the process, and so frees its locks, once the parent is gone; files stay whole."""
  while os.getppid() == parent:
    time.sleep(0.5)
  os._exit(128 + signal.SIGTERM)

"""SIGINT and SIGTERM: a command ends after its current step, and says how to go on.

The handler notes the signal, and whoever reports progress asks for it: an exception raised by a
handler can be lost in a callback of a library, a note cannot. Where nothing asks for some seconds,
the exception is raised all the same.
"""

import atexit
import os
import signal
import threading
import time
from typing import Any

PARENT = 'DALIGN_JAX_PARENT'  # environment: the process without which this one must not go on
_GRACE_SECONDS = 10.0
_received: list[int] = []


class Stopped(BaseException):
  """The command was asked to stop; `signal` is the number."""

  def __init__(self, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.signal = number


def check() -> None:
  """Raises `Stopped` if a signal came."""
  if _received:
    raise Stopped(_received[0])


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
  signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS, 1.0)


def _watch(parent: int) -> None:
  """Ends the process, and so frees its locks, once the parent is gone; files stay whole."""
  while os.getppid() == parent:
    time.sleep(0.5)
  os._exit(128 + signal.SIGTERM)

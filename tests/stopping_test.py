"""A time limit ends work at its next report; signals while Python shuts down change nothing."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from dalign_jax import stopping

ROOT = pathlib.Path(__file__).parents[1]
LATE = """
import os, signal, sys
from dalign_jax import stopping

class Late:
  def __init__(self, kill, *arguments):
    self.kill, self.arguments = kill, arguments

  def __del__(self):  # when Python has taken its own handlers away
    self.kill(*self.arguments)

stopping.install()
sys.late = Late(os.kill, os.getpid(), {number})
sys.exit({code})
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('code', [0, 130])
def test_the_exit_code_is_settled_when_the_work_is_done(number, code):
  script = LATE.format(number=int(number), code=code)
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  found = subprocess.run([sys.executable, '-c', script], env=environment)
  assert found.returncode == code


NOTED = """
import os, signal, sys, time
from dalign_jax import stopping

class Slow:
  def __del__(self, sleep=time.sleep):
    sleep(1)

stopping._GRACE_SECONDS = 0.3
stopping.install()
sys.slow = Slow()
os.kill(os.getpid(), signal.SIGINT)  # nobody asks for it: the work is done
sys.exit(0)
"""


def test_a_signal_that_came_at_the_end_leaves_no_timer():
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  found = subprocess.run([sys.executable, '-c', NOTED], env=environment)
  assert found.returncode == 0


TOO_LONG = ValueError('too long')


@pytest.mark.parametrize('in_main', [True, False])
def test_work_beyond_its_time_ends_where_it_reports(in_main):
  seen = []

  def work():
    with stopping.time_limit(3600, TOO_LONG):
      stopping.check()
    with pytest.raises(ValueError, match='too long'), stopping.time_limit(0.01, TOO_LONG):
      time.sleep(0.02)  # a library at work: nothing is raised in its middle
      seen.append('whole')
      stopping.check()
    stopping.check()  # no limit is left
    seen.append('on')

  if in_main:
    work()
  else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
  assert seen == ['whole', 'on']


@pytest.mark.parametrize('reports', [True, False])
def test_what_cleans_up_has_time_for_it(monkeypatch, reports):
  monkeypatch.setattr(stopping, '_GRACE_SECONDS', 0.05)
  cleaned = []
  with pytest.raises(ValueError, match='too long'), stopping.time_limit(0.05, TOO_LONG):
    try:
      while True:
        time.sleep(0.01 if reports else 30)
        stopping.check()
    finally:
      time.sleep(1.5)
      cleaned.append(True)
  assert cleaned


def test_work_that_reports_nothing_ends_some_seconds_later(monkeypatch):
  monkeypatch.setattr(stopping, '_GRACE_SECONDS', 0.05)
  before = signal.getsignal(signal.SIGALRM)
  with pytest.raises(ValueError, match='too long'), stopping.time_limit(0.05, TOO_LONG):
    time.sleep(30)
  assert signal.getsignal(signal.SIGALRM) is before
  assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

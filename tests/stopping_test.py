"""Signals that come while Python shuts down change nothing any more."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

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

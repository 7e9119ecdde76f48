"""Four fake CPU devices, strict promotion, cheap and shared compilation, and shared fixtures.

Most of a test's time is compilation. Programs are compiled with few optimisations, which takes half
the time, and once for all test processes and the commands that tests start. The notebooks and the
documentation's own network, which `.ci/run` also runs, are compiled as users do.
"""

import os
import tempfile

CHEAP = '--xla_cpu_use_fusion_emitters=false --xla_cpu_prefer_vector_width=128'
if 'DALIGN_JAX_TESTS' not in os.environ:  # the first process; it ends last
  COMPILED = tempfile.TemporaryDirectory(prefix='dalign_jax_tests_')
  os.environ |= {
    'DALIGN_JAX_TESTS': COMPILED.name,
    'JAX_COMPILATION_CACHE_DIR': COMPILED.name,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  }

import jax

if jax.__version_info__ < (0, 11) and CHEAP not in os.environ.get('XLA_FLAGS', ''):
  # a flag that a version does not know ends the process
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {CHEAP}'.strip()
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')

import pytest

from dalign_jax import training, types
from tests import tiny


@pytest.fixture(scope='module', autouse=True)
def freed_programs():
  """Thousands of loaded programs in one process end in a segmentation fault (jax 0.10.2)."""
  yield
  jax.clear_caches()


@pytest.fixture
def exact_sums(monkeypatch):
  """Full optimisation: its sums are more exact, for tests that compare two orders of summation."""
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '0')
  jax.config.update('jax_disable_most_optimizations', False)
  jax.clear_caches()
  yield
  jax.config.update('jax_disable_most_optimizations', True)
  jax.clear_caches()


@pytest.fixture(scope='session')
def tiny_problem() -> types.Problem:
  """The tiny problem with a trained original."""
  problem = tiny.problem()
  original = training.fit(
    problem.apply_fn,
    problem.original,
    types.concatenate(problem.retain, problem.forget),
    types.Recipe(num_epochs=8, batch_size=64),
    jax.random.key(1),
    devices=problem.devices,
  )
  return tiny.problem(original, **tiny.made_up(problem))


@pytest.fixture(scope='session')
def asked(tmp_path_factory):
  """The folder of `deletion_place.two_requests`; tests leave the requests as they are."""
  from tests import deletion_place

  folder = tmp_path_factory.mktemp('two_requests')
  deletion_place.two_requests(folder)
  return folder


@pytest.fixture
def record(asked):
  """The record of the first request of `asked`."""
  from dalign_jax.deletion import record_files

  return record_files.read(asked / 'first' / record_files.RECORD)

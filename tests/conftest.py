"""Four fake CPU devices, strict promotion, cheap and shared compilation, and shared fixtures.

Most of a test's time is compilation, so programs are compiled with few optimisations, here and in
the commands that tests start: half the time. The notebooks and the documentation's own network,
which `.ci/run` also runs, are compiled as users do.
"""

import os
import tempfile

import jax

CHEAP = '--xla_cpu_use_fusion_emitters=false --xla_cpu_prefer_vector_width=128'
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'  # for commands that tests start
jax.config.update('jax_disable_most_optimizations', True)
if jax.__version_info__ < (0, 11):  # a flag that jax does not know ends the process
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {CHEAP}'.strip()
COMPILED = tempfile.TemporaryDirectory(prefix='dalign_jax_tests_')
jax.config.update('jax_compilation_cache_dir', COMPILED.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
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

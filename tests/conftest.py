"""Four fake CPU devices, strict promotion, and the tests' shared fixtures."""

import jax

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')

from jax.experimental.compilation_cache import compilation_cache
import pytest

from dalign_jax import training, types
from tests import tiny


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
  return tiny.problem(original)


@pytest.fixture(scope='session')
def compiled_folder(tmp_path_factory) -> str:
  return str(tmp_path_factory.mktemp('compiled'))


@pytest.fixture(scope='module')
def compiled_once(compiled_folder):
  """For modules that run the same methods again and again: equal programs are compiled once."""
  settings = {
    'jax_compilation_cache_dir': compiled_folder,
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': 0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()

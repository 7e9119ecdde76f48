"""Who may import whom."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RANKS = (
  {'errors'},
  {'id_file', 'image_rows', 'locate', 'stopping', 'valid'},
  {'dalign_jax.types', 'digests', 'settings', 'seeds'},
  {'losses', 'metrics', 'data', 'models', 'optim', 'parallel', 'checkpoints'}
  | {'adapters', 'adversarial', 'depth', 'foreign'},
  {'augmentation', 'fresh', 'precision', 'pretrained', 'recipe_optim', 'salient_sgd', 'trainable'},
  {'training'},
  {'prediction'},
  {'evaluation', 'importance', 'objectives', 'recovery', 'refined', 'watching'}
  | {'class_means', 'datamodels', 'layer_inputs', 'linear_head'},
  {'difficulty', 'guarantees', 'influence', 'task_vectors'},
  {'twin'},
  {'methods'},
  {'hparams', 'store'},
  {'command', 'from_settings'},
  {'deletion'},
  {'console'},
  {'experiments.launchers'},
  {'experiments.config', 'experiments.networks'},
  {'experiments.problem', 'experiments.sweep_cells'},
  {'experiments.measure'},
  {'experiments.report'},
  {'experiments.stages'},
  {'experiments.tuning'},
  {'experiments.run', 'experiments.compare', 'experiments.forget', 'experiments.verify'},
  {'experiments.sweep', 'experiments.tune', 'experiments.benchmarks'},
  {'tests', 'colab'},
)
FORBIDDEN = {
  'losses': {'flax', 'optax', 'numpy', 'sklearn', 'scipy', 'orbax', 'tensorflow_datasets'},
  'metrics': {'jax', 'flax', 'optax'},
  'methods': {'dalign_jax.metrics', 'dalign_jax.models', 'dalign_jax.checkpoints'},
}


def _part(module: str) -> str:
  """'dalign_jax.losses._x' -> 'losses'; 'experiments.report.table' -> 'experiments.report'."""
  names = module.split('.')
  if names[0] == 'experiments':
    return '.'.join(names[:2])
  if names[:2] == ['dalign_jax', 'types']:
    return 'dalign_jax.types'
  return names[1] if names[0] == 'dalign_jax' and len(names) > 1 else names[0]


def _rank(part: str) -> int:
  return next((i for i, rank in enumerate(RANKS) if part in rank), -1)


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


FILES = sorted(p for d in ('dalign_jax', 'experiments') for p in (ROOT / d).rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
  own = _part('.'.join(path.relative_to(ROOT).with_suffix('').parts))
  for module in _imports(path):
    part = _part(module)
    if _rank(part) >= 0 and part != own:
      assert _rank(part) <= _rank(own), f'{path.name} imports {module}'
    for name in FORBIDDEN.get(own, ()):
      assert module != name and not module.startswith(f'{name}.'), f'{path.name}: {module}'


def test_methods_do_not_import_each_other():
  for path in (ROOT / 'dalign_jax' / 'methods').glob('_[a-z]*.py'):
    assert not [m for m in _imports(path) if m.startswith('dalign_jax.methods')]


def _loaded(modules: str) -> set[str]:
  """Names of the modules that a fresh process has after importing `modules`."""
  code = f'import sys, {modules}; print(*sys.modules)'
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return set(run.stdout.split())


HEAVY = {'orbax', 'sklearn', 'scipy.stats', 'tensorflow_datasets'}
NOT_LOADED = {  # module -> what importing it must not load
  'dalign_jax': HEAVY | {'flax', 'optax'},
  'dalign_jax.adversarial': HEAVY | {'flax', 'optax'},
  'dalign_jax.methods': HEAVY,
}


@pytest.mark.parametrize('module', NOT_LOADED)
def test_light_imports_stay_light(module):
  assert not NOT_LOADED[module] & _loaded(module)


def test_losses_load_jax_numpy_chex_and_what_these_need_alone():
  packages = lambda modules: {name.partition('.')[0] for name in _loaded(modules)}
  assert packages('dalign_jax.losses') - packages('jax, numpy, chex') == {'dalign_jax'}

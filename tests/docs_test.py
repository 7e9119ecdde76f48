"""The code in README, CONTRIBUTING and docs runs as it stands there."""

import importlib.util
import pathlib
import re
import types as types_lib

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import adapters, evaluation, methods, prediction, types
from experiments.measure import columns
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]


def _python_blocks(name):
  text = (ROOT / name).read_text(encoding='utf-8')
  return re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)


def test_losses_of_the_readme_give_a_gradient(tiny_problem):
  model = tiny_problem.original

  def network(params, images):
    state = model._replace(params=params)
    outputs, _ = tiny.apply_fn(state, jnp.asarray(images, jnp.float32) / 255, train=False)
    return outputs.logits, outputs.features

  scope = {'network': network}
  exec(_python_blocks('README.md')[0], scope)
  forget, retain = tiny_problem.forget, tiny_problem.retain
  gradient = jax.grad(scope['forget_loss'])(
    model.params,
    forget.images,
    forget.labels,
    network(model.params, forget.images)[0],
    retain.images,
  )
  chex.assert_tree_all_finite(gradient)
  assert np.abs(gradient['hidden']['kernel']).max() > 0


def test_method_of_the_contributing_guide_keeps_the_contract(tiny_problem):
  scope = {'__name__': 'noisy'}
  exec(_python_blocks('CONTRIBUTING.md')[0], scope)
  key = jax.random.key(0)
  result = scope['noisy'](scale=0.1)(tiny_problem, key)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    jax.tree.map(np.asarray, result), tiny_problem.original
  )
  change = result.params['hidden']['kernel'] - tiny_problem.original.params['hidden']['kernel']
  assert 0.08 < float(jnp.std(change)) < 0.12


def test_own_model_page_runs(capsys):
  scope = {'__name__': 'own_model'}
  for block in _python_blocks('docs/own_model.md'):
    exec(block, scope)
  assert len(scope['printer'].lines) == 2 and 'epoch 2: loss ' in capsys.readouterr().out
  images = scope['test'].images
  state = types.ModelState(scope['params'], scope['batch_stats'])
  by_hand = prediction.predict(scope['nnx_by_hand'], state, images)
  adapted = prediction.predict(scope['nnx_fn'], scope['unlearned'], images)  # it was put back
  chex.assert_trees_all_close(by_hand, adapted, rtol=1e-4, atol=1e-5)


def _messages():
  return re.findall(r'^### `(.*)`$', (ROOT / 'docs/faq.md').read_text('utf-8'), flags=re.MULTILINE)


@pytest.mark.parametrize('message', _messages())
def test_errors_of_the_faq_are_those_of_the_code(message):
  sources = [p for d in ('dalign_jax', 'experiments') for p in (ROOT / d).rglob('*.py')]
  code = '\n'.join(p.read_text(encoding='utf-8') for p in sources)
  code = re.sub(r"""['"]\s*\n\s*f?['"]""", '', code)  # strings over several lines
  for part in message.split('…'):
    assert part.strip() in code, part


def test_site_lists_every_page():
  text = (ROOT / 'mkdocs.yml').read_text('utf-8')
  listed = set(re.findall(r': ([\w/]+\.md)$', text, flags=re.MULTILINE))
  pages = (ROOT / 'docs').rglob('*.md')
  assert listed == {page.relative_to(ROOT / 'docs').as_posix() for page in pages}


PROSE = 1100  # words that are read in five minutes


@pytest.mark.parametrize('page', sorted((ROOT / 'docs').glob('*.md')), ids=lambda p: p.stem)
def test_page_is_read_in_five_minutes(page):
  text = re.sub(r'```.*?```', '', page.read_text('utf-8'), flags=re.DOTALL)
  prose = [line for line in text.splitlines() if not line.startswith(('|', '!['))]
  assert len(' '.join(prose).split()) <= PROSE


def test_columns_of_the_docs_are_those_of_the_code():
  assert f'{columns.markdown()}\n' in (ROOT / 'docs/metrics.md').read_text('utf-8')
  assert len({c.key for c in columns.COLUMNS}) == len(columns.COLUMNS)
  assert len({c.head for c in columns.COLUMNS}) == len(columns.COLUMNS)


def test_own_model_of_the_readme_runs(tiny_problem, capsys):
  names = ('init_fn', 'retain', 'forget', 'validation')
  network = nnx.Linear(64, 10, rngs=nnx.Rngs(0))
  modules = {'adapters': adapters, 'evaluation': evaluation, 'methods': methods, 'types': types}
  scope = {name: getattr(tiny_problem, name) for name in names} | modules
  scope |= {'jax': jax, 'network': _Flat(network), 'test': tiny_problem.validation}
  exec(_python_blocks('README.md')[1], scope)
  assert '| unlearned |' in capsys.readouterr().out


class _Flat(nnx.Module):
  def __init__(self, head):
    self.head = head

  def __call__(self, images):
    return self.head(images.reshape(len(images), -1))


def _site_hooks():
  spec = importlib.util.spec_from_file_location('site_hooks', ROOT / 'docs/site.py')
  hooks = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(hooks)
  return hooks


def test_formulas_become_mathml():
  pytest.importorskip('latex2mathml')
  html = (
    '<p><span class="arithmatex">\\(a &lt; b\\)</span></p><div class="arithmatex">\\[x\\]</div>'
  )
  made = _site_hooks().on_page_content(html)
  assert 'arithmatex' not in made and '\\' not in made
  assert '<mo>&#x0003C;</mo>' in made and 'display="inline"' in made and 'display="block"' in made


def test_site_links_the_repository_of_the_package(tmp_path):
  pytest.importorskip('latex2mathml')
  config = types_lib.SimpleNamespace(config_file_path=tmp_path / 'mkdocs.yml', extra={})
  (tmp_path / 'pyproject.toml').write_text('[project]\nname = "x"\n')
  assert _site_hooks().on_config(config).extra == {}
  (tmp_path / 'pyproject.toml').write_text('[project.urls]\nRepository = "https://a.b/c"\n')
  assert _site_hooks().on_config(config).extra['social'][0]['link'] == 'https://a.b/c'


@pytest.mark.parametrize('name', ['mkdocs.yml', *(p.name for p in (ROOT / 'docs').glob('*.md'))])
def test_site_asks_nothing_of_other_servers(name):
  text = (ROOT / (name if name == 'mkdocs.yml' else f'docs/{name}')).read_text('utf-8')
  assert not re.search(
    r'!\[[^\]]*\]\(https?:|<(?:img|script|iframe)\b|https?://\S+\.(?:js|css)\b', text
  )

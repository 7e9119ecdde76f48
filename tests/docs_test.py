"""The code in README and CONTRIBUTING runs as it stands there."""

import pathlib
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np

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

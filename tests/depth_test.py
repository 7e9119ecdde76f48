"""Layers in the order of use, whatever the tree looks like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import depth, models, types
from tests import tiny

SHAPE = (16, 16, 3)


def _by_layer(numbers):
  """`{number: names of the modules}`, from the input on."""
  found = {}
  for path, number in jax.tree_util.tree_leaves_with_path(numbers):
    found.setdefault(number, set()).add(path[1].key)
  return dict(sorted(found.items()))


def _layers(name):
  apply_fn, init_fn = models.build(name, num_classes=5, image_shape=SHAPE)
  return depth.layers(apply_fn, init_fn(jax.random.key(0)), SHAPE)


def test_cnn():
  assert _by_layer(_layers('cnn')) == {
    0: {'Conv_0', 'BatchNorm_0'},
    1: {'Conv_1', 'BatchNorm_1'},
    2: {'hidden'},
    3: {'head'},
  }


@pytest.mark.parametrize(('name', 'convolutions'), [('resnet8', 7), ('resnet18', 20)])
def test_resnet_beyond_ten_layers(name, convolutions):
  expected = {i: {f'Conv_{i}', f'BatchNorm_{i}'} for i in range(convolutions)}
  assert _by_layer(_layers(name)) == {**expected, convolutions: {'head'}}


def test_normalisation_before_a_convolution_belongs_to_the_one_before():
  found = _by_layer(_layers('wide_resnet16_4'))
  assert found[0] == {'Conv_0', 'BatchNorm_0'}
  assert found[max(found)] == {'head'}


def test_transformer():
  found = _by_layer(_layers('vit_tiny'))
  assert found[0] == {'patch_embedding'}
  assert found[max(found)] == {'head'}
  assert found[max(found) - 1] == {'_Block_11', 'LayerNorm_0'}


def test_names_nesting_jit_and_casts_do_not_matter():
  params = {'z': {'a': {'w': jnp.ones((2, 4)), 'b': jnp.ones(4)}}, 'a': jnp.ones((4, 3))}

  @jax.jit
  def network(params, x):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    features = x @ params['z']['a']['w'] + params['z']['a']['b'][None]
    return types.Outputs(features @ params['a'], features)

  def apply_fn(state, images, *, train):
    del train
    return network(state.params, images.reshape(len(images), -1)), state.batch_stats

  numbers = depth.layers(apply_fn, types.ModelState(params, {}), (2, 1, 1))
  assert numbers.params == {'z': {'a': {'w': 0, 'b': 0}}, 'a': 1}


def test_batch_statistics_belong_to_their_layer():
  model = tiny.init_fn(jax.random.key(0))
  numbers = depth.layers(tiny.apply_fn, model, (8, 8, 1))
  assert numbers.batch_stats == {'mean': 0, 'var': 0}
  assert numbers.params == {
    'hidden': {'kernel': 0, 'bias': 0},
    'head': {'kernel': 1, 'bias': 1},
  }


def test_last_layers_end_at_the_input():
  model = tiny.init_fn(jax.random.key(0))
  last = lambda k: depth.last_layers(tiny.apply_fn, model, (8, 8, 1), k)
  assert np.mean(jax.tree.leaves(last(0).params)) == 0.5
  assert all(jax.tree.leaves(last(1)))
  for k in (-1, 2):
    with pytest.raises(ValueError, match=f'num_layers must be 0 to 1 for this network, got {k}'):
      last(k)

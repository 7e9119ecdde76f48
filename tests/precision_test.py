"""Computing in bfloat16, and computing the inside of blocks again."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  checkpoints,
  depth,
  errors,
  from_settings,
  layer_inputs,
  models,
  precision,
  types,
)
from dalign_jax import settings as settings_lib
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders
from tests import tiny

KEY = jax.random.key(7)
SHAPE = (16, 16, 3)


def _build(name):
  options = {} if name.startswith('vit') else {'width_multiplier': 0.25}
  return models.build(name, num_classes=5, image_shape=SHAPE, axis_name=None, **options)


def _images(count=4):
  return jnp.asarray(np.random.default_rng(0).uniform(size=(count, *SHAPE)), jnp.float32)


@pytest.mark.parametrize(
  ('name', 'train'),
  [*((name, True) for name in models.MODELS), ('cnn', False), ('fast_cnn_small', False)],
)
def test_every_network_computes_in_bfloat16_and_gives_float32_back(name, train):
  apply_fn, init_fn = _build(name)
  state = init_fn(KEY)
  seen = []

  def watched(state, images, *, train):
    outputs, batch_stats = apply_fn(state, images, train=train)
    seen.append((outputs.logits.dtype, jax.tree.map(lambda x: x.dtype, batch_stats)))
    return outputs, batch_stats

  network = precision.computing_in(watched, 'bfloat16')
  outputs, batch_stats = jax.eval_shape(
    functools.partial(network, train=train), state, jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)
  )
  assert {x.dtype for x in jax.tree.leaves((outputs, batch_stats))} == {jnp.dtype('float32')}
  ((logits, statistics),) = seen
  assert logits == jnp.bfloat16
  assert set(jax.tree.leaves(statistics)) <= {jnp.dtype('float32')}  # taken in float32, not cast


def test_outputs_and_gradients_are_near_those_of_float32():
  apply_fn, init_fn = _build('resnet8')
  state, images = init_fn(KEY), _images(16)
  networks = [precision.computing_in(apply_fn, dtype) for dtype in precision.DTYPES]
  assert networks[0] is apply_fn

  @functools.partial(jax.jit, static_argnums=0)
  def at(network, params):
    def loss(params):
      outputs, stats = network(state._replace(params=params), images, train=True)
      return (outputs.logits**2).mean(), (outputs, stats)

    return jax.value_and_grad(loss, has_aux=True)(params)

  (_, (want, _)), want_grads = at(networks[0], state.params)
  (_, (got, _)), grads = at(networks[1], state.params)
  assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype('float32')}
  distance = lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
  assert 1e-4 < distance(got.logits, want.logits) < 0.05
  flat = [jnp.concatenate([x.ravel() for x in jax.tree.leaves(g)]) for g in (grads, want_grads)]
  assert distance(*flat) < 0.1


def test_equal_networks_are_one_and_what_cannot_be_meant_is_refused():
  assert precision.computing_in(tiny.apply_fn, 'bfloat16') == precision.computing_in(
    tiny.apply_fn, 'bfloat16'
  )
  with pytest.raises(errors.InputError, match=r'compute_dtype must be one of .*float16'):
    precision.computing_in(tiny.apply_fn, 'float16')
  network = precision.computing_in(tiny.apply_fn, 'bfloat16')  # its statistics are float32 arrays
  with pytest.raises(errors.InputError, match='computes its features in float32, not in bfloat16'):
    network(tiny.init_fn(KEY), jnp.ones((2, 8, 8, 1)), train=False)


DEEP = {
  'resnet': lambda remat: models.ResNet(5, (1, 1), (8, 16), remat=remat),
  'wide_resnet': lambda remat: models.WideResNet(5, 10, 1, width_multiplier=0.5, remat=remat),
  'vit': lambda remat: models.ViT(5, width=24, depth=2, remat=remat),
}


@pytest.mark.parametrize('name', DEEP)
def test_remat_leaves_parameters_outputs_and_gradients_as_they_are(name):
  found, images = {}, _images()
  for remat in (False, True):
    module = DEEP[name](remat)
    variables = jax.jit(functools.partial(module.init, train=False))(KEY, images)

    def loss(params, module=module, variables=variables):
      mutable = ['batch_stats']
      of_these = {**variables, 'params': params}
      outputs, stats = module.apply(of_these, images, train=True, mutable=mutable)
      return (outputs.logits**2).mean(), stats

    found[remat] = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
  chex.assert_trees_all_close(found[True], found[False], rtol=1e-3, atol=1e-5)


def test_remat_keeps_less_for_the_gradient():
  images = jax.ShapeDtypeStruct((8, *SHAPE), jnp.float32)

  def kept(remat):
    module = models.ViT(5, width=24, depth=12, remat=remat)
    init = functools.partial(module.init, train=False)
    params = jax.eval_shape(init, KEY, images)['params']

    def residuals(params, images):
      loss = lambda p: module.apply({'params': p}, images, train=True).logits.sum()
      return jax.vjp(loss, params)[1]

    found = jax.tree.leaves(jax.eval_shape(residuals, params, images))
    return sum(x.size for x in found) - sum(x.size for x in jax.tree.leaves(params))

  assert kept(True) < kept(False) / 5


def test_layers_are_found_through_casts_and_checkpoints():
  def found(remat, dtype):
    network, init_fn = models.build(
      'resnet8', num_classes=5, image_shape=SHAPE, width_multiplier=0.25, remat=remat
    )
    network, state = precision.computing_in(network, dtype), init_fn(KEY)
    dataset = types.Dataset(
      np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int32), np.array(['a', 'b'])
    )
    moments = layer_inputs.second_moments(network, state, dataset, devices=jax.devices()[:1])
    return depth.layers(network, state, SHAPE), [m is not None for m in moments]

  wanted = found(False, 'float32')
  assert sum(wanted[1]) == 8  # the kernels
  assert found(True, 'float32') == wanted
  assert found(False, 'bfloat16') == wanted


def test_remat_is_refused_where_there_are_no_blocks():
  with pytest.raises(errors.InputError, match='this CNN has no option remat'):
    models.build('cnn', num_classes=2, image_shape=SHAPE, remat=True)
  own = settings_lib.Settings(model='tests.own:build', remat=True)
  with pytest.raises(errors.InputError, match=r'use jax\.checkpoint in your own') as raised:
    from_settings.network(own, SHAPE, 2)
  assert raised.value.argument == 'remat'


def test_a_run_computes_in_bfloat16_and_belongs_to_its_problem(tmp_path):
  config = config_lib.Config(
    dataset='digits',
    workdir=str(tmp_path),
    width_multiplier=0.125,
    num_epochs=1,
    batch_size=64,
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
    compute_dtype='bfloat16',
    problem='one',
    stages=('prepare', 'train_original'),
  )
  stages.run(config)
  folder = folders.problem_folder(config)
  model = checkpoints.restore(folder / 'original' / 'seed_0' / 'model')[0]
  assert {np.asarray(x).dtype for x in jax.tree.leaves(model)} == {np.dtype('float32')}
  assert '"compute_dtype": "bfloat16"' in (folder / 'problem.json').read_text(encoding='utf-8')
  with pytest.raises(errors.InputError, match=r"compute_dtype: 'bfloat16' there, 'float32' now"):
    stages.run(dataclasses.replace(config, compute_dtype='float32'))

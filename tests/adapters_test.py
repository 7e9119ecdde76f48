"""Modules as people write them, adapted: modes, random streams, heads and batch norm."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import chex
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import adapters, errors, methods, parallel, prediction, training, types
from tests import tiny

KEY = jax.random.key(3)
SIDE = 8


class Block(nn.Module):
  """A residual block of the ImageNet example of Flax: norms and convolutions are passed to it."""

  filters: int
  conv: Callable
  norm: Callable
  strides: tuple[int, int] = (1, 1)

  @nn.compact
  def __call__(self, x):
    y = nn.relu(self.norm()(self.conv(self.filters, (3, 3), self.strides)(x)))
    y = self.norm(scale_init=nn.initializers.zeros_init())(self.conv(self.filters, (3, 3))(y))
    if x.shape != y.shape:
      x = self.norm(name='norm_proj')(
        self.conv(self.filters, (1, 1), self.strides, name='conv_proj')(x)
      )
    return nn.relu(x + y)


class ResNet(nn.Module):
  """The network of that example, small; its last layer has no name of its own."""

  num_classes: int = tiny.CLASSES
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x, train: bool = True):
    conv = functools.partial(nn.Conv, use_bias=False)
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      axis_name=self.axis_name if train else None,
    )
    x = nn.relu(norm(name='bn_init')(conv(8, (3, 3), name='conv_init')(x)))
    for i, strides in enumerate([(1, 1), (2, 2)]):
      x = Block(8 * 2**i, conv=conv, norm=norm, strides=strides)(x)
    return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


class Encoder(nn.Module):
  @nn.compact
  def __call__(self, x, deterministic=True):
    y = nn.LayerNorm()(x)
    y = nn.MultiHeadDotProductAttention(2, dropout_rate=0.2, deterministic=deterministic)(y, y)
    x = x + nn.Dropout(0.2, broadcast_dims=(1, 2), rng_collection='drop_path')(y, deterministic)
    return nn.Dropout(0.2)(x, deterministic=deterministic)


class ViT(nn.Module):
  """A vision transformer in Linen: `deterministic`, stochastic depth on a stream of its own."""

  def setup(self):
    self.patches = nn.Conv(16, (4, 4), strides=(4, 4))
    self.encoder = Encoder()
    self.classifier = nn.Dense(tiny.CLASSES)

  def __call__(self, images, *, deterministic: bool):
    x = self.patches(images).reshape(len(images), -1, 16)
    return self.classifier(self.encoder(x, deterministic).mean(1))


class Layer(nnx.Module):
  """A transformer layer with stochastic depth, which draws from the layer's own stream."""

  def __init__(self, rngs):
    self.norm = nnx.LayerNorm(16, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(2, 16, dropout_rate=0.2, decode=False, rngs=rngs)
    self.dropout = nnx.Dropout(0.2, rngs=rngs)
    self.rngs = rngs.dropout.fork()
    self.deterministic = False

  def __call__(self, x):
    y = self.dropout(self.attention(self.norm(x)))
    if not self.deterministic:
      y = y * jax.random.bernoulli(self.rngs(), 0.8, (len(x), 1, 1)) / 0.8
    return x + y


class Transformer(nnx.Module):
  def __init__(self, rngs):
    self.patches = nnx.Conv(1, 16, (4, 4), strides=(4, 4), rngs=rngs)
    self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, 16)))
    self.layers = nnx.List([Layer(rngs) for _ in range(2)])
    self.heads = nnx.List([nnx.Linear(16, tiny.CLASSES, rngs=rngs)])

  def __call__(self, x):
    x = self.patches(x).reshape(len(x), -1, 16)
    x = jnp.concatenate([jnp.tile(self.token[...], (len(x), 1, 1)), x], axis=1)
    for layer in self.layers:
      x = layer(x)
    return self.heads[0](x[:, 0].astype(self.heads[0].kernel.dtype))


class NNXViT(nnx.Module):
  """A vision transformer in NNX, whose last layer is nested and whose kernel is read."""

  def __init__(self, rngs):
    self.encoder = Transformer(rngs)

  def __call__(self, images, is_training):
    assert self.encoder.layers[0].deterministic == (not is_training)
    return self.encoder(images)


def _linen(module, **options):
  variables = module.init(KEY, jnp.zeros((1, SIDE, SIDE, 1)), **options.pop('init', {}))
  state = types.ModelState(variables['params'], variables.get('batch_stats', {}))
  return adapters.from_linen(module, **options), state


def _equinox():
  eqx = pytest.importorskip('equinox')
  body_key, head_key = jax.random.split(KEY)
  body = eqx.nn.Sequential([eqx.nn.Linear(SIDE**2, 16, key=body_key), eqx.nn.Dropout(0.2)])
  model = {'body': body, 'head': eqx.nn.Linear(16, tiny.CLASSES, key=head_key)}
  params, rest = eqx.partition(model, eqx.is_inexact_array)
  leaves, structure = jax.tree.flatten(params)

  def apply_fn(state, images, *, train, key=None):
    model = eqx.combine(jax.tree.unflatten(structure, state.params), rest)
    keys = jax.random.split(key, len(images)) if train else None
    body = eqx.nn.inference_mode(model['body'], not train)
    features = jax.vmap(body)(images.reshape(len(images), -1), key=keys)
    return types.Outputs(jax.vmap(model['head'])(features), features), state.batch_stats

  return apply_fn, types.ModelState(leaves, {})


@pytest.fixture(autouse=True)
def promotion(request):
  """The package's batch norm multiplies a vector by images, which our tests forbid."""
  with jax.numpy_rank_promotion('allow' if '[flaxmodels]' in request.node.name else 'raise'):
    yield


def _flaxmodels():
  """A network of a public package; its batch norm is for one device."""
  package = pytest.importorskip('flaxmodels')
  module = package.ResNet18('logits', pretrained=None, normalize=False, num_classes=tiny.CLASSES)
  return _linen(module, head='Dense_0', init={'train': False})


class Case(NamedTuple):
  make: Callable[[], tuple[types.ApplyFn, types.ModelState]]
  draws: bool
  head: tuple[Any, ...]  # where the state has the kernel and the bias
  said: str = ''
  num_devices: int = 2


MODULES = {
  'flax_resnet': Case(
    lambda: _linen(ResNet(axis_name=parallel.AXIS), head='Dense_0', init={'train': False}),
    draws=False,
    head=('Dense_0',),
    said='ResNet(training: train=True; head: Dense_0)',
  ),
  'linen_vit': Case(
    lambda: _linen(ViT(), head=('classifier',), init={'deterministic': True}),
    draws=True,
    head=('classifier',),
    said='ViT(training: deterministic=False; head: classifier)',
  ),
  'nnx_vit': Case(
    lambda: adapters.from_nnx(NNXViT(nnx.Rngs(0)), head='encoder.heads.0'),
    draws=True,
    head=('encoder', 'heads', '0'),
    said='NNXViT(training: train(), is_training=True; head: encoder.heads.0)',
  ),
  'equinox': Case(_equinox, draws=True, head=()),
  'flaxmodels': Case(
    _flaxmodels,
    draws=False,
    head=('Dense_0',),
    said='ResNet(training: train=True; head: Dense_0)',
    num_devices=1,
  ),
}


def _problem(apply_fn, state, num_devices):
  parts = np.split(np.arange(96), [32, 64])
  retain, forget, validation = (tiny.dataset().take(rows) for rows in parts)
  return types.Problem(
    apply_fn=apply_fn,
    init_fn=lambda key: state,
    original=jax.tree.map(np.asarray, state),
    retain=retain,
    forget=forget,
    validation=validation,
    num_classes=tiny.CLASSES,
    recipe=types.Recipe(num_epochs=1, batch_size=16),
    devices=tuple(jax.devices()[:num_devices]),
  )


@pytest.mark.parametrize('name', MODULES)
def test_module_is_trained_unlearned_and_evaluated(name):
  case = MODULES[name]
  apply_fn, state = case.make()
  problem = _problem(apply_fn, state, case.num_devices)
  fit = lambda: training.fit(
    apply_fn, problem.original, problem.retain, problem.recipe, KEY, devices=problem.devices
  )
  first = fit()
  chex.assert_trees_all_equal(fit(), first)
  chex.assert_tree_all_finite(first)
  unlearned = methods.muda(rounds=1, recover_epochs=1, batch_size=16)(problem, KEY)
  outputs = [
    prediction.predict(apply_fn, model, problem.validation.images, devices=problem.devices)
    for model in (problem.original, unlearned, unlearned)
  ]
  assert np.abs(outputs[1].logits - outputs[0].logits).max() > 1e-4
  chex.assert_trees_all_equal(outputs[1], outputs[2])
  assert not case.said or str(apply_fn) == case.said


@pytest.mark.parametrize('name', MODULES)
def test_module_draws_in_training_alone_and_its_features_enter_the_head(name):
  case = MODULES[name]
  apply_fn, state = case.make()
  images = training.to_float(jnp.asarray(tiny.dataset().images[:16]))
  if case.draws:
    calls = [apply_fn(state, images, train=True, key=jax.random.key(i))[0] for i in (0, 1, 0)]
    assert np.mean(np.asarray(calls[0].logits) != calls[1].logits) > 0.5
    chex.assert_trees_all_equal(calls[0], calls[2])
    with pytest.raises(Exception, match=r'key|PRNG'):
      apply_fn(state, images, train=True)
  plain, keyed = (apply_fn(state, images, train=False, key=k)[0] for k in (None, KEY))
  chex.assert_trees_all_equal(plain, keyed)
  layer = functools.reduce(lambda tree, part: tree[part], case.head, state.params)
  if case.head:
    logits = plain.features @ layer['kernel'] + layer['bias'][None]
    chex.assert_trees_all_close(logits, plain.logits, rtol=1e-4, atol=1e-5)


def _shared(apply_fn, state, count):
  """A pass in training mode of a batch that so many devices share."""
  images = jnp.asarray(tiny.dataset().images[:8], jnp.float32).reshape(count, -1, SIDE, SIDE, 1)
  one = lambda x: apply_fn(state, x, train=True)
  return jax.vmap(one, axis_name=parallel.AXIS, axis_size=count)(images)


class Normed(nnx.Module):
  def __init__(self, axis_name=None):
    rngs = nnx.Rngs(0)
    self.norm = nnx.BatchNorm(SIDE**2, axis_name=axis_name, rngs=rngs)
    self.head = nnx.Linear(SIDE**2, tiny.CLASSES, rngs=rngs)

  def __call__(self, images):
    return self.head(self.norm(images.reshape(len(images), -1)))


BATCH_NORMS = {
  'bn_init': lambda name: _linen(ResNet(axis_name=name), head='Dense_0', init={'train': False}),
  'norm': lambda name: adapters.from_nnx(Normed(name)),
}


@pytest.mark.parametrize('path', BATCH_NORMS)
def test_batch_norm_that_devices_do_not_share_is_refused(path):
  make = BATCH_NORMS[path]
  with pytest.raises(errors.InputError, match=f"the batch norm '{path}' has no axis_name, so that"):
    _shared(*make(None), 2)
  with pytest.raises(errors.InputError, match=f"the batch norm '{path}' has axis_name='batch'"):
    _shared(*make('batch'), 1)
  found = [_shared(*make(name), 1)[1] for name in (None, parallel.AXIS)]
  chex.assert_trees_all_close(*found, rtol=1e-6)
  _, statistics = _shared(*make(parallel.AXIS), 2)
  first, second = (jax.tree.map(lambda x, i=i: x[i], statistics) for i in (0, 1))
  chex.assert_trees_all_equal(first, second)


class Told(nn.Module):
  """Logits that say how the module was called."""

  train: bool = False

  def told(self, *flags):
    return nn.Dense(2, name='head')(jnp.full((1, 2), sum(2.0**i for i, f in enumerate(flags) if f)))


class TwoFlags(Told):
  @nn.compact
  def __call__(self, images, training, deterministic=None):
    return self.told(training, deterministic)


class Field(Told):
  @nn.compact
  def __call__(self, images):
    return self.told(self.train)


class Unknown(Told):
  @nn.compact
  def __call__(self, images, mode=False):
    return self.told(mode)


class Required(Told):
  @nn.compact
  def __call__(self, images, train, temperature):
    return self.told(train)


class Eager(nnx.Module):
  def __init__(self):
    self.head = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    self.twice = nnx.List([nnx.Dropout(0.5) for _ in range(2)])

  def __call__(self, images, temperature):
    return self.head(images)


class Switched(nn.Module):
  """Draws where a switch of another name is on."""

  @nn.compact
  def __call__(self, images, enable_dropout=False):
    return nn.Dropout(0.5, deterministic=not enable_dropout)(images)


def test_a_switch_of_another_name_is_not_left_at_its_default():
  with pytest.raises(errors.InputError, match='cannot tell what to pass for enable_dropout'):
    adapters.from_linen(Switched())
  adapters.from_linen(Switched(), call=lambda m, x, train: m(x, enable_dropout=train))


PARAMS = types.ModelState({'head': {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}}, {})


@pytest.mark.parametrize(
  ('module', 'call', 'in_training', 'in_evaluation'),
  [
    (TwoFlags(), None, 1.0, 2.0),
    (Field(), None, 1.0, 0.0),
    (Unknown(), lambda m, x, train: m(x, mode=train), 1.0, 0.0),
  ],
)
def test_all_flags_of_a_module_follow_one(module, call, in_training, in_evaluation):
  apply_fn = adapters.from_linen(module, call=call)
  features = lambda train: float(apply_fn(PARAMS, jnp.ones((1, 2)), train=train)[0].features[0, 0])
  assert (features(True), features(False)) == (in_training, in_evaluation)


def test_what_would_be_guessed_is_refused():
  known = 'known are train, training, is_training, deterministic, use_running_average: pass call='
  for make, name in (
    (lambda: adapters.from_linen(Unknown()), 'mode'),
    (lambda: adapters.from_linen(Required()), 'temperature'),
    (lambda: adapters.from_nnx(Eager()), 'temperature'),
  ):
    with pytest.raises(errors.InputError, match=f'what to pass for {name}, since') as raised:
      make()
    assert known in str(raised.value)
  with pytest.raises(errors.InputError, match=r'call: must take \(model, images, train\)'):
    adapters.from_nnx(Eager(), call=lambda model, images: model(images, 1.0))


def test_a_head_that_is_not_there_is_named_with_those_that_could_be_meant():
  images = jnp.zeros((2, SIDE, SIDE, 1))
  apply_fn, state = _linen(ResNet(), head='head', init={'train': False})
  with pytest.raises(errors.InputError, match="got 'head'; there are 'Dense_0'"):
    apply_fn(state, images, train=False)
  for head, got in (('encoder.head', 'encoder.head'), (('encoder', 'heads', 1), 'encoder.heads.1')):
    with pytest.raises(errors.InputError, match=rf"got '{got}'; there are 'encoder\.heads\.0'"):
      adapters.from_nnx(NNXViT(nnx.Rngs(0)), head=head)
  apply_fn, state = adapters.from_nnx(Normed(), call=lambda m, x, train: x.reshape(len(x), -1))
  with pytest.raises(errors.InputError, match="the network called 'head' 0 times, not once"):
    apply_fn(state, images, train=False)


class Streams(nnx.Module):
  """Dropout layers with streams of their own, and one that the call is passed."""

  def __init__(self, rngs):
    self.first, self.second = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    self.third = nnx.Dropout(0.5)
    self.head = nnx.Linear(3 * SIDE**2, 2, rngs=rngs)

  def __call__(self, images, *, rngs):
    x = jnp.ones((len(images), SIDE**2))
    third = x if rngs is None else self.third(x, rngs=rngs)
    return self.head(jnp.concatenate([self.first(x), self.second(x), third], axis=1))


def test_random_streams_of_a_model_are_made_from_the_key_each_its_own():
  model = Streams(nnx.Rngs(0))
  apply_fn, state = adapters.from_nnx(model)
  images = jnp.zeros((4, SIDE, SIDE, 1))
  features = lambda **kw: np.split(np.asarray(apply_fn(state, images, **kw)[0].features), 3, axis=1)
  parts = features(train=True, key=KEY)
  for i in range(3):
    assert 0.3 < np.mean(parts[i] == 0) < 0.7
    assert np.mean(parts[i] != parts[i - 1]) > 0.3
  np.testing.assert_array_equal(features(train=False), 1)
  with pytest.raises(errors.InputError, match='key: must be passed in training'):
    features(train=True)
  assert not any(map(int, jax.tree.leaves(nnx.state(model, nnx.RngCount))))  # it is not changed

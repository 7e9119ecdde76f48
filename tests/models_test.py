import functools
import math

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import models, types
from dalign_jax.models import _convolution, _initialization, _layers

# Numbers of parameters with 10 classes and 32x32x3 images, and where the same number is known from.
NUM_PARAMS = {
  'cnn': 545_194,
  'allcnn': 1_370_986,  # the paper's network has 1,369,738 (below); a norm replaces each bias
  'resnet8': 75_290,
  'resnet20': 269_722,  # akamaster/pytorch_resnet_cifar10: 0.27 M
  'resnet18': 11_173_962,  # kuangliu/pytorch-cifar
  'resnet34': 21_282_122,  # kuangliu/pytorch-cifar
  'resnet50': 23_520_842,  # kuangliu/pytorch-cifar
  'wide_resnet16_4': 2_748_890,  # xternalz/WideResNet-pytorch
  'wide_resnet28_10': 36_479_194,  # xternalz/WideResNet-pytorch
  'vgg11': 9_228_362,  # kuangliu/pytorch-cifar: 9,231,114 with 2,752 biases of convolutions
  'vgg16': 14_724_042,  # kuangliu/pytorch-cifar: 14,728,266 with 4,224 biases of convolutions
  'fast_cnn': 1_971_362,  # the paper: 1.97 M
  'fast_cnn_small': 756_066,
  'vit_tiny16': 5_489_482,  # timm: 5,717,416 with 197 positions and 1000 classes
  'vit_small16': 21_595_786,  # likewise 22,050,664
  'vit_base16': 85_658_890,  # likewise 86,567,656
  'vit_tiny': 5_362_378,  # DeiT-Ti with patch 4: 5,362,762 with 2 * 192 for the class token
}


def _shapes(model, image_shape):
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _images(*shape, seed=0):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def _assert_trees_close(got, want, **tolerance):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, **tolerance)


def test_every_model_has_a_parameter_count():
  assert NUM_PARAMS.keys() == models.MODELS.keys()


@pytest.mark.parametrize('name', models.MODELS)
def test_parameter_count(name):
  params = _shapes(models.MODELS[name](10), (32, 32, 3))['params']
  assert _count(params) == NUM_PARAMS[name]


def test_parameter_counts_from_their_formulas():
  allcnn = _shapes(models.AllCNN(10, norm='none'), (32, 32, 3))['params']
  layers = [(3, 96, 9), (96, 96, 9), (96, 96, 9), (96, 192, 9), (192, 192, 9), (192, 192, 9)]
  layers += [(192, 192, 9), (192, 192, 1), (192, 10, 1)]
  assert _count(allcnn) == sum(size * a * b + b for a, b, size in layers) == 1_369_738
  d, tokens = 192, 64
  block = 2 * 2 * d + 4 * (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
  vit = (4 * 4 * 3 * d + d) + tokens * d + 12 * block + 2 * d + (10 * d + 10)
  assert vit == NUM_PARAMS['vit_tiny']


@pytest.mark.parametrize('image_shape', [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
@pytest.mark.parametrize('name', models.MODELS)
def test_output_shapes(name, image_shape):
  if name.endswith('16') and image_shape[0] % 16:
    image_shape = (32, 16, 1)
  apply_fn, _ = models.build(name, num_classes=7, image_shape=image_shape, axis_name=None)
  state = types.ModelState(*_state_shapes(name, image_shape))
  images = jax.ShapeDtypeStruct((5, *image_shape), jnp.float32)
  for train in (False, True):
    outputs, batch_stats = jax.eval_shape(functools.partial(apply_fn, train=train), state, images)
    dimension, classes = state.params['head']['kernel'].shape
    assert classes == 7 and state.params['head']['bias'].shape == (7,)
    assert outputs.logits.shape == (5, 7) and outputs.logits.dtype == jnp.float32
    assert outputs.features.shape == (5, dimension) and outputs.features.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, batch_stats) == jax.tree.map(jnp.shape, state.batch_stats)


def _state_shapes(name, image_shape, **options):
  variables = _shapes(models.MODELS[name](7, **options), image_shape)
  return variables['params'], variables.get('batch_stats', {})


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50'])
@pytest.mark.parametrize('image_shape', [(4, 4, 3), (128, 128, 3)])
def test_imagenet_stem(name, image_shape):
  model = models.MODELS[name](10, stem='imagenet', width_multiplier=0.5)
  images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
  variables = _shapes(model, image_shape)
  outputs = jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
  expansion = 4 if name == 'resnet50' else 1
  assert outputs.features.shape == (2, 256 * expansion)
  assert variables['params']['Conv_0']['kernel'].shape == (7, 7, 3, 32)


@pytest.mark.parametrize('name', ['cnn', 'vgg11', 'resnet8'])
def test_tiny_images_give_finite_outputs(name):
  apply_fn, init_fn = models.build(
    name, num_classes=3, image_shape=(1, 2, 1), width_multiplier=0.25, axis_name=None
  )
  outputs, _ = apply_fn(init_fn(jax.random.key(0)), _images(2, 1, 2, 1), train=True)
  assert np.isfinite(outputs.logits).all()


# --- Convolution ---

CONVOLUTIONS = [  # image height and width, kernel, strides, padding
  ((8, 8), (3, 3), (1, 1), 'SAME'),
  ((8, 8), (3, 3), (2, 2), 'SAME'),
  ((7, 9), (3, 3), (2, 2), ((1, 1), (1, 1))),
  ((7, 9), (1, 1), (1, 1), 'VALID'),
  ((8, 7), (1, 1), (2, 2), ((0, 0), (0, 0))),
  ((11, 10), (7, 7), (2, 2), ((3, 3), (3, 3))),
  ((9, 8), (7, 7), (1, 1), 'SAME'),
  ((10, 7), (2, 5), (3, 2), 'SAME'),
  ((9, 9), (3, 2), (2, 3), ((0, 4), (2, 1))),
]


def _stock(x, w, *args, **kwargs):
  return lax.conv_general_dilated(x, w, *args, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **kwargs)


def _value_and_gradients(convolution, x, w, *args, **kwargs):
  def loss(x, w):
    y = convolution(x, w, *args, **kwargs)
    return jnp.sum(jnp.sin(y) * jnp.arange(y.size).reshape(y.shape) / y.size), y

  (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, w)
  return y, gradients


@pytest.mark.parametrize(('size', 'kernel', 'strides', 'padding'), CONVOLUTIONS)
def test_convolution_equals_lax(size, kernel, strides, padding):
  x, w = _images(2, *size, 3), _images(*kernel, 3, 4, seed=1) - 0.5
  got = _value_and_gradients(models.canonical_convolution, x, w, strides, padding)
  want = _value_and_gradients(_stock, x, w, strides, padding)
  _assert_trees_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('lhs_dilation', 'padding'),
  [(None, 'SAME'), (None, 'VALID'), ((2, 1), ((1, 2), (0, 3))), ((3, 2), ((0, 0), (4, 1)))],
)
def test_dilated_convolution_equals_lax(lhs_dilation, padding):
  x, w = _images(2, 9, 8, 3), _images(3, 2, 3, 4, seed=1) - 0.5
  dilations = {'lhs_dilation': lhs_dilation, 'rhs_dilation': (2, 3)}
  got = _value_and_gradients(models.canonical_convolution, x, w, (2, 3), padding, **dilations)
  want = _value_and_gradients(_stock, x, w, (2, 3), padding, **dilations)
  _assert_trees_close(got, want, rtol=1e-4, atol=1e-5)


def _loss(convolution):
  def loss(w, x):
    y = jnp.tanh(convolution(x, w, (2, 2), ((1, 1), (1, 1))))
    return jnp.sum(jnp.square(y))

  return loss


def test_convolution_under_scan_vmap_and_pmap():
  x, w = _images(4, 2, 7, 6, 3), _images(3, 3, 3, 5, seed=1) - 0.5
  want = jnp.stack([jax.grad(_loss(_stock))(w, batch) for batch in x])
  gradient = jax.grad(_loss(models.canonical_convolution))
  scanned = jax.jit(lambda w, x: lax.scan(lambda _, b: (None, gradient(w, b)), None, x)[1])(w, x)
  batched = jax.vmap(gradient, (None, 0))(w, x)
  mapped = jax.pmap(gradient, in_axes=(None, 0))(w, x)
  ensemble = jax.vmap(gradient)(jnp.stack([w] * 4), x)
  for got in (scanned, batched, mapped, ensemble):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_convolution_twice_in_reverse():
  x, w = _images(2, 7, 6, 3), _images(3, 3, 3, 5, seed=1) - 0.5
  direction = _images(3, 3, 3, 5, seed=2)

  def product(convolution):
    loss = _loss(convolution)
    along = lambda w, x: jnp.vdot(jax.grad(loss)(w, x), direction)
    return jax.jit(jax.grad(along, (0, 1)))(w, x)

  _assert_trees_close(product(models.canonical_convolution), product(_stock), rtol=1e-4, atol=1e-4)


def test_convolution_follows_the_backend(monkeypatch):
  x, w = _images(1, 4, 4, 2), _images(3, 3, 2, 2)
  jaxpr = lambda: str(
    jax.make_jaxpr(
      lambda x, w: models.convolution(x, w, (1, 1), 'SAME', dimension_numbers=_convolution._LAYOUT)
    )(x, w)
  )
  assert 'custom_vjp' in jaxpr()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert 'custom_vjp' not in jaxpr()


def test_convolution_rejects_what_it_cannot_do():
  x, w = _images(1, 4, 4, 2), _images(3, 3, 1, 2)
  with pytest.raises(ValueError, match='feature_group_count must be 1, got 2'):
    models.canonical_convolution(x, w, (1, 1), 'SAME', feature_group_count=2)
  with pytest.raises(ValueError, match='dimension_numbers'):
    models.canonical_convolution(x, w, (1, 1), 'SAME', dimension_numbers=('NCHW', 'OIHW', 'NCHW'))
  with pytest.raises(ValueError, match='lhs and rhs must be'):
    models.canonical_convolution(x[0], w, (1, 1), 'SAME')
  with pytest.raises(ValueError, match=r"padding must be two pairs .* got 'SAME'"):
    models.canonical_convolution(x, w, (1, 1), 'SAME', lhs_dilation=(2, 2))


# --- Layers ---


@pytest.mark.parametrize('size', [(8, 8), (7, 9), (2, 3)])
@pytest.mark.parametrize('window', [2, 3])
def test_max_pool_equals_linen(size, window):
  if min(size) < window:
    size = (window, window + 1)
  images = _images(2, *size, 3) - 0.5
  want = nn.max_pool(images, (window, window), (window, window))
  np.testing.assert_array_equal(_layers.max_pool(images, window), want)


def test_max_pool_leaves_images_below_the_window():
  images = _images(2, 1, 5, 3)
  np.testing.assert_array_equal(_layers.max_pool(images), images)


def test_batch_norm_is_synchronised_over_devices():
  images = _images(8, 16, 16, 1)
  options = {'num_classes': 4, 'image_shape': (16, 16, 1)}
  synchronised, init_fn = models.build('resnet8', **options)
  alone, _ = models.build('resnet8', **options, axis_name=None)
  state = init_fn(jax.random.key(0))
  want, want_stats = jax.jit(functools.partial(alone, train=True))(state, images)
  mapped = jax.pmap(functools.partial(synchronised, train=True), 'devices', in_axes=(None, 0))
  got, got_stats = mapped(state, images.reshape(4, 2, 16, 16, 1))
  got = jax.tree.map(lambda leaf: leaf.reshape(8, -1), got)
  _assert_trees_close(got, want, rtol=1e-3, atol=1e-4)
  for device in range(4):
    _assert_trees_close(
      jax.tree.map(lambda leaf, i=device: leaf[i], got_stats), want_stats, rtol=1e-4, atol=1e-5
    )


def test_running_statistics_move_by_a_tenth_towards_the_batch():
  apply_fn, init_fn = models.build(
    'cnn', num_classes=3, image_shape=(8, 8, 1), mean=0.0, std=1.0, axis_name=None
  )
  state, images = init_fn(jax.random.key(0)), _images(16, 8, 8, 1)
  _, batch_stats = apply_fn(state, images, train=True)
  activations = _stock(images, state.params['Conv_0']['kernel'], (1, 1), 'SAME')
  want_mean = 0.1 * activations.mean((0, 1, 2))
  want_var = 0.9 + 0.1 * activations.var((0, 1, 2))
  got = batch_stats['BatchNorm_0']
  np.testing.assert_allclose(got['mean'], want_mean, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(got['var'], want_var, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name', ['cnn', 'resnet8'])
def test_evaluation_leaves_the_state_and_uses_running_statistics(name):
  apply_fn, init_fn = models.build(name, num_classes=3, image_shape=(8, 8, 1))
  state, images = init_fn(jax.random.key(0)), _images(6, 8, 8, 1)
  outputs, batch_stats = apply_fn(state, images, train=False)
  _assert_trees_close(batch_stats, state.batch_stats, rtol=0)
  alone, _ = apply_fn(state, images[:1], train=False)
  np.testing.assert_allclose(alone.logits, outputs.logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('norm', ['group', 'none'])
@pytest.mark.parametrize('name', ['cnn', 'resnet8'])
def test_other_norms_have_no_batch_statistics(name, norm):
  apply_fn, init_fn = models.build(name, num_classes=3, image_shape=(8, 8, 1), norm=norm)
  state, images = init_fn(jax.random.key(0)), _images(6, 8, 8, 1)
  assert state.batch_stats == {}
  training, batch_stats = apply_fn(state, images, train=True)
  assert batch_stats == {}
  evaluation, batch_stats = apply_fn(state, images, train=False)
  assert batch_stats == {}
  _assert_trees_close(training, evaluation, rtol=1e-6)
  has_bias = 'bias' in state.params['Conv_0']
  assert has_bias == (norm == 'none')


@pytest.mark.parametrize(('channels', 'groups'), [(16, 4), (128, 32), (512, 32), (24, 2), (6, 1)])
def test_group_norm_divides_the_channels(channels, groups):
  class Model(nn.Module):
    @nn.compact
    def __call__(self, images):
      return _layers.normalize(images, norm='group', train=True, axis_name=None)

  images = _images(2, 3, 3, channels)
  outputs, _ = Model().init_with_output(jax.random.key(0), images)
  split = images.reshape(2, 9, groups, -1)
  mean, var = split.mean((1, 3), keepdims=True), split.var((1, 3), keepdims=True)
  want = ((split - mean) / np.sqrt(var + 1e-5)).reshape(images.shape)
  np.testing.assert_allclose(outputs, want, rtol=1e-3, atol=1e-3)


# --- Build ---


@pytest.mark.parametrize('name', ['cnn', 'resnet8'])
def test_head_maps_features_to_logits(name):
  apply_fn, init_fn = models.build(
    name, num_classes=5, image_shape=(8, 8, 1), width_multiplier=0.5, axis_name=None
  )
  state = init_fn(jax.random.key(3))
  head = {**state.params['head'], 'bias': jnp.arange(5.0)}
  state = state._replace(params={**state.params, 'head': head})
  for train in (False, True):
    outputs, _ = jax.jit(apply_fn, static_argnames='train')(state, _images(4, 8, 8, 1), train=train)
    want = np.asarray(outputs.features) @ np.asarray(head['kernel']) + np.arange(5)
    np.testing.assert_allclose(outputs.logits, want, rtol=1e-4, atol=1e-5)


def test_images_are_normalised_per_channel():
  options = {'num_classes': 3, 'image_shape': (8, 8, 2), 'norm': 'none'}
  plain, init_fn = models.build('cnn', **options, mean=0.0, std=1.0)
  normalised, _ = models.build('cnn', **options, mean=(0.2, 0.4), std=[0.5, 0.1])
  state, images = init_fn(jax.random.key(0)), _images(3, 8, 8, 2)
  want, _ = plain(state, (images - np.float32([[[[0.2, 0.4]]]])) / [[[[0.5, 0.1]]]], train=False)
  got, _ = normalised(state, images, train=False)
  _assert_trees_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'model',
  [models.CNN(10), models.CNN(10, (8,), norm='none'), models.ViT(10, depth=1)],
  ids=['batch_norm', 'bias', 'transformer'],
)
def test_initialisation_has_the_declared_distributions(model):
  images = jnp.zeros((1, 28, 28, 1))
  variables = jax.jit(functools.partial(model.init, train=False))(
    jax.random.key(0, impl='rbg'), images
  )
  drawn = _initialization.initialize(_shapes(model, (28, 28, 1)), jax.random.key(1))
  want = (variables['params'], variables.get('batch_stats', {}))
  assert jax.tree.structure(tuple(drawn)) == jax.tree.structure(want)
  for got, leaf in zip(jax.tree.leaves(drawn), jax.tree.leaves(want), strict=True):
    assert got.shape == leaf.shape and got.dtype == leaf.dtype
    if leaf.ndim == 1:
      np.testing.assert_array_equal(got, leaf)
      continue
    sampling_error = 5 / math.sqrt(leaf.size)  # five standard errors, at most, of each deviation
    assert math.isclose(got.std(), leaf.std(), rel_tol=sampling_error)
    assert abs(got.mean()) < sampling_error * got.std()
    assert math.isclose(abs(got).max(), abs(leaf).max(), rel_tol=0.3)  # cut at the same place


@pytest.mark.parametrize('name', ['cnn', 'resnet8'])
def test_initialisation_depends_on_the_key_alone(name):
  _, init_fn = models.build(name, num_classes=10, image_shape=(28, 28, 1))
  first, again = init_fn(jax.random.key(5)), init_fn(jax.random.key(5))
  other = init_fn(jax.random.key(6))
  for (path, a), b, c in zip(
    jax.tree_util.tree_leaves_with_path(first),
    jax.tree.leaves(again),
    jax.tree.leaves(other),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
    if path[-1].key == 'kernel':
      assert (a != c).mean() > 0.9999  # two equal float32 draws are rare, but not impossible


def test_initialisation_names_a_leaf_without_rule():
  shapes = {'params': {'odd': {'gain': jax.ShapeDtypeStruct((3,), jnp.float32)}}}
  with pytest.raises(ValueError, match=r"\['odd'\]\['gain'\]"):
    _initialization.initialize(shapes, jax.random.key(0))


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('resnet19', {}, 'name must be one of allcnn, cnn, .*resnet18'),
    ('vit_tiny', {'norm': 'group'}, 'ViT has no option norm'),
    ('vit_tiny', {'width_multiplier': 2.0}, 'ViT has no option width_multiplier'),
    ('resnet20', {'stem': 'imagenet'}, 'ResNet has no option stem'),
    ('cnn', {'stem': 'imagenet'}, 'CNN has no option stem'),
    ('resnet18', {'stem': 'large'}, "stem must be one of .*'large'"),
    ('resnet8', {'norm': 'layer'}, "norm must be one of .*'layer'"),
    ('vgg11', {'width_multiplier': 0.0}, 'width_multiplier must be positive, got 0.0'),
    ('cnn', {'std': (0.5, 0.5)}, 'std must be a number or one for each of 3 channels'),
    ('cnn', {'std': 0.0}, r'std must be positive, got \[0.0\]'),
    ('cnn', {'image_shape': (32, 32)}, r'image_shape must be \(H, W, C\)'),
    ('vit_tiny', {'image_shape': (30, 32, 3)}, 'multiples of 4 pixels, got 30 x 32'),
  ],
)
def test_build_rejects(name, options, message):
  options = {'num_classes': 10, 'image_shape': (32, 32, 3), **options}
  with pytest.raises(ValueError, match=message):
    models.build(name, **options)


@pytest.mark.parametrize(
  'images', [np.zeros((2, 28, 28, 3), np.float32), np.zeros((2, 28, 28, 1), np.uint8)]
)
def test_apply_rejects_wrong_images(images):
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=(28, 28, 1))
  with pytest.raises(ValueError, match=r'images must be floating point \[B, 28, 28, 1\]'):
    apply_fn(init_fn(jax.random.key(0)), images, train=False)


@pytest.mark.parametrize(
  'model',
  [
    models.AllCNN(3, width_multiplier=0.125),
    models.ResNet(3, (1, 1), (8, 16), bottleneck=True, stem='imagenet', norm='group'),
    models.WideResNet(3, depth=10, widen_factor=1, width_multiplier=0.5),
    models.ViT(3, width=24, depth=1),
  ],
  ids=lambda model: type(model).__name__,
)
def test_gradient_reaches_every_parameter(model):
  state = _initialization.initialize(_shapes(model, (16, 16, 1)), jax.random.key(0))

  @jax.jit
  @jax.grad
  def gradient(params):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    outputs, _ = model.apply(variables, _images(4, 16, 16, 1), train=True, mutable='batch_stats')
    return -jax.nn.log_softmax(outputs.logits)[:, 0].mean()

  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(state.params)):
    assert np.isfinite(leaf).all()
    if [entry.key for entry in path[-2:]] != ['key', 'bias']:  # attention does not see that one
      assert np.abs(leaf).max() > 1e-7, path


def test_equal_networks_are_the_same_functions():
  build = lambda **options: models.build('cnn', num_classes=3, image_shape=(8, 8, 3), **options)
  assert build() == build(mean=0.5, norm='batch')
  assert build()[0] != build(norm='none')[0] and build()[0] != build(mean=0.4)[0]

"""The fast network: whitening from the training set at hand, frozen; and the recipe around it."""

import dataclasses
import functools
import inspect
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  augmentation,
  checkpoints,
  depth,
  fresh,
  losses,
  methods,
  models,
  training,
  types,
)
from dalign_jax.models import _whitening
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders
from tests import tiny

KEY = jax.random.key(3)
ONE, FOUR = tuple(jax.devices()[:1]), tuple(jax.devices())
RECIPE = types.Recipe(
  num_epochs=4,
  batch_size=32,
  learning_rate=1.0,
  momentum=0.85,
  weight_decay=1e-3,
  schedule='triangular',
  norm_learning_rate=8.0,
  whitening_epochs=1,
  lookahead_steps=2,
  label_smoothing=0.2,
  augmentation='shift_flip',
)


@functools.cache
def _network(image_shape=(16, 16, 3)):
  """The network with a single block, for the sake of compilation."""
  small = lambda num_classes, axis_name, **_: models.FastCNN(num_classes, (8,), 1.0, axis_name)
  with mock.patch.dict(models.MODELS, {'fast_cnn_small': small}):
    return models.build('fast_cnn_small', num_classes=4, image_shape=image_shape)


def _dataset(count=96, seed=0) -> types.Dataset:
  """Correlated noise on a brightness that says the class."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 4, count).astype(np.int32)
  noise = rng.uniform(0, 60, (count, 16, 16, 3)) + rng.uniform(0, 30, (count, 16, 1, 1))
  images = (noise + 40 * labels[:, None, None, None]).astype(np.uint8)
  return types.Dataset(images, labels, np.array([f'{seed}_{i}' for i in range(count)]))


def _start() -> types.ModelState:
  return fresh.model(_network()[1], KEY, _dataset())


def _fit(*, devices=ONE, monitor=None) -> types.ModelState:
  apply_fn, _ = _network()
  return training.fit(apply_fn, _start(), _dataset(), RECIPE, KEY, devices=devices, monitor=monitor)


@pytest.fixture(scope='module')
def fitted():
  """A model trained on one device, and the loss of each epoch."""
  monitor = Losses()
  return _fit(monitor=monitor), monitor.values


# --- Whitening ---


def test_whitening_equals_the_closed_form():
  images = _dataset(20).images
  mean, std = np.float32(0.5), np.float32(0.25)
  kernel, centre = _whitening.kernel_and_mean(images, mean, std, epsilon=1e-3)
  pixels = (images / 255 - 0.5) / 0.25
  np.testing.assert_allclose(centre, pixels.mean((0, 1, 2)), rtol=1e-4)
  pixels = pixels - pixels.mean((0, 1, 2))
  patches = np.array(
    [p[i : i + 2, j : j + 2].ravel() for p in pixels for i in range(15) for j in range(15)]
  )
  second_moment = patches.T @ patches / len(patches)
  filters = kernel[..., :12].reshape(12, 12).T
  np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
  want = np.linalg.inv(second_moment + 1e-3 * np.eye(12))  # K^T K = (S + eps)^-1
  np.testing.assert_allclose(filters.T @ filters, want, rtol=2e-3, atol=2e-3)
  powers = np.diag(filters @ second_moment @ filters.T)  # lambda / (lambda + eps)
  values = np.linalg.eigvalsh(second_moment)[::-1]
  np.testing.assert_allclose(powers, values / (values + 1e-3), rtol=2e-3)


def test_layer_applies_the_kernel_to_patches():
  images = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)
  kernel = np.random.default_rng(1).normal(size=(2, 2, 3, 24)).astype(np.float32)
  mean, bias = np.float32([1, 2, 3]), np.arange(24, dtype=np.float32)
  variables = {'batch_stats': {'kernel': kernel, 'mean': mean}, 'params': {'bias': bias}}
  got = _whitening.Whitening().apply(variables, images)
  assert got.shape == (2, 2, 3, 24)
  want = np.einsum('bijc,ijco->bo', images[:, 1:3, 2:4] - mean, kernel) + bias
  np.testing.assert_allclose(got[:, 1, 2], want, rtol=1e-4, atol=1e-4)


def test_many_images_are_thinned_evenly(monkeypatch):
  monkeypatch.setattr(_whitening, 'MAX_IMAGES', 10)
  images = _dataset(19).images
  constants = (np.float32(0.5), np.float32(0.25))
  chex.assert_trees_all_equal(
    _whitening.kernel_and_mean(images, *constants),
    _whitening.kernel_and_mean(images[::2], *constants),
  )


def test_image_below_a_patch_is_refused():
  with pytest.raises(ValueError, match='image_shape must be at least 2 x 2'):
    models.build('fast_cnn', num_classes=2, image_shape=(1, 8, 1))


# --- Network ---


def test_initialisation_is_a_partial_identity_and_follows_the_key():
  _, init_fn = models.build('fast_cnn_small', num_classes=10, image_shape=(32, 32, 3))
  first, again, other = (init_fn(jax.random.key(k)) for k in (0, 0, 1))
  chex.assert_trees_all_equal(first, again)
  kernel = np.asarray(first.params['Conv_0']['kernel'])  # [3, 3, 24, 32]
  np.testing.assert_array_equal(kernel[1, 1, :, :24], np.eye(24))
  assert kernel[..., :24].sum() == 24
  drawn = kernel[..., 24:]
  assert abs(drawn).max() <= 1 / np.sqrt(9 * 24) < 1.01 * abs(drawn).max()
  assert (drawn != np.asarray(other.params['Conv_0']['kernel'])[..., 24:]).all()
  for name in ('mean', 'var'):
    assert (first.batch_stats['BatchNorm_3'][name] == (name == 'var')).all()


def test_features_are_what_the_head_works_on_and_evaluation_leaves_the_state():
  apply_fn, init_fn = _network()
  state = fresh.model(init_fn, KEY, _dataset())
  head = {**state.params['head'], 'bias': jnp.arange(4.0)}
  state = state._replace(params={**state.params, 'head': head})
  outputs, stats = apply_fn(state, _dataset(8).images.astype(np.float32) / 255, train=False)
  want = np.asarray(outputs.features) @ np.asarray(head['kernel']) + np.arange(4)
  np.testing.assert_allclose(outputs.logits, want, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_equal(stats, state.batch_stats)


def test_layers_are_numbered_from_the_first_convolution_on():
  apply_fn, init_fn = _network()
  numbers = depth.layers(apply_fn, init_fn(KEY), (16, 16, 3))
  assert [numbers.params[f'Conv_{i}']['kernel'] for i in range(2)] == [0, 1]
  assert numbers.params['head']['kernel'] == 2
  assert set(jax.tree.leaves(numbers.batch_stats['whitening'])) == {0}


# --- Recipe ---


def test_label_smoothing_is_cross_entropy_with_softened_targets():
  labels = np.int32([0, 2, 1])
  logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  target = 0.8 * np.eye(4)[labels] + 0.2 / 4
  log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  got = losses.label_loss(labels, logits, label_smoothing=0.2)
  np.testing.assert_allclose(got, -(target * log_probs).sum(1), rtol=1e-5)
  with pytest.raises(ValueError, match='label_smoothing must be 0 for binary attributes'):
    losses.label_loss(np.int32([[0, 1]]), logits[:1, :2], label_smoothing=0.1)


def test_smoothing_reaches_the_training_loss():
  data, start = tiny.dataset().take(np.arange(64)), tiny.init_fn(KEY)
  recipe = types.Recipe(num_epochs=1, batch_size=64, label_smoothing=0.3)
  monitor = Losses()
  network = tiny.apply_without_batch_norm
  training.fit(network, start, data, recipe, KEY, devices=ONE, monitor=monitor)
  outputs, _ = network(start, data.images.astype(np.float32) / 255, train=False)
  want = losses.cross_entropy(data.labels, outputs.logits, label_smoothing=0.3).mean()
  np.testing.assert_allclose(monitor.values, [want], rtol=1e-5)


def test_shift_flip_shows_reflected_windows():
  image = np.arange(32 * 32, dtype=np.float32).reshape(32, 32, 1)
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='reflect')
  windows = [padded[i : i + 32, j : j + 32] for i in range(5) for j in range(5)]
  windows += [window[:, ::-1] for window in windows]
  images, seen = np.tile(image, (64, 1, 1, 1)), set()
  for shown in np.asarray(
    augmentation.augment_each(images, jax.random.split(KEY, 64), 'shift_flip')
  ):
    seen.add(next(i for i, window in enumerate(windows) if np.array_equal(window, shown)))
  assert len(seen) > 20 and min(seen) < 25 <= max(seen)


class Losses(types.Monitor):
  """Keeps losses and states; can stop a run, as a killed process would."""

  def __init__(self, stop_after=None):
    self.values, self.saved, self.stop_after = [], None, stop_after

  def restore(self, template):
    chex.assert_trees_all_equal_shapes(template, self.saved[1] if self.saved else template)
    return self.saved

  def on_epoch(self, epoch, get_state, metrics):
    self.values.append(metrics['loss'])
    self.saved = (epoch + 1, get_state())
    if self.stop_after == epoch + 1:
      raise KeyboardInterrupt


def test_twelve_steps_lower_the_loss_and_leave_the_whitening(fitted):
  model, values = fitted
  start = _start()
  assert values[-1] < values[0] - 0.1
  chex.assert_trees_all_equal(model.batch_stats['whitening'], start.batch_stats['whitening'])
  assert (model.params['whitening']['bias'] != start.params['whitening']['bias']).any()


def test_stopped_and_resumed_gives_the_same_bits(fitted):
  monitor = Losses(stop_after=1)  # after step 3 of 12: averages follow after every second one
  with pytest.raises(KeyboardInterrupt):
    _fit(monitor=monitor)
  monitor.stop_after = None
  chex.assert_trees_all_equal(_fit(monitor=monitor), fitted[0])


def test_four_devices_equal_one(fitted):
  four = _fit(devices=FOUR)
  chex.assert_trees_all_close(four, fitted[0], rtol=1e-3, atol=2e-4)
  chex.assert_trees_all_equal(four.batch_stats['whitening'], fitted[0].batch_stats['whitening'])


def test_an_ensemble_trains_as_each_alone(fitted):
  apply_fn, _ = _network()
  (together,) = training.fit_ensemble(apply_fn, [_start()], _dataset(), RECIPE, [KEY], devices=ONE)
  chex.assert_trees_all_close(together, fitted[0], rtol=1e-3, atol=2e-4)


# --- Unlearning ---


def _problem(forget_seed=1) -> types.Problem:
  """Class 3 is to be forgotten, from a model that says nothing else."""
  apply_fn, init_fn = _network()
  data, other = _dataset(), _dataset(seed=forget_seed)
  retain, forget = (
    data.take(np.flatnonzero(data.labels != 3)),
    other.take(np.flatnonzero(other.labels == 3)),
  )
  original = fresh.model(init_fn, KEY, types.concatenate(retain, forget))
  head = {**original.params['head'], 'bias': np.float32([0, 0, 0, 2])}
  return types.Problem(
    apply_fn=apply_fn,
    init_fn=init_fn,
    original=original._replace(params={**original.params, 'head': head}),
    retain=retain,
    forget=forget,
    validation=_dataset(seed=2),
    num_classes=4,
    recipe=dataclasses.replace(RECIPE, num_epochs=1),
    devices=ONE,
  )


def test_gold_has_seen_nothing_of_the_forget_set():
  problem, other = _problem(), _problem(forget_seed=9)
  whitening = lambda model: np.asarray(model.batch_stats['whitening']['kernel'])
  golds = [methods.METHODS['retrain'].make()(p, KEY) for p in (problem, other)]
  chex.assert_trees_all_equal(*golds)
  want, _ = _whitening.kernel_and_mean(problem.retain.images, np.float32(0.5), np.float32(0.25))
  np.testing.assert_array_equal(whitening(golds[0]), want)
  assert (whitening(problem.original) != want).any()
  assert (whitening(problem.original) != whitening(other.original)).any()


def test_runs_whiten_each_model_by_its_own_training_set(tmp_path):
  config = config_lib.Config(
    workdir=str(tmp_path),
    dataset='digits',
    model='fast_cnn_small',
    width_multiplier=1 / 16,
    num_epochs=1,
    batch_size=64,
    num_gold=4,  # these are trained as an ensemble, the original alone
    stages=('prepare', 'train_original', 'train_gold'),
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
  )
  stages.run(config)
  job = stages.prepare(config, folders.problem_folder(config))
  trained_on = {
    job.original_folder(0): job.training_set,
    **{job.gold_folder(seed): job.sets['retain'] for seed in job.gold_seeds},
  }
  for folder, dataset in trained_on.items():
    model, _ = checkpoints.restore(folder / 'model', job.template)
    kernel, mean = _whitening.kernel_and_mean(dataset.images, np.float32(0.5), np.float32(0.25))
    want = {'kernel': kernel, 'mean': mean}
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, model.batch_stats['whitening']), want)


class _CentredInit:
  """The tiny network's `init_fn`, with the mean image of the training set at hand."""

  def __call__(self, key):
    drawn = tiny.init_fn(key)
    return drawn._replace(batch_stats={'own': drawn.batch_stats, 'mean': np.zeros((8, 8, 1))})

  def prepare(self, model, dataset):
    mean = np.float32(dataset.images.mean(0) / 255)
    return model._replace(batch_stats={**model.batch_stats, 'mean': mean})


def _centred(state, images, *, train):
  stats = state.batch_stats
  inner = state._replace(batch_stats=stats['own'])
  outputs, own = tiny.apply_fn(inner, images - stats['mean'][None], train=train)
  return outputs, {'own': own, 'mean': stats['mean']}


EPOCHS = (
  'num_epochs',
  'rounds',
  'impair_epochs',
  'repair_epochs',
  'twin_epochs',
  'curriculum_epochs',
)


@pytest.mark.parametrize('name', methods.METHODS)
def test_methods_leave_what_was_prepared(name):
  """With the tiny network, which compiles in a tenth of the time."""
  init_fn = _CentredInit()
  problem = tiny.problem(apply_fn=_centred, init_fn=init_fn)
  original = fresh.model(init_fn, KEY, types.concatenate(problem.retain, problem.forget))
  problem = dataclasses.replace(problem, original=original, **tiny.made_up(problem))
  make = methods.METHODS[name].make
  short = {p: 1 for p in EPOCHS if p in inspect.signature(make).parameters}
  of_the_head = {'num_layers': 0} if name in ('cf_k', 'eu_k') else {}  # eu_k: of two layers
  model = make(**short, **of_the_head)(problem, KEY)
  start = original
  if name in ('retrain', 'noisy_finetune'):
    start = fresh.model(init_fn, KEY, problem.retain)
    assert (start.batch_stats['mean'] != original.batch_stats['mean']).any()
  np.testing.assert_array_equal(model.batch_stats['mean'], start.batch_stats['mean'])
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), model.params, original.params)
  assert any(jax.tree.leaves(moved))


def test_networks_without_prepare_are_drawn_as_ever():
  data = tiny.dataset()
  chex.assert_trees_all_equal(fresh.model(tiny.init_fn, KEY, data), tiny.init_fn(KEY))

"""The training step, epochs that resume, and prediction: on one device and on several."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dalign_jax import (
  augmentation,
  errors,
  methods,
  models,
  parallel,
  prediction,
  training,
  types,
)
from tests import tiny

KEY = jax.random.key(5)
ONE, FOUR = tuple(jax.devices()[:1]), tuple(jax.devices())


class Recorder(types.Monitor):
  """Keeps states in memory and can stop a run, as a killed process would."""

  def __init__(self, stop_after=None):
    self.saved, self.steps, self.stop_after = None, [], stop_after

  def restore(self, template):
    chex.assert_trees_all_equal_shapes(template, self.saved[1] if self.saved else template)
    return self.saved

  def on_step(self, phase, done, total):
    self.steps.append((phase, done, total))

  def on_epoch(self, epoch, get_state, metrics):
    del metrics
    self.saved = (epoch + 1, get_state())
    if self.stop_after == epoch + 1:
      raise KeyboardInterrupt


def _fit(problem, *, devices=ONE, monitor=None, model=None, **recipe):
  recipe = types.Recipe(**{'num_epochs': 3, 'batch_size': 64, **recipe})
  model = model or problem.original
  return training.fit(
    problem.apply_fn, model, problem.retain, recipe, KEY, devices=devices, monitor=monitor
  )


def test_fit_learns():
  problem = tiny.problem()
  model = _fit(problem, num_epochs=8)
  logits = prediction.predict(problem.apply_fn, model, problem.validation.images).logits
  kept = problem.validation.labels != 3
  assert np.mean(logits.argmax(1)[kept] == problem.validation.labels[kept]) > 0.93


def test_same_key_same_bits_and_other_key_other_bits():
  problem = tiny.problem()
  chex.assert_trees_all_equal(_fit(problem), _fit(problem))
  recipe = types.Recipe(num_epochs=3, batch_size=64)
  other = training.fit(
    problem.apply_fn, problem.original, problem.retain, recipe, jax.random.key(6), devices=ONE
  )
  assert not np.array_equal(_fit(problem).params['head']['kernel'], other.params['head']['kernel'])


@pytest.mark.parametrize('kind', ['none', 'crop_flip'])
def test_four_devices_equal_one(kind):
  problem = tiny.problem()
  one, four = (_fit(problem, devices=d, augmentation=kind) for d in (ONE, FOUR))
  chex.assert_trees_all_close(four, one, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures('exact_sums')
def test_four_devices_equal_one_with_the_librarys_batch_norm():
  data = tiny.problem()
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=(8, 8, 1))
  recipe = types.Recipe(num_epochs=1, batch_size=256, learning_rate=0.02)
  one, four = (
    training.fit(apply_fn, init_fn(KEY), data.retain, recipe, KEY, devices=d) for d in (ONE, FOUR)
  )
  chex.assert_trees_all_close(four, one, rtol=1e-2, atol=1e-3)


def test_interrupted_and_resumed_equals_uninterrupted():
  problem, recorder = tiny.problem(), Recorder(stop_after=2)
  with pytest.raises(KeyboardInterrupt):
    _fit(problem, monitor=recorder)
  resumed = Recorder()
  resumed.saved = recorder.saved
  chex.assert_trees_all_equal(_fit(problem, monitor=resumed), _fit(problem))
  steps_of_an_epoch = resumed.steps[0][2]
  assert len(resumed.steps) == steps_of_an_epoch


def test_scanned_steps_equal_single_steps():
  problem = tiny.problem()
  data = training.put_data({'train': problem.retain}, ONE)
  batches = {'train': np.arange(7 * 16, dtype=np.int32).reshape(7, 16)}

  def loss_fn(params, batch_stats, batch, constants, key):
    del constants, key
    outputs, batch_stats = problem.apply_fn(
      types.ModelState(params, batch_stats), batch['train']['images'], train=True
    )
    labels = batch['train']['labels']
    return optax.losses.softmax_cross_entropy_with_integer_labels(
      outputs.logits, labels
    ).mean(), batch_stats

  results = []
  for steps_per_call in (1, 3):
    tx = optax.sgd(0.1)
    step = training.make_step(loss_fn, tx, devices=ONE, steps_per_call=steps_per_call)
    state = parallel.replicate(training.init_state(problem.original, tx), ONE)
    monitor = Recorder()
    state, loss = training.run_steps(step, state, data, batches, KEY, monitor=monitor)
    results.append((parallel.fetch(state), loss))
  chex.assert_trees_all_close(results[0], results[1], rtol=1e-5, atol=1e-6)
  assert [done for _, done, _ in monitor.steps] == [3, 6, 7]


def test_nan_stops_the_run_and_names_epoch_phase_and_step():
  problem = tiny.problem()
  with pytest.raises(
    training.NonFiniteLossError, match=r"epoch 1 of 3: loss is .* in phase 'train' at step \d+ of"
  ):
    _fit(problem, learning_rate=1e30, warmup_epochs=0.0)


def test_batch_that_cannot_be_cut_is_refused():
  with pytest.raises(ValueError, match='batch_size must be a multiple of the 4 devices, got 30'):
    _fit(tiny.problem(), devices=FOUR, batch_size=30)


@pytest.mark.parametrize('devices', [ONE, FOUR])
@pytest.mark.parametrize('count', [1, 5, 16, 33])
def test_predict_gives_a_row_for_each_row(count, devices):
  problem = tiny.problem()
  images = problem.retain.images[:count]
  outputs = prediction.predict(
    problem.apply_fn, problem.original, images, batch_size=4, devices=devices
  )
  expected, _ = problem.apply_fn(problem.original, images / np.float32(255), train=False)
  chex.assert_trees_all_close(outputs, jax.tree.map(np.asarray, expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('devices', [ONE, FOUR])
def test_streamed_second_moment_equals_that_of_all_features(devices):
  problem = tiny.problem()
  images = problem.retain.images[:101]
  moment = prediction.second_moment(
    problem.apply_fn, problem.original, images, batch_size=7, devices=devices
  )
  features = prediction.predict(problem.apply_fn, problem.original, images).features
  chex.assert_trees_all_close(moment, features.T @ features / 101, rtol=1e-4, atol=1e-5)


def test_augmentation_crops_and_mirrors():
  image = np.random.default_rng(0).uniform(0.1, 1.0, (16, 16, 3)).astype(np.float32)
  images = np.broadcast_to(image, (4, 32, 16, 16, 3))
  augment = parallel.spmd(lambda x: augmentation.augment(x, KEY, 'crop_flip'), devices=FOUR)
  results = np.asarray(augment(images)).reshape(-1, 16, 16, 3)
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
  crops = [padded[i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
  allowed = np.stack([*crops, *(c[:, ::-1] for c in crops)])
  seen = {int(np.flatnonzero((allowed == r).all(axis=(1, 2, 3)))[0]) for r in results}
  assert len(seen) > 25 and max(seen) >= 25 and min(seen) < 25


def test_unknown_augmentation_is_named():
  with pytest.raises(ValueError, match=r"augmentation must be one of .*, got 'cutout'"):
    augmentation.augment(jnp.zeros((1, 8, 8, 1)), KEY, 'cutout')


@pytest.mark.parametrize(
  ('shift', 'outputs', 'message'),
  [
    (1, 10, r'labels must be in \[0, 10\).*got 1 to 10; subtract 1'),
    (-1, 10, r'labels must be in \[0, 10\).*got -1 to 8'),
    (0, 9, r'labels must be in \[0, 9\).*got 0 to 9'),
    (0, 1, 'the network has one output: give it one for each class'),
  ],
)
def test_labels_that_the_outputs_lack_are_refused(shift, outputs, message, tiny_problem):
  state = tiny_problem.original
  head = {'kernel': np.ones((24, outputs), np.float32), 'bias': np.zeros(outputs, np.float32)}
  state = state._replace(params={**state.params, 'head': head})
  labels = (np.arange(len(tiny_problem.retain)) % 10 + shift).astype(np.int32)
  rows = dataclasses.replace(tiny_problem.retain, labels=labels)
  with pytest.raises(errors.InputError, match=message):
    training.fit(tiny.apply_fn, state, rows, types.Recipe(num_epochs=1), KEY)


@pytest.mark.parametrize('name', ['finetune', 'muda', 'ssd', 'retrain'])
def test_methods_refuse_a_problem_that_does_not_fit_its_network(name, tiny_problem):
  method = methods.METHODS[name].make()
  few = dataclasses.replace(tiny_problem, num_classes=tiny_problem.num_classes - 1)
  with pytest.raises(errors.InputError, match=r'num_classes is .* network has'):
    method(few, KEY)
  labels = tiny_problem.retain.labels + 1
  shifted = dataclasses.replace(tiny_problem.retain, labels=labels)
  with pytest.raises(errors.InputError, match=r'labels must be in \[0, .*subtract 1'):
    method(dataclasses.replace(tiny_problem, retain=shifted), KEY)
  assert methods.muda is methods.METHODS['muda'].make


def test_keys_are_those_of_jax_whatever_their_number():
  for num in (1, 2, 5, 8):
    own = [jax.random.key_data(key) for key in training.split(jax.random.key(3), num)]
    np.testing.assert_array_equal(
      own, jax.random.key_data(jax.random.split(jax.random.key(3), num))
    )
  with pytest.raises(errors.InputError, match='from 1 to 8, got 9'):
    training.split(jax.random.key(3), 9)


def test_features_and_logits_are_matrices(tiny_problem):
  def apply_fn(state, images, *, train):
    outputs, stats = tiny.apply_fn(state, images, train=train)
    return outputs._replace(features=images), stats  # before pooling

  of_images = dataclasses.replace(tiny_problem, apply_fn=apply_fn)
  with pytest.raises(
    errors.InputError, match=r'features \[B, D\], got \[1, 10\] and \[1, 8, 8, 1\]'
  ):
    training.check_problem(of_images)

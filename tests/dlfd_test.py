"""DLFD: what reaches the images, what stops it, and which state comes back."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  adversarial,
  data,
  flop,
  image_rows,
  losses,
  methods,
  parallel,
  training,
  types,
  watching,
)
from dalign_jax.methods import _dlfd
from tests import tiny

KEY = jax.random.key(11)
QUICK = {'monitor_every': 5, 'monitor_size': 200, 'batch_size': 64, 'learning_rate': 0.01}


class Recorder(types.Monitor):
  """Keeps what a run reports, and can stop it as a killed process would."""

  def __init__(self, saved=None, stop_after=None):
    self.saved, self.stop_after, self.logs, self.states = saved, stop_after, [], []

  def restore(self, template):
    if self.saved:
      chex.assert_trees_all_equal_shapes_and_dtypes(template, self.saved[1])
    return self.saved

  def on_epoch(self, epoch, get_state, metrics):
    self.states.append(get_state())
    self.logs.append(metrics)
    self.saved = epoch + 1, self.states[-1]
    if self.stop_after == epoch + 1:
      raise KeyboardInterrupt


def run(problem, recorder=None, **hparams):
  problem = dataclasses.replace(problem, monitor=recorder or types.Monitor())
  return methods.dlfd(**{**QUICK, **hparams})(problem, KEY)


def image_gradients(problem, **changes):
  """The gradient by the retain images of what the perturbation ascends, per weight of CE."""
  settings = _dlfd._Settings(
    **{
      'num_steps': 1,
      'ot_weight': 1.0,
      'ce_weight': 1.0,
      'step_size': 0.1,
      'radius': 1.0,
      'features': 'features',
      'epsilon': 0.05,
      'sinkhorn_iterations': 100,
      **changes,
    }
  )
  rows = lambda d: jnp.asarray(d.images[:32], jnp.float32)[None] / 255

  def gradient(images, forget):
    labels = problem.retain.labels[:32]
    objective = _dlfd._objective(
      problem.apply_fn, settings, problem.original, labels, forget, settings.ce_weight
    )
    return jax.grad(objective)(images)

  mapped = parallel.spmd(gradient, devices=problem.devices)
  return np.asarray(mapped(rows(problem.retain), rows(problem.forget)))[0]


@pytest.mark.parametrize('features', ['logits', 'features'])
def test_transport_reaches_the_images(tiny_problem, features):
  gradient = image_gradients(tiny_problem, ce_weight=0.0, features=features)
  per_image = np.abs(gradient).reshape(32, -1).max(1)
  assert np.all(per_image > 0) and np.all(np.isfinite(gradient))


def test_perturbation_moves_away_from_the_forget_set(tiny_problem):
  retain = jnp.asarray(tiny_problem.retain.images[:40], jnp.float32) / 255
  forget = jnp.asarray(tiny_problem.forget.images[:40], jnp.float32) / 255
  features = lambda x: tiny_problem.apply_fn(tiny_problem.original, x, train=False)[0].features
  distance = lambda x: losses.transport_distance(features(x), features(forget), epsilon=0.05)
  moved = adversarial.pgd(distance, retain, epsilon=1.0, step_size=0.02, num_steps=5)
  assert distance(moved) > distance(retain) + 0.05


def test_no_transport_leaves_the_forget_images_out(tiny_problem):
  assert not np.any(image_gradients(tiny_problem, ot_weight=0.0, ce_weight=0.0))
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, tiny_problem.forget.images.shape, np.uint8)
  other = dataclasses.replace(
    tiny_problem, forget=dataclasses.replace(tiny_problem.forget, images=noise)
  )
  trained = {}
  for weight in (0.0, 1.0):
    recorders = Recorder(), Recorder()
    for problem, recorder in zip((tiny_problem, other), recorders, strict=True):
      run(problem, recorder, ot_weight=weight, stop_threshold=0.0)
    trained[weight] = [recorder.states[-1].train.params for recorder in recorders]
  chex.assert_trees_all_equal(*trained[0.0])
  with pytest.raises(AssertionError):
    chex.assert_trees_all_equal(*trained[1.0])


def test_perturbed_images_stay_in_range_and_radius(tiny_problem):
  def apply_fn(state, images, *, train):
    inside = jnp.all((images >= 0) & (images <= 1))
    outputs, stats = tiny.apply_fn(state, images, train=train)
    return types.Outputs(jnp.where(inside, outputs.logits, jnp.nan), outputs.features), stats

  strict = dataclasses.replace(tiny_problem, apply_fn=apply_fn)
  run(strict, step_size=0.7, num_steps=4)  # a NaN would have stopped it
  images = jax.random.uniform(KEY, (3, 8, 8, 1))
  for radius in (0.1, 1.0):
    moved = adversarial.pgd(
      lambda x: jnp.sum(jnp.sin(30 * x)), images, epsilon=radius, step_size=0.07, num_steps=9
    )
    assert moved.min() >= 0 and moved.max() <= 1
    assert 0.05 < float(jnp.abs(moved - images).max()) <= radius + 1e-6


@pytest.mark.parametrize('threshold', [0.0, 0.2, 0.5])
def test_selected_state_is_returned(tiny_problem, threshold):
  recorder = Recorder()
  result = run(tiny_problem, recorder, save_threshold=threshold, stop_threshold=0.1)
  logs = recorder.logs
  passing = [k for k, log in enumerate(logs) if log['score'] <= threshold]
  if passing:
    best = max(passing, key=lambda k: (logs[k]['validation_accuracy'], -k))
  else:
    best = min(range(len(logs)), key=lambda k: logs[k]['score'])
  chex.assert_trees_all_equal(result, recorder.states[best].train.model)
  assert len(logs) == 5 and (threshold > 0) == bool(passing)


def test_thresholds_are_no_smaller_than_what_chance_gives(tiny_problem):
  few = dataclasses.replace(tiny_problem, forget=tiny_problem.forget.take(np.arange(10)))
  noise = watching.forgetting(few, 512, KEY).noise
  assert 0.1 < noise < 0.2 and watching.forgetting(tiny_problem, 512, KEY).noise < noise
  usual, said, smaller = (Recorder() for _ in range(3))
  run(few, usual)
  run(few, said, stop_threshold=noise, save_threshold=noise)
  run(few, smaller, stop_threshold=0.0, save_threshold=0.0)
  assert usual.logs == said.logs != smaller.logs


def test_a_class_that_goes_whole_does_not_count_in_the_accuracy(tiny_problem):
  def apply_fn(state, images, *, train):  # recognises the forgotten class alone
    outputs, stats = tiny.apply_fn(state, images, train=train)
    return outputs._replace(logits=jnp.zeros_like(outputs.logits).at[:, 3].set(1.0)), stats

  problem = dataclasses.replace(tiny_problem, apply_fn=apply_fn)
  assert set(problem.forget.labels) == {3} and 3 in problem.validation.labels
  seen = watching.forgetting(problem, 512, KEY).measure(problem.original)
  assert seen.validation_accuracy == 0


def test_perturbation_is_dropped_for_good_or_taken_up_again(tiny_problem):
  recorder, plain = Recorder(), Recorder()
  run(tiny_problem, recorder, stop_threshold=0.5, perturb_again=False)
  assert [log['perturbs'] for log in recorder.logs] == [True, False, False, False, False]
  again = Recorder()
  run(tiny_problem, again, stop_threshold=0.02)
  scores = [log['score'] for log in again.logs]
  assert [log['perturbs'] for log in again.logs[1:]] == [score > 0.02 for score in scores[:-1]]
  never = Recorder()
  run(tiny_problem, never, stop_threshold=0.0)
  assert all(log['perturbs'] for log in never.logs)
  run(tiny_problem, plain, num_steps=0)
  assert not any(log['perturbs'] for log in plain.logs)


def test_every_step_of_the_perturbation_is_counted_as_cost(tiny_problem):
  cost = {}
  for num_steps in range(4):
    before = flop.total()
    run(tiny_problem, num_steps=num_steps, stop_threshold=0.0)
    cost[num_steps] = flop.total() - before
  assert cost[3] - cost[2] == cost[2] - cost[1] > 0
  assert cost[1] > cost[0] > 0
  before = flop.total()
  run(tiny_problem, num_steps=3, stop_threshold=0.5, perturb_again=False)  # one part in five
  assert cost[0] < flop.total() - before < cost[1]


def test_interrupted_and_resumed_equals_uninterrupted(tiny_problem):
  stopped = Recorder(stop_after=2)
  with pytest.raises(KeyboardInterrupt):
    run(tiny_problem, stopped)
  resumed = Recorder(saved=stopped.saved)
  whole = Recorder()
  chex.assert_trees_all_equal(run(tiny_problem, resumed), run(tiny_problem, whole))
  assert len(resumed.logs) == len(whole.logs) - 2
  chex.assert_trees_all_equal(resumed.states[-1], whole.states[-1])


def test_batch_statistics_never_see_perturbed_images(tiny_problem):
  statistics = {}
  for normalization in ('frozen', 'clean'):
    for step_size in (0.001, 0.5):
      recorder = Recorder()
      hparams = {'normalization': normalization, 'learning_rate': 0.0, 'step_size': step_size}
      run(tiny_problem, recorder, stop_threshold=0.0, **hparams)
      statistics[normalization, step_size] = recorder.states[-1].train.batch_stats
  chex.assert_trees_all_equal(
    statistics['frozen', 0.001], statistics['frozen', 0.5], tiny_problem.original.batch_stats
  )
  chex.assert_trees_all_equal(statistics['clean', 0.001], statistics['clean', 0.5])
  change = statistics['clean', 0.5]['mean'] - tiny_problem.original.batch_stats['mean']
  assert np.abs(change).max() > 1e-3


def test_weight_of_the_labels_grows_from_zero(tiny_problem):
  """In the first step of all lambda is 0, and without transport nothing is perturbed."""
  hparams = {'batch_size': len(tiny_problem.retain), 'ot_weight': 0.0, 'balanced': False}
  perturbed, plain = Recorder(), Recorder()
  run(tiny_problem, perturbed, num_epochs=2, stop_threshold=0.0, step_size=0.1, **hparams)
  run(tiny_problem, plain, num_epochs=2, num_steps=0, **hparams)
  params = lambda recorder, epoch: recorder.states[epoch].train.params
  chex.assert_trees_all_close(params(perturbed, 0), params(plain, 0), rtol=1e-6, atol=1e-7)
  with pytest.raises(AssertionError):
    chex.assert_trees_all_close(params(perturbed, 1), params(plain, 1), rtol=1e-3)


def test_loss_is_told_the_step(tiny_problem):
  from dalign_jax import optim

  def loss_fn(params, batch_stats, batch, constants, key, *, step):
    del batch, constants, key
    return 0.0 * params['head']['bias'].sum() + step, batch_stats

  tx = optim.sgd(0.0)
  step = training.make_step(loss_fn, tx, devices=tiny_problem.devices, gives_step=True)
  state = parallel.replicate(training.init_state(tiny_problem.original, tx), tiny_problem.devices)
  rows = training.put_data({'retain': tiny_problem.retain}, tiny_problem.devices)
  batches = {'retain': np.zeros((4, 2), np.int32)}
  _, mean = training.run_steps(step, state, rows, batches, KEY)
  assert mean == pytest.approx(1.5)


def test_unseen_people_are_the_reference_where_given(tiny_problem):
  forget = tiny_problem.forget
  wrong = dataclasses.replace(forget, labels=(forget.labels + 1) % tiny.CLASSES)
  scores = {}
  for name, unseen in (('validation', None), ('same', forget), ('wrong', wrong)):
    recorder = Recorder()
    run(dataclasses.replace(tiny_problem, unseen=unseen), recorder)
    scores[name] = recorder.logs[0]['score']
  assert scores['wrong'] > 0.3 > scores['same'] != scores['validation']


def test_balanced_batches_hold_every_class_equally():
  labels = np.repeat([0, 1, 2], [50, 7, 3]).astype(np.int32)
  batches = data.balanced_batches(labels, 8, np.random.default_rng(0), num_batches=9)
  counts = np.bincount(labels[batches].ravel())
  assert counts.tolist() == [24, 24, 24]
  per_batch = np.stack([np.bincount(labels[b], minlength=3) for b in batches])
  assert per_batch.min() >= 2 and per_batch.max() <= 3
  again = data.balanced_batches(labels, 8, np.random.default_rng(0), num_batches=9)
  np.testing.assert_array_equal(batches, again)
  assert len(np.unique(batches[labels[batches] == 0])) == 24


@pytest.mark.parametrize(
  ('hparams', 'message'),
  [
    ({'features': 'pixels'}, "features must be one of logits, features, got 'pixels'"),
    ({'normalization': 'batch'}, "normalization must be one of frozen, clean, got 'batch'"),
    ({'ot_weight': -1.0}, 'ot_weight must be 0 or more'),
    ({'step_size': 0.0}, 'step_size must be positive'),
    ({'stop_threshold': 0.7}, r'stop_threshold must be in \[0, 0.5\], got 0.7'),
    ({'monitor_every': 0}, 'monitor_every must be 1 or more'),
  ],
)
def test_bad_hyper_parameters_are_named(hparams, message):
  with pytest.raises(ValueError, match=message):
    methods.dlfd(**hparams)


@pytest.mark.parametrize('kept', [np.asarray, lambda x: image_rows.ImageRows([x])])
def test_a_report_is_shown_what_the_images_became(tiny_problem, kept):
  class Shown(types.Monitor):
    def on_arrays(self, name, get_arrays):
      self.found = {name: get_arrays()}

  shown = Shown()
  sets = {n: getattr(tiny_problem, n) for n in ('retain', 'forget')}
  sets = {n: dataclasses.replace(d, images=kept(d.images)) for n, d in sets.items()}
  run(dataclasses.replace(tiny_problem, **sets), shown, step_size=0.02, num_steps=3, radius=0.05)
  before, after = (shown.found['perturbed'][k] for k in ('before', 'after'))
  assert before.shape == after.shape == (8, *tiny_problem.retain.images.shape[1:])
  assert 0 < np.abs(after - before).max() <= 0.05 + 1e-6
  assert after.min() >= 0 and after.max() <= 1

"""Methods against numbers that the authors' released code gave, on one network and stored inputs.

The numbers were made once, in float64, on `parity_network`; no code of theirs is here. Each test
names what of the release it leaves out; `docs/methods.md` lists our deviations. Where a release's
defect would change the numbers, a test asserts that ours are not those.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import (
  adversarial,
  class_means,
  importance,
  losses,
  methods,
  objectives,
  optim,
  parallel,
  prediction,
  training,
  types,
)
from dalign_jax.methods import (
  _amun,
  _boundary_shrink,
  _cmf,
  _just_in_time,
  _l2ul,
  _lotus,
  _masked_small_gradients,
  _negmerge,
  _salun,
  _sfron,
)
from tests import parity_network

KEY = jax.random.key(0)
stored = parity_network.stored


@pytest.fixture(scope='module')
def problem():
  return parity_network.problem()


@pytest.fixture(scope='module')
def class_problem():
  return parity_network.problem(forgets_class=True)


def _gap(unlearn_fn, problem, change):
  return parity_network.relative_gap(unlearn_fn(problem, KEY).params, change)


FULL_BATCH = {'batch_size': 64, 'learning_rate': 0.05}
KINDS = {
  'finetune_step1': lambda: methods.finetune(num_epochs=1, **FULL_BATCH),
  'finetune_step3': lambda: methods.finetune(num_epochs=3, **FULL_BATCH),
  'l1_sparse_step3': lambda: methods.l1_sparse(num_epochs=3, l1_weight=5e-4, **FULL_BATCH),
  'gradient_ascent_step1': lambda: methods.gradient_ascent(
    num_epochs=1, learning_rate=0.01, batch_size=32
  ),
  'gradient_ascent_step3': lambda: methods.gradient_ascent(
    num_epochs=3, learning_rate=0.01, batch_size=32
  ),
}


@pytest.mark.parametrize('name', KINDS)
def test_descent_and_ascent(problem, name):
  assert _gap(KINDS[name](), problem, f'descent__{name}') < 1e-4


def test_neggrad_plus(problem):
  make = methods.neggrad_plus(num_epochs=1, retain_weight=0.95, weight_decay=5e-4, **FULL_BATCH)
  assert _gap(make, problem, 'scrub__neggrad_plus_step1') < 1e-4


def test_scrub_retain_pass(problem):
  make = methods.scrub(
    num_epochs=1, forget_epochs=0, cross_entropy_weight=0.99, distillation_weight=0.3, **FULL_BATCH
  )
  assert _gap(make, problem, 'scrub__min_pass') < 1e-4


def test_scrub_forget_pass(problem):
  """From a student that has left its teacher: at the teacher the ascent has no slope."""
  teacher_logits = objectives.original_logits(problem, problem.forget)
  start = parity_network.state('scrub__perturbed_student')
  loss = objectives.MeanLoss(
    problem.apply_fn, 'forget', objectives.Distillation(temperature=4.0, weight=-1.0)
  )
  model = training.minimize(
    problem,
    loss,
    optim.sgd(0.05, momentum=0.0),
    {'forget': problem.forget},
    KEY,
    num_epochs=1,
    batch_size=32,
    start=start,
    extra={'forget': {'teacher_logits': teacher_logits}},
  )
  ours = parity_network.vector(model.params) - parity_network.vector(start.params)
  theirs = stored()['scrub__max_pass_from_perturbed'] - stored()['scrub__perturbed_student']
  assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize('num_steps', [1, 3])
def test_delete(problem, num_steps):
  make = methods.delete(num_epochs=num_steps, learning_rate=0.01, batch_size=32)
  assert _gap(make, problem, f'delete__step{num_steps}') < 1e-4


@pytest.mark.parametrize(
  ('name', 'weight', 'num_moved'),
  [
    ('weights_alpha1', 1.0, 993),
    ('class2_weights_alpha1p5', 1.5, 498),
    ('class2_weights_alpha3', 3.0, 21),
  ],
)
def test_ssd(problem, class_problem, name, weight, num_moved):
  of = class_problem if name.startswith('class2') else problem
  params = methods.ssd(selection_weight=weight)(of, KEY).params
  assert parity_network.relative_gap(params, f'ssd__{name}') < 1e-5
  moved = parity_network.vector(params) != parity_network.vector(of.original.params)
  assert moved.sum() == num_moved


def test_ssd_at_a_weight_that_selects_nothing(problem):
  result = methods.ssd(selection_weight=3.0)(problem, KEY)
  assert np.array_equal(
    parity_network.vector(result.params), parity_network.vector(problem.original.params)
  )


@pytest.mark.parametrize(
  ('name', 'set_name'),
  [('ssd__importance_forget', 'forget'), ('fisher__fisher_diagonal_retain', 'retain')],
)
def test_importances_are_of_single_examples(problem, name, set_name):
  got = importance.squared_gradients(
    problem.apply_fn, problem.original, getattr(problem, set_name), devices=problem.devices
  )
  np.testing.assert_allclose(parity_network.vector(got), stored()[name], rtol=2e-4, atol=1e-10)
  if set_name == 'forget':  # a defect of batch 32: the square of the batch's gradient
    batch = stored()['ssd__importance_forget_batch32']
    assert np.median(parity_network.vector(got) / np.maximum(batch, 1e-12)) > 3


@pytest.fixture
def pinned_labels(monkeypatch):
  """`random_label` and `salun` with the labels that the authors' run drew."""

  def pinned(problem):
    labels = stored()['salun__pinned_labels'].astype(np.int32)
    forget = dataclasses.replace(problem.forget, labels=labels)
    loss = training.ClassificationLoss(problem.apply_fn, 'train', 'none')
    return loss, {'train': types.concatenate(problem.retain, forget)}, {}

  monkeypatch.setattr(objectives, 'random_labels', pinned)


@pytest.mark.parametrize('num_steps', [1, 3])
@pytest.mark.parametrize('name', ['random_label', 'salun'])
def test_wrong_labels(problem, pinned_labels, name, num_steps):
  make = getattr(methods, name)(
    num_epochs=num_steps, learning_rate=0.05, weight_decay=5e-4, batch_size=96
  )
  assert _gap(make, problem, f'salun__{name}_step{num_steps}') < 1e-4


def test_salun_mask(problem):
  gradient = importance.mean_gradient(
    problem.apply_fn, problem.original, problem.forget, devices=problem.devices
  )
  got = parity_network.vector(_salun._largest(gradient, 0.5)).astype(bool)
  np.testing.assert_array_equal(got, parity_network.mask('salun__mask50'))


def test_boundary_shrink(problem):
  """Equal where the neighbour's class is another one; ours never takes the true class."""
  images = problem.forget.images.astype(np.float32) / 255

  def loss(x):
    logits = problem.apply_fn(problem.original, x, train=False)[0].logits
    return losses.cross_entropy(problem.forget.labels, logits)

  neighbours = adversarial.fgsm(loss, images, epsilon=0.1)
  theirs = stored()['boundary_shrink__adversarial_images_eps01']  # rounded to bytes
  np.testing.assert_allclose(neighbours, theirs, atol=0.51 / 255)
  for epsilon, name in ((0.1, 'eps01'), (0.3, 'eps03')):
    labels = stored()[f'boundary_shrink__neighbour_labels_{name}']
    changed = labels != problem.forget.labels
    assert changed.sum() >= 24
    got = _boundary_shrink._neighbour_labels(problem, epsilon)
    np.testing.assert_array_equal(got[changed], labels[changed])


def test_l2ul_importance_and_anchor(problem):
  sensitivity = _l2ul._sensitivity(problem)
  theirs = stored()['l2ul__omega_batch1']
  np.testing.assert_allclose(parity_network.vector(sensitivity), theirs, rtol=1e-4, atol=1e-7)
  unit = jax.tree.map(lambda i: 1 - _l2ul._to_unit(i), sensitivity)
  theirs = stored()['l2ul__anchor_weight']
  np.testing.assert_allclose(parity_network.vector(unit), theirs, atol=1e-5)


@pytest.mark.parametrize(
  ('start', 'num_steps', 'end'),
  [
    (None, 1, 'weights_step1'),
    (None, 2, 'weights_step2'),
    ('perturbed_start', 1, 'weights_step1_from_perturbed'),
  ],
)
def test_l2ul_steps(problem, start, num_steps, end):
  """8 forget images, 8 copies of each (stored, as bytes), anchor weight 10."""
  get = lambda name: stored()[f'l2ul__{name}']
  copies = types.Dataset(
    np.zeros((64, 8, 8, 1), np.uint8),
    get('adversarial_labels').astype(np.int32),
    np.array([str(i) for i in range(64)]),
  )
  forget = problem.forget.take(get('forget_rows').astype(int))
  weights = jax.tree.map(lambda a: np.float32(10 * a), parity_network.tree(get('anchor_weight')))
  loss = _OnFloats(_l2ul._Loss(problem.apply_fn, num_copies=8), 'copies', 'pixels')
  start = parity_network.state(start and f'l2ul__{start}')
  model = training.minimize(
    problem,
    loss,
    optim.sgd(0.05, weight_decay=1e-4),
    {'forget': forget, 'copies': copies},
    KEY,
    num_epochs=num_steps,
    batch_size=64,
    start=start,
    extra={'copies': {'pixels': get('adversarial_images')}},
    constants_fn=lambda epoch: (problem.original.params, weights),
  )
  before = parity_network.vector(start.params)
  theirs = parity_network.vector(problem.original.params) + get(end) - before
  gap = parity_network.vector(model.params) - before - theirs
  assert np.linalg.norm(gap) < 1e-4 * np.linalg.norm(theirs)


@dataclasses.dataclass(frozen=True)
class _OnFloats:
  """A loss whose set `name` has the images of its field `field`, which are no bytes."""

  loss_fn: types.LossFn
  name: str
  field: str

  def __call__(self, params, batch_stats, batch, constants, key):
    rows = batch[self.name]
    batch = {**batch, self.name: {**rows, 'images': rows[self.field]}}
    return self.loss_fn(params, batch_stats, batch, constants, key)


def test_just_in_time(problem, monkeypatch):
  """The release sums over the batch of 32; its noise is the same for all rows."""
  noise = stored()['jit__noise']

  def normal(key, shape, dtype):
    del key, dtype
    return jax.numpy.asarray(noise)[draws[0]].reshape(shape)

  total = 0.0
  for number in range(2):  # one noise at a time: the loss is the mean over noises
    draws = [number]
    with monkeypatch.context() as patch:
      patch.setattr(jax.random, 'normal', normal)
      loss = _just_in_time._Steepness(problem.apply_fn, noise=0.3, num_noises=1)
      # a new function each time, so that the noise is traced anew
      fn = lambda *args, loss=loss: loss(*args)
      model = training.minimize(
        problem,
        fn,
        optim.sgd(32e-3, momentum=0.0),
        {'forget': problem.forget},
        KEY,
        num_epochs=1,
        batch_size=32,
      )
    total += parity_network.vector(model.params) - parity_network.vector(problem.original.params)
  theirs = stored()['jit__weights_batch32']
  assert np.linalg.norm(total / 2 - theirs) < 1e-4 * np.linalg.norm(theirs)


def test_network(problem):
  """The network itself, without which nothing else could agree."""
  for name in ('retain', 'forget', 'test'):
    outputs = prediction.predict(
      problem.apply_fn,
      problem.original,
      parity_network.dataset(name).images,
      devices=problem.devices,
    )
    np.testing.assert_allclose(outputs.logits, stored()[f'network__{name}_logits'], atol=2e-6)


def _test_logits(problem, model):
  images = parity_network.dataset('test').images
  outputs = prediction.predict(problem.apply_fn, model, images, devices=problem.devices)
  return outputs.logits


@pytest.mark.parametrize('num_directions', [1, 2, 4])
def test_esc(class_problem, num_directions):
  result = methods.esc(forget_share=num_directions / 16)(class_problem, KEY)
  theirs = stored()[f'esc__k{num_directions}__equivalent_head_kernel']
  np.testing.assert_allclose(result.params['head']['kernel'], theirs, atol=2e-6)
  theirs = stored()[f'esc__k{num_directions}__logits_test']
  np.testing.assert_allclose(_test_logits(class_problem, result), theirs, atol=1e-5)


def test_esc_t(class_problem):
  """The release with the buffer in place at the first step; its first step is another else."""
  result = methods.esc_t(learning_rate=2.0, num_epochs=10)(class_problem, KEY)
  theirs = stored()['esc__esct_buffer_first__logits_test']
  np.testing.assert_allclose(_test_logits(class_problem, result), theirs, atol=1e-5)
  shorter = methods.esc_t(num_epochs=int(stored()['esc__esct_buffer_first__epochs_run']))
  np.testing.assert_array_equal(
    shorter(class_problem, KEY).params['head']['kernel'], result.params['head']['kernel']
  )


@pytest.mark.parametrize(
  ('name', 'scales'), [('ar100_af3', (100.0, 3.0)), ('ar10_af30', (10.0, 30.0))]
)
def test_svd_projection(class_problem, name, scales):
  make = methods.svd_projection(retain_scale=scales[0], forget_scale=scales[1], retain_fraction=1.0)
  result = make(class_problem, KEY)
  assert parity_network.relative_gap(result.params, f'svd_projection__{name}__weights') < 1e-4
  theirs = stored()[f'svd_projection__{name}__logits_test']
  np.testing.assert_allclose(_test_logits(class_problem, result), theirs, atol=2e-5)


@pytest.mark.parametrize('name', ['all', 'without_class2'])
def test_cmf(class_problem, name):
  """Vectors and centre; the release's logits have each image's own length (see `cmf`)."""
  everything = types.concatenate(class_problem.retain, class_problem.forget)
  dataset = everything if name == 'all' else class_problem.retain
  means = class_means.measure(class_problem, dataset)
  vectors, centre = _cmf.class_vectors(means)
  theirs = stored()[f'cmf__{name}__class_vectors']
  has_rows = means.counts > 0
  np.testing.assert_allclose(vectors[has_rows], theirs[has_rows], atol=2e-6)
  assert has_rows.sum() == (4 if name == 'all' else 3)
  np.testing.assert_allclose(centre, stored()[f'cmf__{name}__mu'], atol=1e-6)
  theirs = stored()[f'cmf__{name}__logits_test'][:, has_rows].argmax(axis=1)
  if name == 'without_class2':
    logits = _test_logits(class_problem, methods.cmf()(class_problem, KEY))
    assert np.mean(logits[:, has_rows].argmax(axis=1) == theirs) > 0.9
    assert not (logits.argmax(axis=1) == 2).any()


def test_cmf_false_labels(problem, monkeypatch):
  """Loss and gradient of the second stage, with the labels and the means of the release."""
  everything = types.concatenate(problem.retain, problem.forget)
  vectors, centre = _cmf.class_vectors(class_means.measure(problem, everything))
  labels = stored()['cmf__relabelled_labels']
  monkeypatch.setattr(objectives, 'other_labels', lambda *_: labels)
  loss = _cmf._FalseLabels(problem.apply_fn, 4, scale=1.0)
  rows = {'images': everything.images / np.float32(255), 'labels': everything.labels}
  fixed = {'vectors': jnp.asarray(vectors, 'float32'), 'centre': jnp.asarray(centre, 'float32')}
  batch = {'train': {**rows, 'is_forget': np.zeros(96, np.int32)}}
  mapped = jax.vmap(
    lambda params: loss(params, {}, batch, fixed, KEY)[0],
    axis_name=parallel.AXIS,
    axis_size=1,
    in_axes=None,
  )
  of_params = lambda params: mapped(params)[0]
  value, gradient = jax.value_and_grad(of_params)(problem.original.params)
  np.testing.assert_allclose(value, stored()['cmf__relabel_loss'], rtol=1e-5)
  theirs = stored()['cmf__relabel_gradient']  # without the head, which has no part in it
  ours, of_head = np.split(parity_network.vector(gradient), [len(theirs)])
  assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
  assert len(of_head) == 68 and not of_head.any()


def test_negmerge():
  vectors = [parity_network.tree(stored()[f'negmerge__tuned{i}']) for i in range(5)]
  merged = parity_network.vector(jax.tree.map(_negmerge._consensus, *vectors))
  for coefficient, name in ((0.5, 'coef0p5'), (1.0, 'coef1p0')):
    theirs = stored()[f'negmerge__weights_{name}']
    np.testing.assert_allclose(-coefficient * merged, theirs, atol=1e-7)
  assert 0.05 < np.mean(merged == 0) < 0.95


def test_msg(problem):
  rows = stored()['kaggle_resets__retain_rows_used']
  of_retain, of_forget = (
    importance.mean_gradient(problem.apply_fn, problem.original, dataset, devices=problem.devices)
    for dataset in (problem.retain.take(rows), problem.forget)
  )
  score = jax.tree.map(np.subtract, of_retain, of_forget)
  theirs = stored()['kaggle_resets__score_gradient']
  np.testing.assert_allclose(parity_network.vector(score), theirs, atol=2e-6)
  is_reset = _masked_small_gradients._smallest(score['conv']['kernel'], 0.3)
  np.testing.assert_array_equal(is_reset, stored()['kaggle_resets__msg_reset'].astype(bool))
  takes_part = _masked_small_gradients._taking_part(problem)
  assert parity_network.vector(takes_part).sum() == 1 and takes_part['conv']['kernel']


def test_ct(problem):
  """Before the training, which is `finetune`'s."""
  result = methods.ct(num_epochs=0)(problem, KEY)
  theirs = stored()['kaggle_resets__ct_conv_kernel']
  np.testing.assert_allclose(result.params['conv']['kernel'], theirs, atol=1e-7)
  theirs = stored()['kaggle_resets__ct_logits_test']
  np.testing.assert_allclose(_test_logits(problem, result), theirs, atol=2e-6)


def test_amun_neighbours(problem):
  images, labels, found = _amun.nearest(
    problem, epsilon=0.04, num_steps=50, num_doublings=10, as_bytes=False
  )
  get = lambda name: stored()[f'amun__{name}']
  was_wrong = get('original_prediction') != problem.forget.labels
  np.testing.assert_array_equal(labels, get('adversarial_label'))
  np.testing.assert_allclose(images, get('images'), atol=1e-5)
  assert found.all() and 2 < was_wrong.sum() < 16
  offsets = (images - problem.forget.images.astype(np.float32) / 255).reshape(len(images), -1)
  np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), get('delta_norm'), atol=1e-5)
  rounded, labels, found = _amun.nearest(problem, epsilon=0.04, num_steps=50, num_doublings=10)
  dataset = dataclasses.replace(problem.forget, images=rounded)
  predicted = objectives.original_logits(problem, dataset).argmax(axis=1)
  assert found.all() and np.array_equal(predicted, labels)


@pytest.mark.parametrize('kind', ['instance', 'class'])
def test_lotus_loss_and_temperature(problem, kind):
  """With accuracies rounded as the release rounds them."""
  get = lambda name: stored()[f'lotus__{name}']
  aim = float(get('accuracy_validation_rounded')) if kind == 'instance' else 0.0
  tau = _lotus.temperature(2.0, float(get('accuracy_forget_rounded')) - aim)
  assert tau == pytest.approx(float(get(f'temperature_{kind}')), rel=1e-12)
  retain = problem.retain.take(np.arange(19))
  dataset = types.concatenate(problem.forget, retain)
  batch = {
    'images': dataset.images.astype(np.float32) / 255,
    'teacher_logits': objectives.original_logits(problem, dataset),
    'is_forget': get('flags').astype(bool),
  }
  loss = _lotus.Smoothing(problem.apply_fn, gumbel=False)
  student = parity_network.state('lotus__student')
  value = lambda params: loss(params, {}, {'train': batch}, np.float32(tau), KEY)[0]
  got, gradient = jax.value_and_grad(value)(student.params)
  assert float(got) == pytest.approx(float(get(f'loss_softmax_{kind}')), rel=1e-5)
  theirs = get(f'{kind}_gradient')
  gap = np.linalg.norm(parity_network.vector(gradient) - theirs)
  assert gap < 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize(
  ('name', 'num_epochs', 'changes'),
  [
    ('one_step', 1, {'ascent_weight': 25.0}),
    ('three_steps', 3, {'ascent_weight': 1.0}),
    ('three_steps_no_mask', 3, {'ascent_weight': 1.0, 'selection_weight': 0.0}),
  ],
)
def test_sfron_steps(problem, name, num_epochs, changes):
  make = methods.sfron(num_epochs=num_epochs, batch_size=64, forget_every=1, **changes)
  assert _gap(make, problem, f'sfron__{name}') < 1e-4


def test_sfron_mask_and_loss(problem):
  got = parity_network.vector(_sfron._saliency(problem, 1.0)).astype(bool)
  np.testing.assert_array_equal(got, parity_network.mask('sfron__mask_batch1'))
  rows = {
    'images': problem.forget.images.astype(np.float32) / 255,
    'labels': problem.forget.labels,
  }
  for exponent, key in ((0.5, 'lambda0p5'), (1.0, 'lambda1p0')):
    loss = _sfron.AdaptiveAscent(problem.apply_fn, exponent)
    fn = lambda rows, loss=loss: loss(problem.original.params, {}, {'forget': rows}, (), KEY)[0]
    one = jax.tree.map(lambda x: x[None], rows)
    got = jax.vmap(fn, axis_name='devices')(one)[0]
    assert float(got) == pytest.approx(-float(stored()[f'sfron__adaptive_loss_{key}']), rel=1e-5)

"""Methods with a teacher or a counterweight: who moves, who stays, and what comes out."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dalign_jax import losses, methods, objectives, prediction, training, types
from dalign_jax.methods import _scrub, _unsir
from tests import tiny

KEY = jax.random.key(3)


def _logits(problem, model, dataset):
  return prediction.predict(problem.apply_fn, model, dataset.images, devices=problem.devices).logits


def _accuracy(problem, model, name):
  return objectives.accuracy_on(problem, model, getattr(problem, name))


def _divergence(problem, model, name):
  """Mean KL(original || model) on a set."""
  dataset = getattr(problem, name)
  teacher = _logits(problem, problem.original, dataset)
  return float(jnp.mean(losses.distillation(teacher, _logits(problem, model, dataset))))


def test_neggrad_plus_with_all_weight_on_retain_is_finetune(tiny_problem):
  chex.assert_trees_all_close(
    methods.neggrad_plus(retain_weight=1.0, num_epochs=2)(tiny_problem, KEY),
    methods.finetune(num_epochs=2)(tiny_problem, KEY),
    rtol=1e-5,
    atol=1e-7,
  )


def test_neggrad_plus_forgets_more_with_more_weight_on_forget(tiny_problem):
  results = [
    methods.neggrad_plus(retain_weight=w, learning_rate=0.03, num_epochs=3)(tiny_problem, KEY)
    for w in (1.0, 0.93)
  ]
  accuracies = [_accuracy(tiny_problem, r, 'forget') for r in results]
  assert accuracies[0] > 0.9 and accuracies[1] < 0.5
  assert _accuracy(tiny_problem, results[1], 'retain') > 0.9


def test_scrub_follows_the_original_where_nothing_pulls_away(tiny_problem):
  """The original is the teacher throughout: pure distillation from it changes next to nothing."""
  options = {'cross_entropy_weight': 0.0, 'distillation_weight': 1.0, 'weight_decay': 0.0}
  kept = methods.scrub(forget_epochs=0, **options)(tiny_problem, KEY)
  left = methods.scrub(forget_epochs=2, forget_learning_rate=0.1, **options)(tiny_problem, KEY)
  assert _divergence(tiny_problem, kept, 'retain') < 0.05
  assert _divergence(tiny_problem, left, 'forget') > 3 * _divergence(tiny_problem, kept, 'forget')


@pytest.mark.parametrize('make', [methods.scrub, functools.partial(methods.muda, recover_epochs=0)])
def test_no_step_comes_behind_the_end_of_a_schedule(make, tiny_problem):
  """Passes of one kind may follow each other: their schedule is as long as all of them."""
  problem = dataclasses.replace(tiny_problem, schedule='cosine')

  found = [problem.original.params]

  class Parameters(types.Monitor):
    def on_epoch(self, epoch, get_state, metrics):
      found.append(get_state().params)

  make()(dataclasses.replace(problem, monitor=Parameters()), KEY)
  moved = [
    max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *pair)))
    for pair in itertools.pairwise(found)
  ]
  assert len(moved) == 5 and min(moved) > 1e-5, moved


def test_scrub_moves_the_student_alone(tiny_problem):
  """The teacher is no part of the optimizer's state, and the result is not the original."""
  kept = jax.tree.map(np.array, tiny_problem.original)
  result = methods.scrub(num_epochs=2)(tiny_problem, KEY)
  chex.assert_trees_all_equal(tiny_problem.original, kept)
  for before, after in zip(
    jax.tree.leaves(tiny_problem.original.params), jax.tree.leaves(result.params), strict=True
  ):
    assert np.mean(before != after) > 0.5


def test_scrub_phases_do_not_mix(tiny_problem):
  """Without a forget phase, forget data do not matter."""
  blank = dataclasses.replace(tiny_problem.forget, images=tiny_problem.forget.images * 0)
  other = dataclasses.replace(tiny_problem, forget=blank)
  scrub = methods.scrub(forget_epochs=0, num_epochs=1)
  chex.assert_trees_all_equal(scrub(tiny_problem, KEY), scrub(other, KEY))


def test_scrub_rewinds_to_the_nearest_error(tiny_problem):
  """Of the models after 1, 2, 3 epochs: that whose forget error is nearest to the target."""
  rows = np.flatnonzero(np.arange(len(tiny_problem.forget)) % 2 == 0)
  validation = tiny_problem.forget.take(np.setdiff1d(np.arange(len(tiny_problem.forget)), rows))
  problem = dataclasses.replace(
    tiny_problem, forget=tiny_problem.forget.take(rows), validation=validation
  )
  options = {'forget_epochs': 3, 'forget_learning_rate': 0.05}
  models = [methods.scrub(num_epochs=n, **options)(problem, KEY) for n in (1, 2, 3)]
  rewound = methods.scrub(num_epochs=3, rewind=True, **options)(problem, KEY)
  target = _accuracy(problem, models[-1], 'validation')
  gaps = [abs(_accuracy(problem, m, 'forget') - target) for m in models]
  best = max(i for i, gap in enumerate(gaps) if gap == min(gaps))
  chex.assert_trees_all_equal(rewound, models[best])


def test_rewind_can_choose_any_epoch(tiny_problem):
  """With the choice made by hand: the errors of three given models against that of the last."""
  accuracies = iter([0.5, 0.9, 0.4, 0.6])  # the target, then after each epoch
  models = [types.ModelState(i, {}) for i in range(3)]

  def run(monitor, after_epoch):
    assert type(monitor) is types.Monitor
    for model in models:
      after_epoch(model)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(objectives, 'accuracy_on', lambda *args: next(accuracies))
    rewound = _scrub._rewound(tiny_problem, tiny_problem.validation, models[-1], run)
  assert rewound is models[2]  # ties: the latest


def test_rewind_needs_validation_images(tiny_problem):
  rows = np.flatnonzero(tiny_problem.validation.labels != 3)
  other = dataclasses.replace(tiny_problem, validation=tiny_problem.validation.take(rows))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training, 'run_epochs', None)  # refused before any work
    with pytest.raises(types.DataError, match='rewind needs validation images'):
      methods.scrub(num_epochs=1, rewind=True)(other, KEY)


def test_bad_teacher_is_like_the_random_network_on_forget_only(tiny_problem):
  result = methods.bad_teacher(num_epochs=30, learning_rate=3e-3)(tiny_problem, KEY)
  random = tiny.init_fn(jax.random.split(KEY, 3)[1])
  kl = lambda teacher, name: float(
    jnp.mean(
      losses.distillation(
        _logits(tiny_problem, teacher, getattr(tiny_problem, name)),
        _logits(tiny_problem, result, getattr(tiny_problem, name)),
      )
    )
  )
  assert kl(random, 'forget') < 0.5 * kl(tiny_problem.original, 'forget')
  assert kl(tiny_problem.original, 'retain') < 0.2 * kl(random, 'retain')
  assert _accuracy(tiny_problem, result, 'retain') > 0.9


def test_bad_teacher_reads_no_forget_labels(tiny_problem):
  labels = np.full_like(tiny_problem.forget.labels, 5)
  other = dataclasses.replace(
    tiny_problem, forget=dataclasses.replace(tiny_problem.forget, labels=labels)
  )
  bad_teacher = methods.bad_teacher()
  chex.assert_trees_all_equal(bad_teacher(tiny_problem, KEY), bad_teacher(other, KEY))


def test_unsir_noise_raises_the_loss(tiny_problem):
  start, noise = (_unsir._noise(tiny_problem, KEY, 16, steps, 0.1) for steps in (0, 40))
  loss = lambda d: float(
    losses.cross_entropy(d.labels, _logits(tiny_problem, tiny_problem.original, d)).mean()
  )
  assert loss(noise) > loss(start) + 1
  assert noise.labels.tolist() == [3] * 16
  assert len(np.unique(noise.images, axis=0)) > 1


def test_unsir_sees_no_forget_images(tiny_problem):
  blank = dataclasses.replace(tiny_problem.forget, images=tiny_problem.forget.images * 0)
  other = dataclasses.replace(tiny_problem, forget=blank)
  unsir = methods.unsir(num_noises=16)
  chex.assert_trees_all_equal(unsir(tiny_problem, KEY), unsir(other, KEY))


@pytest.mark.parametrize('name', [n for n, m in methods.METHODS.items() if m.class_only])
def test_class_methods_need_a_whole_class(tiny_problem, name):
  single = tiny_problem.retain.take(np.flatnonzero(tiny_problem.retain.labels == 5)[:4])
  for forget, found in (
    (single, '1 of 1'),
    (types.concatenate(tiny_problem.forget, single), '1 of 2'),
  ):
    mixed = dataclasses.replace(tiny_problem, forget=forget)
    message = f'{name} forgets whole classes, but {found} have retain examples'
    with pytest.raises(ValueError, match=message):
      methods.METHODS[name].make()(mixed, KEY)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda: methods.neggrad_plus(retain_weight=1.5),
      r'retain_weight must be in \[0, 1\], got 1.5',
    ),
    (lambda: methods.scrub(temperature=0.0), 'temperature must be positive, got 0.0'),
    (lambda: methods.bad_teacher(temperature=0.0), 'temperature must be positive, got 0.0'),
    (lambda: methods.bad_teacher(retain_fraction=0.0), r'retain_fraction must be in \(0, 1\]'),
    (lambda: methods.unsir(retain_fraction=2.0), r'retain_fraction must be in \(0, 1\], got 2.0'),
  ],
)
def test_bad_hyper_parameters_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()

"""Several binary attributes at once: loss, metrics, methods and the whole job."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import PIL.Image
import pytest
from scipy import special

from dalign_jax import errors, losses, methods, metrics, prediction, training, types
from experiments import config as config_lib
from experiments import stages
from tests import tiny

LOGITS = np.array([[2.0, -1.0], [0.5, 30.0], [-40.0, 0.0]], np.float32)
LABELS = np.array([[1, 0], [0, 1], [1, 1]], np.int32)


def test_loss_and_scores_are_the_sigmoids():
  log_p = np.where(LABELS, special.log_expit(LOGITS), special.log_expit(-LOGITS))
  expected = -log_p.mean(1)
  np.testing.assert_allclose(losses.binary_cross_entropy(LABELS, LOGITS), expected, rtol=1e-5)
  np.testing.assert_allclose(losses.label_loss(LABELS, LOGITS), expected, rtol=1e-5)
  np.testing.assert_allclose(metrics.cross_entropy_scores(LOGITS, LABELS), expected, rtol=1e-6)
  labels = np.array([1, 0, 1], np.int32)
  np.testing.assert_array_equal(
    losses.label_loss(labels, LOGITS), losses.cross_entropy(labels, LOGITS)
  )
  jax.test_util.check_grads(
    lambda z: losses.binary_cross_entropy(LABELS, z), (jnp.clip(LOGITS, -3, 3),), order=1
  )
  extreme = jax.grad(lambda z: losses.binary_cross_entropy(LABELS, z).sum())(1e4 * LOGITS)
  assert np.all(np.isfinite(extreme))


def test_accuracy_counts_attributes():
  assert metrics.accuracy(LOGITS, LABELS) == pytest.approx(3 / 6)
  with pytest.raises(ValueError, match='labels must be 0 or 1, got 0 to 2'):
    metrics.accuracy(LOGITS, LABELS * 2)
  with pytest.raises(ValueError, match=r'labels must have shape \[3, 2\], got \[3, 1\]'):
    metrics.cross_entropy_scores(LOGITS, LABELS[:, :1])


def _with_attributes(dataset):
  """Whether a digit is odd, is above 4, has a loop."""
  attributes = [dataset.labels % 2, dataset.labels > 4, np.isin(dataset.labels, (0, 6, 8, 9))]
  attributes += [np.zeros(len(dataset))] * (tiny.CLASSES - 3)
  return dataclasses.replace(dataset, labels=np.stack(attributes, axis=1).astype(np.int32))


def test_methods_that_take_attributes_train_on_them():
  problem = tiny.problem()
  parts = {n: _with_attributes(getattr(problem, n)) for n in ('retain', 'forget', 'validation')}
  fit = lambda data: training.fit(
    problem.apply_fn,
    problem.original,
    data,
    types.Recipe(num_epochs=6, batch_size=64),
    jax.random.key(0),
    devices=problem.devices,
  )
  original = fit(types.concatenate(parts['retain'], parts['forget']))
  problem = dataclasses.replace(problem, original=original, **parts)
  accuracy = lambda model: metrics.accuracy(
    prediction.predict(problem.apply_fn, model, problem.validation.images).logits,
    problem.validation.labels,
  )
  assert accuracy(original) > 0.95
  for name, hparams in (
    ('finetune', {'num_epochs': 1}),
    ('gradient_ascent', {'num_epochs': 1}),
    ('retrain', {}),
    ('dlfd', {'monitor_every': 10}),
  ):
    method = methods.METHODS[name]
    assert method.multi_label
    result = method.make(**hparams)(problem, jax.random.key(1))
    assert accuracy(result) > 0.85, name


@pytest.fixture
def mucac(tmp_path):
  """A tiny MUCAC: the attribute Male is how red an image is."""
  root, rng = tmp_path / 'mucac', np.random.default_rng(0)
  (root / 'CelebA-HQ-img').mkdir(parents=True)
  people = rng.permutation(
    np.repeat(np.array([*range(9), *range(300, 306), *range(1300, 1318)]), 4)
  )
  people = np.concatenate([people, np.repeat(np.arange(5000, 5008), 4)])
  names = [f'Attribute{k}' for k in range(1, 41)]
  names[20], names[31], names[39] = 'Male', 'Smiling', 'Young'
  lines = [str(len(people)), ' '.join(names)]
  for row in range(len(people)):
    values = np.where(rng.uniform(size=40) < 0.5, 1, -1)
    pixels = rng.integers(0, 256, (8, 8, 3))
    pixels[..., 0] = 200 if values[20] > 0 else 40
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(root / 'CelebA-HQ-img' / f'{row}.jpg')
    lines.append(f'{row}.jpg ' + ' '.join(map(str, values)))
  (root / 'CelebA-HQ-attribute.txt').write_text('\n'.join(lines))
  identities = [f'{row}.jpg {person}' for row, person in enumerate(people)]
  (root / 'CelebA-HQ-identity.txt').write_text('\n'.join(identities))
  return root


def test_job_on_attributes_of_people(mucac, tmp_path, capsys):
  config = config_lib.Config(
    dataset=f'mucac:{mucac}',
    forget='official',
    split_by_group=True,
    problem='attributes',
    workdir=str(tmp_path / 'runs'),
    width_multiplier=0.125,
    num_epochs=2,
    batch_size=16,
    methods=('finetune', 'dlfd'),
    hparam=('finetune.num_epochs=1', 'finetune.batch_size=16', 'dlfd.batch_size=16'),
    validation_fraction=0.2,
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
  )
  stages.run(config)
  folder = tmp_path / 'runs' / 'attributes'
  rows = list(csv.DictReader((folder / 'report.csv').read_text(encoding='utf-8').splitlines()))
  assert len(rows) == 5
  for row in rows:
    score, nomus = float(row['forgetting_score']), float(row['nomus'])
    assert nomus == pytest.approx(0.5 * float(row['test_accuracy']) + 0.5 - score)
    assert 'linear_probe' not in row and float(row['dimensional_alignment']) > 0
  assert rows[1]['model'] == 'gold' and rows[1]['activation_distance'] == ''
  assert 'NoMUS' in (folder / 'report.md').read_text(encoding='utf-8')
  assert 'Forgetting score: 95 %' in (folder / 'report.html').read_text(encoding='utf-8')
  assert 'the official number is 30,000' in capsys.readouterr().out
  with pytest.raises(errors.InputError, match='methods: muda needs classes'):
    stages.run(dataclasses.replace(config, methods=('muda',)))

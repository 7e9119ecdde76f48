"""Data that stay on the host, or in files: the same rows, the same bits."""

import dataclasses
import inspect

import chex
import jax
import numpy as np
import PIL.Image
import pytest

from dalign_jax import data, errors, image_rows, methods, parallel, training, types
from dalign_jax.data import _base
from dalign_jax.training import _feeding
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders
from tests import methods_compile_test, tiny

KEY = jax.random.key(7)


@pytest.fixture
def place():
  """A function that chooses where data are kept; undone after the test."""
  before = _feeding._chosen[0]
  yield training.keep_data_on_device
  training.keep_data_on_device(before)


def _images(n=50):
  return np.random.default_rng(0).integers(0, 256, (n, 4, 5, 3), np.uint8)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('rows') / 'images.npy'
  np.save(path, _images())
  return image_rows.ImageFile(path)


def test_rows_of_files_are_those_of_arrays(file):
  images, rows = _images(), image_rows.ImageRows([file])
  assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == (images.shape, np.uint8, 50, 3000)
  for key in (3, -1, slice(4, 30, 5), np.array([7, 6, 6, 49]), np.arange(50) % 3 == 0):
    np.testing.assert_array_equal(rows[key], images[key])
  np.testing.assert_array_equal(np.asarray(rows), images)
  np.testing.assert_array_equal(np.stack(list(rows)), images)
  assert rows[np.array([], int)].shape == (0, 4, 5, 3)


def test_taking_and_joining_reads_nothing_and_keeps_the_order(file):
  images, rows = _images(), image_rows.ImageRows([file])
  first, second = np.array([9, 2, 30]), np.array([1, 2])
  in_memory = image_rows.ImageRows([images + 1])
  joined = rows.take(first).join(in_memory.take(second)).join(rows.take(second))
  want = np.concatenate([images[first], (images + 1)[second], images[second]])
  np.testing.assert_array_equal(joined[:], want)
  np.testing.assert_array_equal(joined.take([6, 0])[:], want[[6, 0]])
  mixed = image_rows.concatenate(images[:2], rows.take(first))
  np.testing.assert_array_equal(mixed[:], np.concatenate([images[:2], images[first]]))
  assert isinstance(image_rows.concatenate(images, images), np.ndarray)


def test_files_that_hold_something_else_are_refused(tmp_path, file):
  path = tmp_path / 'x.npy'
  np.save(path, _images().astype(np.float32))
  with pytest.raises(errors.InputError, match=r'must hold uint8 \[N, H, W, C\], got float32'):
    image_rows.ImageFile(path)
  path.write_bytes(file.path.read_bytes()[:-10])
  with pytest.raises(errors.InputError, match='claims 3,128 bytes in its header and holds 3,118'):
    image_rows.ImageFile(path)


def test_a_file_is_written_without_knowing_how_many(tmp_path):
  writer = image_rows.ImageWriter(tmp_path / 'x.npy', (4, 5, 3))
  for image in _images():
    writer.append(image)
  np.testing.assert_array_equal(writer.finish()[np.arange(50)], _images())
  np.testing.assert_array_equal(np.load(tmp_path / 'x.npy'), _images())


def _in_files(problem, folder) -> types.Problem:
  """The problem with all its images in files."""
  changes = {}
  for name in ('retain', 'forget', 'validation'):
    dataset = getattr(problem, name)
    np.save(folder / f'{name}.npy', dataset.images)
    rows = image_rows.ImageRows([image_rows.ImageFile(folder / f'{name}.npy')])
    changes[name] = dataclasses.replace(dataset, images=rows)
  return dataclasses.replace(problem, **changes)


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_takes_the_same_steps_from_files(name, tiny_problem, tmp_path, place):
  make = methods.METHODS[name].make
  quick = methods_compile_test.QUICK
  parameters = inspect.signature(make).parameters
  unlearn = make(**{p: quick[p] for p in quick if p in parameters})
  place('yes')
  wanted = unlearn(tiny_problem, KEY)
  place('no')
  chex.assert_trees_all_equal(unlearn(_in_files(tiny_problem, tmp_path), KEY), wanted)


@pytest.mark.parametrize('num_devices', [1, 2])
def test_fits_and_ensembles_are_equal_over_devices(num_devices, tmp_path, place):
  problem = tiny.problem(devices=tuple(jax.devices()[:num_devices]))
  files = _in_files(problem, tmp_path)

  def fit(p):
    return training.fit(p.apply_fn, p.original, p.retain, p.recipe, KEY, devices=p.devices)

  def ensemble(p):
    starts, keys = [p.original, p.init_fn(KEY)], [KEY, jax.random.key(9)]
    subsets = np.stack([np.arange(200), np.arange(100, 300)])
    return training.fit_ensemble(
      p.apply_fn, starts, p.retain, p.recipe, keys, subsets=subsets, devices=p.devices
    )

  place('yes')
  wanted = fit(problem), ensemble(problem)
  place('no')
  chex.assert_trees_all_equal((fit(files), ensemble(files)), wanted)


def test_calls_of_many_steps_are_equal(place):
  problem = tiny.problem()
  loss = training.ClassificationLoss(problem.apply_fn, 'train', 'none')
  tx = training.recipe_optimizer(problem.recipe, len(problem.retain))
  batches = {'train': np.arange(7 * 16, dtype=np.int32).reshape(7, 16)}
  found = []
  for choice in ('yes', 'no'):
    place(choice)
    step = training.make_step(loss, tx, devices=problem.devices, steps_per_call=3)
    data_of = training.put_data({'train': problem.retain}, problem.devices)
    state = _replicated(problem, tx)
    found.append(training.run_steps(step, state, data_of, batches, KEY))
  chex.assert_trees_all_equal(*jax.device_get(found))


def _replicated(problem, tx):
  return parallel.replicate(training.init_state(problem.original, tx), problem.devices)


def test_auto_keeps_what_takes_a_quarter_of_the_memory(place, monkeypatch):
  problem = tiny.problem()
  place('auto')
  put = lambda: training.put_data({'train': problem.retain}, problem.devices)
  assert not isinstance(put(), training.HostData)
  monkeypatch.setattr(_feeding, '_SHARE', 1e-9)
  assert isinstance(put(), training.HostData)
  with pytest.raises(errors.InputError, match="must be one of auto, yes, no, got '5'"):
    training.keep_data_on_device('5')


def test_large_folders_are_decoded_into_a_file(tmp_path, monkeypatch):
  for name in ('a', 'b'):
    (tmp_path / 'images' / name).mkdir(parents=True)
    for k, image in enumerate(_images(6)):
      PIL.Image.fromarray(image).save(tmp_path / 'images' / name / f'{k}.png')
  load = lambda cache: data.load(f'folder:{tmp_path / "images"}', cache_dir=tmp_path / cache)
  small = load('small').dataset
  monkeypatch.setattr(_base, 'IN_MEMORY', 100)
  for _ in range(2):  # decoded, and restored
    large = load('large').dataset
    assert isinstance(large.images, image_rows.ImageRows)
    assert data.content_hash(large) == data.content_hash(small)
    np.testing.assert_array_equal(large.images[:], small.images)
  folder = list((tmp_path / 'large').iterdir())
  assert [p.name for p in folder if p.name.startswith('tmp_')] == []


def test_a_run_from_npy_files_equals_one_from_memory(tmp_path, place):
  digits = tiny.dataset()
  (tmp_path / 'npy').mkdir()
  arrays = {'images': digits.images, 'labels': digits.labels, 'ids': digits.ids}
  for name, array in arrays.items():
    np.save(tmp_path / 'npy' / f'{name}.npy', array)
  np.savez(tmp_path / 'data.npz', **arrays)
  models = []
  for choice, dataset in (('yes', f'npz:{tmp_path}/data.npz'), ('no', f'npy:{tmp_path}/npy')):
    place(choice)
    config = config_lib.Config(
      dataset=dataset,
      problem=choice,
      workdir=str(tmp_path / 'runs'),
      width_multiplier=0.125,
      num_epochs=1,
      batch_size=64,
      num_devices=1,
      cache_dir='',
      compilation_cache_dir='',
      methods=('finetune',),
      hparam=('finetune.num_epochs=1',),
    )
    stages.run(config)
    rows = folders.problem_folder(config) / 'report.csv'
    models.append(rows.read_text().splitlines())
  assert [_figures(line) for line in models[0]] == [_figures(line) for line in models[1]]


def _figures(line):
  """The cells of a line but for times."""
  return [cell for cell in line.split(',')[:8]]


def test_npy_folders_are_checked(tmp_path):
  (tmp_path / 'x').mkdir()
  with pytest.raises(errors.InputError, match=r'holds no images\.npy'):
    data.load(f'npy:{tmp_path}/x')
  np.save(tmp_path / 'x' / 'images.npy', _images())
  with pytest.raises(errors.InputError, match='must hold the arrays images and labels'):
    data.load(f'npy:{tmp_path}/x')
  np.save(tmp_path / 'x' / 'labels.npy', np.arange(50) % 2)
  source = data.load(f'npy:{tmp_path}/x')
  assert len(source.dataset) == 50 and source.class_names == ('0', '1')
  with pytest.raises(errors.InputError, match='is read as it is'):
    data.load(f'npy:{tmp_path}/x', image_size=2)

"""Pretrained weights in the layouts of PyTorch libraries; `torch_layouts_test` has the modules."""

import dataclasses
import json

import chex
from flax.traverse_util import flatten_dict
import jax
import numpy as np
import PIL.Image
import pytest
from safetensors import numpy as safetensors

from dalign_jax import (
  checkpoints,
  errors,
  from_settings,
  models,
  pretrained,
  training,
)
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import carry_out, record_keys, replay, verdict
from dalign_jax.training import _feeding
from experiments import config as config_lib
from experiments import stages
from experiments.problem import folders, preparation

SIDE, CLASSES, WIDTH, DEPTH = 32, 3, 24, 2
SHAPE = (SIDE, SIDE, 3)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """`vit_tiny16`, smaller still."""
  sizes = {'patch': 16, 'width': WIDTH, 'depth': DEPTH, 'num_heads': 3, 'class_token': True}
  make = lambda num_classes, **options: models.ViT(num_classes, **sizes)
  monkeypatch.setitem(models.MODELS, 'vit_tiny16', make)


def transformer(classes=5, patches=9, seed=0) -> dict[str, np.ndarray]:
  """Arrays as timm's vit_tiny_patch16_224 has them, for a smaller transformer."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: (0.05 * rng.standard_normal(shape)).astype(np.float32)
  norm = lambda name: {f'{name}.weight': 1 + draw(WIDTH), f'{name}.bias': draw(WIDTH)}
  dense = lambda name, n, m: {f'{name}.weight': draw(m, n), f'{name}.bias': draw(m)}
  arrays = {
    'cls_token': draw(1, 1, WIDTH),
    'pos_embed': draw(1, patches + 1, WIDTH),
    'patch_embed.proj.weight': draw(WIDTH, 3, 16, 16),
    'patch_embed.proj.bias': draw(WIDTH),
    **norm('norm'),
    **dense('head', WIDTH, classes),
  }
  for n in range(DEPTH):
    block = f'blocks.{n}'
    arrays |= norm(f'{block}.norm1') | norm(f'{block}.norm2')
    arrays |= dense(f'{block}.attn.qkv', WIDTH, 3 * WIDTH)
    arrays |= dense(f'{block}.attn.proj', WIDTH, WIDTH)
    arrays |= dense(f'{block}.mlp.fc1', WIDTH, 4 * WIDTH)
    arrays |= dense(f'{block}.mlp.fc2', 4 * WIDTH, WIDTH)
  return arrays


def _file(tmp_path, arrays):
  safetensors.save_file(arrays, str(tmp_path / 'vit.safetensors'))
  return str(tmp_path / 'vit.safetensors')


def _init_fn(classes=CLASSES):
  return models.build('vit_tiny16', num_classes=classes, image_shape=SHAPE)[1]


def test_what_was_understood_is_said_and_the_rest_is_kept_to_the_bit(tmp_path):
  arrays = transformer()
  start = pretrained.start(_init_fn(), _file(tmp_path, arrays), SHAPE)
  assert start.notes == (
    'vision transformer of timm',
    'a new head for 3 classes; that for 5 is left out',
    'position embeddings of 3 x 3 patches, interpolated to 2 x 2',
  )
  first, again, other = (start(jax.random.key(seed)).params for seed in (0, 0, 1))
  chex.assert_trees_all_equal(first, again)
  assert np.any(first['head']['kernel'] != other['head']['kernel'])
  chex.assert_trees_all_equal({**first, 'head': 0}, {**other, 'head': 0})
  block = first['_Block_1']
  for number, name in enumerate(('query', 'key', 'value')):
    theirs = arrays['blocks.1.attn.qkv.weight'][number * WIDTH : (number + 1) * WIDTH]
    np.testing.assert_array_equal(block[name]['kernel'], theirs.T)
  back = start.fitted.arrays_of(start.model)
  for (name,), array in back.items():
    if name not in ('head.weight', 'head.bias', 'pos_embed'):
      np.testing.assert_array_equal(array, arrays[name])
  assert {name for (name,) in back} == arrays.keys()


def test_a_head_of_as_many_classes_stays_and_half_precision_is_said(tmp_path):
  arrays = {name: x.astype(np.float16) for name, x in transformer(CLASSES, 4).items()}
  start = pretrained.start(_init_fn(), _file(tmp_path, arrays), SHAPE)
  assert start.notes == ('vision transformer of timm', 'half precision, taken as float32')
  head = start(jax.random.key(0)).params['head']['kernel']
  np.testing.assert_array_equal(head, arrays['head.weight'].T.astype(np.float32))
  del arrays['head.weight'], arrays['head.bias']
  start = pretrained.start(_init_fn(), _file(tmp_path, arrays), SHAPE)
  assert start.notes[-1] == 'a new head for 3 classes; the file has none'
  assert ('head.weight',) in start.fitted.arrays_of(start.model)


def _without(arrays, name):
  return {n: x for n, x in arrays.items() if n != name}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda a: {**a, 'blocks.0.ls1.gamma': np.ones(WIDTH, np.float32)},
      r'1 arrays that are not known of one, such as blocks\.0\.ls1\.gamma \[24\]',
    ),
    (
      lambda a: {**a, 'blocks.1.attn.proj.weight': np.ones((WIDTH, 5), np.float32)},
      r'_Block_1/out/kernel is float32\[5, 24\] there, but float32\[24, 24\] in the model',
    ),
    (
      lambda a: {**a, 'blocks.0.attn.qkv.weight': np.ones((7, WIDTH), np.float32)},
      r'blocks\.0\.attn\.qkv\.weight must have 2 axes, the first a multiple of 3; it is \[7, 24\]',
    ),
    (
      lambda a: {**a, 'patch_embed.proj.weight': np.ones((WIDTH, 1, 16, 16), np.float32)},
      r'patch_embedding/kernel is float32\[256, 24\] there, but float32\[768, 24\]',
    ),
    (
      lambda a: {**a, 'pos_embed': np.ones((1, 8, WIDTH), np.float32)},
      r'position_embedding \[1, 8, 24\] has no square grid of patches to interpolate to 2 x 2',
    ),
    (lambda a: _without(a, 'norm.bias'), r'LayerNorm_0/bias is missing there'),
  ],
)
def test_what_does_not_fit_is_refused_with_shapes(change, message, tmp_path):
  path = _file(tmp_path, change(transformer()))
  with pytest.raises(errors.InputError, match=message):
    pretrained.start(_init_fn(), path, SHAPE)


def test_statistics_of_the_pixels_must_be_said(tmp_path):
  settings = settings_lib.Settings(
    model='vit_tiny16', pretrained=_file(tmp_path, transformer()), cache_dir=''
  )
  with pytest.raises(errors.InputError, match=r'say how its pixels were normalised') as raised:
    from_settings.network(settings, SHAPE, CLASSES)
  assert raised.value.argument == 'input_statistics'
  missing = dataclasses.replace(settings, pretrained=str(tmp_path / 'no.safetensors'))
  with pytest.raises(errors.InputError, match=r'pretrained: there is no file') as raised:
    from_settings.network(missing, SHAPE, CLASSES)
  half = dataclasses.replace(settings, input_statistics='half')
  assert isinstance(from_settings.network(half, SHAPE, CLASSES)[1], pretrained.Init)


def _photos(folder, count=24):
  """A folder for each class, of pictures in a colour of its own, with noise."""
  rng = np.random.default_rng(0)
  for label in range(CLASSES):
    (folder / f'class_{label}').mkdir(parents=True)
    for number in range(count):
      pixels = rng.integers(0, 120, SHAPE, np.uint8)
      pixels[..., label] += 100
      PIL.Image.fromarray(pixels).save(folder / f'class_{label}' / f'{number:03}.png')


def _fine_tuned(tmp_path, arrays) -> config_lib.Config:
  """The run of the first command of docs/pretrained.md, at small size."""
  _photos(tmp_path / 'photos')
  return config_lib.Config(
    dataset=f'folder:{tmp_path}/photos',
    workdir=str(tmp_path),
    problem='fine_tuned',
    model='vit_tiny16',
    pretrained=_file(tmp_path, arrays),
    input_statistics='half',
    data_on_device='no',
    forget='random:10',
    optimizer='adamw',
    learning_rate=1e-3,
    num_epochs=2,
    batch_size=16,
    num_devices=1,
    cache_dir='',
    compilation_cache_dir='',
    stages=('prepare', 'train_original'),
  )


@pytest.mark.slow
def test_a_file_is_fine_tuned_on_streamed_images_forgets_ten_and_is_written_back(
  tmp_path, monkeypatch
):
  """Both commands of docs/pretrained.md, at small size."""
  monkeypatch.setattr(_feeding, '_chosen', ['no'])  # what a command does with --data_on_device=no
  arrays = transformer()
  config = _fine_tuned(tmp_path, arrays)
  stages.run(config)
  folder = folders.problem_folder(config)
  job = preparation.prepare(config, folder)
  identity = json.loads((folder / 'problem.json').read_text(encoding='utf-8'))['identity']
  assert identity['pretrained_hash'] == job.init_fn.digest
  assert isinstance(training.put_data({'train': job.training_set}), training.HostData)
  original = checkpoints.restore(folder / 'original' / 'seed_0' / 'model')[0]
  start = job.init_fn(jax.random.key(0))
  moved = np.linalg.norm(
    original.params['_Block_0']['out']['kernel'] - start.params['_Block_0']['out']['kernel']
  )
  assert 0 < moved < 0.5 * np.linalg.norm(start.params['_Block_0']['out']['kernel'])

  (tmp_path / 'request.txt').write_text(
    '\n'.join(job.problem(original).forget.ids), encoding='utf-8'
  )
  request = settings_lib.Request(
    checkpoint=str(folder / 'original' / 'seed_0'),
    ids=str(tmp_path / 'request.txt'),
    out=str(tmp_path / 'forgotten'),
    method='muda',
    hparam=('muda.rounds=1',),
    near_copies=False,
    accept=verdict.ACCEPTABLE,
  )
  few = settings_lib.Settings(
    lora_rank=4, data_on_device='no', num_devices=1, cache_dir='', compilation_cache_dir=''
  )
  record = carry_out.forget(request, few)
  back = safetensors.load_file(str(tmp_path / 'forgotten' / 'model.safetensors'))
  before = {name: x for (name,), x in job.init_fn.fitted.arrays_of(original).items()}
  assert {name: x.shape for name, x in back.items()} == {n: x.shape for n, x in before.items()}
  changed = {name for name, x in back.items() if not np.array_equal(x, before[name])}
  assert sorted(n for n in changed if not n.endswith('.weight') or 'norm' in n) == []
  assert {'blocks.1.attn.qkv.weight', 'blocks.0.mlp.fc1.weight'} <= changed
  difference = back['blocks.0.mlp.fc1.weight'] - before['blocks.0.mlp.fc1.weight']
  sizes = np.linalg.svd(difference, compute_uv=False)
  assert sizes[0] > 1e-3 and np.all(sizes[4:] < 1e-4 * sizes[0])  # adapters of rank 4, merged

  said = ' '.join(record['summary'])
  assert 'The model was fine-tuned from pretrained weights.' in said
  assert 'It could change kernels only, by adapters of rank 4.' in said
  assert record['configuration']['settings']['pretrained'] == job.init_fn.digest
  places = {'keys': str(tmp_path / record_keys.NAME)}
  again = {'compilation_cache_dir': ''}
  path = tmp_path / 'forgotten' / 'record.json'
  assert replay.verify(path, places=places, settings=again, replay=True)


def test_weights_that_changed_are_not_those_of_the_problem(tmp_path):
  config = _fine_tuned(tmp_path, transformer())
  config = dataclasses.replace(config, stages=('prepare',))
  stages.run(config)
  _file(tmp_path, transformer(seed=1))
  with pytest.raises(errors.InputError, match=r'holds another problem \(pretrained_hash: '):
    stages.run(config)


@pytest.mark.parametrize('prefix', ['params.', ''])
def test_names_with_dots_keep_their_head(prefix, tmp_path):
  model = _init_fn()(jax.random.key(7))
  flat = flatten_dict(model.params, sep='.')
  arrays = {prefix + name: np.asarray(x) for name, x in flat.items()}
  start = pretrained.start(_init_fn(), _file(tmp_path, arrays), SHAPE)
  chex.assert_trees_all_equal(start(jax.random.key(0)).params, model.params)
  assert not start.has_new_head
  other = pretrained.start(_init_fn(CLASSES + 1), _file(tmp_path, arrays), SHAPE)
  assert other.has_new_head and f'that for {CLASSES} is left out' in other.notes[-1]
  bare = {name: x for name, x in arrays.items() if 'head' not in name}
  found = pretrained.start(_init_fn(), _file(tmp_path, bare), SHAPE)
  assert found.notes[-1] == f'a new head for {CLASSES} classes; the file has none'
  kept = found(jax.random.key(0)).params
  chex.assert_trees_all_equal({**kept, 'head': 0}, {**model.params, 'head': 0})

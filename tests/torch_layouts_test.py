"""Models of timm and torchvision, read, compared, and written back (extra `bench`)."""

import jax
import numpy as np
import pytest

from dalign_jax import foreign, models, pretrained, types

torch = pytest.importorskip('torch')
timm = pytest.importorskip('timm')
torchvision = pytest.importorskip('torchvision')
safetensors_torch = pytest.importorskip('safetensors.torch')

SIZE, CLASSES = 32, 7
_OF_TIMM = {'num_classes': CLASSES, 'img_size': SIZE}
CASES = {  # name -> our network, its pixels, the PyTorch module
  'timm vit_tiny': (
    'vit_tiny16',
    'half',
    lambda: timm.create_model('vit_tiny_patch16_224', **_OF_TIMM),
  ),
  'timm vit_small': (
    'vit_small16',
    'half',
    lambda: timm.create_model('vit_small_patch16_224', **_OF_TIMM),
  ),
  'timm vit_base': (
    'vit_base16',
    'half',
    lambda: timm.create_model('vit_base_patch16_224', **_OF_TIMM),
  ),
  'torchvision vit_b_16': (
    'vit_base16',
    'imagenet',
    lambda: torchvision.models.vit_b_16(num_classes=CLASSES, image_size=SIZE),
  ),
  'timm resnet18': (
    'resnet18',
    'imagenet',
    lambda: timm.create_model('resnet18', num_classes=CLASSES),
  ),
  'torchvision resnet18': (
    'resnet18',
    'imagenet',
    lambda: torchvision.models.resnet18(num_classes=CLASSES),
  ),
  'timm resnet50': (
    'resnet50',
    'imagenet',
    lambda: timm.create_model('resnet50', num_classes=CLASSES),
  ),
  'torchvision resnet50': (
    'resnet50',
    'imagenet',
    lambda: torchvision.models.resnet50(num_classes=CLASSES),
  ),
}


def _module(make):
  """The module with random values everywhere, also where PyTorch starts with zeros and ones."""
  torch.manual_seed(0)
  module = make().eval()
  with torch.no_grad():
    for name, tensor in module.state_dict().items():
      if tensor.ndim < 2 and tensor.is_floating_point():
        tensor.add_(0.1 * torch.rand_like(tensor))
      elif 'token' in name or 'pos_embed' in name:
        tensor.add_(0.1 * torch.randn_like(tensor))
      elif name.split('.')[0] in ('head', 'heads', 'fc'):
        tensor.add_(0.05 * torch.randn_like(tensor))
  return module


def _theirs(module, images, pixels):
  """Features, the input of the last layer, and logits."""
  mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in pretrained.STATISTICS[pixels])
  seen = []
  last = [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1]
  handle = last.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
  with torch.no_grad():
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    logits = module((inputs - mean) / std)
  handle.remove()
  return seen[0].numpy(), logits.numpy()


def _saved(module, path):
  state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
  safetensors_torch.save_file(state, str(path))
  return path


@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_the_torch_module_and_files_go_both_ways(case, tmp_path):
  network, pixels, make = CASES[case]
  module = _module(make)
  path = _saved(module, tmp_path / 'model.safetensors')
  mean, std = pretrained.STATISTICS[pixels]
  options = {'stem': 'imagenet'} if network.startswith('resnet') else {}
  apply_fn, init_fn = models.build(
    network,
    num_classes=CLASSES,
    image_shape=(SIZE, SIZE, 3),
    mean=mean,
    std=std,
    axis_name=None,
    **options,
  )
  start = pretrained.start(init_fn, str(path), (SIZE, SIZE, 3))
  assert not start.has_new_head and case.split()[0] in start.notes[0]
  images = np.random.default_rng(0).uniform(size=(4, SIZE, SIZE, 3)).astype(np.float32)
  features, logits = _theirs(module, images, pixels)
  outputs, _ = jax.jit(apply_fn, static_argnames='train')(start.model, images, train=False)
  assert np.std(logits) > 0.1  # of a size at which the tolerance means something
  np.testing.assert_allclose(outputs.features, features, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)
  doubled = jax.tree.map(lambda x: 2 * np.asarray(x), start.model)
  foreign.write(tmp_path / 'back.safetensors', start.fitted.arrays_of(doubled), 'safetensors')
  again = make()
  again.load_state_dict(safetensors_torch.load_file(str(tmp_path / 'back.safetensors')))
  for name, tensor in again.state_dict().items():
    if 'num_batches_tracked' not in name:
      torch.testing.assert_close(tensor, 2 * module.state_dict()[name], rtol=0, atol=0)


def test_position_embeddings_are_interpolated_as_timm_does(tmp_path):
  make = lambda size: timm.create_model(
    'vit_tiny_patch16_224', num_classes=CLASSES, img_size=size, depth=1
  )
  module = _module(lambda: make(96))
  path = _saved(module, tmp_path / 'model.safetensors')
  shape = (32, 64, 3)
  network = models.ViT(CLASSES, patch=16, depth=1, class_token=True)
  variables = network.init(jax.random.key(0), np.zeros((1, *shape), np.float32), train=False)
  template = types.ModelState(variables['params'], {})
  start = pretrained.start(lambda key: template, str(path), shape)
  assert 'position embeddings of 6 x 6 patches, interpolated to 2 x 4' in start.notes
  wanted = timm.layers.resample_abs_pos_embed(module.pos_embed, [2, 4], num_prefix_tokens=1)
  np.testing.assert_allclose(
    start.model.params['position_embedding'], wanted.detach().numpy(), rtol=1e-4, atol=1e-5
  )

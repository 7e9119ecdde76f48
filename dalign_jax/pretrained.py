"""Pretrained weights as the start of originals, golds and every retraining."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from dalign_jax import digests, errors, foreign, locate, types

STATISTICS: dict[str, tuple[Any, Any]] = {  # name -> mean and standard deviation of pixels
  'centred': (0.5, 0.25),
  'half': (0.5, 0.5),
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_HEAD = ('head/kernel', 'head/bias')
_POSITION = 'position_embedding'


@dataclasses.dataclass(frozen=True, eq=False)
class Init:
  """An `init_fn` that starts from pretrained weights; only a new head is drawn.

  Attributes:
    init_fn: of the network.
    model: the pretrained weights, with any values for a new head.
    has_new_head: whether the head is drawn.
    fitted: where the arrays were in the file.
    form: of the file.
    digest: of the arrays in the file.
    notes: what was understood, for the user.
  """

  init_fn: Callable[[jax.Array], types.ModelState]
  model: types.ModelState
  has_new_head: bool
  fitted: foreign.Fitted
  form: str
  digest: str
  notes: tuple[str, ...]

  def __call__(self, key: jax.Array) -> types.ModelState:
    if not self.has_new_head:
      return self.model
    head = self.init_fn(key).params['head']
    return self.model._replace(params={**self.model.params, 'head': head})


def start(
  init_fn: Callable[[jax.Array], types.ModelState], path: str, image_shape: tuple[int, ...]
) -> Init:
  """Reads pretrained weights for a network.

  Originals and golds then fine-tune from the same weights, and a gold is what fine-tuning without
  the forgotten samples gives. It owes nothing to them only if the pretraining data did not hold
  them.

  A head for another number of classes is left out, and drawn anew. Position embeddings of another
  number of patches are interpolated (bicubic, antialiased, as timm does). Half precision becomes
  float32. All of this is in `notes`; everything else that does not fit is refused.

  Args:
    init_fn: of the network.
    path: of a file in safetensors, npz or msgpack, or an Orbax checkpoint: of this library, or in a
      layout of timm or torchvision, which is recognised from the names of its arrays.
    image_shape: `(H, W, C)`.

  Returns:
    The `init_fn` to use in place of the given one.

  Raises:
    errors.InputError: if it cannot be read; names the first array that does not fit, with shapes.
  """
  stored = foreign.read(locate.find(path))
  template = init_fn(jax.random.key(0))
  digest = digests.of_tree({'/'.join(path): array for path, array in stored.arrays.items()})
  notes = [stored.layout.name if stored.layout else 'names of this library']
  arrays = {path: _single(array) for path, array in stored.arrays.items()}
  if any(arrays[path].dtype != array.dtype for path, array in stored.arrays.items()):
    notes.append('half precision, taken as float32')
  has_new_head = _replace_head(arrays, template, notes)
  _resize_positions(arrays, template, image_shape, notes)
  fitted = foreign.fit(stored._replace(arrays=arrays), template)
  return Init(init_fn, fitted.model, has_new_head, fitted, stored.form, digest, tuple(notes))


def digest_of(init_fn: object) -> str:
  """The digest of the pretrained weights of an `init_fn`, empty where it has none."""
  return init_fn.digest if isinstance(init_fn, Init) else ''


def _single(array: np.ndarray) -> np.ndarray:
  is_half = array.dtype in (np.dtype('float16'), jax.numpy.bfloat16)
  return array.astype(np.float32) if is_half else array


def _replace_head(arrays, template, notes) -> bool:
  """Puts the template's head where that of the file is for other classes, or is not there."""
  head = template.params.get('head') if isinstance(template.params, dict) else None
  if not isinstance(head, dict) or set(head) != {'kernel', 'bias'}:
    return False
  names = {foreign.canonical(path): path for path in arrays}
  places = {
    part: [path for name, path in names.items() if f'/{name}'.endswith(f'/{part}')]
    for part in _HEAD
  }
  kernels = places['head/kernel']
  classes = head['bias'].shape[0]
  if kernels and all(arrays[p].shape[-1] == classes for p in kernels):
    return False
  if any(arrays[p].shape[:-1] != head['kernel'].shape[:-1] for p in kernels):
    return False  # of another network: it will be refused, with shapes
  there = f'that for {arrays[kernels[0]].shape[-1]} is left out' if kernels else 'the file has none'
  notes.append(f'a new head for {classes} classes; {there}')
  for name in ('kernel', 'bias'):
    for path in places[f'head/{name}'] or [(*_root(names, template), 'head', name)]:
      arrays[path] = np.asarray(head[name])
  return True


def _root(names, template) -> tuple[str, ...]:
  """Where the parameters of a file lie, by the first of them that is not the head's."""
  for part in foreign.names_of(template.params):
    found = [name for name in names if f'/{name}'.endswith(f'/{part}')]
    if found and not part.startswith('head/'):
      return tuple(min(found, key=len).removesuffix(part).strip('/').split('/'))
  return ('params',)


def _resize_positions(arrays, template, image_shape, notes) -> None:
  """Interpolates position embeddings of a transformer of this library to the image's patches."""
  places = [path for path in arrays if path[-1].endswith(_POSITION)]
  kernel = template.params.get('patch_embedding', {}).get('kernel') if places else None
  if kernel is None or _POSITION not in template.params:
    return
  side = math.isqrt(kernel.shape[0] // image_shape[-1])
  grid = (image_shape[0] // side, image_shape[1] // side)
  first = int('class_token' in template.params)
  for path in places:
    there = arrays[path]
    if there.shape == template.params[_POSITION].shape:
      continue
    if there.ndim != 3 or there.shape[2:] != template.params[_POSITION].shape[2:]:
      continue  # of another network: it will be refused, with shapes
    square = math.isqrt(there.shape[1] - first)
    if square**2 != there.shape[1] - first:
      raise errors.InputError(
        f'{"/".join(path)} {list(there.shape)} has no square grid of patches to interpolate to '
        f'{grid[0]} x {grid[1]}'
      )
    patches = there[0, first:].reshape(square, square, -1)
    resized = jax.image.resize(patches, (*grid, patches.shape[-1]), 'cubic', antialias=True)
    arrays[path] = np.concatenate(
      [there[:, :first], np.asarray(resized).reshape(1, -1, patches.shape[-1])], axis=1
    )
    notes.append(
      f'position embeddings of {square} x {square} patches, interpolated to {grid[0]} x {grid[1]}'
    )

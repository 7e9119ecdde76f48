"""Random crops and mirrors of image batches, inside a mapped step."""

import jax
import jax.numpy as jnp

from dalign_jax import errors, parallel, types

AUGMENTATIONS = ('none', 'crop', 'crop_flip', 'shift_flip')


def augment(images: types.Array, key: jax.Array, kind: str) -> types.Array:
  """Augments a device's batch; what an image gets does not depend on how the batch is cut.

  Args:
    images: `[B, H, W, C]` float.
    key: the step's key, equal on all devices.
    kind: 'none'; 'crop' (zero-pad 1/8 of the side, crop at random); 'crop_flip' (and mirror);
      'shift_flip' (pad 1/16 of the side by reflection, crop at random, mirror).

  Returns:
    `[B, H, W, C]`.

  Raises:
    ValueError: if the kind is unknown.
  """
  _check(kind)
  if kind == 'none':
    return images
  return augment_each(images, parallel.example_keys(key, len(images)), kind)


def augment_each(images: types.Array, keys: jax.Array, kind: str) -> types.Array:
  """As `augment`, with a key for each image `[B]`."""
  _check(kind)
  if kind == 'none':
    return images
  return jax.vmap(lambda image, key: _crop(image, key, kind))(images, keys)


def _check(kind):
  if kind not in AUGMENTATIONS:
    raise errors.InputError(f'augmentation must be one of {", ".join(AUGMENTATIONS)}, got {kind!r}')


def _crop(image, key, kind):
  height, width, channels = image.shape
  crop_key, flip_key = jax.random.split(key)
  part, mode = (16, 'reflect') if kind == 'shift_flip' else (8, 'constant')
  pad_h, pad_w = height // part, width // part
  padded = jnp.pad(image, ((pad_h, pad_h), (pad_w, pad_w), (0, 0)), mode=mode)
  offset = jax.random.randint(crop_key, (2,), 0, jnp.array([2 * pad_h + 1, 2 * pad_w + 1]))
  cropped = jax.lax.dynamic_slice(padded, (*offset, 0), (height, width, channels))
  if kind == 'crop':
    return cropped
  return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)

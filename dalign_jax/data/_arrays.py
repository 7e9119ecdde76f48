"""Conversion of image and label arrays from any usual form; every change is reported."""

import numpy as np

from dalign_jax import errors
from dalign_jax.data import _base

_CHANNELS = (1, 3, 4)
_BRIGHT = 64  # pixels of floats in [0, 255] reach it; below, they may have another scale


def usual_form(request: _base.Request, arrays: dict[str, np.ndarray], *, is_checked: bool = False):
  """Images as `[N, H, W, C]` or `[N, H, W]`, labels as `[N]` integers or strings.

  Args:
    request: what was asked for; errors name it.
    arrays: `images` and `labels`, and perhaps `ids` and `group`.
    is_checked: the images are in the usual form, and are not looked at.

  Returns:
    `(images, labels, ids, group)` and the notes. Images are not copied: `pixels` makes one uint8.

  Raises:
    InputError: that says what the arrays are and which line of code mends them.
  """
  for name in ('images', 'labels'):
    if name not in arrays:
      raise errors.InputError(
        f'{request.name} must hold the arrays images and labels (and may hold ids and group), it '
        f'has: {", ".join(sorted(arrays)) or "none"}'
      )
  images, image_notes = arrays['images'], []
  if not is_checked:
    images, image_notes = _images(request, images)
  labels, label_notes = _labels(request, arrays['labels'], len(images))
  count = len(images)
  for name in ('ids', 'group'):
    if name in arrays and (arrays[name].dtype.kind not in 'iuU' or arrays[name].shape != (count,)):
      raise _wrong(request, name, arrays[name], f'strings or integers [{count}] like images')
  ids = arrays.get('ids', np.array([f'row_{row:05d}' for row in range(count)], dtype=str))
  return (images, labels, ids.astype(str), arrays.get('group')), (*image_notes, *label_notes)


def white(images: np.ndarray) -> int:
  """The value of white in images of the usual form: 255, or 1 for booleans and small floats."""
  is_small = images.dtype.kind == 'f' and images.size > 0 and images.max() <= 1
  return 1 if images.dtype == bool or is_small else 255


def pixels(image: np.ndarray, white: int) -> np.ndarray:
  """An image as uint8.

  Example:
    >>> pixels(np.array([[0.0, 1.0]]), 1), pixels(np.array([[254.6]]), 255)
    (array([[  0, 255]], dtype=uint8), array([[255]], dtype=uint8))
  """
  if image.dtype == np.uint8:
    return image
  return np.round(np.asarray(image, np.float64) * (255 / white)).astype(np.uint8)


def _wrong(request, name, array, want):
  return errors.InputError(
    f'{request.name}: {name} must be {want}, got {array.dtype} {list(array.shape)}'
  )


def _images(request, images):
  form = 'uint8 [N, H, W, C] or [N, H, W] with values 0 to 255'
  if images.dtype.kind not in 'biuf' or images.ndim not in (3, 4):
    raise _wrong(request, 'images', images, form)
  notes = []
  if images.ndim == 4 and images.shape[1] in _CHANNELS:
    if images.shape[3] not in _CHANNELS:
      notes.append(f'images of shape {list(images.shape)} taken as [N, C, H, W]')
      images = images.transpose(0, 2, 3, 1)
    elif images.shape[1] != images.shape[2]:
      raise errors.InputError(
        f'{request.name}: images of shape {list(images.shape)} may be [N, H, W, C] or '
        '[N, C, H, W]; images = images.transpose(0, 2, 3, 1) makes the second the first, and '
        'equal sides say so'
      )
  elif images.ndim == 4 and images.shape[3] not in _CHANNELS:
    if images.shape[1] < images.shape[2] == images.shape[3]:
      raise errors.InputError(
        f'{request.name}: images of shape {list(images.shape)} look like [N, C, H, W] with '
        f'{images.shape[1]} channels; images = images.transpose(0, 2, 3, 1) makes them [N, H, W, C]'
      )
    notes.append(f'images of shape {list(images.shape)} taken as [N, H, W, C]')
  if images.dtype != np.uint8 and images.size:
    notes.append(_scale(request, images))
  elif images.size and images.max() <= 1:
    notes.append('the pixels are uint8 from 0 to 1, nearly black; images * 255 if 1 is white')
  return images, notes


def _scale(request, images):
  """The note that says how the pixels become uint8; raises where nothing says it."""
  if images.dtype == bool:
    return 'boolean pixels taken as 0 and 255'
  low, high = images.min(), images.max()
  if not (low >= 0 and high <= 255):  # or NaN
    raise errors.InputError(
      f'{request.name}: images must be uint8 with values 0 to 255, got {images.dtype} '
      f'{list(images.shape)} from {low} to {high}; images = np.uint8(255 * (images - '
      'images.min()) / np.ptp(images)) if they were scaled'
    )
  if images.dtype.kind == 'f' and high <= 1:
    return f'{images.dtype} pixels from {low:g} to {high:g} taken as [0, 1], times 255'
  if images.dtype.kind == 'f' and high < _BRIGHT:
    raise errors.InputError(
      f'{request.name}: images must be uint8 with values 0 to 255, got {images.dtype} '
      f'{list(images.shape)} from {low:g} to {high:g}, which is neither [0, 1] nor [0, 255]; '
      'images = np.uint8(255 * images / images.max()) if the largest is white'
    )
  return f'{images.dtype} pixels from {low:g} to {high:g} taken as [0, 255]'


def _labels(request, labels, count):
  want = f'integers [{count}] like images'
  if labels.shape == (count, 1):
    labels = labels[:, 0]
  if labels.ndim == 2 and len(labels) == count:
    is_one_hot = labels.dtype.kind in 'biuf' and np.all((labels == 0) | (labels == 1))
    if not is_one_hot or np.any(labels.sum(1) != 1):
      raise errors.InputError(
        f'{request.name}: labels must be {want}, got {labels.dtype} {list(labels.shape)} that are '
        'not one-hot; labels = labels.argmax(1) if they are scores of classes'
      )
    note = f'one-hot labels of {labels.shape[1]} classes taken as numbers'
    return labels.argmax(1), [note]
  if labels.shape != (count,) or labels.dtype.kind not in 'biufU':
    raise _wrong(request, 'labels', labels, want)
  if labels.dtype.kind == 'b':
    return labels.astype(np.int64), []
  if labels.dtype.kind == 'f':
    if not np.all(np.isfinite(labels)) or np.any(labels != np.round(labels)):
      raise _wrong(request, 'labels', labels, want)
    return labels.astype(np.int64), [f'{labels.dtype} labels taken as whole numbers']
  if labels.dtype.kind in 'iu' and count:
    distinct = np.unique(labels[labels != -1] if labels.dtype.kind == 'i' else labels)
    if len(distinct) and distinct[0] == 1 and len(distinct) == distinct[-1] and len(distinct) > 1:
      return labels, [f'labels from 1 to {distinct[-1]}: the class 1 is the first output']
  return labels, []

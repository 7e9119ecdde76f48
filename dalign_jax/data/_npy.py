"""A folder of .npy arrays, whose images stay where they are: for sets larger than memory."""

import numpy as np

from dalign_jax import errors, image_rows
from dalign_jax.data import _arrays, _base, _files


def npy(request: _base.Request) -> _base.Opened:
  """A folder with `images.npy` (uint8 `[N, H, W, C]`), `labels.npy`, perhaps `ids`, `group`.

  It may hold such folders named by their split, `train` and `test` say. Images are read where they
  are used; nothing is decoded, so that nothing is kept either.
  """
  root = _files.existing_folder(request)
  inner = [f.name for f in _files.subfolders(root) if (f / 'images.npy').is_file()]
  is_flat = (root / 'images.npy').is_file()
  splits = ('train',) if is_flat else tuple(inner)
  if not splits:
    raise errors.InputError(f'{request.name} holds no images.npy, nor do the folders in it')
  _base.require_defaults(request, splits)
  folder = root if is_flat else root / request.split
  if request.image_size is not None:
    raise errors.InputError(
      f'{request.name} is read as it is; write images of {request.image_size} pixels',
      argument='image_size',
    )

  def read(progress):
    arrays = {
      name: _load(request, folder / f'{name}.npy')
      for name in ('labels', 'ids', 'group')
      if (folder / f'{name}.npy').is_file()
    }
    try:
      images = image_rows.ImageRows([image_rows.ImageFile(folder / 'images.npy')])
    except (OSError, ValueError, AttributeError, EOFError) as error:
      raise errors.InputError(f'{request.name}: images.npy cannot be read: {error}') from error
    if images.shape[1] in (1, 3, 4) and images.shape[3] not in (1, 3, 4):
      raise errors.InputError(
        f'{request.name}: images.npy must be [N, H, W, C], got {list(images.shape)}; '
        'images.transpose(0, 2, 3, 1) brings [N, C, H, W] into this form'
      )
    (_, labels, ids, group), notes = _arrays.usual_form(
      request, {'images': images, **arrays}, is_checked=True
    )
    known = np.flatnonzero(labels != -1 if labels.dtype.kind in 'iu' else np.ones(len(labels)))
    progress(len(labels), len(labels))
    return _base.build(
      request,
      images.take(known),
      labels[known],
      ids[known],
      None if group is None else group[known],
      splits=splits,
      notes=notes,
      left_out=_base.note_unknown('labels', len(labels), np.delete(ids, known)),
    )

  return _base.Opened(None, read)


def _load(request, path) -> np.ndarray:
  try:
    return np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise errors.InputError(f'{request.name}: {path.name} cannot be read: {error}') from error

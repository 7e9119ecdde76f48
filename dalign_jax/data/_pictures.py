"""Picture files read as they look: turned upright, on white, with 8 bits a channel."""

from collections.abc import Callable, Sequence
import contextlib
import importlib
import importlib.util
import io
import os
import pathlib
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps

from dalign_jax import errors
from dalign_jax.data import _base, _taken, _words

SUFFIXES = tuple(
  '.avif .bmp .gif .heic .heif .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .pbm .pgm .png .ppm .tga .tif '
  '.tiff .webp'.split()
)
_SKIP = '; skip_unreadable leaves such pictures out and lists them'
_GREY = ('1', 'L', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
_HEIF, _JXL = ('pillow_heif', 'pillow-heif'), ('pillow_jxl', 'pillow-jxl-plugin')
_PLUGINS = {'.heic': _HEIF, '.heif': _HEIF, '.jxl': _JXL}  # modules, and what pip calls them
_FAULTS = (
  *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error),
  RuntimeError,  # of decoders in C
)
_TURNED, _WHITE, _DEEP = (
  'turned as their EXIF orientation says',
  'partly transparent, laid on white',
  'of 16 bits a channel, scaled to 8',
)


def is_picture(path: str | os.PathLike) -> bool:
  """Whether the ending of a file's name is that of a picture."""
  return pathlib.PurePath(path).suffix.lower() in SUFFIXES


def read_photo(path: str, *, is_grey: bool) -> np.ndarray:
  """A picture file as data are read: uint8 `[H, W]` or `[H, W, 3]`.

  Raises:
    InputError: if it cannot be read.
  """
  place = pathlib.Path(path).expanduser()
  if not place.is_file():
    raise errors.InputError(f'there is no file {path!r}')
  pictures = Pictures(_base.Request(name=path, path=path), hint='')
  photo = pictures.read(place, 'the photo', 'L' if is_grey else 'RGB')
  assert photo is not None  # only where skipping was asked for
  return photo


def decoders() -> list[str]:
  """What decides which pictures can be read, and how: Pillow's version, and its plugins."""
  plugins = sorted({module for module, _ in _PLUGINS.values()})
  return [PIL.__version__, *(name for name in plugins if importlib.util.find_spec(name))]


class Pictures:
  """Reads pictures and keeps account of what was done to them and which could not be read."""

  def __init__(self, request: _base.Request, hint: str = _SKIP):
    self._request, self._hint = request, hint
    self._done: dict[str, list[str]] = {}
    self._unreadable: list[str] = []
    PIL.Image.init()
    for module in {module for module, _ in _PLUGINS.values()}:
      if importlib.util.find_spec(module):
        plugin = importlib.import_module(module)
        if hasattr(plugin, 'register_heif_opener'):  # others register when they are imported
          plugin.register_heif_opener()

  def mode(self, picture: str | os.PathLike | bytes, name: str) -> str | None:
    """`L` for grey and `RGB` for others, by the header; None for one to skip."""
    return self._try(picture, name, lambda image: 'L' if image.mode in _GREY else 'RGB')

  def read(self, picture: str | os.PathLike | bytes, name: str, mode: str) -> np.ndarray | None:
    """The pixels, uint8 `[H, W]` or `[H, W, 3]`; None for a picture to skip.

    Args:
      picture: the file, or its content.
      name: what errors and notes call it.
      mode: `L` or `RGB`.

    Raises:
      InputError: if it cannot be read, and `skip_unreadable` was not asked for.
    """
    return self._try(picture, name, lambda image: self._look(image, name, mode))

  @property
  def notes(self) -> tuple[str, ...]:
    """Changes made to pictures, each kind with a count and an example."""
    return tuple(
      f'{len(names)} pictures {what}, such as {names[0]}' for what, names in self._done.items()
    )

  @property
  def left_out(self) -> tuple[_taken.LeftOut, ...]:
    """The pictures that could not be read."""
    names = self._unreadable
    if not names:
      return ()
    listed = ', '.join(names[:20]) + (', ...' if len(names) > 20 else '')
    return (_taken.LeftOut('pictures that cannot be read', len(names), listed),)

  def _try(self, picture, name, use: Callable):
    try:
      with _open(picture) as image:
        return use(image)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
      reason = (
        f'has more than {PIL.Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller, or raise '
        'PIL.Image.MAX_IMAGE_PIXELS if it is what you think'
      )
    except PIL.UnidentifiedImageError:
      reason = _not_identified(name)
    except _FAULTS as error:
      reason = f'is damaged ({" ".join(str(error).split())[:200]})'
    if not self._request.skip_unreadable:
      raise errors.InputError(f'{self._request.name}: {name} {reason}{self._hint}')
    if name not in self._unreadable:
      self._unreadable.append(name)
    return None

  def _look(self, image, name, mode):
    upright = PIL.ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) != 1:
      self._note(_TURNED, name)
    image = upright
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
      return self._scaled(image, name, mode)
    if 'A' in image.mode or 'a' in image.mode or 'transparency' in image.info:
      layers = image.convert('RGBA')
      if layers.getchannel('A').getextrema()[0] < 255:
        self._note(_WHITE, name)
        white = PIL.Image.new('RGBA', layers.size, 'white')
        white.alpha_composite(layers)
        return np.asarray(white.convert('RGB').convert(mode))
    return np.asarray(image.convert(mode))

  def _scaled(self, image, name, mode):
    """8 bits of a grey picture of 16."""
    deep = np.asarray(image)
    if image.mode == 'F' or deep.min() < 0 or deep.max() > 65535:
      raise ValueError(f'pixels of mode {image.mode} from {deep.min()} to {deep.max()}')
    self._note(_DEEP, name)
    grey = np.round(deep.astype(np.float32) / 257.0).astype(np.uint8)
    return grey if mode == 'L' else np.repeat(grey[..., None], 3, axis=-1)

  def _note(self, what, name):
    self._done.setdefault(what, []).append(name)


@contextlib.contextmanager
def _open(picture):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    warnings.simplefilter('error', PIL.Image.DecompressionBombWarning)
    with PIL.Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
      yield image


def _not_identified(name):
  suffix = pathlib.PurePath(name).suffix.lower()
  if suffix in SUFFIXES and suffix not in PIL.Image.registered_extensions():
    kind = f'is of the format {suffix[1:].upper()}, which'
    if suffix in _PLUGINS:
      return f'{kind} Pillow reads after: pip install {_PLUGINS[suffix][1]}'
    return f'{kind} this Pillow does not read'
  return 'is not a readable image'


def source(
  request: _base.Request,
  rows: Sequence[tuple],
  progress: Callable[[int, int], None],
  *,
  class_names: tuple[str, ...] | None,
  mode: str | None = None,
  left_out: Sequence[_taken.LeftOut] = (),
  notes: Sequence[str] = (),
  **names,
) -> _base.Source:
  """The source of rows `(id, picture, label, group)`, the group None where there are none.

  Args:
    request: what was asked for.
    rows: ids, files or their content, labels, groups.
    progress: called with `(rows done, total rows)`.
    class_names: names of the labels, None to number them.
    mode: `L` or `RGB` where the request does not say its channels; None for grey where all are.
    left_out: what the reader of the list left out.
    notes: what it understood.
    **names: more of `_base.build`.
  """
  pictures = Pictures(request)
  mode = {1: 'L', 3: 'RGB'}.get(request.channels or 0, mode)
  name = lambda row: row[0] if isinstance(row[1], bytes) else _words.show(row[1])
  if mode is None:
    modes = {pictures.mode(row[1], name(row)) for row in rows} - {None}
    mode = 'L' if modes == {'L'} else 'RGB'
  stack, kept = _base.ImageStack(request, len(rows)), []
  for block in _base.blocks(len(rows), progress):
    for row in (rows[k] for k in block):
      image = pictures.read(row[1], name(row), mode)
      if image is not None:
        stack.append(name(row), image)
        kept.append(row)
  has_group = bool(kept) and kept[0][3] is not None
  left_out = [*left_out, *pictures.left_out]
  if class_names is not None and pictures.left_out and not isinstance(rows[0][2], list):
    gone = {row[2] for row in rows} - {row[2] for row in kept}
    notes = [*notes, *(f'no picture of the class {class_names[k]} can be read' for k in gone)]
  return _base.build(
    request,
    stack.array(),
    np.array([row[2] for row in kept]),
    np.array([row[0] for row in kept], dtype=str),
    np.array([row[3] for row in kept], dtype=str) if has_group else None,
    class_names=class_names,
    left_out=left_out,
    notes=[*notes, *pictures.notes],
    **names,
  )

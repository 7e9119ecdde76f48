"""Pictures are read as they look; what cannot be read is named."""

import errno
import os
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest

from dalign_jax import data, errors
from dalign_jax.data import _pictures


@pytest.fixture
def root(tmp_path):
  for name in ('cat', 'dog'):
    (tmp_path / name).mkdir()
    PIL.Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / name / 'plain.png')
  return tmp_path


def _rows(root, **arguments):
  source = data.load(f'folder:{root}', **arguments)
  return dict(zip(source.dataset.ids.tolist(), source.dataset.images, strict=True)), source


def test_orientation_and_transparency(root):
  half = np.zeros((16, 16, 3), np.uint8)
  half[:8] = 255
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # shown turned by 90 degrees
  PIL.Image.fromarray(half).save(root / 'cat' / 'turned.jpg', exif=exif, quality=95)
  clear = np.zeros((16, 16, 4), np.uint8)
  clear[..., 0] = 240  # red, but transparent as a whole
  clear[0, 0] = (0, 240, 0, 255)
  PIL.Image.fromarray(clear, 'RGBA').save(root / 'cat' / 'clear.png')
  opaque = np.full((16, 16, 4), 255, np.uint8)
  PIL.Image.fromarray(opaque, 'RGBA').save(root / 'cat' / 'opaque.png')
  rows, source = _rows(root)
  turned, clear = rows['cat/turned.jpg'], rows['cat/clear.png']
  assert turned[:, 9:].min() > 200 and turned[:, :7].max() < 50
  assert clear[0, 0].tolist() == [0, 240, 0] and clear[5, 5].tolist() == [255, 255, 255]
  assert source.notes == (
    f'1 pictures partly transparent, laid on white, such as {root / "cat" / "clear.png"}',
    f'1 pictures turned as their EXIF orientation says, such as {root / "cat" / "turned.jpg"}',
  )


def test_other_modes(root):
  PIL.Image.fromarray(np.full((16, 16), 0x8080, np.uint16)).save(root / 'cat' / 'deep.png')
  PIL.Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(root / 'cat' / 'cmyk.jpg', quality=95)
  palette = PIL.Image.new('P', (16, 16), 1)
  palette.putpalette([0, 0, 0, 10, 20, 30])
  palette.save(root / 'cat' / 'palette.png')
  rows, source = _rows(root)
  assert np.all(rows['cat/deep.png'] == 128)
  np.testing.assert_allclose(rows['cat/cmyk.jpg'][0, 0], [255, 0, 0], atol=3)
  assert rows['cat/palette.png'][3, 3].tolist() == [10, 20, 30]
  assert [note for note in source.notes if 'of 16 bits' in note]


def test_deep_grey_pictures_stay_grey(tmp_path):
  for k, name in enumerate('ab'):
    (tmp_path / name).mkdir()
    PIL.Image.fromarray(np.full((4, 4), 65535 * k, np.uint16)).save(tmp_path / name / 'x.png')
  images = data.load(f'folder:{tmp_path}').dataset.images
  assert images.shape == (2, 4, 4, 1) and images[:, 0, 0, 0].tolist() == [0, 255]


FORMATS = {  # ending -> how far a pixel may be off
  '.avif': 6,
  '.j2k': 0,
  '.jfif': 6,
  '.jp2': 0,
  '.jpe': 6,
  '.webp': 6,
  '.HEIC': 6,
  '.heif': 6,
  '.jxl': 6,
}
_COLOUR = (200, 40, 90)


@pytest.mark.parametrize('ending', FORMATS)
def test_formats_that_pillow_or_its_plugins_read(ending, root):
  _pictures.Pictures(None)  # registers the plugins that are installed
  if ending.lower() not in PIL.Image.registered_extensions():
    pytest.skip(f'nothing here reads {ending}')
  picture = PIL.Image.fromarray(np.full((16, 16, 3), _COLOUR, np.uint8))
  try:
    picture.save(root / 'cat' / f'one{ending}')
  except (OSError, KeyError, ValueError) as error:
    pytest.skip(f'nothing here writes {ending}: {error}')
  rows, source = _rows(root)
  assert not source.left_out and len(rows) == 3
  found = rows[f'cat/one{ending}'].astype(int)
  assert found.shape == (16, 16, 3) and np.abs(found - _COLOUR).max() <= FORMATS[ending]


@pytest.mark.parametrize(
  ('ending', 'message'),
  [
    ('.HEIC', r'one\.HEIC is of the format HEIC, .*: pip install pillow-heif;.*skip_unreadable'),
    ('.jxl', r'one\.jxl is of the format JXL, .*: pip install pillow-jxl-plugin;'),
    ('.avif', r'one\.avif is of the format AVIF, which this Pillow does not read;'),
    ('.jp2', r'one\.jp2 is of the format JP2, which this Pillow does not read;'),
  ],
)
def test_formats_that_nothing_reads_are_named_and_never_dropped(ending, message, root, monkeypatch):
  gone = {'HEIF', 'JXL', 'AVIF', 'JPEG2000'}  # a Pillow that lacks them
  monkeypatch.setattr(_pictures.importlib.util, 'find_spec', lambda name: None)
  PIL.Image.init()
  monkeypatch.setattr(PIL.Image, 'ID', [name for name in PIL.Image.ID if name not in gone])
  left = {e: name for e, name in PIL.Image.EXTENSION.items() if name not in gone}
  monkeypatch.setattr(PIL.Image, 'EXTENSION', left)
  (root / 'bird').mkdir()
  (root / 'bird' / f'one{ending}').write_bytes(b'not decoded here')
  with pytest.raises(errors.InputError, match=message):
    _rows(root)
  rows, source = _rows(root, skip_unreadable=True)
  assert len(rows) == 2 and source.left_out[0].count == 1
  assert 'no picture of the class bird can be read' in source.notes


def test_a_damaged_picture_of_a_format_that_is_read_is_named(root):
  for ending in ('.avif', '.jp2', '.jfif'):
    path = root / 'cat' / f'one{ending}'
    path.write_bytes(b'no picture')
    with pytest.raises(errors.InputError, match=f'one{ending} is not a readable image; skip'):
      _rows(root)
    path.unlink()


def test_unreadable_pictures_are_named_and_can_be_skipped(root):
  name = b'caf\xe9.png'  # not UTF-8
  (root / 'cat' / os.fsdecode(name)).write_bytes(b'no picture')
  PIL.Image.new('RGB', (16, 16), 'red').save(root / 'dog' / os.fsdecode(b'\xff.png'))
  with pytest.raises(errors.InputError) as found:
    _rows(root)
  assert 'caf\\xe9.png is not a readable image' in str(found.value)
  str(found.value).encode()
  rows, source = _rows(root, skip_unreadable=True)
  assert sorted(rows) == ['cat/plain.png', 'dog/\\xff.png', 'dog/plain.png']
  assert source.left_out[0].count == 1 and 'caf\\xe9' in source.left_out[0].example
  assert len(data.content_hash(source.dataset)) == 64


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(root):
  chunk = lambda kind, body: (
    struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
  )
  header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0))
  content = b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
  (root / 'cat' / 'bomb.png').write_bytes(content)
  with pytest.raises(errors.InputError, match=r'bomb.png has more than 89,478,485 pixels'):
    _rows(root)


def test_what_a_decoder_raises_is_a_damaged_picture(root, monkeypatch):
  def fail(self):
    raise RuntimeError('decoding failed')

  monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, 'load', fail)
  with pytest.raises(errors.InputError, match=r'is damaged \(decoding failed\)'):
    data.load(f'folder:{root}')


def test_caches_go_with_what_pillow_can_read(root, tmp_path, monkeypatch):
  kept = tmp_path / '.cache'
  for version in ('1', '2'):
    monkeypatch.setattr(_pictures, 'decoders', lambda version=version: [version])
    data.load(f'folder:{root}', cache_dir=kept)
  assert len(list(kept.iterdir())) == 2


def test_what_a_killed_process_decoded_goes_after_a_day_and_a_full_disk_is_named(root, monkeypatch):
  kept = root / '.cache'
  ages = {'dalign_jax_tmp_old': 2 * 24 * 3600, 'dalign_jax_tmp_new': 60, 'mine': 10**7}
  for name, age in ages.items():
    (kept / name).mkdir(parents=True)
    (kept / name / 'images').touch()
    for path in (kept / name / 'images', kept / name):
      os.utime(path, (time.time() - age,) * 2)
  data.load(f'folder:{root}', cache_dir=kept)
  assert {name for name in ages if (kept / name).exists()} == {'dalign_jax_tmp_new', 'mine'}

  def fill(*arguments, **more):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(_pictures, 'source', fill)
  with pytest.raises(errors.InputError, match='cache_dir: cannot write the decoded images'):
    data.load(f'folder:{root}', image_size=8, cache_dir=kept)

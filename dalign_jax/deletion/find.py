"""The samples most like a photo, for a person who sends a photo and no id."""

import csv
import io
import pathlib
from typing import NamedTuple

import numpy as np
import PIL.Image

from dalign_jax import data as data_lib
from dalign_jax import errors, from_settings, locate, prediction, seeds, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import copies, model_source, record_files, starting_point
from dalign_jax.store import files, progress

COLUMN = 'candidate_id'  # not id: a list that nobody has checked is refused as a request
_COLUMNS = (COLUMN, 'likeness', 'mirrored', 'hash_bits', 'feature_likeness')


class Candidate(NamedTuple):
  """A sample that may show what a photo shows.

  Attributes:
    row: of the data set.
    likeness: correlation of grey thumbnails, of the photo or its mirror image.
    mirrored: whether the mirror image is more alike.
    hash_bits: bits of 64 in which the perceptual hashes differ.
    feature_likeness: cosine of the model's features, NaN without a model.
  """

  row: int
  likeness: float
  mirrored: bool
  hash_bits: int
  feature_likeness: float


def find(
  search: settings_lib.Search, request: settings_lib.Request, config: settings_lib.Settings
) -> list[Candidate]:
  """Lists the samples most like a photo, and writes them as a file for a person to check.

  Args:
    search: the photo and the file to write.
    request: `data`, and the model where there is one: `checkpoint`, `item`, `held_out`.
    config: data and network.

  Raises:
    errors.InputError: if the photo cannot be read, or the file is there.
  """
  path = pathlib.Path(search.list_file).expanduser()
  if path.exists():
    raise errors.InputError(f'{search.list_file} is there already', argument='list_file')
  dataset, apply_fn, model = _samples(request, config)
  photo = read_photo(search.image, dataset.images.shape[1:])
  found = nearest(photo, dataset, search.count, apply_fn, model)
  files.write_text(path, _table(found, dataset))
  for candidate in found[:10]:
    progress.say(f'  {_in_words(candidate, dataset)}')
  progress.say(
    f'{len(found)} candidates: {path}. Look at each picture, delete the rows of others, and pass '
    f'the file to forget with --ids={path} --id_column={COLUMN}'
  )
  return found


def read_photo(path: str, image_shape: tuple[int, ...]) -> np.ndarray:
  """A photo in the size and colours of a data set, read as its pictures are.

  Args:
    path: of the file.
    image_shape: `(H, W, C)`.

  Raises:
    errors.InputError: if it is no image that Pillow reads.
  """
  height, width, channels = image_shape
  with errors.blame('image'):
    photo = PIL.Image.fromarray(data_lib.read_photo(path, is_grey=channels == 1))
  sized = photo.resize((width, height), PIL.Image.Resampling.LANCZOS)
  return np.asarray(sized, np.uint8).reshape(height, width, -1)


def nearest(
  photo: np.ndarray,
  dataset: types.Dataset,
  count: int,
  apply_fn: types.ApplyFn | None = None,
  model: types.ModelState | None = None,
) -> list[Candidate]:
  """The samples most like a photo, by thumbnails and, with a model, by its features.

  With a model the two rankings are interleaved: the one finds the picture, the other finds other
  pictures of what it shows.

  Args:
    photo: `[H, W, C]` uint8.
    dataset: where to look.
    count: number of samples.
    apply_fn: the network.
    model: its state.
  """
  mirror = np.ascontiguousarray(photo[:, ::-1])
  likeness = copies.thumbnails(dataset.images) @ copies.thumbnails([photo, mirror]).T
  best, features = likeness.max(axis=1), np.full(len(dataset), np.nan)
  place = _place(best)
  if apply_fn is not None and model is not None:
    features = _cosine(apply_fn, model, photo, dataset.images)
    place = np.minimum(place, _place(features) + 0.5)
  rows = np.argsort(place, kind='stable')[:count]
  is_mirrored = likeness[:, 1] > likeness[:, 0]
  bits = lambda row: copies.hash_distance(
    dataset.images[row], mirror if is_mirrored[row] else photo
  )
  return [
    Candidate(int(r), float(best[r]), bool(is_mirrored[r]), bits(r), float(features[r]))
    for r in rows
  ]


def _place(score: np.ndarray) -> np.ndarray:
  """The rank of each row, the highest score first."""
  place = np.empty(len(score))
  place[np.argsort(-score, kind='stable')] = np.arange(len(score))
  return place


def _cosine(apply_fn, model, photo, images) -> np.ndarray:
  wanted = prediction.predict(apply_fn, model, photo[None]).features
  there = prediction.predict(apply_fn, model, images).features
  norm = np.linalg.norm(there, axis=1) * np.linalg.norm(wanted)
  return (there @ wanted[0]) / np.maximum(norm, 1e-12)


def _samples(request, config):
  """The data, and the network and model where a checkpoint is named."""
  place = pathlib.Path(request.checkpoint).expanduser()
  if request.checkpoint and (
    record_files.request_folder(place) or starting_point.run_folder(place)
  ):
    basis = starting_point.read(request, config)
    return basis.sets['train'], basis.apply_fn, basis.model
  source = starting_point.training_source(request, config)
  if not request.checkpoint:
    return source.dataset, None, None
  shape, num_classes = source.dataset.images.shape[1:], len(source.class_names)
  apply_fn, init_fn = from_settings.network(config, shape, num_classes)
  with errors.blame('checkpoint'):
    template = init_fn(seeds.stream(0, 'template'))
    taken = model_source.take(locate.find(place, request.item), template, request.item, None)
  return source.dataset, apply_fn, taken.model


def _table(found, dataset) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(_COLUMNS)
  for c in found:
    feature = '' if np.isnan(c.feature_likeness) else f'{c.feature_likeness:.4f}'
    mirrored = 'yes' if c.mirrored else 'no'
    writer.writerow([dataset.ids[c.row], f'{c.likeness:.4f}', mirrored, c.hash_bits, feature])
  return text.getvalue()


def _in_words(candidate, dataset) -> str:
  features = candidate.feature_likeness
  more = '' if np.isnan(features) else f', features {features:.3f} alike'
  mirrored = ', mirrored' if candidate.mirrored else ''
  return (
    f'{dataset.ids[candidate.row]}: {candidate.likeness:.3f} alike{mirrored}, '
    f'{candidate.hash_bits} bits of 64{more}'
  )

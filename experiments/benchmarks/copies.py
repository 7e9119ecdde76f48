"""False alarms and recall of the search for copies: python -m experiments.benchmarks.copies.

For each data set: how often two different samples are taken for copies of each other, and how many
copies are found that were encoded again, mirrored or resized. `--data_dir` names prepared TFDS data
(faces, CIFAR-10); the embedded digits need none.
"""

from collections.abc import Callable
import io

from absl import app, flags
import numpy as np
import PIL.Image

from dalign_jax import data as data_lib
from dalign_jax import types
from dalign_jax.deletion import copies

FLAGS = flags.FLAGS


def _encoded(quality: int) -> Callable[[np.ndarray], np.ndarray]:
  def change(image):
    buffer = io.BytesIO()
    copies.picture(image).save(buffer, 'JPEG', quality=quality)
    return np.asarray(PIL.Image.open(buffer)).reshape(image.shape)

  return change


def _resized(factor: float) -> Callable[[np.ndarray], np.ndarray]:
  def change(image):
    height, width = image.shape[:2]
    how = PIL.Image.Resampling.BICUBIC
    small = copies.picture(image).resize((round(factor * width), round(factor * height)), how)
    return np.asarray(small.resize((width, height), how)).reshape(image.shape)

  return change


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'JPEG 90': _encoded(90),
  'JPEG 75': _encoded(75),
  'JPEG 50': _encoded(50),
  'JPEG 30': _encoded(30),
  'mirrored, JPEG 75': lambda image: _encoded(75)(np.ascontiguousarray(image[:, ::-1])),
  'to 1/2 and back': _resized(0.5),
  'to 3/4 and back': _resized(0.75),
  'to 3/2 and back': _resized(1.5),
}


def false_alarms(dataset: types.Dataset) -> float:
  """The share of samples that are taken for a copy of another of the set."""
  rows, found = np.arange(len(dataset)), set()
  for bit in range(len(dataset).bit_length()):  # any two rows differ in one bit of their numbers
    for part in (rows[(rows >> bit) % 2 == 0], rows[(rows >> bit) % 2 == 1]):
      found |= {copy.row for copy in copies.search(dataset, part)}
  return len(found) / len(dataset)


def recall(dataset: types.Dataset, change: Callable[[np.ndarray], np.ndarray]) -> float:
  """The share of changed copies that are found."""
  changed = np.stack([change(image) for image in dataset.images])
  both = types.Dataset(
    np.concatenate([dataset.images, changed]),
    np.zeros(2 * len(dataset), np.int32),
    np.arange(2 * len(dataset)).astype(str),
  )
  rows = np.arange(len(dataset))
  return len(copies.search(both, rows)) / len(dataset)


def main(_) -> None:
  """Prints a table in Markdown."""
  print('| data | image | false alarms |', ' | '.join(CHANGES), '|')
  print('|---' * (3 + len(CHANGES)) + '|')
  for name in FLAGS.datasets:
    source = data_lib.load(name, data_dir=FLAGS.data_dir or None, label_key=FLAGS.label_key).dataset
    rows = np.sort(np.random.default_rng(0).permutation(len(source))[: FLAGS.count])
    dataset = source.take(rows)
    few = dataset.take(np.arange(min(FLAGS.changed, len(dataset))))
    values = [f'{false_alarms(dataset):.4f}', *(f'{recall(few, c):.3f}' for c in CHANGES.values())]
    shape = 'x'.join(map(str, dataset.images.shape[1:]))
    print(f'| {name} | {shape} |', ' | '.join(values), '|', flush=True)


def _define() -> None:
  flags.DEFINE_list(
    'datasets', ['digits', 'mnist5k'], 'Data sets, as --dataset of experiments.run.'
  )
  flags.DEFINE_string('data_dir', '', 'Where TFDS keeps its data.')
  flags.DEFINE_string('label_key', 'label', 'Feature to read as the label; it is not used.')
  flags.DEFINE_integer('count', 1200, 'Samples of each data set.')
  flags.DEFINE_integer('changed', 200, 'Samples of which changed copies are made.')


if __name__ == '__main__':
  _define()
  app.run(main)

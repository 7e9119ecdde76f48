"""What bfloat16 changes in originals, golds and unlearned models, against the noise between seeds.

Every seed trains an original, a gold and an unlearned model on scikit-learn's digits, in float32
and again with `compute_dtype='bfloat16'` from equal keys. A metric's gap is the mean absolute
difference of the two; its floor is the same between models of two seeds, both in float32.

python -m experiments.benchmarks.precision
"""

from collections.abc import Mapping, Sequence
import itertools
import json
import pathlib

from absl import app, flags
import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import fresh, methods, metrics, models, precision, prediction, training, types

FLAGS = flags.FLAGS
ROLES = ('original', 'gold', 'unlearned')
SETS = ('forget', 'retain', 'test')
Logits = Mapping[str, np.ndarray]  # of one model, by set


def train(dtype: str, seed: int, sets: Mapping[str, types.Dataset]) -> dict[str, Logits]:
  """The three models of a seed, by their logits."""
  apply_fn, init_fn = models.build(
    FLAGS.network,
    num_classes=10,
    image_shape=sets['retain'].images.shape[1:],
    width_multiplier=FLAGS.width_multiplier,
  )
  apply_fn = precision.computing_in(apply_fn, dtype)
  recipe = types.Recipe(num_epochs=FLAGS.num_epochs, batch_size=64)
  keys = jax.random.split(jax.random.key(seed), 5)

  def fit(dataset, init_key, fit_key):
    start = fresh.model(init_fn, init_key, dataset)
    return training.fit(apply_fn, start, dataset, recipe, fit_key)

  original = fit(types.concatenate(sets['retain'], sets['forget']), keys[0], keys[1])
  problem = types.Problem(
    apply_fn=apply_fn,
    init_fn=init_fn,
    original=original,
    retain=sets['retain'],
    forget=sets['forget'],
    validation=sets['validation'],
    num_classes=10,
    recipe=recipe,
  )
  unlearned = methods.METHODS[FLAGS.method].make()(problem, keys[4])
  found = zip(ROLES, (original, fit(sets['retain'], keys[2], keys[3]), unlearned), strict=True)
  logits = lambda model, name: prediction.predict(apply_fn, model, sets[name].images).logits
  return {role: {name: logits(model, name) for name in SETS} for role, model in found}


def differences(one: Logits, other: Logits, labels: Mapping[str, np.ndarray]) -> dict[str, float]:
  """How far two models are apart: accuracies in points, and activation distances."""
  accuracy = lambda logits, name: 100 * np.mean(logits[name].argmax(1) == labels[name])
  found = {f'{n} accuracy': abs(accuracy(one, n) - accuracy(other, n)) for n in SETS}
  distances = {n: metrics.activation_distance(one[n], other[n]) for n in SETS}
  return found | {f'{n} activation distance': value for n, value in distances.items()}


def table(
  found: Mapping[tuple[str, int], Mapping[str, Logits]], labels: Mapping[str, np.ndarray]
) -> list[dict]:
  """A row for each role and metric, with its gap and its floor."""
  seeds = sorted({seed for _, seed in found})
  pairs = {
    'gap': [(('float32', seed), ('bfloat16', seed)) for seed in seeds],
    'floor': [(('float32', a), ('float32', b)) for a, b in itertools.combinations(seeds, 2)],
  }
  rows = []
  for role in ROLES:
    of_pairs = {
      kind: [differences(found[a][role], found[b][role], labels) for a, b in chosen]
      for kind, chosen in pairs.items()
    }
    for metric in of_pairs['gap'][0]:
      means = {kind: float(np.mean([d[metric] for d in ds])) for kind, ds in of_pairs.items()}
      rows.append({'role': role, 'metric': metric, **means})
  return rows


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  source = data_lib.load('digits').dataset
  split = data_lib.split_dataset(
    source, validation_fraction=0.1, test_fraction=0.2, forget='class:3', seed=0
  )
  sets = {name: source.take(getattr(split, name)) for name in (*SETS, 'validation')}
  found = {
    (dtype, seed): train(dtype, seed, sets)
    for dtype, seed in itertools.product(precision.DTYPES, range(FLAGS.seeds))
  }
  rows = table(found, {name: sets[name].labels for name in SETS})
  print('| model | metric | gap of bfloat16 | floor |\n|---|---|---:|---:|')
  for row in rows:
    print('| {role} | {metric} | {gap:.3f} | {floor:.3f} |'.format(**row))
  if FLAGS.output:
    pathlib.Path(FLAGS.output).write_text(json.dumps(rows, indent=2) + '\n', encoding='utf-8')


def _define() -> None:
  flags.DEFINE_string('network', 'cnn', 'A key of models.MODELS.')
  flags.DEFINE_float('width_multiplier', 0.5, 'Multiplies the number of channels.')
  flags.DEFINE_integer('seeds', 3, 'Seeds.', lower_bound=2)
  flags.DEFINE_integer('num_epochs', 10, 'Epochs of originals and golds.', lower_bound=1)
  flags.DEFINE_string('method', 'muda', 'Method, at its defaults.')
  flags.DEFINE_string('output', '', 'File for the rows as JSON; empty: none.')


if __name__ == '__main__':
  _define()
  app.run(main)

"""The pictures and numbers of docs/tutorial.md: three originals, six golds, three methods.

python -m experiments.benchmarks.tutorial --figures=docs/figures/tutorial

Scikit-learn's digits, a small network, the class 3 forgotten. Prints the table of p-values.
"""

from collections.abc import Callable, Mapping
import pathlib

from absl import app, flags
import jax
import matplotlib
import numpy as np

from dalign_jax import data, losses, methods, metrics, models, prediction, seeds, training, types

matplotlib.use('agg')
from matplotlib import pyplot

matplotlib.rcParams['svg.hashsalt'] = 'tutorial'  # equal runs, equal files
_FIGURES = flags.DEFINE_string('figures', 'docs/figures/tutorial', 'Folder of the pictures.')
_NUM_EPOCHS = flags.DEFINE_integer('tutorial_epochs', 20, 'Of originals and golds.')

METHODS = {
  'head_only': methods.head_only(),
  'finetune': methods.finetune(num_epochs=3),
  'muda': methods.muda(),
}
COLORS = {
  'original': 'black',
  'gold': 'goldenrod',
  'head_only': 'tab:purple',
  'finetune': 'tab:blue',
  'muda': 'tab:green',
}
NUM_ORIGINALS, NUM_GOLDS = 3, 6


def make_models(num_epochs: int) -> tuple[types.Problem, dict[str, list[types.ModelState]]]:
  """The problem of the first original, and all models by kind."""
  everything = data.load('digits').dataset
  split = data.split_dataset(
    everything, validation_fraction=0.1, test_fraction=0.1, forget='class:3', seed=0
  )
  sets = {name: everything.take(rows) for name, rows in vars(split).items() if len(rows)}
  apply_fn, init_fn = models.build(
    'cnn', num_classes=10, image_shape=everything.images.shape[1:], width_multiplier=0.25
  )
  recipe = types.Recipe(num_epochs=num_epochs, batch_size=64)

  def train(role, number, dataset):
    init_key, fit_key = jax.random.split(seeds.stream(number, role, 0))
    return training.fit(apply_fn, init_fn(init_key), dataset, recipe, fit_key)

  known = types.concatenate(sets['retain'], sets['forget'])
  originals = [train('original', number, known) for number in range(NUM_ORIGINALS)]
  golds = [train('gold', number, sets['retain']) for number in range(NUM_GOLDS)]
  problems = [
    types.Problem(
      apply_fn=apply_fn,
      init_fn=init_fn,
      original=original,
      retain=sets['retain'],
      forget=sets['forget'],
      validation=sets['validation'],
      num_classes=10,
      recipe=recipe,
    )
    for original in originals
  ]
  unlearned = {
    name: [method(p, seeds.stream(i, 'unlearn', 0)) for i, p in enumerate(problems)]
    for name, method in METHODS.items()
  }
  return problems[0], {'original': originals, 'gold': golds, **unlearned}


def measure(problem: types.Problem, model: types.ModelState) -> dict[str, np.ndarray]:
  """Margins of the forget examples, the share of each feature in the retain subspace, accuracy."""
  forget, retain = (
    prediction.predict(problem.apply_fn, model, d.images) for d in (problem.forget, problem.retain)
  )
  basis = losses.principal_basis(losses.second_moment(retain.features), energy=0.9)
  inside = np.square(forget.features @ np.asarray(basis)).sum(axis=1)
  return {
    'outputs': metrics.logit_scaled_confidence(forget.logits, problem.forget.labels),
    'features': inside / np.square(forget.features).sum(axis=1),
    'accuracy': metrics.accuracy(forget.logits, problem.forget.labels),
  }


Measured = Mapping[str, list[dict[str, np.ndarray]]]


def draw_gold(measured: Measured) -> pyplot.Figure:
  """What gold is: margins of the forgotten images under one model of each kind."""
  fig, axes = pyplot.subplots(1, len(measured), figsize=(9, 2), sharex=True, layout='constrained')
  every = np.concatenate([of_models[0]['outputs'] for of_models in measured.values()])
  bins = np.linspace(every.min(), every.max(), 30)
  for ax, (name, of_models) in zip(axes, measured.items(), strict=True):
    ax.hist(of_models[0]['outputs'], bins=bins, color=COLORS[name])
    ax.axvline(0, color='gray', linewidth=0.8)
    ax.set(title=name, yticks=[], xlabel='margin of the 3')
  return fig


def draw_floor(measured: Measured) -> pyplot.Figure:
  """What a floor is: one point a model, in outputs and in features; the band is the golds'."""
  values = {
    'share of forgotten images called 3': lambda m: m['accuracy'],
    'share of feature energy inside (DA, mean of images)': lambda m: m['features'].mean(),
  }
  fig, axes = pyplot.subplots(1, 2, figsize=(9, 2.4), sharey=True, layout='constrained')
  for ax, (title, value) in zip(axes, values.items(), strict=True):
    golds = [value(m) for m in measured['gold']]
    ax.axvspan(min(golds), max(golds), color=COLORS['gold'], alpha=0.25, linewidth=0)
    for row, (name, of_models) in enumerate(measured.items()):
      found = [value(m) for m in of_models]
      ax.plot(found, [row] * len(found), 'o', color=COLORS[name], alpha=0.7)
    ax.set(xlabel=title, yticks=range(len(measured)), yticklabels=list(measured))
  axes[0].invert_yaxis()
  return fig


def draw_verdict(measured: Measured) -> pyplot.Figure:
  """What a verdict asks: each model's mean distance to golds against that to originals."""
  fig, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
  for ax, key in zip(axes, ('outputs', 'features'), strict=True):
    arrays = {name: np.stack([m[key] for m in of]) for name, of in measured.items()}
    most = 0.0
    for name, values in arrays.items():
      x, y = (_distances(values, arrays[of]) for of in ('original', 'gold'))
      ax.plot(x, y, 'o', color=COLORS[name], alpha=0.7, label=name)
      most = max(most, *x, *y)
    ax.plot([0, most], [0, most], color='gray', linewidth=0.8)
    ax.set(title=key, xlabel='distance to originals', ylabel='distance to golds')
  axes[0].legend(fontsize=8)
  return fig


def _distances(values, others):
  """Mean distance of each model to the others that are not itself, a root mean square of images."""
  gaps = np.sqrt(np.square(values[:, None] - others[None]).mean(axis=2))
  return [row[row > 0].mean() for row in gaps]


def table(measured: Measured) -> str:
  """P-values of "nearer to gold" (small: it is) and "unlike gold" (small: it is not gold)."""
  arrays = {
    key: {name: np.stack([m[key] for m in of]) for name, of in measured.items()}
    for key in ('outputs', 'features')
  }
  heads = [f'{words} in {key}' for key in arrays for words in ('nearer to gold', 'unlike gold')]
  lines = [f'| model | {" | ".join(heads)} |', '|---|' + '---:|' * len(heads)]
  for name in METHODS:
    found = []
    for of in arrays.values():
      nearer = metrics.nearer_to_gold(of[name], of['gold'], of['original'], paired=True)
      found += [nearer.p_value, metrics.unlike_gold(of[name], of['gold'], seed=0).p_value]
    lines.append(f'| {name} | {" | ".join(f"{p:.3f}" for p in found)} |')
  return '\n'.join(lines)


FIGURES: Mapping[str, Callable[[Measured], pyplot.Figure]] = {
  'gold': draw_gold,
  'floor': draw_floor,
  'verdict': draw_verdict,
}


def main(argv):
  del argv
  folder = pathlib.Path(_FIGURES.value)
  folder.mkdir(parents=True, exist_ok=True)
  problem, all_models = make_models(_NUM_EPOCHS.value)
  measured = {name: [measure(problem, m) for m in of] for name, of in all_models.items()}
  for name, draw in FIGURES.items():
    fig = draw(measured)
    fig.savefig(folder / f'{name}.svg', metadata={'Date': None})
    pyplot.close(fig)
  print(table(measured))


if __name__ == '__main__':
  app.run(main)

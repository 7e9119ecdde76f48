"""Evaluation of your own model and data: its metrics, and those of gold models if there are any.

The benchmark's evaluation, with seeds, plots and strong attacks, is `experiments.run`; this is the
short one, of `dalign_jax.metrics`, for your own program.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dalign_jax import errors, prediction, training, types
from dalign_jax.evaluation import _case, _measures

_ROWS = ('original', 'unlearned', 'gold', 'second gold')
KEYS = (  # of `MEASURES`: what can be read without a benchmark around it
  *('forget_accuracy', 'retain_accuracy', 'test_accuracy', 'test_forget_accuracy'),
  *('test_accuracy_same', 'attack', 'attack_floor', 'dimensional_alignment', 'da_rank'),
  *('moved', 'activation_distance'),
)


def compare(
  problem: types.Problem,
  unlearned: types.ModelState,
  test: types.Dataset,
  *,
  golds: Sequence[types.ModelState] = (),
  energy: float = 0.9,
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Metrics of original, unlearned and gold models, side by side.

  Compare each with gold's; a gap no larger than that of the second gold is chance. Without gold,
  the metrics can show only whether retain and test accuracy were kept, how far forget accuracy
  still is from the accuracy on test images of the same classes (if single examples are forgotten
  and not whole classes, gold treats both alike), whether the attack is within its null floor, and
  whether anything moved. They cannot show whether the model is what retraining would have given.

  Args:
    problem: its original, retain and forget data are used.
    unlearned: what a method returned.
    test: data that neither the original nor the method has seen.
    golds: up to two models retrained without the forget data.
    energy: share of the retain features' second moment that DA keeps, in (0, 1].
    seed: of the attack.

  Returns:
    `{'original': metrics, 'unlearned': ..., 'gold': ..., 'second gold': ...}`, the last two as far
    as given; metrics by the keys of `MEASURES`, as in tables and records. Those are the `KEYS`
    here. Accuracies are in [0, 1]. A metric that is not defined is left out: `test_accuracy_same`
    (test images of the classes that lose some) where whole classes or parts of all are forgotten.

  Raises:
    ValueError: for more than two golds, outputs that are not as many as the classes or do not fit
      the labels, or outputs that are not finite.
  """
  if len(golds) > 2:
    raise errors.InputError(f'golds must be two at most, got {len(golds)}')
  training.check_problem(problem)
  training.check_labels(problem.apply_fn, problem.original, test)
  models = dict(zip(_ROWS, (problem.original, unlearned, *golds), strict=False))
  sets = {'forget': problem.forget, 'retain': problem.retain, 'test': test}
  outputs = {name: _outputs(problem, name, model, sets) for name, model in models.items()}
  found = {}
  for name, of_model in outputs.items():
    case = _case.Case(
      sets=sets,
      outputs=of_model,
      original=outputs['original'],
      gold=outputs['gold'] if golds and name != 'gold' else None,
      num_classes=problem.num_classes,
      energy=energy,
      seed=seed,
    )
    found[name] = _measures.measure(case, keys=KEYS)
  return found


def markdown(values: Mapping[str, Mapping[str, float]]) -> str:
  """The result of `compare` as a table in Markdown.

  Example:
    >>> print(markdown({'original': {'forget': 1.0, 'moved': 0.0}, 'gold': {'forget': 0.25}}))
    | model    | forget | moved |
    | -------- | -----: | ----: |
    | original |  1.000 | 0.000 |
    | gold     |  0.250 |     - |
  """
  heads = list(dict.fromkeys(key for of_model in values.values() for key in of_model))
  show = lambda value: '-' if value is None else f'{value:.3f}'
  lines = [[name, *(show(of_model.get(h)) for h in heads)] for name, of_model in values.items()]
  widths = [max(map(len, column)) for column in zip(['model', *heads], *lines, strict=True)]
  widths = [max(3, width) for width in widths]
  rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  aligned = [
    [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
    for line in (['model', *heads], *lines)
  ]
  return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (aligned[0], rule, *aligned[1:]))


def _outputs(problem, name, model, sets):
  found = {
    key: prediction.predict(problem.apply_fn, model, d.images, devices=problem.devices)
    for key, d in sets.items()
  }
  if not all(np.all(np.isfinite(x)) for o in found.values() for x in o):
    raise errors.InputError(f'the outputs of {name} are not finite: it was destroyed')
  return found

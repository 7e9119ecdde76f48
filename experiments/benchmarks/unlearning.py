"""A whole unlearning run, MUDA with its defaults, compared with plain PyTorch code of the method.

python -m experiments.benchmarks.unlearning
"""

import dataclasses
import functools
import inspect
import statistics

import jax
import numpy as np

from dalign_jax import data as data_lib
from dalign_jax import methods, models, training, types
from dalign_jax.store import timing
from experiments.benchmarks import harness, training_step


def measure(*, quick: bool = False) -> list[dict]:
  """One row: a CNN forgets a class of MNIST-5k (quick: of the 8x8 digits).

  A tenth of the retain set is used, picked here, so that both see the same rows.
  """
  harness.import_torch()
  from experiments.benchmarks import torch_muda

  problem = make_problem('digits' if quick else 'mnist5k')
  muda = methods.METHODS['muda'].make
  chosen = {'rounds': 1 if quick else 2, 'retain_fraction': 1.0}
  defaults = {name: p.default for name, p in inspect.signature(muda).parameters.items()}
  settings = {**defaults, **chosen}
  key = jax.random.key(1)
  results, compiling = {'changed original': muda(**chosen)(_changed(problem), key)}, []

  def ours():
    jax.clear_caches()  # a run of a process compiles once: its first one is what is timed
    start = timing.compile_seconds()
    results['ours'] = muda(**chosen)(problem, key)
    compiling.append(timing.compile_seconds() - start)

  def torch(memory_format):
    layout = training_step.layouts()[memory_format]
    results['torch'] = torch_muda.unlearn(problem, key, settings, layout)

  functions = {'ours with compiling': ours}
  for name in training_step.layouts():
    functions[f'torch {name}'] = functools.partial(torch, name)
  timings = harness.interleave(functions, rounds=1 if quick else 7)
  first, totals = timings['ours with compiling']
  compiling = compiling[-len(totals) :]
  running = [total - part for total, part in zip(totals, compiling, strict=True)]
  timings = {'ours': harness.Timing(first, running), **timings}
  pairs = [
    (mine, other) for mine in list(timings)[:2] for other in timings if other.startswith('torch')
  ]
  shape = problem.forget.images.shape[1:]
  ends = {
    name: torch_muda.parameters(found if name == 'torch' else torch_muda.network(found, shape))
    for name, found in {'original': problem.original, **results}.items()
  }
  way = np.linalg.norm(ends['ours'] - ends['original'])
  difference = lambda name: float(np.linalg.norm(ends['ours'] - ends[name]) / way)
  return [
    harness.row(
      f'MUDA, {settings["rounds"]} rounds',
      timings,
      pairs,
      compile_seconds=statistics.median(compiling),
      difference_relative_to_the_way_gone=difference('torch'),
      and_where_the_original_is_changed_by_1e_6=difference('changed original'),
    )
  ]


def _changed(problem: types.Problem) -> types.Problem:
  """The original's parameters, each changed by 1e-6 of itself: what rounding alone could do."""
  rng = np.random.default_rng(0)
  change = lambda x: np.asarray(x * (1 + 1e-6 * rng.standard_normal(x.shape)), x.dtype)
  params = jax.tree.map(lambda x: change(np.asarray(x)), problem.original.params)
  return dataclasses.replace(problem, original=problem.original._replace(params=params))


def make_problem(dataset: str) -> types.Problem:
  """The quickstart's problem with a tenth of its retain set and a briefly trained original."""
  source = data_lib.load(dataset)
  fractions = {'validation_fraction': 0.1, 'test_fraction': 0.1}
  split = data_lib.split_dataset(source.dataset, forget='class:3', seed=0, **fractions)
  sets = {
    name: source.dataset.take(getattr(split, name)) for name in ('retain', 'forget', 'validation')
  }
  shape = source.dataset.images.shape[1:]
  apply_fn, init_fn = models.build('cnn', num_classes=10, image_shape=shape)
  problem = types.Problem(
    apply_fn=apply_fn,
    init_fn=init_fn,
    original=init_fn(jax.random.key(0)),
    num_classes=10,
    recipe=types.Recipe(num_epochs=2, learning_rate=0.02),
    devices=(jax.devices()[0],),
    **sets,
  )
  original = training.fit(
    apply_fn,
    problem.original,
    types.concatenate(problem.retain, problem.forget),
    problem.recipe,
    jax.random.key(0),
    devices=problem.devices,
  )
  tenth = problem.retain.take(np.arange(0, len(problem.retain), 10))
  return dataclasses.replace(problem, original=original, retain=tenth)


if __name__ == '__main__':
  harness.run(measure)

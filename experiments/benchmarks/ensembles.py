"""Training many small models: one compiled program, one after the other, and in PyTorch.

python -m experiments.benchmarks.ensembles
"""

import functools
import statistics

import jax
import numpy as np

from dalign_jax import models, training, types
from dalign_jax.store import timing
from experiments.benchmarks import harness, training_step

RECIPE = types.Recipe(num_epochs=1, batch_size=128, learning_rate=0.01, warmup_epochs=0.1)


def measure(*, quick: bool = False) -> list[dict]:
  """A row for each network: K members for an epoch; times without compilation, which is apart."""
  harness.import_torch()
  jax.config.update('jax_num_cpu_devices', 2)
  if quick:
    return [_case('cnn', (8, 8, 1), members=2, steps=2, rounds=1)]
  return [
    _case('cnn', (28, 28, 1), members=4, steps=8, rounds=3),
    _case('resnet8', (32, 32, 3), members=4, steps=4, rounds=3),
  ]


def _case(network, shape, *, members, steps, rounds):
  dataset = harness.random_dataset(shape, steps * RECIPE.batch_size)
  apply_fn, init_fn = models.build(network, num_classes=10, image_shape=shape)
  keys = [jax.random.key(i) for i in range(members)]
  starts = [init_fn(key) for key in keys]
  one, two = tuple(jax.devices()[:1]), tuple(jax.devices())

  def ensemble(mapping, devices):
    return training.fit_ensemble(
      apply_fn, starts, dataset, RECIPE, keys, mapping=mapping, devices=devices
    )

  def sequential():
    fit = functools.partial(training.fit, apply_fn, dataset=dataset, recipe=RECIPE, devices=one)
    return [fit(start, key=key) for start, key in zip(starts, keys, strict=True)]

  functions, compiling = {}, {}
  ours = {
    'scan': functools.partial(ensemble, 'scan', one),
    'scan, 2 CPU devices': functools.partial(ensemble, 'scan', two),
    'vmap': functools.partial(ensemble, 'vmap', one),
    'one after the other': sequential,
  }
  for name, function in ours.items():
    compiling[name] = []
    functions[name] = functools.partial(_compile_counted, function, compiling[name])
  for layout in training_step.layouts():
    functions[f'torch {layout}'] = _torch(network, starts, dataset, steps, layout)
  timings = harness.interleave(functions, rounds=rounds, warm_up=0)
  compile_seconds = {name: statistics.median(seconds) for name, seconds in compiling.items()}
  timings = {name: _without(timing, compiling.get(name)) for name, timing in timings.items()}
  others = [name for name in functions if name != 'scan']
  return harness.row(
    f'{members} x {network}, {steps} steps',
    timings,
    [('scan', other) for other in others],
    compile_seconds=compile_seconds,
  )


def _compile_counted(function, compiling):
  start = timing.compile_seconds()
  function()
  compiling.append(timing.compile_seconds() - start)


def _without(timing_with, compiling):
  """A timing without the seconds of compilation."""
  if compiling is None:
    return timing_with
  last = compiling[-len(timing_with.rounds) :]
  rounds = [total - part for total, part in zip(timing_with.rounds, last, strict=True)]
  return harness.Timing(timing_with.first, rounds)


def _torch(network, starts, dataset, steps, layout):
  """As many PyTorch networks, one after the other, on one batch again and again."""
  rows = np.arange(RECIPE.batch_size, dtype=np.int32)
  ones = [training_step.torch_step(network, m, dataset, rows, layout) for m in starts]
  return lambda: [one() for one in ones for _ in range(steps)]


if __name__ == '__main__':
  harness.run(measure)

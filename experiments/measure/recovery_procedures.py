"""The recovery procedures of `--evaluation=recovery`, each run on a copy of every model.

To add a procedure, add one entry to `PROCEDURES`: its column, curve and figure follow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import parallel, recipe_optim, recovery, seeds
from experiments.measure import relearning
from experiments.problem import preparation

_BATCH_SIZE = 128


class Procedure(NamedTuple):
  """A way to bring forgotten knowledge back.

  Attributes:
    key: of its curve; its column is `<key>_gap`.
    head: of its column.
    budget: what its curve runs over.
    meaning: what is done.
    settings: of a problem, which decide whether a curve is still valid; None where the procedure
      is not defined.
    run: `(job, model, **settings)` to the curve.
  """

  key: str
  head: str
  budget: str
  meaning: str
  settings: Callable[[preparation.Job], dict[str, Any] | None]
  run: Callable[..., recovery.RecoveryCurve]


def last_rate(job: preparation.Job) -> float:
  """The learning rate with which the recipe's last tenth begins."""
  num_examples = len(job.sets['retain']) + len(job.sets['forget'])
  _, total = recipe_optim.steps(job.recipe, num_examples)
  return float(recipe_optim.schedule(job.recipe, num_examples)(round(0.9 * total)))


def _fine_tuning(factor: float) -> Callable[[preparation.Job], dict[str, Any]]:
  return lambda job: {
    'num_epochs': max(1, round(job.recipe.num_epochs / 10)),
    'learning_rate': factor * last_rate(job),
  }


def _retain_only(job, model, *, num_epochs, learning_rate):
  devices = tuple(parallel.local_devices(job.devices))
  return recovery.retain_only(
    job.problem(model, devices=devices),
    model,
    seeds.stream(job.config.evaluation_seed, 'recovery'),
    num_epochs=num_epochs,
    learning_rate=learning_rate,
    momentum=job.recipe.momentum,
    weight_decay=job.recipe.weight_decay if job.recipe.optimizer == 'sgd' else 0.0,  # L2 there
    batch_size=len(devices) * -(-_BATCH_SIZE // len(devices)),
  )


def _shots(job) -> dict[str, Any] | None:
  """1, 5 and 20 images a class, as far as half of the largest class is left to measure on."""
  largest = int(np.bincount(job.sets['forget'].labels).max())
  shots = [k for k in (1, 5, 20) if 2 * k <= largest]
  return {'shots': shots} if shots else None


def _prototypes(job, model, *, shots):
  return recovery.prototype_shots(
    *_of_shots(job, model), num_classes=job.num_classes, shots=shots, **_options(job)
  )


def _heads(job, model, *, shots):
  return recovery.head_shots(*_of_shots(job, model), shots=shots, **_options(job))


def _of_shots(job, model):
  return job.apply_fn, model, job.sets['retain'], job.sets['forget']


def _options(job):
  return {'seed': job.config.evaluation_seed, 'devices': _devices(job)}


def _devices(job):
  return tuple(parallel.local_devices(job.devices))  # this process alone evaluates


def _on_forget(procedure: Callable) -> Callable[..., recovery.RecoveryCurve]:
  """A procedure that needs the forget set alone."""
  return lambda job, model, **settings: procedure(
    job.apply_fn, model, job.sets['forget'], devices=_devices(job), **settings
  )


def _fixed(**settings) -> Callable[[preparation.Job], dict[str, Any]]:
  return lambda job: settings


PROCEDURES: tuple[Procedure, ...] = (
  Procedure(
    'retain_only',
    'retain only',
    'epochs on retain',
    "Fine-tuning on retain data alone, for a tenth of the recipe's epochs, at the learning rate "
    'with which the last tenth of the recipe begins.',
    _fine_tuning(1.0),
    _retain_only,
  ),
  Procedure(
    'retain_only_slow',
    'retain only (rate/10)',
    'epochs on retain',
    'The same at a tenth of that rate.',
    _fine_tuning(0.1),
    _retain_only,
  ),
  Procedure(
    'prototype_shots',
    'prototypes',
    'forget images a class',
    'Nearest class mean in feature space, from k forget images a class.',
    _shots,
    _prototypes,
  ),
  Procedure(
    'head_shots',
    'new head',
    'forget images a class',
    'A new logistic head on frozen features, with k forget images a class.',
    _shots,
    _heads,
  ),
  Procedure(
    'residual',
    'residual',
    'radius, 1/255',
    'Accuracy at the best point of a small ball around each forget image.',
    _fixed(radii=[0.0, 1 / 255, 2 / 255, 4 / 255]),
    _on_forget(recovery.residual_knowledge),
  ),
  Procedure(
    'rounding',
    'rounding',
    'bits',
    'Kernels rounded to int8 and int4.',
    _fixed(bits=[8, 4]),
    _on_forget(recovery.rounding),
  ),
  Procedure(
    'pruning',
    'pruning',
    'share of weights',
    'The smallest 30, 60 and 90 % of the kernel weights set to zero.',
    _fixed(shares=[0.3, 0.6, 0.9]),
    _on_forget(recovery.pruning),
  ),
  Procedure(
    'relearning',
    'relearning',
    'epochs on forget',
    'Fine-tuning on the forget set itself: a retrained model learns it too, but later.',
    lambda job: {'num_epochs': min(10, job.config.relearn_epochs)},
    relearning.curve,
  ),
)

"""Ranges of hyper-parameters for tuning, by method.

Hyper-parameters that are not named here keep their defaults, or what `--hparam` says.
"""

from typing import Any, NamedTuple, Protocol

from dalign_jax import hparams

Value = int | float | str | bool


class Range(Protocol):
  """A range that an Optuna trial draws from."""

  def including(self, values: dict[str, Any], name: str) -> tuple['Range', Value]:
    """The range that has the default of a name as well, and that default."""
    ...

  def suggest(self, trial, name: str) -> Value:
    """The value of a trial (`optuna.Trial`)."""
    ...


class Choice(NamedTuple):
  """One of some values, all equally likely."""

  values: tuple[Value, ...]

  def including(self, values, name):
    default = values[name]
    return (self if default in self.values else Choice((*self.values, default))), default

  def suggest(self, trial, name):
    return trial.suggest_categorical(name, self.values)


class Log(NamedTuple):
  """From `low` to `high`, uniform in the logarithm; two significant digits.

  `stands_for` is the value that a default of None means, or begins with; or the name of the
  hyper-parameter that has it.
  """

  low: float
  high: float
  stands_for: str | float = ''

  def including(self, values, name):
    default = values[name]
    if default is None:
      default = values[self.stands_for] if isinstance(self.stands_for, str) else self.stands_for
    if default <= 0:  # no logarithm: it begins at the lower end, and runs as it is
      return self, self.low
    return Log(min(self.low, default), max(self.high, default)), default

  def suggest(self, trial, name):
    return _rounded(trial.suggest_float(name, self.low, self.high, log=True))


def _rounded(value) -> float:
  return float(f'{value:.1e}')


def of(name: str) -> dict[str, Range]:
  """The ranges of a method or variant; empty where there is nothing to tune."""
  return RANGES.get(hparams.method_of(name), {})


_EPOCHS = Choice((1, 2, 3, 5, 10))
_PASSES = Choice((1, 3, 5, 10))
_RETAIN_RATE = Log(1e-3, 0.3)  # of passes over retain data
_ASCENT_RATE = Log(1e-6, 0.1)  # from no effect to ruin, wherever a network's threshold lies

RANGES: dict[str, dict[str, Range]] = {
  'amun': {'num_epochs': _PASSES, 'learning_rate': _RETAIN_RATE},
  'bad_teacher': {
    'num_epochs': _EPOCHS,
    'learning_rate': _ASCENT_RATE,
    'retain_fraction': Choice((0.3, 1.0)),
    'temperature': Choice((1.0, 2.0, 4.0)),
  },
  'boundary_shrink': {
    'num_epochs': _EPOCHS,
    'learning_rate': _ASCENT_RATE,
    'epsilon': Choice((0.03, 0.1, 0.3)),
  },
  'cf_k': {
    'num_layers': Choice((1, 2, 3)),
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
  },
  'cmf': {'scale': Log(5.0, 50.0), 'encoder_epochs': Choice((0, 1, 3, 5))},
  'ct': {'num_epochs': _PASSES, 'learning_rate': _RETAIN_RATE},
  'datamodel_matching': {'num_epochs': _PASSES, 'learning_rate': _RETAIN_RATE},
  'delete': {'num_epochs': _EPOCHS, 'learning_rate': _ASCENT_RATE},
  'dlfd': {
    'learning_rate': Log(3e-4, 0.1),
    'step_size': Choice((0.004, 0.008, 0.016, 0.03)),
    'num_steps': Choice((2, 5)),
    'ot_weight': Choice((1.0, 3.0, 10.0)),
    'stop_threshold': Choice((0.01, 0.03, 0.06)),
  },
  'duck': {
    'num_epochs': Choice((5, 10, 30)),
    'learning_rate': _RETAIN_RATE,
    'distance_weight': Log(0.3, 10.0),
  },
  'esc': {'forget_share': Choice((0.01, 0.015, 0.03, 0.06))},
  'esc_t': {'learning_rate': Log(0.1, 100.0), 'threshold': Choice((0.5, 0.7, 0.9))},
  'eu_k': {
    'num_layers': Choice((1, 2, 3)),
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
  },
  'finetune': {'num_epochs': _PASSES, 'learning_rate': Log(3e-3, 0.3)},
  'fisher': {'noise': Log(1e-9, 1e-4), 'max_variance': Log(1e-5, 1e-2)},
  'gradient_ascent': {'num_epochs': _EPOCHS, 'learning_rate': _ASCENT_RATE},
  'influence': {'scale': Log(0.1, 100.0), 'damping': Log(1e-4, 0.1)},
  'jit': {
    'num_epochs': Choice((1, 2, 3)),
    'learning_rate': _ASCENT_RATE,
    'noise': Choice((0.1, 0.25, 0.5)),
  },
  'l1_sparse': {
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
    'l1_weight': Log(1e-5, 1e-2),
  },
  'l2ul': {
    'learning_rate': _ASCENT_RATE,
    'regularization': Log(0.1, 10.0),
    'stop_accuracy': Choice((0.1, 0.3, 0.5, 0.7, 0.9)),
  },
  'lotus': {
    'num_epochs': _PASSES,
    'learning_rate': Log(1e-4, 3e-3),
    'smoothing': Choice((1.0, 2.0, 4.0, 8.0)),
  },
  'msg': {
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
    'reset_share': Choice((0.1, 0.3, 0.5)),
    'kept_rate': Choice((0.03, 0.1, 0.3, 1.0)),
  },
  'muda': {
    'rounds': Choice((1, 2, 3, 5, 8)),
    'da_target': Choice(('highest', 'retain')),
    'da_weight': Log(0.05, 50.0),
    'energy': Choice((0.8, 0.9, 0.95, 0.99)),
    'learning_rate': Log(1e-4, 0.1),
    'recover_learning_rate': Log(1e-4, 0.1, stands_for='learning_rate'),
    'forget_steps': Choice((2, 4, 8, 16, 64)),
    'stop_at': Choice(('validation', 'never')),
    'recover_epochs': Choice((0.1, 0.2, 0.5, 1, 2, 5)),
    'retain_fraction': Choice((0.1, 0.3, 1.0)),
    'teacher': Choice(('original', 'current', 'unmasked')),
  },
  'neggrad_plus': {
    'num_epochs': _EPOCHS,
    'learning_rate': _RETAIN_RATE,
    'retain_weight': Choice((0.8, 0.9, 0.95, 0.98, 0.99, 0.995)),
  },
  'negmerge': {
    'num_epochs': _PASSES,
    'learning_rate': Log(0.01, 0.5),
    'control_share': Choice((0.95, 0.98, 0.99)),
  },
  'noisy_finetune': {'num_epochs': _PASSES, 'radius': Log(0.03, 3.0)},
  'pbu': {
    'learning_rate': _ASCENT_RATE,
    'fisher_weight': Log(10.0, 1e4),
    'distance_weight': Log(0.1, 10.0),
    'stop_accuracy': Choice((0.02, 0.1, 0.3)),
  },
  'random_label': {'num_epochs': _PASSES, 'learning_rate': _RETAIN_RATE},
  'salun': {
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
    'saliency': Choice((0.2, 0.5, 0.8)),
  },
  'scrub': {
    'num_epochs': Choice((4, 6, 10)),
    'forget_epochs': Choice((1, 2, 3)),
    'learning_rate': _RETAIN_RATE,
    'forget_learning_rate': Log(1e-5, 0.1),
    'distillation_weight': Log(1e-3, 1.0),
  },
  'sfron': {
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
    'ascent_weight': Log(1.0, 100.0),
    'forget_every': Choice((1, 2, 5, 10)),
  },
  'ssd': {'selection_weight': Log(1.0, 10.0, 3.0), 'dampening': Log(0.05, 1.0)},
  'svd_projection': {
    'retain_scale': Choice((10.0, 30.0, 100.0, 300.0, 1000.0)),
    'forget_scale': Choice((1.0, 3.0, 10.0, 30.0, 100.0)),
  },
  'task_vector': {
    'num_epochs': _PASSES,
    'learning_rate': Log(0.01, 0.5),
    'control_share': Choice((0.95, 0.98, 0.99)),
  },
  'tmu': {
    'num_epochs': _PASSES,
    'learning_rate': _RETAIN_RATE,
    'easy_weight': Choice((0.5, 1.0, 2.0)),
    'hard_weight': Choice((0.3, 1.0, 3.0)),
    'teacher': Choice(('masked', 'uninformed', 'random_label')),
  },
  'unsir': {
    'impair_epochs': Choice((1, 2)),
    'repair_epochs': Choice((1, 3, 5)),
    'impair_learning_rate': Log(3e-4, 3e-2),
    'repair_learning_rate': _RETAIN_RATE,
    'retain_fraction': Choice((0.3, 1.0)),
  },
}

"""Training: one SPMD step, epochs of steps that resume, plain fitting, ensembles."""

from dalign_jax.training._ensemble import MAPPINGS, fit_ensemble
from dalign_jax.training._epochs import (
  epoch_rng,
  init_state,
  paired_batches,
  run_epochs,
  split,
)
from dalign_jax.training._errors import NonFiniteLossError
from dalign_jax.training._feeding import PLACES, HostData, keep_data_on_device, put_data
from dalign_jax.training._fit import (
  ClassificationLoss,
  check_labels,
  check_problem,
  fit,
  minimize,
  recipe_optimizer,
)
from dalign_jax.training._forward import forward
from dalign_jax.training._steps import (
  Step,
  make_step,
  run_sharded_steps,
  run_steps,
  step_fn,
  to_float,
)

__all__ = [
  'MAPPINGS',
  'PLACES',
  'ClassificationLoss',
  'HostData',
  'NonFiniteLossError',
  'Step',
  'check_labels',
  'check_problem',
  'epoch_rng',
  'fit',
  'fit_ensemble',
  'forward',
  'init_state',
  'keep_data_on_device',
  'make_step',
  'minimize',
  'paired_batches',
  'put_data',
  'recipe_optimizer',
  'run_epochs',
  'run_sharded_steps',
  'run_steps',
  'split',
  'step_fn',
  'to_float',
]

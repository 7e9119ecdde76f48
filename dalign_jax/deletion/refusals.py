"""Requests that are refused before any work: they could not forget, or nobody could tell."""

from dalign_jax import errors, hparams, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import evidence, verdict_rules

CONTROLS = {  # methods that are there to be caught
  'original': 'is the model as it is',
  'planted_leak': 'trains further on what is to be forgotten',
  'head_only': 'changes one bias, and every feature stays',
  'oracle_matching': 'needs the retrained model, which makes it pointless',
}
DOES_THE_WORK = {  # hyper-parameters that must not be 0, and of which methods
  'num_epochs': None,  # any method
  'rounds': None,
  'forget_epochs': None,
  'impair_epochs': None,
  'scale': ('influence',),
  'noise': ('fisher', 'jit'),
}


def check_settings(request: settings_lib.Request) -> None:
  """Checks method and hyper-parameters, before the data are read.

  Raises:
    errors.InputError: for a control, a method that is set to do nothing, or settings of others.
  """
  if request.method in CONTROLS:
    raise errors.InputError(
      f'{request.method} is a control of the benchmark: it {CONTROLS[request.method]}',
      argument='method',
    )
  hparams.check_own(request.method, request.hparam)
  values = hparams.resolve((request.method,), request.hparam, 'method')[request.method]
  for name, methods in DOES_THE_WORK.items():
    if values.get(name) == 0 and (methods is None or request.method in methods):
      raise errors.InputError(
        f'{request.method}.{name} must be above 0 to forget anything, got 0', argument='hparam'
      )


def check_model(problem: types.Problem) -> None:
  """Checks that the model knows its training samples.

  Raises:
    errors.InputError: if it recognises no more of them than who always names the commonest label.
  """
  accuracy, guess, error = evidence.knowledge(problem)
  needed = {rule.key: rule.threshold for rule in verdict_rules.RULES}['knowledge']
  if accuracy <= guess + needed * error:
    raise errors.InputError(
      f'the model recognises {100 * accuracy:.1f} % of its training samples, and always naming the '
      f'commonest label is right in {100 * guess:.1f} %: it knows nothing that it could forget. Is '
      'it the model of these data, with these labels?',
      argument='checkpoint',
    )

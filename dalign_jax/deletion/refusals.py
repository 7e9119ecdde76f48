"""Requests that are refused before any work: they could not forget, or nobody could tell."""

from collections.abc import Mapping

import numpy as np

from dalign_jax import errors, hparams, pretrained, seeds, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import copies, evidence, verdict_rules

CONTROLS = {  # methods that are there to be caught
  'original': 'is the model as it is',
  'planted_leak': 'trains further on what is to be forgotten',
  'head_only': 'changes one bias, and every feature stays',
  'oracle_matching': 'needs the retrained model, which makes it pointless',
}
MOST_SHARED = 0.01  # of the held-out samples may have a picture of the training set
DOES_THE_WORK = {  # hyper-parameters that must not be 0, and of which methods
  'num_epochs': None,  # any method
  'rounds': None,
  'forget_epochs': None,
  'forget_steps': None,
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


def check_start(problem: types.Problem, request: settings_lib.Request) -> None:
  """Checks that a model that is trained anew does not start from what it is to forget.

  Args:
    problem: of the request.
    request: its flags.

  Raises:
    errors.InputError: if fresh weights are those of the model, or are the same for every key.
  """
  if request.method != 'retrain' and not request.compare_gold:
    return
  drawn = [problem.init_fn(seeds.stream(number, 'template')) for number in range(2)]
  if not evidence.parameters_moved(problem.original, drawn[0]):
    raise errors.InputError(
      'the weights that a retrained model starts from are those of the model that is to forget',
      argument='pretrained',
    )
  is_loaded = isinstance(problem.init_fn, pretrained.Init)
  if not is_loaded and not evidence.parameters_moved(*drawn):
    raise errors.InputError(
      'its init_fn gives the same weights for every key, and nobody can say what they have seen; '
      'load weights by --pretrained',
      argument='model',
    )


def check_held_out(sets: Mapping[str, types.Dataset], rows: np.ndarray) -> None:
  """Checks that held-out samples were held out: that the model was not trained on them.

  Args:
    sets: train, validation and test.
    rows: of the training set, to forget.

  Raises:
    errors.InputError: if more than `MOST_SHARED` of them, or of the samples to forget, have the
      pixels of one of the other side.
  """
  pixels = {name: np.array(copies.digests(part.images)) for name, part in sets.items()}
  for name in ('validation', 'test'):
    seen = sets[name].ids[np.isin(pixels[name], pixels['train'])]
    _check_shared(seen, len(pixels[name]), f'{name} samples are in the training set')
    asked = sets['train'].ids[rows[np.isin(pixels['train'][rows], pixels[name])]]
    _check_shared(asked, len(rows), f'samples to forget are among the {name} samples')


def _check_shared(ids, count, what):
  """Raises if too many of so many samples are on the other side as well."""
  if len(ids) > MOST_SHARED * count:
    raise errors.InputError(
      f'{len(ids)} of {count} {what} (equal pixels), such as {str(ids[0])!r}; name data that the '
      'model was not trained on',
      argument='held_out',
    )

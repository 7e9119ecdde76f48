"""The arguments by which a module receives its mode, training or evaluation."""

from collections.abc import Callable, Iterable, Mapping
import inspect
import re

from dalign_jax import errors

IN_TRAINING = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}


_MODE = re.compile('train|drop|determin|eval|infer')  # names of switches that are not known


def of_call(function: Callable, *, needs_flag: bool) -> tuple[dict[str, bool], bool]:
  """The flags of a module's `__call__(self, images, ...)`.

  Args:
    function: the unbound method.
    needs_flag: whether a further argument that is no known flag, and has a default, may be the one
      that decides, where there is no known flag.

  Returns:
    The flags with their values in training, and whether the call takes `rngs`.

  Raises:
    errors.InputError: for an argument whose value must be guessed.
  """
  further = list(inspect.signature(function).parameters.values())[2:]
  named = {p.name: p for p in further if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
  takes_rngs = named.pop('rngs', None) is not None
  flags = among(named)
  others = {name: p for name, p in named.items() if name not in flags}
  unclear = [
    name
    for name, p in others.items()
    if p.default is p.empty or (isinstance(p.default, bool) and _MODE.search(name))
  ]
  if needs_flag and not flags:
    unclear = list(others)
  if unclear:
    raise errors.InputError(
      f'cannot tell what to pass for {", ".join(unclear)}, since the flags of training that are '
      f'known are {", ".join(IN_TRAINING)}: pass call=lambda module, images, train: ...',
      argument='call',
    )
  return flags, takes_rngs


def among(names: Iterable[str]) -> dict[str, bool]:
  """Those names that are flags, with their values in training."""
  return {name: IN_TRAINING[name] for name in names if name in IN_TRAINING}


def values(flags: Mapping[str, bool], train: bool) -> dict[str, bool]:
  """What to pass for the flags."""
  return {name: in_training == train for name, in_training in flags.items()}


def in_words(flags: Mapping[str, bool]) -> str:
  """The flags in training, for a reader."""
  return ', '.join(f'{name}={value}' for name, value in flags.items())

"""What both adapters ask of layers: the features of the head, and synchronised batch norm."""

from collections.abc import Sequence

import jax

from dalign_jax import errors, parallel, types

_MOST_SHOWN = 8


def path_of(head: str | Sequence[str | int]) -> tuple[str, ...]:
  """'encoder.head' or a sequence of names as a path."""
  return tuple(head.split('.')) if isinstance(head, str) else tuple(map(str, head))


def absent(head: tuple[str, ...], candidates: Sequence[str]) -> errors.InputError:
  """The error that no layer is at `head`."""
  shown = ', '.join(map(repr, candidates[-_MOST_SHOWN:])) or 'none that could be meant'
  return errors.InputError(
    f'must name the last layer, got {".".join(head)!r}; there are {shown}', argument='head'
  )


def only_features(seen: Sequence[types.Array], head: tuple[str, ...]) -> types.Array:
  """The one input `[B, D]` of the head."""
  name = '.'.join(head)
  if len(seen) != 1:
    raise errors.InputError(
      f'the network called {name!r} {len(seen)} times, not once: head must name the last layer',
      argument='head',
    )
  features = seen[0]
  if features.ndim != 2:
    raise errors.InputError(
      f'{name!r} must be called with features [B, D], got shape {list(features.shape)}',
      argument='head',
    )
  return features


def check_batch_norm(path: str, axis_name: str | Sequence[str] | None) -> None:
  """Checks a batch norm that takes its batch's statistics, as the network is traced.

  Raises:
    errors.InputError: where several devices share the batch and it would see its device's alone,
      or where its axis is not the one that the step is mapped over.
  """
  count = _axis_size()
  names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
  if count is None or parallel.AXIS in names or (count == 1 and not names):
    return
  said = f'axis_name={axis_name!r}' if names else 'no axis_name'
  raise errors.InputError(
    f'the batch norm {path!r} has {said}, so that each of {count} devices would normalise by its '
    f'own part of the batch: give it axis_name={parallel.AXIS!r} in training (parallel.AXIS)'
    + ('' if names else ', or use one device')
  )


def _axis_size() -> int | None:
  """Number of devices that share the batch, None outside of a step."""
  try:
    return jax.lax.axis_size(parallel.AXIS)
  except NameError:
    return None

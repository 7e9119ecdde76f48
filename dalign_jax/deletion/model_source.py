"""The model that a request starts from, wherever it lies and in whatever form."""

import json
import pathlib
from typing import Any, NamedTuple

from dalign_jax import checkpoints, digests, errors, foreign, locate, pretrained, types
from dalign_jax.store import progress

WRITTEN = {  # names of a model in --out, in the form that it came in
  'orbax': 'orbax',
  'msgpack': 'model.msgpack',
  'safetensors': 'model.safetensors',
  'npz': 'model.npz',
}


class Taken(NamedTuple):
  """A model, and where it was.

  Attributes:
    model: on the host.
    found: the checkpoint.
    form: that the model came in first, empty where it is one of this library.
    fitted: where its arrays were, None where it is one of this library.
  """

  model: types.ModelState
  found: locate.Checkpoint
  form: str = ''
  fitted: foreign.Fitted | None = None

  def described(self) -> dict[str, Any]:
    """The words of the record."""
    found = self.found
    return {
      'path': str(found.path),
      'form': found.form,
      'step': found.step,
      'other_steps': found.others,
      'part': self.fitted.note if self.fitted else '',
      'written': WRITTEN[self.form] if self.form else '',
    }


def take(
  found: locate.Checkpoint, template: types.ModelState, item: str, record: dict | None
) -> Taken:
  """Reads a model, and says which.

  Args:
    found: by `locate.find`.
    template: that the model must equal in structure, shapes and dtypes.
    item: which of several.
    record: of the request that left the model, None if none did.

  Raises:
    errors.InputError: if it cannot be read or does not fit, or several parts of it could be meant.
  """
  progress.say(f'checkpoint: {found}')
  if _is_own(found, record):
    taken = Taken(_own(found, template), found)
  else:
    fitted = foreign.fit(foreign.read(found), template, item)
    progress.say(f'  {fitted.note}')
    taken = Taken(fitted.model, found, found.form, fitted)
  return _as_first(taken, template, record) if record else taken


def as_pretrained(taken: Taken, init_fn) -> Taken:
  """A model of this library, with the names that its pretrained weights had, if it has any."""
  if taken.form or not isinstance(init_fn, pretrained.Init):
    return taken
  return taken._replace(form=init_fn.form, fitted=init_fn.fitted)


def write(folder: pathlib.Path, taken: Taken, model: types.ModelState) -> None:
  """Writes an unlearned model in the form that it came in, and reads it back.

  Args:
    folder: where to.
    taken: the model before.
    model: the model after.
  """
  if not (taken.form and taken.fitted):
    return
  path = folder / WRITTEN[taken.form]
  foreign.write(path, taken.fitted.arrays_of(model), taken.form)
  if written(folder, model) != {path.name: digests.of_model(model)}:
    raise errors.InputError(f'{path} does not give back the model that was written')
  progress.say(f'model: {path.name}, in the form that it came in')


def written(folder: pathlib.Path, template: types.ModelState) -> dict[str, str]:
  """Digests of the models beside `model/` in the folder of a request, by their names.

  Args:
    folder: of the request.
    template: that they must equal in structure, shapes and dtypes.

  Raises:
    errors.InputError: if one cannot be read or does not fit.
  """
  there = [folder / name for name in sorted(WRITTEN.values()) if (folder / name).exists()]
  return {path.name: digests.of_model(_fit_at(path, template).model) for path in there}


def _is_own(found: locate.Checkpoint, record: dict | None) -> bool:
  """Whether a checkpoint is one of this library; others may have items of the same names."""
  metadata = found.path.parent / 'metadata'
  if found.path.name != 'state' or not metadata.is_dir():
    return False
  if record or any((place / 'problem.json').is_file() for place in found.path.parents):
    return True
  try:
    said = json.loads((metadata / 'metadata').read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError):
    return True  # and damaged
  return digests.is_ours(said)


def _own(found, template) -> types.ModelState:
  root, step = found.path.parents[1], found.path.parent.name
  newest = checkpoints.latest_epoch(root)
  if step != str(newest):
    raise errors.InputError(f'{found.path} is not the newest of its folder, which is step {newest}')
  return checkpoints.restore(root, template)[0]


def _as_first(taken: Taken, template, record) -> Taken:
  """A model of an earlier request, with the names that it had where it first came from."""
  written = record['configuration'].get('taken', {}).get('written', '')
  form = next((form for form, name in WRITTEN.items() if name == written), '')
  out = next((p for p in taken.found.path.parents if (p / 'record.json').is_file()), None)
  if taken.fitted or not form or out is None or not (out / written).exists():
    return taken
  return taken._replace(form=form, fitted=_fit_at(out / written, template))


def _fit_at(path, template):
  return foreign.fit(foreign.read(locate.find(path)), template)

"""Data, network, recipe and devices from settings."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import importlib
import os
import re
from typing import Any

import jax

from dalign_jax import data as data_lib
from dalign_jax import (
  errors,
  foreign,
  methods,
  models,
  parallel,
  precision,
  pretrained,
  trainable,
  types,
)
from dalign_jax import settings as settings_lib
from dalign_jax.store import progress


def load(
  settings: settings_lib.Settings,
  split: str,
  class_names: tuple[str, ...] | None = None,
  *,
  channels: int = 0,
) -> data_lib.Source:
  """Reads a split of the data set.

  Args:
    settings: of the run.
    split: its name.
    class_names: those of the training split, None for it.
    channels: as well, 0 for it.

  Raises:
    errors.InputError: naming the flag.
  """
  with errors.blame('dataset'), progress.bar(f'decode {settings.dataset}') as shown:
    source = data_lib.load(
      settings.dataset,
      data_dir=os.path.expanduser(settings.data_dir) or None,
      split=split,
      image_key=settings.image_key,
      label_key=settings.label_key,
      group_key=settings.group_key or None,
      id_key=settings.id_key or None,
      image_size=settings.image_size or None,
      cache_dir=os.path.expanduser(settings.cache_dir) or None,
      class_names=class_names,
      skip_unreadable=settings.skip_unreadable,
      channels=channels or settings.channels,
      progress=functools.partial(shown.update, note='images'),
    )
  found = source.dataset.images.shape[-1]
  if settings.channels not in (0, found):
    raise errors.InputError(
      f'{settings.dataset} has images of {found} channels, which are taken as they are; only '
      f'pictures are read as others, got {settings.channels}',
      argument='channels',
    )
  return source


def network(
  settings: settings_lib.Settings, image_shape: tuple[int, ...], num_classes: int
) -> tuple[types.ApplyFn, Callable[[jax.Array], types.ModelState]]:
  """The network that `--model` names, of the library or of the user's own.

  Raises:
    errors.InputError: naming the flag.
  """
  with errors.blame('model'):
    apply_fn, init_fn = _network(settings, image_shape, num_classes)
  if settings.pretrained:
    init_fn = _start(settings, init_fn, image_shape)
  return precision.computing_in(apply_fn, settings.compute_dtype), init_fn


def _network(settings, image_shape, num_classes):
  if ':' in settings.model:
    usual = settings_lib.Settings()
    for name in ('remat', 'norm', 'width_multiplier', 'stem', 'input_statistics'):
      if getattr(settings, name) != getattr(usual, name):
        instead = 'use jax.checkpoint in your own' if name == 'remat' else 'your own does so itself'
        raise errors.InputError(f'is for networks of the library; {instead}', argument=name)
    return _own_network(settings.model)(num_classes=num_classes, image_shape=image_shape)
  mean, std = pretrained.STATISTICS[settings.input_statistics]
  return models.build(
    settings.model,
    num_classes=num_classes,
    image_shape=image_shape,
    mean=mean,
    std=std,
    norm=settings.norm,
    width_multiplier=settings.width_multiplier,
    stem=settings.stem,
    remat=settings.remat,
    axis_name=parallel.AXIS,
  )


def _start(settings, init_fn, image_shape) -> pretrained.Init:
  with errors.blame('pretrained'):
    start = pretrained.start(init_fn, settings.pretrained, image_shape)
  check_statistics(settings, start.fitted)
  for note in (f'pretrained: {settings.pretrained}', *start.notes):
    progress.say(f'  {note}')
  return start


def check_statistics(settings: settings_lib.Settings, fitted: foreign.Fitted) -> None:
  """Raises if nobody said how pixels were normalised for weights of a PyTorch library."""
  is_own = ':' in settings.model  # and normalises by itself
  if fitted.layout and settings.input_statistics == 'centred' and not is_own:
    raise errors.InputError(
      f'the weights are of a {fitted.layout.name}: say how its pixels were normalised, imagenet '
      '(torchvision, DeiT, ResNets of timm) or half (most transformers of timm)',
      argument='input_statistics',
    )


def _own_network(name):
  module, _, function = name.partition(':')
  try:
    make = getattr(importlib.import_module(module), function, None)
  except ModuleNotFoundError as error:
    if error.name != module:
      raise  # something that the module itself imports
    raise errors.InputError(f'there is no module {module!r} on the Python path') from error
  if not callable(make):
    raise errors.InputError(f'module {module} has no function {function!r}')
  return make


def devices(settings: settings_lib.Settings) -> tuple[jax.Device, ...] | None:
  """The devices that `--num_devices` asks for, None for all.

  Raises:
    errors.InputError: if there are not so many.
  """
  if not settings.num_devices:
    return None
  if jax.process_count() > 1:
    raise errors.InputError(
      'several processes use all of their devices; leave it out', argument='num_devices'
    )
  available = jax.devices()
  if settings.num_devices > len(available):
    raise errors.InputError(
      f'{settings.num_devices} wanted, {len(available)} available', argument='num_devices'
    )
  return tuple(available[: settings.num_devices])


def recipe(settings: settings_lib.Settings) -> types.Recipe:
  """The training recipe of originals and gold models."""
  fields = dataclasses.fields(types.Recipe)
  return types.Recipe(**{field.name: getattr(settings, field.name) for field in fields})


def method(settings: settings_lib.Settings, name: str, values: Mapping[str, Any]):
  """An unlearning method with its hyper-parameters, restricted and stepping as the settings say.

  Args:
    settings: of the run.
    name: of the method.
    values: its hyper-parameters.

  Raises:
    errors.InputError: for a hyper-parameter that it cannot have, or a restriction that does not go
      with it.
  """
  with errors.blame('hparam'):
    unlearn_fn = methods.METHODS[name].make(**values)
  reasons = {'retrain': 'is exact because it trains every parameter anew'}
  if methods.METHODS[name].guarantee:
    reasons[name] = 'has a guarantee for all parameters together'
  if (settings.trainable or settings.lora_rank) and name in reasons:
    raise errors.InputError(
      f'{name} {reasons[name]}; leave it out, or the restriction',
      argument='trainable' if settings.trainable else 'lora_rank',
    )
  if settings.lora_rank and name in methods.WHOLE_WEIGHTS:
    raise errors.InputError(
      f'{name} {methods.WHOLE_WEIGHTS[name]}; leave it out, or the adapters', argument='lora_rank'
    )
  steps = _steps(settings)
  if steps and name in methods.OWN_STEPS:
    raise errors.InputError(
      f'{name} {methods.OWN_STEPS[name]}; leave it out, or the flag', argument=next(iter(steps))
    )
  restricted = trainable.restricted(
    unlearn_fn, trainable=settings.trainable, lora_rank=settings.lora_rank
  )
  return _Stepping(restricted, settings.method_optimizer, settings.method_schedule)


@dataclasses.dataclass(frozen=True)
class _Stepping:
  """A method whose steps are those of an optimizer and a schedule."""

  unlearn_fn: types.UnlearnFn
  optimizer: str
  schedule: str

  def __call__(self, problem: types.Problem, key: jax.Array) -> types.ModelState:
    own = dataclasses.replace(problem, optimizer=self.optimizer, schedule=self.schedule)
    return self.unlearn_fn(own, key)


def _steps(settings) -> dict[str, str]:
  """Settings of a method's steps that are not the papers'."""
  usual = {'method_optimizer': 'sgd', 'method_schedule': 'constant'}
  return {k: getattr(settings, k) for k, v in usual.items() if getattr(settings, k) != v}


def restriction(settings: settings_lib.Settings) -> dict[str, Any]:
  """What a record says of a method's restriction and steps: nothing where they are as usual."""
  found = {'trainable': list(settings.trainable), 'lora_rank': settings.lora_rank}
  return {name: value for name, value in found.items() if value} | _steps(settings)


def restricted_label(settings: settings_lib.Settings, label: str) -> str:
  """The name of a run, and how its method was restricted or stepped; fit for a folder.

  Example:
    >>> restricted_label(settings_lib.Settings(trainable=('^head/',), lora_rank=4), 'muda')
    'muda,trainable=_head_,lora_rank=4'
  """
  found = restriction(settings)
  if 'trainable' in found:
    found['trainable'] = re.sub(r'[^\w.+-]', '_', '+'.join(found['trainable']))
  return ','.join([label, *(f'{name}={value}' for name, value in found.items())])


def check_batch_size(name: str, batch_size: int, devices: parallel.Devices) -> None:
  """Raises unless every device gets an equal part of a batch."""
  count = parallel.num_devices(devices)
  if batch_size < 1 or batch_size % count:
    raise errors.InputError(
      f'must be a positive multiple of the {count} devices, got {batch_size}', argument=name
    )

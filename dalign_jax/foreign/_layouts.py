"""Layouts of PyTorch models: which of their arrays are which of ours, and how axes lie."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import functools
import re
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import errors

Path = tuple[str, ...]


class Form(NamedTuple):
  """How the axes of an array lie.

  Attributes:
    axes: number of axes in theirs, None for any.
    ours: their array as ours.
    theirs: our array as theirs, of which the shape is given.
  """

  axes: int | None
  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray, Sequence[int]], np.ndarray]


FORMS = {
  'as it is': Form(None, lambda x: x, lambda x, shape: x),
  'dense': Form(2, lambda x: x.T, lambda x, shape: x.T),
  'convolution': Form(  # [out, in, h, w] and [h, w, in, out]
    4, lambda x: x.transpose(2, 3, 1, 0), lambda x, shape: x.transpose(3, 2, 0, 1)
  ),
  'patches': Form(  # [out, in, h, w] and [h * w * in, out]
    4,
    lambda x: x.transpose(2, 3, 1, 0).reshape(-1, len(x)),
    lambda x, shape: x.reshape(*shape[2:], *shape[1::-1]).transpose(3, 2, 0, 1),
  ),
}
_BIAS = ('bias', 'params', 'bias', 'as it is')
LAYERS = {  # kind of layer -> their array, our collection, our array, the form
  'array': (('', 'params', '', 'as it is'),),
  'dense': (('weight', 'params', 'kernel', 'dense'), _BIAS),
  'patches': (('weight', 'params', 'kernel', 'patches'), _BIAS),
  'convolution': (('weight', 'params', 'kernel', 'convolution'),),
  'attention input': (
    ('in_proj_weight', 'params', 'kernel', 'dense'),
    ('in_proj_bias', 'params', 'bias', 'as it is'),
  ),
  'norm': (('weight', 'params', 'scale', 'as it is'), _BIAS),
  'batch norm': (
    ('weight', 'params', 'scale', 'as it is'),
    _BIAS,
    ('running_mean', 'batch_stats', 'mean', 'as it is'),
    ('running_var', 'batch_stats', 'var', 'as it is'),
  ),
}
_NOT_NEEDED = 'num_batches_tracked'  # PyTorch counts batches; at a fixed momentum, for nothing

Row = tuple[str, tuple[str, ...], str]  # their layer, ours (several lie in one of theirs), the kind


def _attention(block: str) -> tuple[str, ...]:
  return tuple(f'{block}/{name}' for name in ('query', 'key', 'value'))


_TIMM_TRANSFORMER: tuple[Row, ...] = (
  ('cls_token', ('class_token',), 'array'),
  ('pos_embed', ('position_embedding',), 'array'),
  ('patch_embed.proj', ('patch_embedding',), 'patches'),
  ('blocks.{n}.norm1', ('_Block_{n}/LayerNorm_0',), 'norm'),
  ('blocks.{n}.attn.qkv', _attention('_Block_{n}'), 'dense'),
  ('blocks.{n}.attn.proj', ('_Block_{n}/out',), 'dense'),
  ('blocks.{n}.norm2', ('_Block_{n}/LayerNorm_1',), 'norm'),
  ('blocks.{n}.mlp.fc1', ('_Block_{n}/Dense_0',), 'dense'),
  ('blocks.{n}.mlp.fc2', ('_Block_{n}/Dense_1',), 'dense'),
  ('norm', ('LayerNorm_0',), 'norm'),
  ('head', ('head',), 'dense'),
)
_BLOCK = 'encoder.layers.encoder_layer_{n}'
_TORCHVISION_TRANSFORMER: tuple[Row, ...] = (
  ('class_token', ('class_token',), 'array'),
  ('encoder.pos_embedding', ('position_embedding',), 'array'),
  ('conv_proj', ('patch_embedding',), 'patches'),
  (f'{_BLOCK}.ln_1', ('_Block_{n}/LayerNorm_0',), 'norm'),
  (f'{_BLOCK}.self_attention', _attention('_Block_{n}'), 'attention input'),
  (f'{_BLOCK}.self_attention.out_proj', ('_Block_{n}/out',), 'dense'),
  (f'{_BLOCK}.ln_2', ('_Block_{n}/LayerNorm_1',), 'norm'),
  (f'{_BLOCK}.mlp.0', ('_Block_{n}/Dense_0',), 'dense'),
  (f'{_BLOCK}.mlp.3', ('_Block_{n}/Dense_1',), 'dense'),
  ('encoder.ln', ('LayerNorm_0',), 'norm'),
  ('heads.head', ('head',), 'dense'),
)


def _of_transformer(rows: Sequence[Row], block: str, names: Collection[str]) -> Iterator[Row]:
  """The rows, those of a block once for each block."""
  numbers = {int(m[1]) for name in names if (m := re.match(block, name))}
  for theirs, ours, kind in rows:
    for n in sorted(numbers) if '{n}' in theirs else (0,):
      yield theirs.format(n=n), tuple(name.format(n=n) for name in ours), kind


def _of_residual(names: Collection[str]) -> Iterator[Row]:
  """Convolutions and norms in the order of the network, which numbers ours."""
  blocks = {
    (int(m[1]), int(m[2])) for name in names if (m := re.match(r'layer(\d+)\.(\d+)\.', name))
  }
  pairs = [('conv1', 'bn1')]
  for stage, block in sorted(blocks):
    inside = [(f'conv{i}', f'bn{i}') for i in (1, 2, 3)] + [('downsample.0', 'downsample.1')]
    pairs += [(f'layer{stage}.{block}.{conv}', f'layer{stage}.{block}.{bn}') for conv, bn in inside]
  there = [(conv, norm) for conv, norm in pairs if f'{conv}.weight' in names]
  for number, (conv, norm) in enumerate(there):
    yield conv, (f'Conv_{number}',), 'convolution'
    yield norm, (f'BatchNorm_{number}',), 'batch norm'
  yield 'fc', ('head',), 'dense'


class _Layout(NamedTuple):
  """A layout: its name, an array that no other has, and its rows for the arrays of a file."""

  name: str
  mark: str
  rows: Callable[[Collection[str]], Iterator[Row]]


LAYOUTS = (
  _Layout(
    'vision transformer of timm',
    'blocks.0.attn.qkv.weight',
    functools.partial(_of_transformer, _TIMM_TRANSFORMER, r'blocks\.(\d+)\.'),
  ),
  _Layout(
    'vision transformer of torchvision',
    f'{_BLOCK.format(n=0)}.self_attention.in_proj_weight',
    functools.partial(
      _of_transformer, _TORCHVISION_TRANSFORMER, r'encoder\.layers\.encoder_layer_(\d+)\.'
    ),
  ),
  _Layout('ResNet of torchvision and timm', 'layer1.0.bn1.running_mean', _of_residual),
)


class Entry(NamedTuple):
  """One array of theirs: ours, by path, one after the other along its first axis."""

  name: str
  ours: tuple[Path, ...]
  form: Form
  shape: tuple[int, ...]  # empty where the file lacks it, as a head may be


class Layout(NamedTuple):
  """The layout of a file.

  Attributes:
    name: in words.
    entries: of its arrays, and of those that it lacks.
  """

  name: str
  entries: tuple[Entry, ...]

  def ours(self, arrays: Mapping[str, np.ndarray]) -> dict[Path, np.ndarray]:
    """Their arrays under our paths, as our axes lie."""
    found = {}
    for entry in (e for e in self.entries if e.name in arrays):
      parts = np.split(arrays[entry.name], len(entry.ours)) if entry.ours[1:] else None
      for path, part in zip(entry.ours, parts or [arrays[entry.name]], strict=True):
        found[path] = entry.form.ours(part)
    return found

  def theirs(self, arrays: Mapping[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    """The inverse of `ours`, under paths of one part."""
    found: dict[Path, Any] = {}
    for entry in self.entries:
      parts = [entry.form.theirs(arrays[path], entry.shape) for path in entry.ours]
      found[(entry.name,)] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return found


def recognise(arrays: Mapping[str, np.ndarray]) -> Layout | None:
  """The layout of arrays, by their names; None where they are of none.

  Args:
    arrays: by name.

  Raises:
    errors.InputError: for an array that the layout does not have, or whose axes it cannot have.

  Example:
    >>> recognise({'hidden.kernel': np.zeros(2)}) is None
    True
  """
  layout = next((layout for layout in LAYOUTS if layout.mark in arrays), None)
  if layout is None:
    return None
  entries = []
  for theirs, ours, kind in layout.rows(arrays.keys()):
    for their_array, collection, our_array, form in LAYERS[kind]:
      name = '.'.join(filter(None, (theirs, their_array)))
      paths = tuple((collection, *layer.split('/'), *filter(None, (our_array,))) for layer in ours)
      shape = arrays[name].shape if name in arrays else ()
      entries.append(Entry(name, paths, FORMS[form], shape))
      if name in arrays:
        _check_axes(layout.name, entries[-1])
  unknown = [n for n in arrays.keys() - {e.name for e in entries} if not n.endswith(_NOT_NEEDED)]
  if unknown:
    first = min(unknown)
    raise errors.InputError(
      f'it is a {layout.name} with {len(unknown)} arrays that are not known of one, such as '
      f'{first} {list(arrays[first].shape)}'
    )
  return Layout(layout.name, tuple(entries))


def _check_axes(layout: str, entry: Entry) -> None:
  wanted, number = entry.form.axes, len(entry.ours)
  if (wanted and len(entry.shape) != wanted) or (number > 1 and entry.shape[0] % number):
    parts = f', the first a multiple of {number}' if number > 1 else ''
    raise errors.InputError(
      f'it is a {layout}, whose {entry.name} must have {wanted or 1} axes{parts}; '
      f'it is {list(entry.shape)}'
    )

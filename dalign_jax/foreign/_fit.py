"""Fitting the arrays of another program's checkpoint to a network, by their paths."""

from collections.abc import Iterable, Mapping
import itertools
import re
from typing import NamedTuple

import jax
import numpy as np

from dalign_jax import errors, types
from dalign_jax.foreign import _files, _layouts

_OPTIMIZER = {'opt_state', 'optimizer', 'opt', 'mu', 'nu', 'trace', 'momentum', 'grads', 'slots'}
_SEPARATORS = re.compile(r'[\[\]\'"./]+')


class Fitted(NamedTuple):
  """A model, and where each of its arrays was.

  Attributes:
    model: on the host.
    paths: of the checkpoint, in the order of the model's leaves.
    note: from where in the checkpoint it was taken, and how many arrays were left out.
    layout: of the PyTorch model that it was, None where it was of none.
  """

  model: types.ModelState
  paths: tuple[_files.Path, ...]
  note: str
  layout: _layouts.Layout | None = None

  def arrays_of(self, model: types.ModelState) -> dict[_files.Path, np.ndarray]:
    """The arrays of a model under the names that the checkpoint has for them."""
    arrays = dict(zip(self.paths, map(np.asarray, jax.tree.leaves(model)), strict=True))
    return self.layout.theirs(arrays) if self.layout else arrays


def fit(stored: _files.Stored, template: types.ModelState, item: str = '') -> Fitted:
  """Finds the parameters and batch statistics of a network among the arrays of a checkpoint.

  Names are compared part by part, whatever separates the parts (`a/b`, `a.b`, `['a']['b']`). The
  parameters may lie under any prefix, such as `params` or `params/params`; the optimizer's copies
  are left out.

  Args:
    stored: the arrays.
    template: a state that the model must equal in structure, shapes and dtypes.
    item: the prefix to take, where several fit, such as `ema_params`.

  Raises:
    errors.InputError: names the first array that does not fit, with shapes, or all that could be
      meant where several do.

  Example:
    >>> arrays = {('params.kernel',): np.ones(2), ('opt_state.mu.kernel',): np.zeros(2)}
    >>> import pathlib
    >>> stored = _files.Stored(arrays, 'safetensors', pathlib.Path('model.safetensors'))
    >>> found = fit(stored, types.ModelState({'kernel': np.zeros(2)}, {}))
    >>> found.model.params, found.paths
    ({'kernel': array([1., 1.])}, (('params.kernel',),))
  """
  by_name = {canonical(path): path for path in stored.arrays}
  wanted = {kind: names_of(getattr(template, kind)) for kind in template._fields}
  root = _params_root(stored, by_name, wanted['params'], item)
  roots = {'params': root}
  if wanted['batch_stats']:
    roots['batch_stats'] = _stats_root(by_name, wanted['batch_stats'], root)
  _check(stored, by_name, wanted, roots)
  trees, paths = [], []
  for kind, tree in template._asdict().items():
    names = [roots.get(kind, '') + name for name in wanted[kind]]
    paths += [by_name[name] for name in names]
    leaves = [stored.arrays[by_name[name]] for name in names]
    trees.append(jax.tree.unflatten(jax.tree.structure(tree), leaves))
  left = len(stored.arrays) - len(paths)
  where = stored.layout.name if stored.layout else root.rstrip('/') or 'the whole checkpoint'
  note = (
    f'{where}; {left} other arrays, such as an optimizer state, are left out' if left else where
  )
  return Fitted(types.ModelState(*trees), tuple(paths), note, stored.layout)


def canonical(path: Iterable[str]) -> str:
  """The name of an array, whatever separates its parts: `a/b` of `a.b` and `['a']['b']`."""
  return _SEPARATORS.sub('/', '/'.join(path)).strip('/')


def names_of(tree: types.PyTree) -> dict[str, np.ndarray]:
  """The arrays of a pytree by their canonical names."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {canonical(map(_files._part, path)): leaf for path, leaf in leaves}


def _roots(names: Iterable[str], wanted: Mapping[str, np.ndarray]) -> dict[str, int]:
  """Prefixes under which wanted arrays lie, with their number."""
  counts: dict[str, int] = {}
  names = list(names)
  for name in wanted:
    for there in names:
      if there == name or there.endswith(f'/{name}'):
        root = there[: len(there) - len(name)]
        if not _OPTIMIZER & set(root.split('/')):
          counts[root] = counts.get(root, 0) + 1
  return counts


def _params_root(stored, by_name, wanted, item) -> str:
  counts = _roots(by_name, wanted)
  whole = sorted(root for root, count in counts.items() if count == len(wanted))
  if item:
    named = [root for root in whole if item in (root.rstrip('/'), *root.split('/'))]
    whole = named or whole
  if len(whole) > 1:
    shown = ', '.join(f'--item={root.rstrip("/") or "."}' for root in whole)
    raise errors.InputError(
      f'{stored.place} holds {len(whole)} sets of parameters that fit the model; name one: {shown}'
    )
  if whole:
    return whole[0]
  if counts:
    return max(sorted(counts), key=counts.__getitem__)
  has_params = any(name.startswith('params/') for name in by_name)
  return 'params/' if has_params else ''


def _stats_root(by_name, wanted, root) -> str:
  """Of the batch statistics: those whose prefix is most like that of the parameters."""
  counts = _roots(by_name, wanted)
  whole = sorted(r for r, count in counts.items() if count == len(wanted) and r != root)
  if not whole:
    return 'batch_stats/'
  likeness = {r: _likeness(r, root) for r in whole}
  best = [r for r in whole if likeness[r] == max(likeness.values())]
  if len(best) > 1:
    raise errors.InputError(f'several batch statistics fit the model: {", ".join(best)}')
  return best[0]


def _likeness(first: str, second: str) -> int:
  """Number of characters that two prefixes begin with alike."""
  pairs = zip(first, second, strict=False)
  return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _check(stored, by_name, wanted, roots):
  """Raises for the first array that is missing, too many, or of another shape or dtype."""
  found = {}
  for name, path in by_name.items():
    kind = _kind_of(name, roots)
    if kind:
      found[f'{kind}/{name[len(roots[kind]) :]}'] = stored.arrays[path]
  expected = {
    f'{k}/{name}': leaf for k, of_kind in wanted.items() for name, leaf in of_kind.items()
  }
  for name in sorted(found.keys() | expected.keys()):
    there, here = _describe(found.get(name)), _describe(expected.get(name))
    if there != here:
      raise errors.InputError(
        f'{stored.place} is of another model: {name} is {there} there, but {here} in the '
        f'model{_explain(found, expected, name)}'
      )


def _kind_of(name, roots) -> str:
  """`params` or `batch_stats`, empty for what belongs to neither."""
  for kind in ('batch_stats', 'params'):
    root = roots.get(kind, 'batch_stats/' if kind == 'batch_stats' else None)
    if root is not None and name.startswith(root):
      return kind if kind in roots else ''
  return ''


def _describe(array) -> str:
  return 'missing' if array is None else f'{_dtype(array)}{list(array.shape)}'


def _dtype(array) -> str:
  return 'bfloat16' if array.dtype == np.dtype('V2') else str(array.dtype)


def _explain(found, expected, name) -> str:
  """What the difference usually means, and what to do."""
  there, here = found.get(name), expected.get(name)
  if there is None or here is None:
    return ''
  both = [(found[n], expected[n]) for n in found.keys() & expected.keys()]
  leading = {x.shape[0] if x.ndim else None for x, _ in both}
  if len(leading) == 1 and all(x.shape[1:] == tuple(y.shape) for x, y in both) and there.ndim:
    return (
      f'. Every array has a leading axis of {there.shape[0]}: the state was saved as it was '
      'replicated over devices. Save one copy: jax.tree.map(lambda x: x[0], state)'
    )
  if _dtype(there) == 'bfloat16':
    return (
      '. Save it as x.astype(jax.numpy.float32), which changes no value: methods train in float32, '
      'and rounding what they change to bfloat16 would not be what the record measured'
    )
  return ''

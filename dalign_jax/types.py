"""Types that the whole library shares.

Words used everywhere: `original` is the model trained on all training data, `gold` the model
retrained without the forgotten data, `unlearned` what a method returns. The training data is the
disjoint union of `retain` and `forget`; `validation` and `test` were never trained on.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import inspect
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dalign_jax import errors, image_rows

KERNELS = ('kernel', 'weight', 'w')  # names of kernels in Flax, Equinox and Haiku

Array = jax.Array | np.ndarray
PyTree = Any


class Outputs(NamedTuple):
  """Outputs of a classifier: `logits [B, C]` and penultimate `features [B, D]`."""

  logits: Array
  features: Array


class ModelState(NamedTuple):
  """A model: its `params` and its (possibly empty) `batch_stats`."""

  params: PyTree
  batch_stats: PyTree


class TrainState(NamedTuple):
  """A model in training: model state, optimizer state and the number of steps taken."""

  params: PyTree
  batch_stats: PyTree
  opt_state: PyTree
  step: Array

  @property
  def model(self) -> ModelState:
    return ModelState(self.params, self.batch_stats)


class ApplyFn(Protocol):
  """A network as a plain function, so that any network library fits.

  Images are float32 `[B, H, W, C]` in [0, 1]: normalisation is the network's own first step.
  With `train=True` normalisation layers use the batch's statistics (synchronised over the mapped
  axis `'devices'`) and the returned state holds the updated running statistics; with
  `train=False` the returned state is the given one. Compiled programs are kept by the network: it
  must be hashable, as a function or a frozen dataclass is.

  `key` is what dropout and stochastic depth draw from. Training passes one, another for each step
  and device; with `train=False` there is none. A network that draws nothing may leave the argument
  out of its signature; see `with_key`.
  """

  def __call__(
    self, state: ModelState, images: Array, *, train: bool, key: jax.Array | None = None
  ) -> tuple[Outputs, PyTree]: ...

  def __hash__(self) -> int: ...


def with_key(apply_fn: ApplyFn, key: jax.Array | None) -> ApplyFn:
  """A network with the key it draws from; as it is, if its signature has no `key`.

  Example:
    >>> with_key(lambda state, images, *, train: (images, state), None)(0, 1, train=False)
    (1, 0)
    >>> with_key(lambda state, images, *, train, key=None: (key, state), 5)(0, 1, train=True)
    (5, 0)
  """
  return functools.partial(apply_fn, key=key) if takes_key(apply_fn) else apply_fn


def takes_key(apply_fn: ApplyFn) -> bool:
  """Whether the signature of a network has a `key`."""
  return 'key' in inspect.signature(apply_fn).parameters


class DataError(errors.InputError):
  """A problem's data do not allow what a method needs of them; says what is missing."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A labelled image set.

  Attributes:
    images: `[N, H, W, C]` uint8, in memory, or `image_rows.ImageRows` of files.
    labels: `[N]` int32 class indices, or `[N, A]` int32 binary attributes.
    ids: `[N]` unique strings; what a deletion request names.
    group: `[N]` int32 group (person) indices, or None.
  """

  images: np.ndarray
  labels: np.ndarray
  ids: np.ndarray
  group: np.ndarray | None = None

  def __post_init__(self):
    if self.images.ndim != 4 or self.images.dtype != np.uint8:
      raise errors.InputError(
        f'images must be uint8 [N, H, W, C], got {self.images.dtype} {list(self.images.shape)}'
      )
    n = len(self.images)
    for name in ('labels', 'ids', 'group'):
      value = getattr(self, name)
      shape = value.shape[:1] if name == 'labels' and value.ndim == 2 else np.shape(value)
      if value is not None and shape != (n,):
        raise errors.InputError(
          f'{name} must have shape [{n}] like images, got {list(value.shape)}'
        )
    for name in ('labels', 'group'):
      value = getattr(self, name)
      if value is not None and value.dtype != np.int32:
        raise errors.InputError(f'{name} must be int32, got {value.dtype}')

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def is_multi_label(self) -> bool:
    """Whether the labels are several binary attributes."""
    return self.labels.ndim == 2

  def take(self, indices: np.ndarray) -> 'Dataset':
    """The rows `indices`, in that order."""
    group = None if self.group is None else self.group[indices]
    images = image_rows.take(self.images, indices)
    return Dataset(images, self.labels[indices], self.ids[indices], group)

  def spread(self, most: int) -> 'Dataset':
    """At most so many rows, at equal distances and in their order."""
    count = min(most, len(self))
    return self.take(np.linspace(0, len(self) - 1, count).astype(np.int64))


def concatenate(first: Dataset, second: Dataset) -> Dataset:
  """The rows of both sets, in that order."""
  fields = [field.name for field in dataclasses.fields(Dataset)]
  pairs = {name: (getattr(first, name), getattr(second, name)) for name in fields}
  has_both = lambda pair: pair[0] is not None and pair[1] is not None
  join = lambda pair: image_rows.concatenate(*pair) if has_both(pair) else None
  both: dict[str, Any] = {name: join(pair) for name, pair in pairs.items()}
  return Dataset(**both)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """Training recipe of original and gold: an optimizer and a schedule.

  Attributes:
    num_epochs: passes over the training set.
    batch_size: global batch, over all devices.
    learning_rate: peak learning rate.
    momentum: heavy-ball momentum in Nesterov form; the first decay rate of 'adamw' and 'muon'.
    weight_decay: L2 coefficient added to the gradient (as in PyTorch's SGD); decoupled from it in
      'adamw' and 'muon'.
    warmup_epochs: length of the linear warm-up, in epochs.
    augmentation: 'none', 'crop' (pad 1/8 of the side, random crop), 'crop_flip' (+ mirror) or
      'shift_flip' (reflect 1/16 of the side, random shift, mirror).
    label_smoothing: s of `losses.cross_entropy`, in [0, 1); not for binary attributes.
    schedule: 'cosine' (to 0), 'triangular' (from 0.2 of the peak, linearly to 0.07 of it) or
      'constant'.
    optimizer: 'sgd', 'adamw' or 'muon', of `recipe_optim`.
    norm_learning_rate: factor of the learning rate, not of the decay, for the parameters of
      normalisation layers.
    whitening_epochs: epochs in which the bias of a whitening layer is trained; 0: in all.
    lookahead_steps: steps after which the weights return to their running average; 0: never.
    lookahead_decay: decay of that average at the end of training, per step.
  """

  num_epochs: int = 10
  batch_size: int = 128
  learning_rate: float = 0.1
  momentum: float = 0.9
  weight_decay: float = 5e-4
  warmup_epochs: float = 1.0
  augmentation: str = 'none'
  label_smoothing: float = 0.0
  schedule: str = 'cosine'
  optimizer: str = 'sgd'
  norm_learning_rate: float = 1.0
  whitening_epochs: int = 0
  lookahead_steps: int = 0
  lookahead_decay: float = 0.95


class Monitor:
  """Observer of a run: receives steps and epochs, and may keep and restore states.

  This base class does nothing; `experiments` shows progress, writes JSON lines and saves
  checkpoints with it. `state` is a host pytree.
  """

  def restore(self, template: PyTree) -> tuple[int, PyTree] | None:
    """The number of finished epochs and the state after them, or None to start at the start."""
    del template
    return None

  def on_start(self, num_epochs: int) -> None:
    """The run will have `num_epochs` epochs."""

  def on_step(self, phase: str, done: int, total: int) -> None:
    """`done` of `total` steps of the epoch's phase `phase` were queued."""

  def on_arrays(self, name: str, get_arrays: Callable[[], Mapping[str, np.ndarray]]) -> None:
    """The method has something named `name` that a report may show; `get_arrays()` makes it."""

  def on_epoch(self, epoch: int, get_state: Callable[[], PyTree], metrics: Mapping) -> None:
    """Epoch `epoch` (from 0) ended; `get_state()` fetches the state."""


class StepsOnly(Monitor):
  """For one of several trainings of a run, whose states are not the run's.

  It passes on the steps. It keeps no states, so that each training begins at its own start.
  """

  def __init__(self, monitor: Monitor):
    self._monitor = monitor

  def on_step(self, phase, done, total):
    self._monitor.on_step(phase, done, total)


class SubsetOutputs(NamedTuple):
  """Outputs of K models that were trained on random subsets of the training data.

  Attributes:
    is_trained: bool `[K, N]`, which training examples each has seen: retain, then forget.
    logits: `[K, M, C]` on retain, forget and validation examples, in this order.
  """

  is_trained: np.ndarray
  logits: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """Everything a method may see. It holds neither gold nor test data, so that none can peek.

  Attributes:
    apply_fn: the network.
    init_fn: `key -> ModelState`, a fresh initialisation; use it through `dalign_jax.fresh.model`,
      which adds what a network computes from its training images.
    original: the model to unlearn from.
    retain: training data to keep.
    forget: training data to forget.
    validation: held-out data, never trained on.
    unseen: data of people of whom nothing was trained on, or None; not those of the evaluation.
    num_classes: number of classes C, or of binary attributes A: the number of logits.
    recipe: how the original was trained; `retrain` follows it.
    optimizer: 'sgd', with which methods step unless their paper ties them to another, or what is
      used in its place: a name of `optim.OPTIMIZERS`.
    schedule: of the learning rate of these steps, a name of `optim.SCHEDULES`.
    head_path: where `original.params` keeps the final linear layer (`{'kernel': [D, C],
      'bias': [C]}`); only `head_only` needs it.
    devices: devices to use, None for all of them.
    monitor: watches the run.
    gold_logits: gold's logits `[N, C]` on the sets 'retain' and 'forget', for the oracle controls
      of a benchmark; None for every method, since none can know them.
    subset_outputs: outputs of models trained on subsets, for `datamodel_matching`; None for others.
  """

  apply_fn: ApplyFn
  init_fn: Callable[[jax.Array], ModelState]
  original: ModelState
  retain: Dataset
  forget: Dataset
  validation: Dataset
  num_classes: int
  recipe: Recipe = Recipe()
  optimizer: str = 'sgd'
  schedule: str = 'constant'
  head_path: Sequence[str] = ('head',)
  devices: tuple[jax.Device, ...] | None = None
  monitor: Monitor = Monitor()
  unseen: Dataset | None = None
  gold_logits: Mapping[str, np.ndarray] | None = None
  subset_outputs: SubsetOutputs | None = None

  @property
  def known_to_gold(self) -> np.ndarray | None:
    """Mask of the forget examples that gold gets right; None where gold is not told."""
    if self.gold_logits is None:
      return None
    return self.gold_logits['forget'].argmax(axis=1) == self.forget.labels

  def forgotten_classes(self, method: str) -> np.ndarray:
    """The classes to forget; raises ValueError for `method` unless they all go whole."""
    forgotten = np.unique(self.forget.labels)
    stay = np.intersect1d(forgotten, self.retain.labels)
    if len(stay):
      raise errors.InputError(
        f'{method} forgets whole classes, but {len(stay)} of {len(forgotten)} have retain examples'
      )
    return forgotten


class LossFn(Protocol):
  """A loss of one training step; see `training.make_step`.

  A module-level function, or a frozen dataclass whose fields are the network and
  hyper-parameters: equal losses share one compiled step. Data come in through the arguments.
  """

  def __call__(
    self, params: PyTree, batch_stats: PyTree, batch: Mapping, constants: PyTree, key: jax.Array, /
  ) -> tuple[jax.Array, PyTree]: ...

  def __hash__(self) -> int: ...


class ScheduledLossFn(Protocol):
  """A `LossFn` that also receives the number of steps taken so far, as a scalar."""

  def __call__(
    self,
    params: PyTree,
    batch_stats: PyTree,
    batch: Mapping,
    constants: PyTree,
    key: jax.Array,
    /,
    *,
    step: jax.Array,
  ) -> tuple[jax.Array, PyTree]: ...

  def __hash__(self) -> int: ...


class UnlearnFn(Protocol):
  """An unlearning method with its hyper-parameters fixed."""

  def __call__(self, problem: Problem, key: jax.Array) -> ModelState: ...

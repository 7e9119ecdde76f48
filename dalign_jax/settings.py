"""Settings as dataclasses: what a run and a deletion request share, and the request itself.

Each field is a flag of the commands, with its help.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from dalign_jax import errors
from dalign_jax import valid as valid_lib

SECTIONS = (  # of --help, in their order
  *(
    'Request',
    'Record',
    'Folders',
    'Data',
    'What to forget',
    'Network',
    'Training',
    'Methods',
    'Evaluation',
  ),
  *('Search', 'Sweep', 'Platform'),
)


def _setting(default, help_text, group, section, valid):
  if section not in SECTIONS:
    raise ValueError(f'section must be one of {", ".join(SECTIONS)}, got {section!r}')
  metadata = {'help': help_text, 'group': group, 'section': section, 'valid': valid}
  return dataclasses.field(default=default, metadata=metadata)


def problem_setting(
  default: Any, help_text: str, *, section: str, valid: valid_lib.Valid | None = None
) -> Any:
  """A setting that original and gold depend on: it must not change inside a problem folder.

  Args:
    default: its value where none is given.
    help_text: of its flag.
    section: of `--help`, one of `SECTIONS`.
    valid: the values it may have.
  """
  return _setting(default, help_text, 'problem', section, valid)


def run_setting(
  default: Any, help_text: str, *, section: str, valid: valid_lib.Valid | None = None
) -> Any:
  """A setting of this run alone; see `problem_setting`."""
  return _setting(default, help_text, 'run', section, valid)


def check(instance: Any) -> None:
  """Checks the fields of a dataclass of settings, all together.

  Raises:
    errors.InputError: naming each field, its value and what would be right.
  """
  raise_for(valid_lib.problems(dataclasses.fields(instance), instance))


def raise_for(problems: Sequence[tuple[str, str]]) -> None:
  """Raises one `errors.InputError` for all of some `(argument, message)`, if there are any."""
  if problems:
    (argument, message), *others = problems
    more = ''.join(f'; {name}: {text}' for name, text in others)
    raise errors.InputError(message + more, argument=argument)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """Data, network, recipe, seeds and platform: what every command needs to know.

  Raises:
    errors.InputError: for values that a setting cannot have.
  """

  dataset: str = problem_setting(
    'mnist5k',
    'mnist5k or digits (embedded), npz:PATH, npy:PATH, folder:PATH, csv:FILE, hf:PATH, mufac:PATH, '
    'mucac:PATH, celeba:PATH, lfw:PATH, or a TFDS name.',
    section='Data',
    valid=valid_lib.TEXT,
  )
  data_dir: str = run_setting(
    '', 'Where TFDS keeps its data; default: TFDS decides.', section='Data', valid=valid_lib.TEXT
  )
  train_split: str = problem_setting(
    'train', 'TFDS split to train on.', section='Data', valid=valid_lib.TEXT
  )
  test_split: str = problem_setting(
    '',
    'TFDS split to test on; default: a part of the train split.',
    section='Data',
    valid=valid_lib.TEXT,
  )
  image_key: str = problem_setting(
    'image', 'TFDS feature that holds the image.', section='Data', valid=valid_lib.TEXT
  )
  label_key: str = problem_setting(
    'label',
    'TFDS feature to classify; attributes of mucac: and celeba:, gender of lfw:.',
    section='Data',
    valid=valid_lib.TEXT,
  )
  group_key: str = problem_setting(
    '', 'TFDS feature that says who is in the image.', section='Data', valid=valid_lib.TEXT
  )
  id_key: str = problem_setting(
    '',
    'TFDS feature that identifies an example; default: its number.',
    section='Data',
    valid=valid_lib.TEXT,
  )
  image_size: int = problem_setting(
    0,
    'Resize images of folder: to this side; 0: as they are.',
    section='Data',
    valid=valid_lib.Between(0, 4096),
  )
  channels: int = problem_setting(
    0,
    'Read pictures as grey (1) or in colour (3); 0: grey where all of the training split are.',
    section='Data',
    valid=valid_lib.OneOf((0, 1, 3)),
  )
  skip_unreadable: bool = problem_setting(
    False, 'Leave out pictures that cannot be read, and list them.', section='Data'
  )
  split_seed: int = problem_setting(
    0, 'Seed of subset, splits and random forget sets.', section='Data', valid=valid_lib.SEED
  )
  model: str = problem_setting(
    'cnn',
    'Network; see dalign_jax.models.MODELS; or MODULE:FUNCTION.',
    section='Network',
    valid=valid_lib.TEXT,
  )
  norm: str = problem_setting(
    'batch',
    'Normalisation: batch, group or none.',
    section='Network',
    valid=valid_lib.OneOf(('batch', 'group', 'none')),
  )
  width_multiplier: float = problem_setting(
    1.0,
    'Multiplies the number of channels.',
    section='Network',
    valid=valid_lib.Between(0, 64, open_low=True),
  )
  stem: str = problem_setting(
    'cifar',
    'First layers of a ResNet: cifar or imagenet.',
    section='Network',
    valid=valid_lib.OneOf(('cifar', 'imagenet')),
  )
  pretrained: str = problem_setting(
    '',
    'Weights that originals and golds start from: of this library, or of timm or torchvision in '
    'safetensors; empty: none.',
    section='Network',
    valid=valid_lib.LOCAL_PATH,
  )
  input_statistics: str = problem_setting(
    'centred',
    'Mean and standard deviation by which pixels are normalised: centred (0.5, 0.25), half (0.5, '
    '0.5) or imagenet (of its channels).',
    section='Network',
    valid=valid_lib.OneOf(('centred', 'half', 'imagenet')),
  )
  compute_dtype: str = problem_setting(
    'float32',
    'Type in which networks compute: float32 or bfloat16; parameters, statistics and losses stay '
    'in float32.',
    section='Network',
    valid=valid_lib.OneOf(('float32', 'bfloat16')),
  )
  remat: bool = run_setting(
    False,
    'Compute the inside of each block again for gradients, for less memory; of resnet*, '
    'wide_resnet* and vit*.',
    section='Network',
  )
  num_epochs: int = problem_setting(
    10, 'Epochs of original and gold.', section='Training', valid=valid_lib.COUNT
  )
  batch_size: int = problem_setting(
    128,
    'Global batch of original and gold, over all devices.',
    section='Training',
    valid=valid_lib.COUNT,
  )
  learning_rate: float = problem_setting(
    0.1, 'Peak learning rate of original and gold.', section='Training', valid=valid_lib.RATE
  )
  momentum: float = problem_setting(
    0.9,
    'Momentum of original and gold.',
    section='Training',
    valid=valid_lib.Between(0, 1, open_high=True),
  )
  weight_decay: float = problem_setting(
    5e-4, 'Weight decay of original and gold.', section='Training', valid=valid_lib.Between(0, 10)
  )
  warmup_epochs: float = problem_setting(
    1.0,
    'Length of the linear warm-up, in epochs.',
    section='Training',
    valid=valid_lib.COUNT_OR_ZERO,
  )
  augmentation: str = problem_setting(
    'none',
    'Augmentation of training: none, crop, crop_flip or shift_flip.',
    section='Training',
    valid=valid_lib.OneOf(('none', 'crop', 'crop_flip', 'shift_flip')),
  )
  label_smoothing: float = problem_setting(
    0.0,
    'Label smoothing of original and gold; not for attributes.',
    section='Training',
    valid=valid_lib.Between(0, 1, open_high=True),
  )
  schedule: str = problem_setting(
    'cosine',
    'Learning rate after the warm-up: cosine, triangular or constant.',
    section='Training',
    valid=valid_lib.OneOf(('cosine', 'triangular', 'constant')),
  )
  optimizer: str = problem_setting(
    'sgd',
    'Optimizer of originals and golds: sgd, adamw or muon.',
    section='Training',
    valid=valid_lib.OneOf(('sgd', 'adamw', 'muon')),
  )
  norm_learning_rate: float = problem_setting(
    1.0,
    'Factor of the learning rate for parameters of normalisation layers.',
    section='Training',
    valid=valid_lib.Between(0, 10**4, open_low=True),
  )
  whitening_epochs: int = problem_setting(
    0,
    'Epochs in which the bias of a whitening layer is trained; 0: in all.',
    section='Training',
    valid=valid_lib.COUNT_OR_ZERO,
  )
  lookahead_steps: int = problem_setting(
    0,
    'Steps after which the weights return to their running average; 0: never.',
    section='Training',
    valid=valid_lib.COUNT_OR_ZERO,
  )
  lookahead_decay: float = problem_setting(
    0.95,
    'Decay of that average at the end of training, per step.',
    section='Training',
    valid=valid_lib.Between(0, 1),
  )
  gold_seed: int = problem_setting(
    100,
    'Seed of the first gold model; the others follow it.',
    section='Training',
    valid=valid_lib.SEED,
  )
  unlearn_seed: int = run_setting(
    0, 'Seed of the unlearning methods.', section='Methods', valid=valid_lib.SEED
  )
  evaluation_seed: int = run_setting(
    0, 'Seed of attacks, probes and clusterings.', section='Evaluation', valid=valid_lib.SEED
  )
  da_energy: float = run_setting(
    0.9,
    'Share of the spectrum that the DA metric keeps.',
    section='Evaluation',
    valid=valid_lib.SHARE_OR_ALL,
  )
  trainable: tuple[str, ...] = run_setting(
    (),
    'Parameters that methods may change, by regular expressions for their paths (head/, Block_3); '
    'empty: all.',
    section='Methods',
    valid=valid_lib.PATTERNS,
  )
  lora_rank: int = run_setting(
    0,
    'Rank of the adapters by which methods change kernels; 0: they change the kernels themselves.',
    section='Methods',
    valid=valid_lib.Between(0, 10**4),
  )
  method_optimizer: str = run_setting(
    'sgd',
    'Optimizer of methods that step by SGD: sgd, or adamw or muon in its place. Their learning '
    'rates are for sgd: set them too.',
    section='Methods',
    valid=valid_lib.OneOf(('sgd', 'adamw', 'muon')),
  )
  method_schedule: str = run_setting(
    'constant',
    'Learning rate of these methods over a phase: constant, or to 0 by a cosine or linear.',
    section='Methods',
    valid=valid_lib.OneOf(('constant', 'cosine', 'linear')),
  )
  num_devices: int = run_setting(
    0, 'Devices to use; 0: all.', section='Platform', valid=valid_lib.Between(0, 10**5)
  )
  mapping: str = run_setting(
    'pmap',
    'How programs are mapped over devices: pmap or shard_map.',
    section='Platform',
    valid=valid_lib.OneOf(('pmap', 'shard_map')),
  )
  data_on_device: str = run_setting(
    'auto',
    'Keep training data on every device: yes, no (each step is sent its rows) or auto (where they '
    'take at most a quarter of its memory).',
    section='Platform',
    valid=valid_lib.OneOf(('auto', 'yes', 'no')),
  )
  cpu_tuning: bool = run_setting(
    True, 'Faster compiler settings on the CPU; they change bits.', section='Platform'
  )
  compilation_cache_dir: str = run_setting(
    os.path.join('~', '.cache', 'dalign_jax', 'compiled'),
    'Where compiled programs are kept; empty: nowhere.',
    section='Platform',
    valid=valid_lib.TEXT,
  )
  cache_dir: str = run_setting(
    os.path.join('~', '.cache', 'dalign_jax', 'data'),
    'Where decoded data are kept; empty: nowhere.',
    section='Platform',
    valid=valid_lib.LOCAL_PATH,
  )

  def __post_init__(self):
    check(self)

  def problem_settings(self) -> dict[str, Any]:
    """The settings that may not change inside a problem folder."""
    fields = dataclasses.fields(self)
    return {f.name: getattr(self, f.name) for f in fields if f.metadata['group'] == 'problem'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """Settings of a deletion request, in addition to `Settings`."""

  checkpoint: str = run_setting(
    '',
    'Model to unlearn from: of experiments.run, the --out of an earlier request, or an Orbax '
    'checkpoint of your own.',
    section='Request',
    valid=valid_lib.LOCAL_PATH,
  )
  item: str = run_setting(
    '',
    'Item of the checkpoint to take, where it has several, such as ema_params.',
    section='Request',
    valid=valid_lib.TEXT,
  )
  ids: str = run_setting(
    '',
    'File of the ids to forget: one per line, or CSV with a column id.',
    section='Request',
    valid=valid_lib.LOCAL_PATH,
  )
  id_column: str = run_setting(
    'id', 'Column of the ids in a CSV file or JSON lines.', section='Request', valid=valid_lib.TEXT
  )
  copies: str = run_setting(
    'refuse',
    'Copies of forgotten samples among the others: refuse, include (forget them too) or keep.',
    section='Request',
    valid=valid_lib.OneOf(('refuse', 'include', 'keep')),
  )
  near_copies: bool = run_setting(
    True, 'Look for near copies too, not for equal pixels alone.', section='Request'
  )
  out: str = run_setting(
    '',
    'Folder for the new checkpoint and the record; must not exist.',
    section='Request',
    valid=valid_lib.LOCAL_PATH,
  )
  keys: str = run_setting(
    '',
    'Private folder for the key of the commitments and for receipts, outside of --out; default: '
    'record_keys next to --out.',
    section='Record',
    valid=valid_lib.LOCAL_PATH,
  )
  signing_key: str = run_setting(
    '',
    'Private key of dalign-jax keygen that signs the record; empty: it is not signed.',
    section='Record',
    valid=valid_lib.LOCAL_PATH,
  )
  received: str = run_setting(
    '', 'Date on which the request came, as 2026-05-01.', section='Record', valid=valid_lib.TEXT
  )
  due: str = run_setting(
    '', 'Date by which it must be answered.', section='Record', valid=valid_lib.TEXT
  )
  answered: str = run_setting(
    '', 'Date on which it was answered.', section='Record', valid=valid_lib.TEXT
  )
  ground: str = run_setting(
    '',
    'Ground of the request, after the GDPR, article 17 (1).',
    section='Record',
    valid=valid_lib.OneOf(
      (
        *('', 'not_necessary', 'consent_withdrawn', 'objection', 'unlawful', 'legal_obligation'),
        'child_service',
      )
    ),
  )
  decision: str = run_setting(
    '',
    'What was decided: accepted, fulfilled or unfulfilled.',
    section='Record',
    valid=valid_lib.OneOf(('', 'accepted', 'fulfilled', 'unfulfilled')),
  )
  data: str = run_setting(
    '',
    'Training data, as --dataset of experiments.run; default: as before.',
    section='Request',
    valid=valid_lib.TEXT,
  )
  held_out: str = run_setting(
    '',
    'Data never trained on, in the same forms; not needed if a run held some out.',
    section='Request',
    valid=valid_lib.TEXT,
  )
  method: str = run_setting('muda', 'Method; see dalign_jax.methods.METHODS.', section='Request')
  hparam: tuple[str, ...] = run_setting(
    (), 'A hyper-parameter, such as muda.da_weight=5. Repeatable.', section='Request'
  )
  compare_gold: int = run_setting(
    0,
    'Models (0, 1 or 2) to retrain without the forgotten data, for comparison.',
    section='Request',
    valid=valid_lib.OneOf((0, 1, 2)),
  )
  verdict: str = run_setting(
    'full',
    'How the result is judged: full compares it with a dummy request for as many other samples; '
    'quick goes without, in half the time.',
    section='Request',
    valid=valid_lib.OneOf(('full', 'quick')),
  )
  accept: tuple[str, ...] = run_setting(
    (),
    'Verdicts to sign all the same: no_effect, worse, destroyed, incomplete. The samples then '
    'count as requested, not as forgotten.',
    section='Request',
    valid=valid_lib.AllOf(('no_effect', 'worse', 'destroyed', 'incomplete')),
  )

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
  """Settings of many requests one after another, in addition to `Request` and `Settings`."""

  requests: str = run_setting(
    '',
    'Folder of requests, each a file, carried out in order of their names; in place of --ids.',
    section='Request',
    valid=valid_lib.LOCAL_PATH,
  )
  batch: str = run_setting(
    '1',
    'Requests that are carried out together: a number, or all.',
    section='Request',
    valid=valid_lib.Matching('[1-9][0-9]{0,5}|all', 'a number above 0, or all'),
  )
  gold_at: tuple[str, ...] = run_setting(
    (),
    'Numbers of requests after which two models are retrained, to measure the gap.',
    section='Request',
  )

  def __post_init__(self):
    check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
  """Settings of the search for a photo among the samples, in addition to `Settings`."""

  image: str = run_setting(
    '', 'Photo to look for; a file.', section='Request', valid=valid_lib.LOCAL_PATH
  )
  count: int = run_setting(
    20, 'Number of samples to list.', section='Request', valid=valid_lib.Between(1, 10**5)
  )
  list_file: str = run_setting(
    'candidates.csv',
    'File for the list; must not exist.',
    section='Request',
    valid=valid_lib.LOCAL_PATH,
  )

  def __post_init__(self):
    check(self)

"""All settings of a run. Each field is a flag of `experiments.run`, with its help."""

import dataclasses
import os

EVALUATIONS = ('standard', 'full')
CONTROL = 'planted_leak'  # the method that full evaluation adds: attacks must find it
STAGES = ('prepare', 'train_original', 'train_gold', 'unlearn', 'evaluate', 'report')


def _flag(default, help_text: str, group: str):
  return dataclasses.field(default=default, metadata={'help': help_text, 'group': group})


def _problem(default, help_text):
  """A setting that original and gold depend on: it must not change inside a problem folder."""
  return _flag(default, help_text, 'problem')


def _run(default, help_text):
  """A setting of this run alone."""
  return _flag(default, help_text, 'run')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings, in the order in which they matter."""

  workdir: str = _run('runs', 'Folder for all results.')
  problem: str = _run('', 'Name of the problem folder; default: <dataset>-<model>-<forget>.')
  stages: tuple[str, ...] = _run(STAGES, f'Stages to run, of: {", ".join(STAGES)}.')

  dataset: str = _problem(
    'mnist5k',
    'mnist5k or digits (embedded), npz:PATH, folder:PATH, mufac:PATH, mucac:PATH, celeba:PATH, '
    'lfw:PATH, or a TFDS name.',
  )
  data_dir: str = _run('', 'Where TFDS keeps its data; default: TFDS decides.')
  train_split: str = _problem('train', 'TFDS split to train on.')
  test_split: str = _problem('', 'TFDS split to test on; default: a part of the train split.')
  image_key: str = _problem('image', 'TFDS feature that holds the image.')
  label_key: str = _problem(
    'label', 'TFDS feature to classify; attributes of mucac: and celeba:, gender of lfw:.'
  )
  group_key: str = _problem('', 'TFDS feature that says who is in the image.')
  id_key: str = _problem('', 'TFDS feature that identifies an example; default: its number.')
  image_size: int = _problem(0, 'Resize images of folder: to this side; 0: as they are.')
  max_examples: int = _problem(0, 'Use a stratified subset of this size; 0: all.')
  validation_fraction: float = _problem(0.1, 'Share of the examples held out for validation.')
  test_fraction: float = _problem(0.1, 'Share held out for testing, without --test_split.')
  forget: str = _problem(
    'class:3',
    'What to forget: class:3, class:3:0.1 (a tenth of it), classes:3,5, random:0.1, '
    'group:NAME_OR_COUNT, ids:FILE, official, subclass:NAME, mislabelled:0.1, backdoor:0.1:CLASS '
    'or memorised:0.1.',
  )
  coarse: str = _problem(
    '', 'Classes to learn, made of those there are: even=0,2,4,6,8;odd=1,3,5,7,9.'
  )
  memorisation_models: int = _problem(12, 'Models that memorisation scores are estimated from.')
  unseen: str = _problem('', 'People never trained on, for the attacks: group:NAME_OR_COUNT.')
  split_by_group: bool = _problem(False, 'Hold out whole people for validation and test.')
  group_sizes: str = _problem('', 'Use people with so many images only: MIN,MAX.')
  check_duplicates: str = _problem(
    'warn', 'Equal images in different sets: warn, drop (keep forget, then retain) or off.'
  )
  split_seed: int = _problem(0, 'Seed of subset, splits and random forget sets.')

  model: str = _problem('cnn', 'Network; see dalign_jax.models.MODELS; or MODULE:FUNCTION.')
  norm: str = _problem('batch', 'Normalisation: batch, group or none.')
  width_multiplier: float = _problem(1.0, 'Multiplies the number of channels.')
  stem: str = _problem('cifar', 'First layers of a ResNet: cifar or imagenet.')

  num_epochs: int = _problem(10, 'Epochs of original and gold.')
  batch_size: int = _problem(128, 'Global batch of original and gold, over all devices.')
  learning_rate: float = _problem(0.1, 'Peak learning rate of original and gold.')
  momentum: float = _problem(0.9, 'Momentum of original and gold.')
  weight_decay: float = _problem(5e-4, 'Weight decay of original and gold.')
  warmup_epochs: float = _problem(1.0, 'Length of the linear warm-up, in epochs.')
  augmentation: str = _problem('none', 'Augmentation of training: none, crop or crop_flip.')
  original_seed: int = _problem(0, 'Seed of the original model.')
  gold_seed: int = _problem(100, 'Seed of the first gold model; the others count on from it.')

  evaluation: str = _run(
    'standard', f'What to measure: {" or ".join(EVALUATIONS)}; see docs/evaluation.md.'
  )
  num_seeds: int = _run(0, 'Originals, each unlearned and compared; 0: 1, or 8 if full.')
  num_gold: int = _run(
    0, 'Gold models: one half is the reference, the other the noise floor; 0: two a seed.'
  )
  num_shadows: int = _run(0, 'Models trained on half of the forget set, for U-LiRA; 0: 16 if full.')
  ensemble_size: int = _run(16, 'How many models one program trains; 1: one after the other.')
  relearn_epochs: int = _run(20, 'Most epochs of relearning, for --evaluation=full.')
  methods: tuple[str, ...] = _run(
    ('muda',), 'Methods; see dalign_jax.methods.METHODS. A variant of one: method:name.'
  )
  hparam: tuple[str, ...] = _run(
    (), 'A hyper-parameter, as muda.da_weight=5 or, of a variant, muda:x.da_weight=5. Repeatable.'
  )
  member: int = _run(-1, 'Unlearn and evaluate from this original only, counted from 0; -1: all.')
  unlearn_seed: int = _run(0, 'Seed of the unlearning methods.')
  evaluation_seed: int = _run(0, 'Seed of attacks, probes and clusterings.')
  da_energy: float = _run(0.9, 'Share of the spectrum that the DA metric keeps.')

  tensorboard: bool = _run(False, 'Write TensorBoard event files beside train.jsonl.')
  num_devices: int = _run(0, 'Devices to use; 0: all.')
  cpu_tuning: bool = _run(True, 'Faster compiler settings on the CPU; they change bits.')
  compilation_cache_dir: str = _run(
    os.path.join('~', '.cache', 'dalign_jax', 'compiled'),
    'Where compiled programs are kept; empty: nowhere.',
  )
  cache_dir: str = _run(
    os.path.join('~', '.cache', 'dalign_jax', 'data'),
    'Where decoded data are kept; empty: nowhere.',
  )
  coordinator_address: str = _run('', 'host:port of process 0, for a run of several processes.')
  num_processes: int = _run(1, 'Processes that take part in the run.')
  process_id: int = _run(0, 'Number of this process.')

  @property
  def is_full(self) -> bool:
    return self.evaluation == 'full'

  @property
  def seeds(self) -> int:
    """How many originals there are."""
    return self.num_seeds or (8 if self.is_full else 1)

  @property
  def golds(self) -> int:
    """How many gold models there are, reference and floor together."""
    return self.num_gold or max(2 * self.seeds, self.shadows)

  @property
  def shadows(self) -> int:
    """How many shadow models there are."""
    return (self.num_shadows or 16) if self.is_full else 0

  @property
  def all_methods(self) -> tuple[str, ...]:
    """The methods, and the control where full evaluation needs it."""
    extra = (CONTROL,) if self.is_full and CONTROL not in self.methods else ()
    return (*self.methods, *extra)

  def problem_settings(self) -> dict:
    """The settings that may not change inside a problem folder."""
    fields = dataclasses.fields(self)
    return {f.name: getattr(self, f.name) for f in fields if f.metadata['group'] == 'problem'}

  def problem_name(self) -> str:
    """Name of the problem folder."""
    if self.problem:
      return self.problem
    kind, _, value = self.forget.partition(':')
    forget = f'{kind}_{os.path.basename(value)}'
    dataset = os.path.basename(self.dataset.rstrip('/')).replace(':', '_')
    name = f'{dataset}-{self.model}-{forget}'
    return ''.join(c if c.isalnum() or c in '-_.,' else '_' for c in name)

  def flag_lines(self) -> list[str]:
    """The settings as the lines of a flag file."""
    lines = []
    for name, value in dataclasses.asdict(self).items():
      if name == 'hparam':
        lines += [f'--hparam={v}' for v in value]
      elif isinstance(value, bool):
        lines.append(f'--{name}' if value else f'--no{name}')
      else:
        lines.append(f'--{name}={",".join(value) if isinstance(value, tuple) else value}')
    return lines

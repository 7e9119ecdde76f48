"""All settings of a run. Each field is a flag of `experiments.run`, with its help."""

from collections.abc import Iterator
import dataclasses
import os
import re

from dalign_jax import errors, settings, valid
from experiments import launchers

EVALUATIONS = ('standard', 'recovery', 'full')
_SEEDS = {'standard': 1, 'recovery': 3, 'full': 8}  # originals
CONTROL = 'planted_leak'  # the method that full evaluation adds: attacks must find it
HIDING = 'head_only'  # added where whole classes are forgotten: recovery must find it
STAGES = ('prepare', 'train_original', 'train_gold', 'unlearn', 'evaluate', 'report')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(settings.Settings):
  """All settings of a run: those of its data, network and recipe are inherited."""

  workdir: str = settings.run_setting(
    'runs', 'Folder for all results.', section='Folders', valid=valid.LOCAL_PATH
  )
  problem: str = settings.run_setting(
    '',
    'Name of the problem folder; default: <dataset>-<model>-<forget>.',
    section='Folders',
    valid=valid.FOLDER_NAME,
  )
  originals_of: str = settings.run_setting(
    '',
    'Problem folder in the workdir with the same training data, whose originals are taken instead '
    'of trained; default: none.',
    section='Folders',
    valid=valid.FOLDER_NAME,
  )
  stages: tuple[str, ...] = settings.run_setting(
    STAGES, f'Stages to run, of: {", ".join(STAGES)}.', section='Folders', valid=valid.AllOf(STAGES)
  )

  max_examples: int = settings.problem_setting(
    0,
    'Use a stratified subset of this size; 0: all.',
    section='Data',
    valid=valid.Between(0, 10**9),
  )
  validation_fraction: float = settings.problem_setting(
    0.1, 'Share of the examples held out for validation.', section='Data', valid=valid.SHARE
  )
  test_fraction: float = settings.problem_setting(
    0.1,
    'Share held out for testing, without --test_split.',
    section='Data',
    valid=valid.Between(0, 1, open_high=True),
  )
  forget: str = settings.problem_setting(
    'class:3',
    'What to forget: class:3, class:3:0.1 (a tenth of it), classes:3,5, random:0.1, '
    'group:NAME, people:COUNT, ids:FILE, official, subclass:NAME, mislabelled:0.1, '
    'backdoor:0.1:CLASS, or memorised:0.1, entangled:0.1, influential:0.1 (:low or :middle of it).',
    section='What to forget',
    valid=valid.TEXT,
  )
  coarse: str = settings.problem_setting(
    '',
    'Coarse classes to learn, made of the existing ones: even=0,2,4,6,8;odd=1,3,5,7,9.',
    section='Data',
    valid=valid.TEXT,
  )
  memorisation_models: int = settings.problem_setting(
    12,
    'Models that memorisation scores are estimated from.',
    section='What to forget',
    valid=valid.Between(2, 10**4),
  )
  unseen: str = settings.problem_setting(
    '',
    'People never trained on, for the attacks: group:NAME or people:COUNT.',
    section='Data',
    valid=valid.TEXT,
  )
  split_by_group: bool = settings.problem_setting(
    False, 'Hold out whole people for validation and test.', section='Data'
  )
  group_sizes: str = settings.problem_setting(
    '',
    'Use only people with this many images: MIN,MAX.',
    section='Data',
    valid=valid.Matching(r'(\d{1,9},\d{1,9})?', 'MIN,MAX'),
  )
  check_duplicates: str = settings.problem_setting(
    'warn',
    'Equal images in different sets: warn, drop (keep forget, then retain) or off.',
    section='Data',
    valid=valid.OneOf(('warn', 'drop', 'off')),
  )

  original_seed: int = settings.problem_setting(
    0, 'Seed of the original model.', section='Training', valid=valid.SEED
  )

  evaluation: str = settings.run_setting(
    'standard',
    f'What to measure: {", ".join(EVALUATIONS)}; see docs/evaluation.md.',
    section='Evaluation',
    valid=valid.OneOf(EVALUATIONS),
  )
  num_seeds: int = settings.run_setting(
    0,
    'Number of originals, each unlearned and compared; 0: 1, 3 for recovery, 8 for full.',
    section='Evaluation',
    valid=valid.Between(0, 1000),
  )
  num_gold: int = settings.run_setting(
    0,
    'Gold models: one half is the reference, the other the noise floor; 0: two per seed, or as '
    'many as shadows where that is more.',
    section='Evaluation',
    valid=valid.Between(0, 10**4),
  )
  num_shadows: int = settings.run_setting(
    0,
    'Models trained on half of the forget set, for U-LiRA; 0: 16 for full.',
    section='Evaluation',
    valid=valid.Between(0, 10**4),
  )
  ensemble_size: int = settings.run_setting(
    16,
    'Models that one program trains together; 1: one after the other.',
    section='Evaluation',
    valid=valid.Between(1, 10**4),
  )
  relearn_epochs: int = settings.run_setting(
    20,
    'Maximum epochs of relearning, for --evaluation=recovery and full.',
    section='Evaluation',
    valid=valid.COUNT,
  )
  methods: tuple[str, ...] = settings.run_setting(
    ('muda',),
    'Methods; see dalign_jax.methods.METHODS. A variant of one: method:name.',
    section='Methods',
  )
  hparam: tuple[str, ...] = settings.run_setting(
    (),
    'A hyper-parameter, such as muda.da_weight=5 or muda:x.da_weight=5 (a variant). Repeatable.',
    section='Methods',
  )
  beyond_range: bool = settings.run_setting(
    False,
    'Run a method also on a request that it refuses, being too large or not its kind; see '
    'docs/methods.md.',
    section='Methods',
  )
  member: int = settings.run_setting(
    -1,
    'Unlearn and evaluate from this original only, counted from 0; -1: all.',
    section='Methods',
    valid=valid.Between(-1, 999),
  )

  show_images: bool = settings.run_setting(
    False,
    "Show a sample of the forgotten images with each model's answer in report.html; never for a "
    'deletion request (--forget=ids:FILE).',
    section='Evaluation',
  )
  quiet: bool = settings.run_setting(
    False, 'Print warnings and the verdict only.', section='Platform'
  )
  tensorboard: bool = settings.run_setting(
    False, 'Write TensorBoard event files in addition to train.jsonl.', section='Platform'
  )
  coordinator_address: str = settings.run_setting(
    '',
    'host:port of process 0, for a run of several processes.',
    section='Platform',
    valid=valid.Matching(r'([^\s:]+|\[[0-9a-fA-F:]+\])?(:\d{1,5})?', 'HOST:PORT'),
  )
  num_processes: int = settings.run_setting(
    1, 'Processes that take part in the run.', section='Platform', valid=valid.Between(1, 10**5)
  )
  process_id: int = settings.run_setting(
    0, 'Number of this process.', section='Platform', valid=valid.Between(0, 10**5)
  )

  distributed: str = settings.run_setting(
    'off',
    'auto: join the processes that SLURM or a cloud TPU started, as JAX detects them.',
    section='Platform',
    valid=valid.OneOf(('off', 'auto')),
  )

  def __post_init__(self):
    super().__post_init__()
    settings.raise_for([*self._counts(), *self._processes(), *self._images()])

  def _counts(self) -> Iterator[tuple[str, str]]:
    """Invalid numbers of models."""
    if self.member >= self.seeds:
      yield 'member', f'must be less than the {self.seeds} originals, got {self.member}'
    if self.golds < 2 * self.seeds or self.golds % 2:
      yield (
        'num_gold',
        f'must be even and at least {2 * self.seeds} (a reference and a noise floor for each of '
        f'the {self.seeds} seeds), got {self.num_gold}',
      )
    if self.is_full and (self.shadows < 6 or self.shadows % 2):
      yield 'num_shadows', f'must be even and at least 6, got {self.num_shadows}'
    if self.is_full and self.golds < 6:
      yield 'num_gold', f'--evaluation=full needs at least 6 for U-LiRA, got {self.golds}'

  def _processes(self) -> Iterator[tuple[str, str]]:
    """Invalid flags of a run of several processes, which belong together."""
    if self.process_id >= self.num_processes:
      yield 'process_id', f'must be less than --num_processes, got {self.process_id}'
    if self.distributed == 'auto' and (self.coordinator_address or self.num_processes > 1):
      yield 'distributed', 'auto finds the processes itself; leave the other flags out'
    elif self.num_processes > 1 and not self.coordinator_address:
      yield 'num_processes', f'{self.num_processes} processes need --coordinator_address=HOST:PORT'
    elif self.coordinator_address and self.num_processes == 1:
      yield 'coordinator_address', 'needs --num_processes, of more than 1, and --process_id'
    elif self.coordinator_address and not re.search(r':\d+$', self.coordinator_address):
      yield 'coordinator_address', f'must be HOST:PORT, got {self.coordinator_address!r}'

  def _images(self) -> Iterator[tuple[str, str]]:
    """Images that nobody may be shown."""
    if self.show_images and self.forget.startswith('ids:'):
      yield (
        'show_images',
        f'--forget={self.forget} is a deletion request, whose images are not shown; leave it out',
      )

  @property
  def is_full(self) -> bool:
    return self.evaluation == 'full'

  @property
  def has_recovery(self) -> bool:
    """Whether recovery procedures and audits are part of the evaluation."""
    return self.evaluation in ('recovery', 'full')

  @property
  def seeds(self) -> int:
    """Number of originals."""
    return self.num_seeds or _SEEDS[self.evaluation]

  @property
  def golds(self) -> int:
    """Number of gold models, reference and floor together."""
    return self.num_gold or max(2 * self.seeds, self.shadows)

  @property
  def shadows(self) -> int:
    """Number of shadow models."""
    return (self.num_shadows or 16) if self.is_full else 0

  @property
  def all_methods(self) -> tuple[str, ...]:
    """The methods, and the controls of the evaluation."""
    return (*self.methods, *self.controls)

  @property
  def controls(self) -> tuple[str, ...]:
    """Methods that nobody asked for, which the evaluation must find out."""
    if not self.has_recovery:
      return ()
    is_built_in = ':' not in self.model  # the head of one's own network may lie elsewhere
    hides = re.fullmatch(r'class:[^:]+|classes:.+', self.forget) and is_built_in
    wanted = (CONTROL, HIDING) if hides else (CONTROL,)
    return tuple(name for name in wanted if name not in self.methods)

  def of_controls(self) -> 'Config':
    """The same for its controls, which nobody asked for: they step as they always do."""
    usual = {'method_optimizer': 'sgd', 'method_schedule': 'constant'}
    return dataclasses.replace(self, trainable=(), lora_rank=0, **usual)

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


SEARCHES = ('tpe', 'random')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
  """Settings of a search, in addition to `Config`."""

  num_trials: int = settings.run_setting(
    20,
    'Settings tried per method; the first is its defaults.',
    section='Search',
    valid=valid.COUNT,
  )
  search: str = settings.run_setting(
    'tpe',
    'How ranges are searched: tpe (tree-structured Parzen estimator), or random.',
    section='Search',
    valid=valid.OneOf(SEARCHES),
  )
  search_seed: int = settings.run_setting(
    0, 'Seed of the settings that are tried.', section='Search', valid=valid.SEED
  )
  tuning_seed: int = settings.run_setting(
    1000,
    'Seed of the first original and of the first gold that tuning works with.',
    section='Search',
    valid=valid.SEED,
  )
  num_tuning_seeds: int = settings.run_setting(
    3,
    'Originals, each with two golds, over which a score is averaged.',
    section='Search',
    valid=valid.Between(1, 1000),
  )

  def __post_init__(self):
    settings.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """Settings of a sweep, in addition to `Config`."""

  scenario: tuple[str, ...] = settings.run_setting(
    (),
    'A value of --forget, or a flag file that defines the problem. Repeatable.',
    section='Sweep',
  )
  split_seeds: bool = settings.run_setting(
    False, 'One process per method and seed.', section='Sweep'
  )
  jobs: int = settings.run_setting(
    1, 'Cells that run, or are queued, at once.', section='Sweep', valid=valid.Between(1, 10**4)
  )
  launcher: str = settings.run_setting(
    'local',
    'Where cells run: local (processes of this machine) or submitit (jobs of SLURM).',
    section='Sweep',
    valid=valid.OneOf(launchers.LAUNCHERS),
  )
  slurm: tuple[str, ...] = settings.run_setting(
    (),
    'Parameters of each job, as partition=gpu,timeout_min=60: ' + ', '.join(launchers.SLURM) + '.',
    section='Sweep',
  )
  print_commands: bool = settings.run_setting(
    False,
    'Print the remaining commands, for a scheduler; run nothing.',
    section='Sweep',
  )
  sweep: str = settings.run_setting(
    'sweep',
    'Name of the folder of reports and logs.',
    section='Sweep',
    valid=valid.FOLDER_NAME,
  )

  def __post_init__(self):
    settings.check(self)
    if self.slurm and self.launcher != 'submitit':
      raise errors.InputError(
        f'is for --launcher=submitit, got {",".join(self.slurm)}', argument='slurm'
      )
    launchers.parse_slurm(self.slurm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """Settings of `experiments.compare`."""

  comparison: str = settings.run_setting(
    'comparison',
    'Folder for compare.html and compare.md.',
    section='Folders',
    valid=valid.LOCAL_PATH,
  )

  def __post_init__(self):
    settings.check(self)

"""All settings of a run. Each field is a flag of `experiments.run`, with its help."""

import dataclasses
import os

from dalign_jax import settings

EVALUATIONS = ('standard', 'full')
CONTROL = 'planted_leak'  # the method that full evaluation adds: attacks must find it
STAGES = ('prepare', 'train_original', 'train_gold', 'unlearn', 'evaluate', 'report')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(settings.Settings):
  """All settings of a run: those of its data, network and recipe are inherited."""

  workdir: str = settings.run_setting('runs', 'Folder for all results.')
  problem: str = settings.run_setting(
    '', 'Name of the problem folder; default: <dataset>-<model>-<forget>.'
  )
  stages: tuple[str, ...] = settings.run_setting(STAGES, f'Stages to run, of: {", ".join(STAGES)}.')

  max_examples: int = settings.problem_setting(0, 'Use a stratified subset of this size; 0: all.')
  validation_fraction: float = settings.problem_setting(
    0.1, 'Share of the examples held out for validation.'
  )
  test_fraction: float = settings.problem_setting(
    0.1, 'Share held out for testing, without --test_split.'
  )
  forget: str = settings.problem_setting(
    'class:3',
    'What to forget: class:3, class:3:0.1 (a tenth of it), classes:3,5, random:0.1, '
    'group:NAME_OR_COUNT, ids:FILE, official, subclass:NAME, mislabelled:0.1, backdoor:0.1:CLASS '
    'or memorised:0.1.',
  )
  coarse: str = settings.problem_setting(
    '', 'Classes to learn, made of those there are: even=0,2,4,6,8;odd=1,3,5,7,9.'
  )
  memorisation_models: int = settings.problem_setting(
    12, 'Models that memorisation scores are estimated from.'
  )
  unseen: str = settings.problem_setting(
    '', 'People never trained on, for the attacks: group:NAME_OR_COUNT.'
  )
  split_by_group: bool = settings.problem_setting(
    False, 'Hold out whole people for validation and test.'
  )
  group_sizes: str = settings.problem_setting('', 'Use people with so many images only: MIN,MAX.')
  check_duplicates: str = settings.problem_setting(
    'warn', 'Equal images in different sets: warn, drop (keep forget, then retain) or off.'
  )

  original_seed: int = settings.problem_setting(0, 'Seed of the original model.')

  evaluation: str = settings.run_setting(
    'standard', f'What to measure: {" or ".join(EVALUATIONS)}; see docs/evaluation.md.'
  )
  num_seeds: int = settings.run_setting(
    0, 'Originals, each unlearned and compared; 0: 1, or 8 if full.'
  )
  num_gold: int = settings.run_setting(
    0, 'Gold models: one half is the reference, the other the noise floor; 0: two a seed.'
  )
  num_shadows: int = settings.run_setting(
    0, 'Models trained on half of the forget set, for U-LiRA; 0: 16 if full.'
  )
  ensemble_size: int = settings.run_setting(
    16, 'How many models one program trains; 1: one after the other.'
  )
  relearn_epochs: int = settings.run_setting(
    20, 'Most epochs of relearning, for --evaluation=full.'
  )
  methods: tuple[str, ...] = settings.run_setting(
    ('muda',), 'Methods; see dalign_jax.methods.METHODS. A variant of one: method:name.'
  )
  hparam: tuple[str, ...] = settings.run_setting(
    (), 'A hyper-parameter, as muda.da_weight=5 or, of a variant, muda:x.da_weight=5. Repeatable.'
  )
  member: int = settings.run_setting(
    -1, 'Unlearn and evaluate from this original only, counted from 0; -1: all.'
  )

  tensorboard: bool = settings.run_setting(
    False, 'Write TensorBoard event files beside train.jsonl.'
  )
  coordinator_address: str = settings.run_setting(
    '', 'host:port of process 0, for a run of several processes.'
  )
  num_processes: int = settings.run_setting(1, 'Processes that take part in the run.')
  process_id: int = settings.run_setting(0, 'Number of this process.')

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

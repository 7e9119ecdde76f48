"""The stages of a run, in order; each skips what is done and resumes what was interrupted."""

from collections.abc import Iterable, Sequence
import contextlib
import dataclasses
import pathlib

import jax
import numpy as np

from dalign_jax import (
  checkpoints,
  errors,
  fresh,
  from_settings,
  hparams,
  methods,
  parallel,
  prediction,
  seeds,
  training,
  types,
)
from dalign_jax import data as data_lib
from dalign_jax.store import files, model_folder, progress
from experiments import config as config_lib
from experiments.problem import (
  ensembles,
  example_scores,
  folders,
  memorisation,
  preparation,
  shared_originals,
  subset_models,
)

_FIRST_SHADOW = 10_000  # the shadows' unlearning keys begin here


def run(config: config_lib.Config) -> None:
  """Runs the stages named in the configuration."""
  try:
    _run(config)
  except checkpoints.CheckpointError as error:
    raise errors.InputError(f'{error}', argument='workdir') from error


def _run(config):
  hyper_parameters = hparams.resolve(config.all_methods, config.hparam)
  folder = folders.problem_folder(config)
  is_shared = set(config.stages) <= {'unlearn', 'evaluate'}  # each model has a lock of its own
  with files.locked_by_writer(folder, is_shared=is_shared):
    job = prepare(config, folder, map(hparams.method_of, hyper_parameters))
    runs = [Run.of(job, name, values) for name, values in hyper_parameters.items()]
    if 'unlearn' in config.stages and any(methods.SUBSETS in r.sees for r in runs):
      subset_models.check(job)
    if config.originals_of:
      shared_originals.check(job)
    preparation.fix(job)
    parallel.barrier('prepare')
    _announce(job)
    if 'train_original' in config.stages:
      train_original(job)
    if 'train_gold' in config.stages:
      train_gold(job)
    if 'unlearn' in config.stages:
      unlearn_all(job, runs)
    if 'evaluate' in config.stages and parallel.is_main_process():
      from experiments.measure import evaluate  # slow to import, and bad input needs none of it

      asked = [r for r in runs if r.name in config.methods]  # others share the controls
      made = [r.folders[i] for r in asked for i in job.members]
      with contextlib.ExitStack() as held:  # no two measure the same models
        for of_model in filter(pathlib.Path.exists, made):
          held.enter_context(files.lock(of_model))
        evaluate.evaluate(job, [r.label for r in runs])
    if 'report' in config.stages and parallel.is_main_process():
      from experiments.report import problem_report  # as above

      problem_report.write(job)
    parallel.barrier('done')


def prepare(
  config: config_lib.Config, folder: pathlib.Path, names: Iterable[str] = ()
) -> preparation.Job:
  """The problem of a configuration; computes first the scores that a request chooses by.

  Args:
    config: of the run.
    folder: of the problem.
    names: of the methods that are to forget, which are checked before any score.
  """
  with errors.blame('forget'):
    kind = data_lib.parse_forget(config.forget).kind
  if kind not in data_lib.SCENARIOS or not data_lib.SCENARIOS[kind].needs_scores:
    return preparation.prepare(config, folder)
  for name in names:
    if methods.METHODS[name].class_only:
      raise _needs_classes(name, config)
  scores = example_scores.SCORES[kind](config)
  job = preparation.prepare(config, folder, scores.values)
  if scores.data_hash != job.data_hash:
    raise errors.InputError(
      f'{config.dataset} is not what it was when the scores of its images were made; delete '
      f'{memorisation.folder_of(config)}',
      argument='dataset',
    )
  memorisation.check_network(job)
  return job


def _needs_classes(method, config) -> errors.InputError:
  return errors.InputError(
    f'{method} forgets whole classes, but --forget={config.forget} does not', argument='methods'
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """One method or variant with its hyper-parameters, and where its result goes."""

  name: str
  hparams: dict
  restriction: dict  # and its optimizer, as its record says them
  unlearn_fn: types.UnlearnFn
  label: str
  folders: list[pathlib.Path]  # for each original
  shadow_folders: list[pathlib.Path]
  sees: frozenset[str]

  @property
  def method(self) -> str:
    return hparams.method_of(self.name)

  @property
  def is_oracle(self) -> bool:
    """Whether it asks for what no method can have: a control, to see what could be reached."""
    return methods.GOLD in self.sees

  @classmethod
  def of(cls, job: preparation.Job, name: str, values: dict) -> 'Run':
    method = hparams.method_of(name)
    if methods.METHODS[method].class_only and not job.forgets_classes:
      raise _needs_classes(method, job.config)
    if not job.config.beyond_range:
      with errors.blame('methods'):
        forget, retain = job.sets['forget'], job.sets['retain']
        of_people = bool(methods.forgets_people(forget, retain))
        methods.check_range(method, forget.labels, retain.labels, of_people=of_people)
    if job.is_multi_label and not methods.METHODS[method].multi_label:
      raise errors.InputError(
        f'{method} needs classes; --label_key={job.config.label_key} are several attributes',
        argument='methods',
      )
    config = job.config.of_controls() if name in job.config.controls else job.config
    unlearn_fn = from_settings.method(config, method, values)
    if 'batch_size' in values:
      from_settings.check_batch_size(f'hparam={name}.batch_size', values['batch_size'], job.devices)
    label = from_settings.restricted_label(config, hparams.label(name, values))
    return cls(
      name,
      values,
      from_settings.restriction(config),
      unlearn_fn,
      label,
      job.run_folders(label),
      job.run_shadow_folders(label),
      methods.sees(method, values, has_unseen=job.watched is not None),
    )


def train_original(job: preparation.Job) -> None:
  """Trains the models that will have to forget, on retain and forget; the shadows on half of it."""
  if job.config.originals_of:
    shared_originals.take(job)
  dataset = job.training_set
  originals = {seed: job.original_folder(seed) for seed in job.original_seeds}
  everything = {seed: np.arange(len(dataset)) for seed in originals}
  _train(job, 'original', originals, dataset, everything)
  kept = np.arange(len(job.sets['retain']))
  shadows = {index: job.shadow_folder(index) for index in range(job.config.shadows)}
  halves = {k: np.concatenate([kept, len(kept) + job.shadow_forget_rows(k)]) for k in shadows}
  _train(job, 'shadow', shadows, dataset, halves)


def train_gold(job: preparation.Job) -> None:
  """Trains the gold models, on retain alone: the reference and the noise floor."""
  golds = {seed: job.gold_folder(seed) for seed in job.gold_seeds}
  dataset = job.sets['retain']
  _train(job, 'gold', golds, dataset, {seed: np.arange(len(dataset)) for seed in golds})


def _train(job, role, folders, dataset, subsets):
  """Trains the models that are missing: a single one alone, several as an ensemble."""
  keys = {seed: seeds.stream(seed, role) for seed in folders}
  if job.config.ensemble_size > 1 and len(folders) > 2:
    ensembles.make_ensemble(job, role, folders, keys, dataset, subsets)
    return
  for seed, folder in folders.items():

    def compute(monitor, seed=seed):
      init_key, fit_key = jax.random.split(keys[seed])
      training_set = dataset.take(subsets[seed])
      return training.fit(
        job.apply_fn,
        fresh.model(job.init_fn, init_key, training_set),
        training_set,
        job.recipe,
        fit_key,
        devices=job.devices,
        monitor=monitor,
      )

    record = {'seed': seed, 'examples': len(subsets[seed])}
    title = f'train {role} (seed {seed})'
    model_folder.make_model(
      folder,
      'model',
      compute,
      record,
      title,
      devices=job.devices,
      tensorboard=job.config.tensorboard,
    )


def unlearn_all(job: preparation.Job, runs: Sequence[Run]) -> None:
  """Runs methods one after the other; models that several of them need are made before."""
  folders = [
    folder
    for run in runs
    if methods.SUBSETS in run.sees
    for folder in (*(run.folders[i] for i in job.members), *run.shadow_folders)
  ]
  if not parallel.agree(all(checkpoints.exists(folder / 'unlearned') for folder in folders)):
    subset_models.make(job)
  for run in runs:
    unlearn(job, run)


def unlearn(job: preparation.Job, run: Run) -> None:
  """Runs one method from every original, and from every shadow."""
  forget = job.sets['forget']
  for number in job.members:
    start, folder = job.original_folder(job.original_seeds[number]), run.folders[number]
    _unlearn(job, run, start, forget, folder, number)
  shadows = job.config.shadows if job.config.member <= 0 else 0
  for index in range(shadows):
    shadow_forget = forget.take(job.shadow_forget_rows(index))
    start, folder = job.shadow_folder(index), run.shadow_folders[index]
    _unlearn(job, run, start, shadow_forget, folder, _FIRST_SHADOW + index)
  others = len(job.members) - 1 + shadows
  if others:
    progress.say(f'unlearn: {run.label}: from {others} more originals and shadows')


def _unlearn(job, run, start, forget, folder, number):
  if not checkpoints.exists(start / 'model'):
    raise errors.InputError(f'no model in {start}; run train_original first', argument='stages')
  is_new = not checkpoints.exists(folder / 'unlearned') or not (folder / 'flags.txt').exists()
  if parallel.is_main_process() and is_new:
    files.write_text(folder / 'flags.txt', _flag_file(job.config, run))
  record = {
    'method': run.method,
    'hparams': run.hparams,
    'seed': job.config.unlearn_seed,
    'original': checkpoints.read_record(start / 'model')['digest'],
    'sees': methods.in_words(run.sees),
    **run.restriction,
  }
  gold = _gold_of(job, number) if run.is_oracle else None
  needs_subsets = methods.SUBSETS in run.sees
  if gold:
    record['gold'] = checkpoints.read_record(gold)['digest']
  key = seeds.stream(job.config.unlearn_seed, 'unlearn', number)

  def compute(monitor):
    original, _ = checkpoints.restore(start / 'model', job.template)
    problem = job.problem(
      original,
      forget=forget,
      monitor=monitor,
      gold_logits=_gold_logits(job, forget, gold) if gold else None,
      subset_outputs=subset_models.outputs(job, forget) if needs_subsets else None,
    )
    try:
      return run.unlearn_fn(problem, key)
    except types.DataError as error:
      raise errors.InputError(f'{run.label}: {error}', argument='methods') from error

  title = f'unlearn: {run.label}' + (f' ({start.parent.name} {start.name})' if number else '')
  model_folder.make_model(
    folder,
    'unlearned',
    compute,
    record,
    title,
    devices=job.devices,
    is_one_of_many=number > 0,
    tensorboard=job.config.tensorboard,
  )


def _gold_of(job, number) -> pathlib.Path:
  """Folder of the gold of this number."""
  folder = job.gold_folder(job.gold_seeds[number % (job.config.golds // 2)])
  if not checkpoints.exists(folder / 'model'):
    raise errors.InputError(f'no model in {folder}; run train_gold first', argument='stages')
  return folder / 'model'


def _gold_logits(job, forget, checkpoint) -> dict[str, np.ndarray]:
  """A gold's logits on the training data."""
  gold, _ = checkpoints.restore(checkpoint, job.template)
  predict = lambda images: prediction.predict(job.apply_fn, gold, images, devices=job.devices)
  sets = {'retain': job.sets['retain'], 'forget': forget}
  return {name: predict(dataset.images).logits for name, dataset in sets.items()}


def _announce(job):
  sizes = ', '.join(f'{name} {len(d)}' for name, d in job.sets.items())
  devices = parallel.num_devices(job.devices)
  progress.say(f'{job.folder}: {sizes}; {devices} x {jax.devices()[0].device_kind}')
  for taken in job.taken:
    for line in taken.lines():
      progress.say(f'  {line}')
  for note in job.notes:
    progress.say(f'  {note}')


def _flag_file(config, run) -> str:
  """A flag file that makes this one run again."""
  config = dataclasses.replace(
    config,
    stages=config_lib.STAGES,
    coordinator_address='',
    num_processes=1,
    process_id=0,
    distributed='off',
    member=-1,
    quiet=False,
    methods=(run.name,),
    hparam=tuple(f'{run.name}.{name}={value}' for name, value in run.hparams.items()),
  )
  header = f'# python -m experiments.run --flagfile=<this file>: {run.label}'
  return '\n'.join([header, *config.flag_lines()]) + '\n'

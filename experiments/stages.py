"""The stages of a run, in order; each skips what is done and resumes what was interrupted."""

from collections.abc import Callable
import contextlib
import dataclasses
import hashlib
import os
import pathlib

import jax
import numpy as np

from dalign_jax import checkpoints, methods, parallel, training, types
from experiments import config as config_lib
from experiments import errors, evaluation, files, hparams, problems, progress, report, timing


def run(config: config_lib.Config) -> None:
  """Runs the stages named in the configuration."""
  try:
    _run(config)
  except checkpoints.CheckpointError as error:
    raise errors.UserError(f'--workdir: {error}') from error


def _run(config):
  hyper_parameters = hparams.resolve(config.methods, config.hparam)
  folder = pathlib.Path(os.path.expanduser(config.workdir)) / config.problem_name()
  with files.lock(folder) if parallel.is_main_process() else contextlib.nullcontext():
    job = problems.prepare(config, folder)
    runs = [_Run.of(job, name, values) for name, values in hyper_parameters.items()]
    problems.fix(job)
    parallel.barrier('prepare')
    _announce(job)
    if 'train_original' in config.stages:
      train_original(job)
    if 'train_gold' in config.stages:
      train_gold(job)
    if 'unlearn' in config.stages:
      for r in runs:
        unlearn(job, r)
    if 'evaluate' in config.stages and parallel.is_main_process():
      evaluation.evaluate(job, {r.label: r.folder for r in runs})
    if 'report' in config.stages and parallel.is_main_process():
      report.write(job)
    parallel.barrier('done')


@dataclasses.dataclass(frozen=True)
class _Run:
  """One method with its hyper-parameters, and where its result goes."""

  method: str
  hparams: dict
  unlearn_fn: types.UnlearnFn
  label: str
  folder: pathlib.Path

  @classmethod
  def of(cls, job: problems.Job, method: str, values: dict) -> '_Run':
    if methods.METHODS[method].class_only and not job.forgets_classes:
      raise errors.UserError(
        f'--methods: {method} forgets whole classes, but --forget={job.config.forget} does not'
      )
    if job.is_multi_label and not methods.METHODS[method].multi_label:
      raise errors.UserError(
        f'--methods: {method} needs classes; --label_key={job.config.label_key} are several '
        'attributes'
      )
    with errors.blame('hparam'):
      unlearn_fn = methods.METHODS[method].make(**values)
    if 'batch_size' in values:
      problems.check_batch_size(f'--hparam={method}.batch_size', values['batch_size'], job.devices)
    label = hparams.label(method, values)
    folder = job.folder / 'runs' / label / f'seed_{job.config.unlearn_seed}'
    return cls(method, values, unlearn_fn, label, folder)


def train_original(job: problems.Job) -> None:
  """Trains the model that will have to forget, on retain and forget."""
  seed = job.config.original_seed
  key = _key(seed, 'original')
  _train(job, job.original_folder, job.training_set, seed, key, 'original')


def train_gold(job: problems.Job) -> None:
  """Trains the gold models, on retain alone: the reference and the noise floor."""
  for seed in job.gold_seeds:
    key = _key(seed, 'gold')
    _train(job, job.gold_folder(seed), job.sets['retain'], seed, key, f'gold (seed {seed})')


def unlearn(job: problems.Job, run: _Run) -> None:
  """Runs one method from the original."""
  folder = job.original_folder
  if not checkpoints.exists(folder / 'model'):
    raise errors.UserError(f'--stages: no original in {folder}; run train_original first')
  original, _ = checkpoints.restore(folder / 'model', job.template)
  if parallel.is_main_process() and not (run.folder / 'flags.txt').exists():
    files.write_text(run.folder / 'flags.txt', _flag_file(job.config, run))
  record = {
    'method': run.method,
    'hparams': run.hparams,
    'seed': job.config.unlearn_seed,
    'sees': methods.METHODS[run.method].sees,
  }

  def compute(monitor):
    problem = types.Problem(
      apply_fn=job.apply_fn,
      init_fn=job.init_fn,
      original=original,
      retain=job.sets['retain'],
      forget=job.sets['forget'],
      validation=job.sets['validation'],
      num_classes=job.num_classes,
      recipe=job.recipe,
      devices=job.devices,
      monitor=monitor,
      unseen=job.watched,
    )
    return run.unlearn_fn(problem, _key(job.config.unlearn_seed, 'unlearn'))

  _make_model(run.folder, 'unlearned', compute, record, f'unlearn: {run.label}')


def _key(seed: int, role: str) -> jax.Array:
  """A stream for each role: equal seeds of original, gold and method have nothing in common."""
  role_number = ('original', 'gold', 'unlearn').index(role)
  return jax.random.fold_in(jax.random.key(seed), role_number)


def _train(job, folder, dataset, seed, key, title):
  def compute(monitor):
    init_key, fit_key = jax.random.split(key)
    return training.fit(
      job.apply_fn,
      job.init_fn(init_key),
      dataset,
      job.recipe,
      fit_key,
      devices=job.devices,
      monitor=monitor,
    )

  record = {'seed': seed, 'examples': len(dataset)}
  _make_model(folder, 'model', compute, record, f'train {title}')


def _make_model(
  folder: pathlib.Path,
  name: str,
  compute: Callable[[types.Monitor], types.ModelState],
  record: dict,
  title: str,
) -> None:
  """Computes a model and saves it with a record of how it was made, unless it is there."""
  made_with = {**record, **environment()}
  if parallel.agree(checkpoints.exists(folder / name)):
    _, found = checkpoints.restore(folder / name)
    _check_record(folder, {k: found.get(k) for k in record}, record)
    progress.say(f'{title}: done before ({found["seconds"]:.1f} s)')
    return
  with progress.bar(title) as shown:
    monitor = progress.RunMonitor(folder, shown, timing.compile_seconds, made_with)
    try:
      model = compute(monitor)
    except training.NonFiniteLossError as error:
      last = checkpoints.latest_epoch(folder / 'training')
      kept = f'the state after epoch {last} is kept' if last else 'no epoch was finished'
      raise errors.UserError(
        f'{title}: {error}; {kept} in {folder}. Try a lower learning rate.'
      ) from None
    spent = monitor.seconds()
  if parallel.is_main_process():
    record = {**made_with, **spent, 'digest': _digest(model)}
    checkpoints.save(folder / name, model, record)
  monitor.close()
  parallel.barrier(str(folder))
  progress.say(
    f'{title}: {spent["seconds"]:.1f} s, and {spent["compile_seconds"]:.1f} s of compilation'
  )


def _check_record(folder, there, now):
  changed = [k for k in now if there[k] != now[k]]
  if changed:
    lines = [f'{k}: {there[k]!r} there, {now[k]!r} now' for k in changed]
    raise errors.UserError(
      f'--workdir: {folder} was made with other settings ({"; ".join(lines)}); use another '
      '--problem or --workdir, or delete the folder'
    )


def _digest(model: types.ModelState) -> str:
  """SHA-256 of a model's bytes: an evaluation says which models it is of."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(model):
    digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()


def environment() -> dict:
  """Where a model was made: what its bits and its seconds depend on."""
  return {
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'versions': problems.versions(),
  }


def _announce(job):
  sizes = ', '.join(f'{name} {len(d)}' for name, d in job.sets.items())
  devices = parallel.num_devices(job.devices)
  progress.say(f'{job.folder}: {sizes}; {devices} x {jax.devices()[0].device_kind}')
  for note in job.notes:
    progress.say(f'  {note}')


def _flag_file(config, run) -> str:
  """A flag file that makes this one run again."""
  config = dataclasses.replace(
    config,
    coordinator_address='',
    num_processes=1,
    process_id=0,
    methods=(run.method,),
    hparam=tuple(f'{run.method}.{name}={value}' for name, value in run.hparams.items()),
  )
  lines = [f'# python -m experiments.run --flagfile=<this file>: {run.label}']
  for name, value in dataclasses.asdict(config).items():
    if name == 'hparam':
      lines += [f'--hparam={v}' for v in value]
    elif isinstance(value, bool):
      lines.append(f'--{name}' if value else f'--no{name}')
    else:
      lines.append(f'--{name}={",".join(value) if isinstance(value, tuple) else value}')
  return '\n'.join(lines) + '\n'

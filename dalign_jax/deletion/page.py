"""A record as one page: for the person who asked, and for an auditor; it can be printed."""

import importlib.resources
import pathlib
from typing import Any

from dalign_jax import errors
from dalign_jax.deletion import record_files, rights, untrusted, verdict, verdict_rules
from dalign_jax.store import files, progress

_NEEDS = "needs Jinja2: pip install 'dalign-jax[deletion]'"
_TONES = {  # how the verdict is marked, besides its word
  'forgot': 'good',
  'nothing to forget': 'plain',
  'no measurable effect': 'open',
  'worse': 'bad',
  'destroyed': 'bad',
  'incomplete': 'open',
}
_ROWS = (  # of the table: key of the metric, its name, whether it is a share
  ('forget_accuracy', 'Recognised among the samples of the request', True),
  ('retain_accuracy', 'Recognised among the samples kept', True),
  ('test_accuracy', 'Recognised among samples never trained on', True),
  ('attack', 'Success of an attack by the loss (chance is 0.5)', False),
  ('activation_distance', 'Distance from a retrained model', False),
)
_DATES = (
  ('received', 'Received'),
  ('due', 'Answer due'),
  ('answered', 'Answered'),
  ('ground', 'Ground'),
  ('decision', 'Decision'),
)


def write(folder: pathlib.Path, record: dict, *, is_signed: bool) -> None:
  """Writes the page beside a record; says so where Jinja2 is missing.

  Args:
    folder: of the request.
    record: of format 2.
    is_signed: whether an envelope lies beside it.
  """
  try:
    text = render(record, is_signed=is_signed)
  except ModuleNotFoundError:
    progress.say(f'{record_files.PAGE} is not written: it {_NEEDS}')
    return
  files.write_text(folder / record_files.PAGE, text)


def check(folder: pathlib.Path, record: dict, *, is_signed: bool) -> str:
  """Compares the page beside a record with the record; what was found, in words.

  Raises:
    errors.InputError: if it is another page.
  """
  path = folder / record_files.PAGE
  if not path.exists():
    return 'there is none'
  try:
    wanted = render(record, is_signed=is_signed)
  except ModuleNotFoundError:
    return f'not checked: it {_NEEDS}'
  if untrusted.read_text(path) != wanted:
    raise errors.InputError(f'{path} is not the page of the record beside it; {files.BRING_BACK}')
  return 'the one of the record'


def render(record: dict, *, is_signed: bool) -> str:
  """The page of a record, all of it in one file.

  Args:
    record: of format 2.
    is_signed: whether an envelope lies beside it.
  """
  import jinja2

  reasons = verdict.words(record)[1:]
  source = importlib.resources.files('dalign_jax.deletion').joinpath('record.html.j2')
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  return environment.from_string(source.read_text(encoding='utf-8')).render(
    record=record,
    is_signed=is_signed,
    tone=_TONES[record['verdict']['word']],
    meaning=verdict_rules.of_word(record['verdict']['word']).meaning,
    answer=_answer(record),
    reasons=reasons,
    sentences=record['summary'][len(reasons) + 1 :],
    table=_table(record['metrics']),
    models=[_name(model) for model in record['metrics']],
    dates=_dates(record),
    facts=_facts(record),
  )


def _answer(record) -> str:
  """The first sentence: what happened to the samples of the request."""
  count = record['request']['count']
  samples, them = ('1 sample', 'it') if count == 1 else (f'{count:,} samples', 'them')
  if not verdict.is_forgotten(record):
    changed = 'changed, but' if verdict.is_changed(record) else 'not changed, and'
    return f'The model was {changed} {samples} cannot be called forgotten.'
  how = 'changed to forget'
  if record['method']['name'] == 'retrain':
    how = 'trained anew without'
  no_longer = 'no longer counts' if count == 1 else 'no longer count'
  return f'{samples} {no_longer} as training data, and the model was {how} {them}.'


def _table(metrics) -> list[tuple[str, list[str]]]:
  rows = []
  for key, name, is_share in _ROWS:
    values = [of_model.get(key) for of_model in metrics.values()]
    if any(value is not None for value in values):
      rows.append((name, [_number(value, is_share) for value in values]))
  return rows


def _number(value: float | None, is_share: bool) -> str:
  if value is None:
    return 'not defined'
  return f'{100 * value:.1f} %' if is_share else f'{value:.3f}'


def _name(model: str) -> str:
  names = {'original': 'Before', 'unlearned': 'After', 'gold': 'Retrained'}
  return names.get(model, 'Retrained again')


def _dates(record) -> list[tuple[str, str]]:
  said = rights.words(record['rights'])
  return [(name, said[key].replace('_', ' ')) for key, name in _DATES if said[key]]


def _facts(record) -> list[tuple[str, Any]]:
  train, environment = record['samples']['train'], record['environment']
  return [
    ('Record', record['hash']),
    ('Request', f'number {record["number"]} of its chain, made {record["created"]}'),
    ('Record before', record['previous'] or 'none: this is the first'),
    ('Method', f'{record["method"]["name"]}; it read: {record["method"]["sees"]}'),
    ('Model before', record['model']['before']),
    ('Model after', record['model']['after']),
    ('Training samples before', f'{train["count_before"]:,}, root {train["before"]}'),
    ('Training samples after', f'{train["count_after"]:,}, root {train["after"]}'),
    ('Source of the command', record['code']),
    ('Devices', environment['devices']),
    ('Versions', ', '.join(f'{k} {v}' for k, v in environment['versions'].items())),
    ('Time taken', f'{record["seconds"]:.1f} s'),
    ('Commitments', record['commitments']['scheme']),
    ('Removed', ', '.join(f'{k}: {v}' for k, v in record['traces']['removed'].items())),
    ('Not looked into', '; '.join(record['traces']['not_looked_into'])),
  ]

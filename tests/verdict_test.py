"""Verdicts of deletion requests: the rules, what is signed, and what is refused before any work."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from dalign_jax import console, errors, types
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  audit_record,
  carry_out,
  dummy_request,
  evidence,
  record_files,
  record_keys,
  refusals,
  request_rows,
  starting_point,
  verdict,
  verdict_rules,
)
from experiments.benchmarks import file_kills
from tests import deletion_test, tiny

PART = {
  'count': 100,
  'held_out_count': 100,
  'accuracy': {'before': 1.0, 'after': 0.7, 'dummy': 1.0},
  'held_out': {'before': 0.7, 'after': 0.7},
  'p': {'before': 0.001, 'after': 1.0},
}
FORGOT = {
  'mode': 'full',
  'exact': False,
  'count': 100,
  'parts': {'samples': PART},
  'attack': {'before': 0.7, 'after': 0.52, 'floor': 0.08},
  'moved': {'after': 0.5, 'dummy': 0.1, 'p': 0.001},
  'fell': {'after': 0.7, 'other': 1.0, 'p': 0.001},
  'parameters_moved': {'after': 0.1, 'dummy': 0.1},
  'kept': {'the samples kept': {'before': 1.0, 'after': 0.99, 'count': 200}},
  'chance': 0.1,
}
STILL = {'moved': {'after': 0.11, 'dummy': 0.1, 'p': 0.2}, 'fell': {'after': 1, 'other': 1, 'p': 1}}
KNOWN = {'attack': FORGOT['attack'] | {'after': 0.65}}
GOLD = {'accuracy': PART['accuracy'] | {'gold': 0.5}, 'p_gold': {'before': 0.01, 'after': 0.01}}
EVEN = {'p': {'before': 0.5, 'after': 0.5}}
QUIET = {'parts': {'samples': PART | EVEN}, 'attack': {'before': 0.52, 'after': 0.5, 'floor': 0.08}}
WHOLE = PART | {'allowed': 0.1, 'p': {'before': 1.0, 'after': 1.0}}
ALONE = PART | {'held_out_count': 0, 'held_out': {}, 'p': {}}
WHOLE_GONE = {'allowed': 0.1, 'accuracy': {'before': 1.0, 'after': 0.02, 'dummy': 1.0}}
CASES = {  # what differs from FORGOT -> the word
  'all rules': ({}, 'forgot'),
  'inside the dummy': (STILL, 'no measurable effect'),
  'inside the dummy, and known': (STILL | KNOWN, 'no measurable effect'),
  'moved, and known': (KNOWN, 'incomplete'),
  'above gold': ({'parts': {'samples': PART | GOLD}}, 'incomplete'),
  'never knew': (QUIET, 'nothing to forget'),
  'never knew, and did not move': (QUIET | STILL, 'nothing to forget'),
  'never knew, and no parameter changed': (
    QUIET | STILL | {'parameters_moved': {'after': 0.0, 'dummy': 0.0}},
    'no measurable effect',
  ),
  'few can show nothing, and did not move': (
    QUIET | STILL | {'count': 4},
    'no measurable effect',
  ),
  'few can show nothing, and moved': (QUIET | {'count': 4}, 'nothing to forget'),
  'nothing held out to compare with': (
    {'parts': {'samples': ALONE}, 'attack': None},
    'no measurable effect',
  ),
  'gold to compare with': (
    {'parts': {'samples': ALONE | GOLD | {'p_gold': EVEN['p']}}, 'attack': None},
    'nothing to forget',
  ),
  'a class, and nothing held out of it': (
    {
      'parts': {'classes': ALONE | WHOLE_GONE},
      'attack': None,
    },
    'forgot',
  ),
  'exact, and no parameter changed': (
    {'exact': True, 'parameters_moved': {'after': 0.0}},
    'no measurable effect',
  ),
  'attack grew': ({'attack': {'before': 0.55, 'after': 0.8, 'floor': 0.08}}, 'worse'),
  'attack grew to the other side': (
    {'attack': {'before': 0.5, 'after': 0.2, 'floor': 0.1}},
    'worse',
  ),
  'wrong on purpose': (
    {'parts': {'samples': PART | {'p': {'before': 0.5, 'after': 0.001}}}},
    'worse',
  ),
  'retain lost': ({'kept': {'kept': {'before': 1.0, 'after': 0.9, 'count': 200}}}, 'destroyed'),
  'retain kept': ({'kept': {'kept': {'before': 1.0, 'after': 0.92, 'count': 200}}}, 'forgot'),
  'exact': ({'exact': True, **QUIET, **STILL}, 'forgot'),
  'exact, and retain lost': (
    {'exact': True, 'kept': {'k': {'before': 1, 'after': 0, 'count': 200}}},
    'destroyed',
  ),
  'parameters are the same': (
    {'parameters_moved': {'after': 0.0, 'dummy': 0.0}},
    'no measurable effect',
  ),
  'a class, still known': ({'parts': {'classes': WHOLE}}, 'incomplete'),
  'a class': (
    {'parts': {'classes': WHOLE | {'accuracy': {'before': 1.0, 'after': 0.02}}}},
    'forgot',
  ),
  'quick, a small movement': (
    {'mode': 'quick', 'moved': {'after': 0.01}, 'fell': STILL['fell']},
    'no measurable effect',
  ),
  'quick': ({'mode': 'quick', 'moved': {'after': 0.1}}, 'forgot'),
  'few, less than twice the dummy': (
    {'count': 3, 'moved': {'after': 0.15, 'dummy': 0.1, 'p': 0.125}, 'fell': STILL['fell']},
    'no measurable effect',
  ),
  'few, more than twice': (
    {'count': 3, 'moved': {'after': 0.25, 'dummy': 0.1, 'p': 0.125}, 'fell': STILL['fell']},
    'forgot',
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_rules_give_the_word(case):
  changes, word = CASES[case]
  found = verdict.make({**copy.deepcopy(FORGOT), **changes})
  assert found['word'] == word, found['reasons']
  assert found['reasons'] and [rule['key'] for rule in found['rules']]
  lines = verdict.words({'verdict': found})
  assert lines[0] == f'Verdict: {word}.'
  signed = word in ('forgot', 'nothing to forget')
  requested = not signed and not found['measured']['exact']
  assert (found['counts_as'] == 'requested') == requested
  assert any('count as requested' in line for line in lines) == requested


def test_only_what_forgot_is_signed_unless_accepted():
  for changes, word in CASES.values():
    found = verdict.make({**copy.deepcopy(FORGOT), **changes})
    kind = verdict_rules.of_word(word)
    if kind.code == 0:
      verdict.check_signed(found, ())
      continue
    with pytest.raises(
      verdict.NotForgottenError, match=f'{word}: .*--accept={kind.accept}'
    ) as error:
      verdict.check_signed(found, set(verdict.ACCEPTABLE) - {kind.accept})
    assert error.value.code == kind.code >= 3
    verdict.check_signed(found, (kind.accept,))
  assert verdict.words({}) == [] and verdict.is_forgotten({})  # records of earlier formats


def test_command_ends_with_the_code_of_the_verdict(monkeypatch, capsys):
  changes, word = CASES['inside the dummy']

  def forget(request, settings, given):
    raise verdict.NotForgottenError(verdict.make({**FORGOT, **changes}))

  monkeypatch.setattr(carry_out, 'forget', forget)
  monkeypatch.setattr(console.command, 'values', lambda fields: {})
  monkeypatch.setattr(console.command, 'given', lambda fields: set())
  monkeypatch.setattr(console.command, 'start_platform', lambda settings: None)
  with pytest.raises(SystemExit) as stop:
    console.forget([])
  assert stop.value.code == 3
  assert capsys.readouterr().err.startswith(f'error: --verdict: {word}: ')


def test_rules_of_the_docs_are_those_of_the_code():
  text = (deletion_test.ROOT / 'docs' / 'verdict_requests.md').read_text(encoding='utf-8')
  assert verdict_rules.markdown() in text


def test_sign_flip_test_has_its_level():
  rng = np.random.default_rng(0)
  for count in (8, 30):
    draws = [evidence.flip_p(rng.normal(size=count), seed=i) for i in range(200)]
    assert 0.01 <= np.mean(np.array(draws) <= 0.05) <= 0.10
  assert evidence.flip_p(np.full(20, 0.1), seed=0) < 0.001
  assert evidence.flip_p(np.zeros(20), seed=0) == 1.0


def test_dummy_request_names_as_many_other_samples(tiny_problem):
  rows = dummy_request.rows(tiny_problem, class_only=False, seed=0)
  dummy = dummy_request.problem_of(tiny_problem, rows)
  assert len(dummy.forget) == len(tiny_problem.forget) == len(set(rows.tolist()))
  assert not set(dummy.forget.ids) & set(tiny_problem.forget.ids)
  assert set(tiny_problem.forget.ids) <= set(dummy.retain.ids)
  assert set(dummy.forget.labels) <= set(dummy.retain.labels)  # no class goes whole
  whole = dummy_request.rows(tiny_problem, class_only=True, seed=0)
  classes = np.unique(tiny_problem.retain.labels[whole])
  assert len(classes) == 1 and len(whole) == np.sum(tiny_problem.retain.labels == classes[0])
  part = dataclasses.replace(tiny_problem, forget=tiny_problem.retain.take(np.arange(8)))
  labels = [
    part.retain.labels[dummy_request.rows(part, class_only=False, seed=0)],
    part.forget.labels,
  ]
  assert np.array_equal(*map(np.sort, labels))  # of the same classes


def test_numbers_are_those_of_the_metrics(tiny_problem):
  other = tiny.init_fn(jax.random.key(5))
  models = {'before': tiny_problem.original, 'after': other}
  values = {'original': {'retain_accuracy': 1.0}, 'unlearned': {'retain_accuracy': 0.5}}
  found = evidence.measure(
    tiny_problem, models, tiny_problem.validation, values, exact=False, seed=0
  )
  assert found['mode'] == 'quick' and found['attack'] is None
  assert sum(part['count'] for part in found['parts'].values()) == len(tiny_problem.forget)
  assert found['moved']['after'] > 0.1 and 'dummy' not in found['moved']
  assert found['parameters_moved']['after'] > 0.5
  same = evidence.measure(
    tiny_problem,
    models | {'after': tiny_problem.original},
    tiny_problem.validation,
    values,
    exact=False,
    seed=0,
  )
  assert same['moved']['after'] == same['parameters_moved']['after'] == 0
  assert evidence.is_finite(tiny_problem, other)
  broken = jax.tree.map(lambda x: np.full_like(x, np.nan), other)
  assert not evidence.is_finite(tiny_problem, broken)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'method': 'planted_leak'}, 'method: planted_leak is a control'),
    ({'method': 'head_only'}, 'method: head_only is a control'),
    ({'method': 'original'}, 'method: original is a control'),
    ({'method': 'finetune', 'hparam': ('finetune.num_epochs=0',)}, 'num_epochs must be above 0'),
    ({'method': 'muda', 'hparam': ('muda.rounds=0',)}, 'hparam: muda.rounds must be above 0'),
    ({'method': 'muda', 'hparam': ('muda.forget_steps=0',)}, 'muda.forget_steps must be above 0'),
    ({'method': 'scrub', 'hparam': ('scrub.forget_epochs=0',)}, 'scrub.forget_epochs must be'),
    ({'method': 'influence', 'hparam': ('influence.scale=0',)}, 'influence.scale must be above 0'),
    ({'method': 'finetune', 'hparam': ('finetune.learning_rate=0',)}, 'learning_rate must be in'),
    ({'method': 'finetune', 'hparam': ('finetune.learning_rate=-1',)}, 'learning_rate must be in'),
  ],
)
def test_what_cannot_forget_is_refused_before_any_work(changes, message, tmp_path):
  request = settings_lib.Request(
    checkpoint='nowhere', ids='none', out=str(tmp_path / 'o'), **changes
  )
  with pytest.raises(errors.InputError, match=message):
    carry_out.forget(request, settings_lib.Settings())


def test_a_request_of_whole_classes_has_no_single_samples(place, tmp_path):
  train = file_kills.digits(slice(0, 120))
  ids = [*train.ids[train.labels == 3], *train.ids[train.labels == 5][:2]]
  request = _request(place, place / 'mine.npz', ids, tmp_path / 'out', method='pour_p', hparam=())
  with pytest.raises(errors.InputError, match='not single samples; 2 of these are of classes that'):
    carry_out.forget(request, SHARED)


def test_models_that_know_nothing_are_refused(tiny_problem):
  refusals.check_model(tiny_problem)
  trained = types.concatenate(tiny_problem.retain, tiny_problem.forget)
  shuffled = np.random.default_rng(0).permutation(trained.labels)
  wrong = types.Dataset(trained.images, shuffled.astype(np.int32), trained.ids)
  count = len(tiny_problem.forget)
  rows = np.arange(len(wrong))
  other = dataclasses.replace(
    tiny_problem, forget=wrong.take(rows[:count]), retain=wrong.take(rows[count:])
  )
  with pytest.raises(errors.InputError, match=r'checkpoint: .* it knows nothing that it could'):
    refusals.check_model(other)


def test_what_is_trained_anew_must_not_start_from_the_model(tiny_problem):
  retrain = settings_lib.Request(method='retrain')
  refusals.check_start(tiny_problem, retrain)
  itself = dataclasses.replace(tiny_problem, init_fn=lambda key: tiny_problem.original)
  constant = dataclasses.replace(
    tiny_problem, init_fn=lambda key: tiny_problem.init_fn(jax.random.key(0))
  )
  for request in (retrain, settings_lib.Request(method='muda', compare_gold=1)):
    with pytest.raises(errors.InputError, match=r'^pretrained: .* are those of the model that is'):
      refusals.check_start(itself, request)
    with pytest.raises(errors.InputError, match=r'^model: .* the same weights for every key'):
      refusals.check_start(constant, request)
  refusals.check_start(itself, settings_lib.Request(method='muda'))


def test_held_out_samples_must_not_be_those_of_training():
  part = lambda *rows: file_kills.digits(slice(*rows))
  sets = {'train': part(0, 120), 'validation': part(200, 250), 'test': part(250, 300)}
  refusals.check_held_out(sets, np.arange(5))
  for name in ('validation', 'test'):
    with pytest.raises(errors.InputError, match=f'held_out: 20 of 50 {name} samples are in the'):
      refusals.check_held_out({**sets, name: part(100, 150)}, np.arange(5))
  one = types.concatenate(part(2, 3), part(250, 400))  # one of 151: it is asked to be forgotten
  with pytest.raises(errors.InputError, match='held_out: 1 of 5 samples to forget are among the'):
    refusals.check_held_out({**sets, 'test': one}, np.arange(5))


def test_classes_that_are_forgotten_already_are_not_held_against_a_model(tiny_problem):
  labels = tiny_problem.validation.labels
  assert {0, 3} <= set(labels.tolist())
  later = dataclasses.replace(
    tiny_problem,
    forget=tiny_problem.retain.take(np.flatnonzero(tiny_problem.retain.labels == 1)[:3]),
    retain=tiny_problem.retain.take(np.flatnonzero(tiny_problem.retain.labels != 0)),
  )
  found = carry_out.of_known_classes(tiny_problem.validation, later)
  gone = np.isin(labels, (0, 3))  # neither kept nor asked for now
  assert found.labels.tolist() == labels[~gone].tolist()
  attributes = np.eye(2, dtype=np.int32)
  many = types.Dataset(np.zeros((2, 8, 8, 1), np.uint8), attributes, np.array(['a', 'b']))
  assert carry_out.of_known_classes(many, later) is many


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('verdicts')
  file_kills.write_place(folder)
  return folder


def _request(place, checkpoint, ids, out, **changes):
  named = {
    'checkpoint': str(checkpoint),
    'ids': deletion_test.write(out.with_suffix('.csv'), ids),
    'out': str(out),
    'data': f'npz:{place}/train.npz',
    'held_out': f'npz:{place}/held_out.npz',
    'near_copies': False,
  }
  return settings_lib.Request(**{**named, **changes})


SHARED = settings_lib.Settings(
  width_multiplier=0.125,
  batch_size=20,
  num_epochs=12,
  num_devices=1,
  cache_dir='',
  compilation_cache_dir='',
)


def test_a_request_without_effect_is_not_signed_and_can_be_made_again(place, tmp_path):
  """Refused, accepted as requested, kept out of later training, asked again, forgotten."""
  train = file_kills.digits(slice(0, 120))
  ids = train.ids[train.labels == 3].tolist()
  one = {'method': 'finetune', 'hparam': ('finetune.num_epochs=1', 'finetune.learning_rate=1e-6')}
  request = _request(place, place / 'mine.npz', ids, tmp_path / 'first', **one)
  with pytest.raises(verdict.NotForgottenError, match='no measurable effect: ') as error:
    carry_out.forget(request, SHARED)
  assert error.value.code == 3 and not (tmp_path / 'first').exists()
  hidden = next(p for p in tmp_path.iterdir() if p.name.startswith('.first.'))
  kept = {p.name for p in hidden.iterdir()}
  assert kept == {'model', 'train.jsonl', 'verdict.json'}  # no model of the dummy, no lock
  record = carry_out.forget(dataclasses.replace(request, accept=('no_effect',)), SHARED)
  assert not hidden.exists()
  assert record['verdict']['counts_as'] == 'requested'
  assert (record['read']['ids_forgotten'], record['read']['ids_requested']) == (0, len(ids))
  counts = record['samples']['train']
  assert counts['count_before'] == counts['count_after'] == 120
  deletion_test.verify(tmp_path / 'first')

  again = _request(
    place, tmp_path / 'first', ids[:2], tmp_path / 'second', method='retrain', hparam=()
  )
  basis = starting_point.read(again, SHARED)
  wanted = request_rows.read(again, basis)
  problem, _ = carry_out.problem_of(basis, again, wanted.rows)
  assert len(problem.forget) == 2 and not set(problem.retain.ids) & set(ids)
  record = carry_out.forget(again, SHARED)
  assert record['verdict']['word'] == 'forgot' and 'dummy' not in record['verdict']['measured']
  assert record['samples']['train']['count_after'] == 118
  key = record_keys.read(tmp_path / record_keys.NAME)
  chain = record_files.read_chain(tmp_path / 'second')
  assert audit_record.pending(chain, ids, key) == set(ids[2:])
  with pytest.raises(errors.InputError, match='2 of 2 ids are forgotten already, by request 2'):
    carry_out.forget(
      dataclasses.replace(again, checkpoint=str(tmp_path / 'second'), out=str(tmp_path / 'third')),
      SHARED,
    )


def test_more_than_a_method_can_forget_is_refused(place, tmp_path):
  ids = file_kills.digits(slice(0, 120)).ids[:40].tolist()
  request = _request(place, place / 'mine.npz', ids, tmp_path / 'out', method='salun', hparam=())
  with pytest.raises(errors.InputError, match=r'method: salun .*at most 25 %.* these are 33 %'):
    carry_out.forget(request, SHARED)
  assert [path.name for path in tmp_path.iterdir()] == ['out.csv']  # the list of ids


def test_a_class_is_forgotten_beyond_a_dummy_request_and_replays(place, tmp_path):
  train = file_kills.digits(slice(0, 120))
  ids = train.ids[train.labels == 3].tolist()
  how = {'method': 'random_label', 'hparam': ('random_label.batch_size=20',)}
  record = carry_out.forget(
    _request(place, place / 'mine.npz', ids, tmp_path / 'out', **how), SHARED
  )
  found = record['verdict']
  assert found['word'] == 'forgot' and found['mode'] == 'full', found['reasons']
  assert found['measured']['moved']['after'] > 1.25 * found['measured']['moved']['dummy']
  assert record['summary'][0] == 'Verdict: forgot.'
  deletion_test.verify(tmp_path / 'out')
  forged = copy.deepcopy(record)
  forged['verdict']['measured']['moved']['dummy'] = 0.0
  assert audit_record.differences(forged, record) == ['verdict']

"""`--evaluation=recovery` on real models: golds pass, the original and the controls fail."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from dalign_jax import methods, training, types
from dalign_jax.store import files, model_folder
from experiments import config as config_lib
from experiments.measure import (
  audit,
  evaluate,
  models,
  recovery,
  recovery_procedures,
  seed_groups,
  verdict,
)
from experiments.problem import preparation
from experiments.report import error_rates, headline, problem_report
from tests import tiny

pytestmark = pytest.mark.slow  # 15 models are trained and evaluated once
METHODS = ('head_only', 'planted_leak')
RECORD = {
  'seconds': 1.0,
  'compile_seconds': 0.0,
  'sees': '',
  'devices': 'a cpu',
  'versions': {'jax': 'x'},
}


def _job(folder):
  """Three seeds and six golds of the tiny network, forgetting class 3."""
  problem = tiny.problem()
  held_out = problem.validation
  halves = [held_out.take(np.arange(len(held_out)) % 2 == k) for k in (0, 1)]
  config = config_lib.Config(
    evaluation='recovery', forget='class:3', methods=(), relearn_epochs=3, num_devices=1
  )
  return preparation.Job(
    config=config,
    folder=folder,
    data_hash='data',
    test_hash='test',
    split=None,
    sets={
      'retain': problem.retain,
      'forget': problem.forget,
      'validation': halves[0],
      'test': halves[1],
    },
    watched=None,
    class_names=tuple(map(str, range(10))),
    notes=(),
    forgets_classes=(3,),
    apply_fn=tiny.apply_fn,
    init_fn=tiny.init_fn,
    recipe=types.Recipe(num_epochs=8, batch_size=64),
    devices=problem.devices,
  )


def _train(job, seed, dataset):
  start = tiny.init_fn(jax.random.key(seed))
  key = jax.random.key(100 + seed)
  return training.fit(job.apply_fn, start, dataset, job.recipe, key, devices=job.devices)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  job = _job(tmp_path_factory.mktemp('recovery') / 'problem')
  save = lambda folder, name, model: model_folder.save(folder / name, model, RECORD)
  for number, seed in enumerate(job.original_seeds):
    original = _train(job, seed, job.training_set)
    save(job.original_folder(seed), 'model', original)
    for method in METHODS:
      run = methods.METHODS[method].make()(job.problem(original), jax.random.key(number))
      save(job.run_folders(method)[number], 'unlearned', run)
  for seed in job.gold_seeds:
    save(job.gold_folder(seed), 'model', _train(job, seed, job.sets['retain']))
  for folder in (job.original_folder(0), job.gold_folder(job.gold_seeds[0])):
    files.write_text(folder / 'train.jsonl', '{"epoch": 1, "loss": 0.5}\n')
  evaluate.evaluate(job, list(METHODS))
  return job, evaluate.read_rows(job)


def _row(rows, name):
  return next(row for row in rows if row.name == name)


def test_controls_are_added_and_are_no_methods(finished):
  job, rows = finished
  assert job.config.all_methods == ('planted_leak', 'head_only') and not rows.methods
  assert {row.kind for row in rows if row.name in METHODS} == {'control'}
  part = config_lib.Config(evaluation='recovery', forget='class:3:0.1', methods=('planted_leak',))
  assert part.all_methods == ('planted_leak',)
  assert config_lib.Config(forget='class:3', methods=('muda',)).all_methods == ('muda',)


def test_what_comes_back_of_each_model(finished):
  _, rows = finished
  gaps = {row.name: row.values for row in rows}
  for procedure in recovery_procedures.PROCEDURES:
    key = f'{procedure.key}_gap'
    assert key not in gaps['gold'] and gaps['second gold'][key] <= 1 + 1e-9
    assert gaps['original'][key] > 2, key
    assert gaps['planted_leak'][key] > 2, key
  hidden, original = (_row(rows, name).arrays for name in ('head_only', 'original'))
  shots = 'recovery_prototype_shots'
  np.testing.assert_array_equal(hidden[shots], original[shots])  # features are untouched
  assert hidden[f'{shots}_budgets'].tolist() == [1, 5, 20]
  assert hidden['recovery_head_shots'][:, -1].min() > 0.9  # the class is back in full
  assert hidden['recovery_retain_only'][:, 0].max() == 0
  assert original['recovery_retain_only'].shape == (3, 2)  # a tenth of eight epochs


def test_gap_is_the_area_in_units_of_the_second_golds(finished):
  job, rows = finished
  original, gold, second = seed_groups.standing(job)
  curves = [
    [
      np.array(
        files.read_json(m.folder / 'recovery.json')['values']['curves']['pruning']['accuracies']
      )
      for m in group.members
    ]
    for group in (original, gold, second)
  ]
  area = lambda a, b: np.mean([np.mean(np.abs(x - y)) for x, y in zip(a, b, strict=True)])
  floor = max(area(curves[2], curves[1]), 1 / len(job.sets['forget']))
  expected = area(curves[0], curves[1]) / floor
  assert rows.original.values['pruning_gap'] == pytest.approx(expected)


def test_golds_pass_and_controls_fail(finished):
  _, rows = finished
  found = verdict.judge(rows, seed=0)
  tested = {t.key: t for t in found.tested}
  assert not found.reason and tested['outputs'].decides and tested['features'].is_told
  assert tested['outputs'].original_p < 0.05 and tested['outputs'].false_alarms == 0
  words = {j.name: j.words for j in found.judgements}
  assert words == dict.fromkeys(METHODS, verdict.NOT_NEARER)
  # Second golds as a method, against the golds that are left.
  method = dataclasses.replace(_row(rows, 'head_only'), name='x', kind='unlearned')
  golds = dataclasses.replace(method, folders=rows.second_golds[0].folders)
  passing = verdict.judge(type(rows)([*rows, golds]), seed=0).judgements
  assert next(j for j in passing if j.name == 'x').words in (verdict.LIKE, verdict.NEARER)
  both = type(rows)([*rows, golds, dataclasses.replace(method, name='y')])
  line = headline.words(both, verdict.judge(both, seed=0))
  assert line.startswith('Nearer to gold') and ': x; ' in line and 'nearer to gold: y' in line
  grid = headline.grid(verdict.judge(both, seed=0))
  assert len({len(cells) for cells in grid}) == 1 and grid[-1][0] == 'held-out golds that fail'


def test_harm_rules_a_method_out_however_near_its_forget_examples_are(finished):
  _, rows = finished
  golds = dataclasses.replace(
    _row(rows, 'head_only'), name='x', kind='unlearned', folders=rows.second_golds[0].folders
  )
  lost = {'test_accuracy': rows.gold.values['test_accuracy'] - 0.3}
  seeds = tuple({**one, **lost} for one in golds.seeds)
  broken = tuple({**one, 'finite': 0.0} for one in golds.seeds)
  for own, words in ((golds.seeds, None), (seeds, verdict.HARMFUL), (broken, verdict.HARMFUL)):
    both = type(rows)([*rows, dataclasses.replace(golds, seeds=own)])
    harmful = problem_report.harmful(both)
    assert ('x' in harmful) == (words is not None)
    found = verdict.judge(both, seed=0, harmful=harmful)
    judged = next(j for j in found.judgements if j.name == 'x').words
    assert judged == words if words else judged in (verdict.LIKE, verdict.NEARER)
    line = headline.words(both, found)
    assert ('arms what it should keep: x' in line) == (words is not None)


def test_too_few_models_or_equal_ones_rank_nothing(finished):
  _, rows = finished
  one = [dataclasses.replace(row, folders=row.folders[:1]) for row in rows]
  run = dataclasses.replace(_row(rows, 'head_only'), name='x', kind='unlearned')
  found = verdict.judge(type(rows)([*one, run]), seed=0)
  assert 'originals: 1, gold models: 2' in found.reason and '0.33' in found.reason
  line = headline.words(type(rows)([*one, run]), found)
  assert line.startswith('Nothing can be ranked here: ') and 'x' not in line.split()
  same = dataclasses.replace(rows.original, folders=rows.gold.folders)
  found = verdict.judge(type(rows)([same, *rows[1:]]), seed=0)
  assert found.reason.startswith('originals are not told from gold models')
  other = [dataclasses.replace(row, folders=(row.folder / 'nowhere',)) for row in rows]
  assert 'were not kept' in verdict.judge(type(rows)(other), seed=0).reason


def test_what_the_update_gives_away_stands_beside_golds(finished):
  _, rows = finished
  assert rows.gold.values['update_retain_auc'] > 0.9  # retraining gives a class away as well
  assert rows.original.values['update_retain_auc'] == pytest.approx(0.5, abs=0.05)
  assert 0 <= rows.gold.values['epsilon'] < 3
  assert rows.original.values['influential_low_accuracy'] > 0.9
  assert 'entangled_low_accuracy' not in rows.gold.values  # no retain images of the class


def test_a_killed_run_goes_on_after_its_last_curve(finished, monkeypatch):
  job, _ = finished
  model = seed_groups.standing(job)[0].members[1]
  kept = (model.folder / 'recovery.json').read_text(encoding='utf-8')
  (model.folder / 'recovery.json').unlink()
  fail = lambda job, model: (_ for _ in ()).throw(KeyboardInterrupt)
  chosen = [p for p in recovery_procedures.PROCEDURES if p.key in ('rounding', 'pruning')]
  broken = chosen[1]._replace(settings=lambda job: {}, run=fail)
  monkeypatch.setattr(recovery_procedures, 'PROCEDURES', (chosen[0], broken))
  with pytest.raises(KeyboardInterrupt):
    recovery.evaluate(job, [model])
  there = files.read_json(model.folder / 'recovery.json')['values']['curves']
  assert set(there) == {'rounding'} and there['rounding']['seconds'] > 0
  before = json.loads(kept)['values']['curves']['rounding']['accuracies']
  assert there['rounding']['accuracies'] == before
  (model.folder / 'recovery.json').write_text(kept, encoding='utf-8')


def test_report_has_the_tables_and_the_figure(finished):
  job, rows = finished
  problem_report.write(job)
  page = (job.folder / 'report.html').read_text(encoding='utf-8')
  for text in ('What comes back', 'What the update gives away', 'By difficulty', 'Verdict'):
    assert f'<h3>{text}</h3>' in page, text
  assert 'False alarms of the columns' in page and 'Who pays' not in page
  assert (job.folder / 'figures' / 'recovery.svg').exists()
  csv = (job.folder / 'report.csv').read_text(encoding='utf-8')
  assert 'head_shots_gap' in csv.splitlines()[0]
  shown = [c for c in problem_report.table.columns(rows) if c.key == 'test_accuracy']
  assert error_rates.band(shown[0], rows).shape == (6,)


def test_bands_need_golds_and_grey_columns_reject_them(finished):
  _, rows = finished
  column = next(c for c in problem_report.table.columns(rows) if c.key == 'test_accuracy')
  odd = [
    dataclasses.replace(row, seeds=tuple({'test_accuracy': v} for v in values))
    for row, values in ((rows.gold, (0.5, 0.5, 0.5)), (rows.second_golds[0], (0.9, 0.5, 0.5)))
  ]
  changed = type(rows)([rows.original, *odd, *rows[3:]])
  assert error_rates.false_alarms(column, changed) > 0.2
  assert error_rates.grey([column], changed) == {'test_accuracy'}
  few = type(rows)(dataclasses.replace(row, seeds=row.seeds[:1]) for row in rows)
  assert error_rates.band(column, few) is None and not error_rates.table([column], few)


def test_nothing_is_done_twice_and_another_model_is_done_again(finished, capsys):
  job, _ = finished
  evaluate.evaluate(job, list(METHODS))
  assert 'recovery: done before' in capsys.readouterr().out
  run = job.run_folders('head_only')[0]
  shutil.rmtree(run / 'unlearned')
  other = models.restore(job, seed_groups.standing(job)[0].members[0])
  model_folder.save(run / 'unlearned', other, RECORD)
  job.digests.clear()
  group = seed_groups.of_run(job, 'head_only', 'head_only')
  assert not recovery._curves(job, group.members[0]) and recovery._curves(job, group.members[1])
  assert audit.read_values(job, group)[0] == {} != audit.read_values(job, group)[1]
  changed = dataclasses.replace(job, config=dataclasses.replace(job.config, relearn_epochs=2))
  left = recovery._curves(changed, group.members[1])
  assert 'relearning' not in left and 'pruning' in left

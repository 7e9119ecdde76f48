"""Full evaluation: on made-up outputs whose truth is known, and as a run."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from dalign_jax import checkpoints, metrics, types
from dalign_jax.store import model_folder
from experiments import config as config_lib
from experiments import stages
from experiments.measure import attacks, many_seeds, relearning
from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from tests import experiments_test, tiny

CLASSES, SIZES = 4, {'retain': 300, 'forget': 200, 'validation': 200, 'test': 200}


@dataclasses.dataclass
class FakeJob:
  """What `distributions` reads of a job."""

  config: config_lib.Config
  sets: dict
  forgets_classes: tuple = ()
  forgets_subclass: int | None = None
  shadow_forget_rows = preparation.Job.shadow_forget_rows


@pytest.fixture
def job():
  rng = np.random.default_rng(0)
  sets = {}
  for name, size in SIZES.items():
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    images = np.zeros((size, 1, 1, 1), np.uint8)
    sets[name] = types.Dataset(images, labels, np.array([f'{name}{i}' for i in range(size)]))
  config = config_lib.Config(evaluation='full', num_seeds=6, num_gold=16, num_shadows=16)
  return FakeJob(config, sets)


def _logits(job, seed, leak=None, amount=3.0):
  """Logits of a model; `leak` marks forget examples that it remembers."""
  rng = np.random.default_rng(seed)
  logits = {}
  for name, dataset in job.sets.items():
    hardness = np.random.default_rng(len(name)).normal(0, 1, len(dataset))
    values = rng.normal(0, 1, (len(dataset), CLASSES))
    margin = 1 + hardness
    if name == 'forget' and leak is not None:
      margin = margin + amount * leak
    values[np.arange(len(dataset)), dataset.labels] += margin
    logits[name] = values.astype(np.float32)
  return logits


def _measure(job, monkeypatch, *, leaks):
  monkeypatch.setattr(relearning, 'relearn_epochs', lambda *args: 3.0)
  everything = np.ones(SIZES['forget'])
  halves = np.zeros((16, SIZES['forget']))
  for index, half in enumerate(halves):
    half[job.shadow_forget_rows(index)] = 1
  members = [_logits(job, 100 + i, everything if leaks else None) for i in range(6)]
  shadows = [_logits(job, 200 + i, halves[i] if leaks else None) for i in range(16)]
  gold = [_logits(job, 300 + i) for i in range(8)]
  references = [[_logits(job, 400 + i) for i in range(8)]] * 6
  original = [_logits(job, 0)]
  return many_seeds.measure(
    job,
    members,
    shadows,
    original=original,
    gold=gold,
    references=references,
    state=None,
    is_gold=False,
  )


def test_every_attack_finds_a_leak(job, monkeypatch):
  result = _measure(job, monkeypatch, leaks=True)
  for attack in ('u_lira', 'rmia', 'population'):
    assert result.values[f'{attack}_auc'] > 0.8, attack
    assert result.values[f'{attack}_tpr_at_1_percent'] > 0.05, attack
  # The attacks that know each example's own law beat the one that does not, at low rates.
  rate = lambda attack: result.values[f'{attack}_tpr_at_1_percent']
  assert rate('u_lira') > 2 * rate('population')
  floor = many_seeds.floors(job)
  assert result.values['klom_forget'] > 10 * floor['klom']
  assert result.values['forgetting_quality'] < 0.5 * floor['forgetting_quality']
  assert result.values['klom_retain'] == pytest.approx(floor['klom'], abs=0.1)


def test_equal_laws_sit_at_the_floor(job, monkeypatch):
  result = _measure(job, monkeypatch, leaks=False)
  for attack in ('u_lira', 'rmia', 'population'):
    aucs = result.samples[f'{attack}_auc']
    interval = rows_lib.mean_interval(aucs)
    assert result.values[f'{attack}_auc'] == pytest.approx(0.5, abs=max(2 * interval, 0.03)), attack
  floor = many_seeds.floors(job)
  for name in ('forget', 'retain', 'validation'):
    assert result.values[f'klom_{name}'] == pytest.approx(floor['klom'], abs=0.1)
  assert result.values['forgetting_quality'] == pytest.approx(floor['forgetting_quality'], abs=0.06)


def test_leaving_out_pairs_keeps_u_lira_unbiased(job):
  """Leaving out one shadow alone would put equal laws below chance."""
  (u_lira,) = (attack for attack in attacks.ATTACKS if attack.key == 'u_lira')
  aucs = []
  for repetition in range(12):
    shadows = [_logits(job, 1000 + 16 * repetition + i) for i in range(16)]
    case = attacks.Case(job, [], shadows, [])
    aucs += attacks.run(u_lira, case).aucs
  error = np.std(aucs) / np.sqrt(len(aucs))
  assert abs(np.mean(aucs) - 0.5) < 3 * error < 0.015


def test_variances_are_of_each_example_where_models_suffice(job):
  assert attacks.pools_variance(job)  # seven on each side
  job.config = config_lib.Config(evaluation='full', num_shadows=34)
  assert not attacks.pools_variance(job)


@pytest.mark.parametrize('amount', [2.0, 4.0])
def test_rmia_is_tuned_where_no_reference_has_seen_an_example(job, amount):
  """As it is used; with the other half's shadow as reference, a would be 1 and the attack weak."""
  (rmia,) = (attack for attack in attacks.ATTACKS if attack.key == 'rmia')
  everything, half = np.ones(SIZES['forget']), attacks.shadow_masks(job, 1)[0].astype(float)
  shadow = _logits(job, 200, half, amount)
  references = [_logits(job, 400 + i) for i in range(4)]
  members = [_logits(job, 100 + i, everything, amount) for i in range(4)]
  case = attacks.Case(job, members, [], [references] * 4, shadow)
  fixed = attacks.Case(job, members, [], [references] * 4)
  fixed.__dict__['offline_a'] = 1.0
  assert case.offline_a < 1 and attacks.Case(job, [], [], []).offline_a == 0.3
  assert attacks.run(rmia, case).values['auc'] >= attacks.run(rmia, fixed).values['auc']


def test_attacks_without_images_to_compare_are_left_out(job):
  """A class of which the test set has two images, or none."""
  for count in (0, 2):
    keep = np.flatnonzero(job.sets['test'].labels != 0)
    some = np.flatnonzero(job.sets['test'].labels == 0)[:count]
    rows = np.flatnonzero(job.sets['forget'].labels == 0)
    sets = {**job.sets, 'test': job.sets['test'].take(np.concatenate([keep, some]))}
    few = dataclasses.replace(job, sets={**sets, 'forget': job.sets['forget'].take(rows)})
    case = attacks.Case(few, [], [], [])
    assert [a.key for a in attacks.ATTACKS if a.can_run(case)] == ['u_lira']


def test_a_bound_on_epsilon_does_not_count_examples_twice(job):
  rng = np.random.default_rng(0)
  one = rng.normal(0.5, 1, 60), rng.normal(0, 1, 60)
  same = attacks.Attack('same', '', '', '', lambda case: [one] * 8)
  found = attacks.run(same, attacks.Case(job, [], [], []))
  assert found.values['epsilon'] == metrics.attack_epsilon(*one, seed=0).threshold


def test_shadow_halves_are_complementary(job):
  for pair in range(3):
    first, second = (job.shadow_forget_rows(2 * pair + i) for i in range(2))
    assert len(first) == len(second) == SIZES['forget'] // 2
    assert sorted([*first, *second]) == list(range(SIZES['forget']))
  assert not np.array_equal(job.shadow_forget_rows(0), job.shadow_forget_rows(2))


def test_mean_interval_is_students():
  assert rows_lib.mean_interval([1.0]) is None
  # t = 12.706 for one degree of freedom; standard error of (0, 2) is 1.
  assert rows_lib.mean_interval([0.0, 2.0]) == pytest.approx(12.706, abs=1e-3)


FULL = {
  'evaluation': 'full',
  **experiments_test.QUICK,
  'num_seeds': 2,
  'num_shadows': 6,
  'methods': ('finetune', 'head_only'),
  'hparam': ('finetune.num_epochs=1',),
  'relearn_epochs': 2,
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  config = experiments_test._config(tmp_path_factory.mktemp('full'), **FULL)
  stages.run(config)
  return config, pathlib.Path(config.workdir) / config.problem_name()


@pytest.mark.slow
def test_full_run_measures_every_group(finished):
  _, folder = finished
  rows = experiments_test._rows(folder)
  names = {'original', 'gold', 'second gold', 'finetune,num_epochs=1', 'head_only', 'planted_leak'}
  assert set(rows) == names
  for name, row in rows.items():
    for key in ('u_lira_auc', 'rmia_auc', 'population_auc', 'relearn_epochs'):
      assert row[key] != '', (name, key)
    assert (row['klom_forget'] == '') == (name == 'gold')
    assert float(row['u_lira_auc_interval']) > 0
    assert float(row['test_accuracy_interval']) >= 0
  assert rows['original']['relearn_epochs'] == '0.0'
  assert float(rows['gold']['relearn_epochs']) > 0
  assert float(rows['second gold']['final_score']) > float(rows['original']['final_score'])


@pytest.mark.slow
def test_report_shows_laws_attacks_and_rankings(finished):
  _, folder = finished
  page = (folder / 'report.html').read_text(encoding='utf-8')
  for text in (
    'Distributions of outputs and strong attacks',
    'Null floors',
    'Rankings',
    'log scale',
    '±',
  ):
    assert text in page
  text = (folder / 'report.md').read_text(encoding='utf-8')
  assert '| rank by ' in text and 'F x RA x TA' in text


@pytest.mark.slow
def test_what_is_there_is_not_made_again(finished, capsys):
  config, folder = finished
  models = [p for p in folder.rglob('model') if p.is_dir()]
  assert len(models) == 2 + 6 + 6  # originals, golds, shadows
  before = {p: p.stat().st_mtime_ns for p in models}
  stages.run(dataclasses.replace(config, relearn_epochs=1))
  out = capsys.readouterr().out
  assert 'evaluate: 0 models, 6 groups\n' in out, out
  stages.run(dataclasses.replace(config, evaluation='standard', num_seeds=1, num_gold=2))
  rows = experiments_test._rows(folder)
  assert 'u_lira_auc' not in rows['gold'] and rows['gold']['test_accuracy_interval'] == ''
  assert {p: p.stat().st_mtime_ns for p in models} == before


def test_interrupted_ensemble_is_finished_and_equals_an_uninterrupted_one(tmp_path, monkeypatch):
  changes = {'num_seeds': 3, 'stages': ('prepare', 'train_original'), 'num_epochs': 2}
  configs = [experiments_test._config(tmp_path / name, **changes) for name in ('whole', 'stopped')]
  stages.run(configs[0])
  original_save = model_folder.save
  saved = []

  def stop_after_one(path, model, record):
    if saved:
      raise KeyboardInterrupt
    saved.append(path)
    original_save(path, model, record)

  monkeypatch.setattr(model_folder, 'save', stop_after_one)
  with pytest.raises(KeyboardInterrupt):
    stages.run(configs[1])
  monkeypatch.setattr(model_folder, 'save', original_save)
  place = f'{configs[0].problem_name()}/original'
  folders = [tmp_path / name / place for name in ('whole', 'stopped')]
  assert json.loads((folders[1] / 'ensemble' / 'members.json').read_text()) == [0, 1, 2]
  stages.run(configs[1])
  assert not (folders[1] / 'ensemble').exists()
  alone = experiments_test._config(tmp_path / 'alone', **{**changes, 'num_seeds': 1})
  stages.run(alone)
  cost = checkpoints.restore(tmp_path / 'alone' / place / 'seed_0' / 'model')[1]['flop']
  for seed in range(3):
    one, other = (checkpoints.restore(f / f'seed_{seed}' / 'model')[1] for f in folders)
    assert one['digest'] == other['digest']
    assert one['flop'] == pytest.approx(cost)  # three on four devices: the fourth counts for none


def test_relearning_counts_epochs_and_leaves_the_model_alone():
  problem = tiny.problem()
  config = config_lib.Config(relearn_epochs=30)
  job = dataclasses.make_dataclass('J', ['config', 'sets', 'apply_fn', 'devices'])(
    config, {'forget': problem.forget}, problem.apply_fn, None
  )
  before = [x.copy() for x in problem.original.params['head'].values()]
  epochs = [relearning.relearn_epochs(job, problem.original, loss) for loss in (10.0, 0.5, 0.05)]
  assert epochs[0] == 0 and 0 < epochs[1] < epochs[2] <= 30
  job.config = config_lib.Config(relearn_epochs=1)
  assert relearning.relearn_epochs(job, problem.original, 0.0) == 2
  for a, b in zip(before, problem.original.params['head'].values(), strict=True):
    np.testing.assert_array_equal(a, b)

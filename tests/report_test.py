"""The table and the words of a report, on made-up numbers."""

import csv
import dataclasses
import io
import pathlib
import types

import pytest

from dalign_jax import errors, stopping
from dalign_jax.store import progress
from experiments.measure import rows as rows_lib
from experiments.measure import seed_groups
from experiments.report import (
  forgotten_images,
  headline,
  looks,
  plots,
  problem_report,
  table,
  terminal,
)
from tests import made_up

GOLD = {
  'forget_accuracy': 0.0,
  'retain_accuracy': 1.0,
  'test_accuracy': 0.9,
  'attack': 0.5,
  'dimensional_alignment': 0.9,
  'linear_probe': 0.8,
  'changed': 1.0,
  'finite': 1.0,
}


def _row(name, kind, **changes):
  values = {**GOLD, 'activation_distance': 0.3, 'js_divergence': 0.1, **changes}
  if kind == 'gold':
    values = {k: v for k, v in values.items() if k not in ('activation_distance', 'js_divergence')}
  return rows_lib.Row(
    name, kind, (values,), {'seconds': 4.0, 'compile_seconds': 1.0}, {}, pathlib.Path(name)
  )


def _warnings(rows):
  """Of rows that a test has changed: what they had computed before does not count."""
  return problem_report.warnings(rows_lib.Results(map(dataclasses.replace, rows)))


@pytest.fixture
def rows():
  return [
    _row(
      'original',
      'original',
      forget_accuracy=1.0,
      dimensional_alignment=0.5,
      activation_distance=1.2,
    ),
    _row('gold', 'gold'),
    _row(
      'second gold',
      'second gold',
      test_accuracy=0.88,
      dimensional_alignment=0.92,
      activation_distance=0.2,
    ),
    _row(
      'good', 'unlearned', dimensional_alignment=0.885, activation_distance=0.19, test_accuracy=0.8
    ),
    _row('idle', 'unlearned', forget_accuracy=1.0, dimensional_alignment=0.5, changed=0.0),
  ]


def test_gaps_and_floors(rows):
  cells = {line.row.name: line.cells for line in table.lines(rows_lib.Results(rows))}
  assert cells['good']['test_accuracy'].gap == pytest.approx(0.1)
  assert not cells['good']['test_accuracy'].at_floor  # the golds are .02 apart
  assert cells['good']['dimensional_alignment'].at_floor  # .015 of .02
  assert cells['good']['activation_distance'] == table.Cell(0.19, 0.19, True)
  assert not cells['original']['activation_distance'].at_floor
  assert cells['gold']['test_accuracy'] == table.Cell(0.9, None, False)
  assert cells['gold']['activation_distance'] == table.Cell(None, None, False)


def test_alignment_at_another_rank_has_no_verdict(rows):
  ranks = {'original': 9.0, 'gold': 5.0, 'second gold': 6.0, 'good': 4.0, 'idle': 2.0}
  for row in rows:
    for seed in row.seeds:
      seed['da_rank'] = ranks[row.name]
  results = rows_lib.Results(rows)
  cells = {line.row.name: line.cells['dimensional_alignment'] for line in table.lines(results)}
  assert cells['good'].at_floor and not cells['good'].is_void  # one rank, as the golds
  assert cells['idle'].is_void and cells['original'].is_void and not cells['gold'].is_void
  near = rows[3].seeds[0]
  near['da_rank'] = 3.0  # a gap of .015 in DA, but two ranks
  (column,) = (c for c in table.columns(results) if c.key == 'dimensional_alignment')
  cell = table.lines(results)[3].cells['dimensional_alignment']
  assert not cell.at_floor and table.format_cell(column, cell).endswith(' ≠k')
  assert 'k' in table.heads(table.columns(results, 'features'), 'features')


def test_csv_has_a_number_under_each_head(rows):
  rows[3].record.update(passes=2.5, flop=3e12)
  lines = list(csv.DictReader(io.StringIO(table.to_csv(rows_lib.Results(rows)))))
  assert len(lines) == len(rows) and not any(None in line for line in lines)
  good = lines[3]
  assert (good['model'], good['test_accuracy']) == ('good', '0.8')
  assert float(good['passes']) == 2.5 and float(good['flop']) == 3e12
  assert lines[4]['passes'] == ''


def test_aggregates_are_those_of_the_definition(rows):
  good, idle = table.lines(rows_lib.Results(rows))[3:]
  assert good.average_gap == pytest.approx((0 + 0 + 0.1 + 0) / 4)
  assert good.tug_of_war == pytest.approx(0.9)
  assert idle.tug_of_war == pytest.approx(0.0)
  assert good.time_ratio == pytest.approx(1.0)


def test_separation_counts_floors(rows):
  by_key = {c.key: c for c in table.columns(rows_lib.Results(rows))}
  assert table.separation(by_key['dimensional_alignment'], rows_lib.Results(rows)) == pytest.approx(
    20
  )
  assert table.separation(by_key['activation_distance'], rows_lib.Results(rows)) == pytest.approx(6)
  assert table.separation(by_key['retain_accuracy'], rows_lib.Results(rows)) == 0
  assert table.separation(by_key['forget_accuracy'], rows_lib.Results(rows)) == float('inf')


def test_columns_are_those_that_were_measured(rows):
  keys = [c.key for c in table.columns(rows_lib.Results(rows))]
  assert 'test_forget_accuracy' not in keys and 'nmi' not in keys
  assert keys.index('forget_accuracy') < keys.index('dimensional_alignment')


def test_undefined_values_are_dashes_and_never_at_the_floor(rows):
  del rows[3].seeds[0]['dimensional_alignment']
  cell = table.lines(rows_lib.Results(rows))[3].cells['dimensional_alignment']
  assert cell == table.Cell(None, None, False)
  assert '| good        |' in table.markdown(rows_lib.Results(rows))
  nearest = headline.nearest(rows_lib.Results(rows), {'good', 'idle'})
  assert nearest.startswith('Of those, nearest to gold:')
  del rows[1].seeds[0]['dimensional_alignment']
  assert table.lines(rows_lib.Results(rows))[4].cells['dimensional_alignment'].gap is None


def test_markdown_is_a_grid(rows):
  text = table.markdown(rows_lib.Results(rows)).splitlines()
  assert len(text) == 2 + len(rows)
  assert len({line.count('|') for line in text}) == 1
  assert len({len(line) for line in text}) == 1


def test_verdict_names_the_nearest_of_those_that_passed(rows):
  verdict = headline.nearest(rows_lib.Results(rows), {'good', 'idle'})
  assert headline.nearest(rows_lib.Results(rows), {'good'}) == ''
  assert 'good in output (activation distance)' in verdict
  assert 'good in features (DA)' in verdict


def test_aggregates_need_all_of_their_parts(rows):
  del rows[3].seeds[0]['attack']
  good = table.lines(rows_lib.Results(rows))[3]
  assert good.average_gap is None and good.tug_of_war == pytest.approx(0.9)
  nearest = headline.nearest(rows_lib.Results(rows), {'good', 'idle'})
  assert 'idle in accuracies and attack' in nearest


def test_destroyed_networks_are_warned_of(rows):
  rows[3].seeds[0]['finite'] = 0.0
  assert 'good is destroyed: its outputs are not finite' in problem_report.warnings(
    rows_lib.Results(rows)
  )


def test_methods_that_lose_test_accuracy_are_warned_of(rows):
  harmed = lambda: [n for n in _warnings(rows) if ' harms ' in n]
  rows[3].seeds[0]['test_accuracy'] = 0.881
  rows[4].seeds[0]['test_accuracy'] = 0.95
  assert not harmed()
  rows[3].seeds[0]['test_accuracy'] = 0.87
  assert harmed() == [
    "good harms the network: its test accuracy is 3.0 points below gold's, outside the noise floor"
  ]
  rows[2].seeds[0]['test_accuracy'] = 0.86  # another gold is as far
  assert not harmed()


def test_models_that_are_destroyed_or_unchanged_are_counted(rows):
  good, idle = rows[3], rows[4]
  seeds = lambda row, key, values: tuple({**row.seeds[0], key: value} for value in values)
  rows[3] = dataclasses.replace(good, seeds=seeds(good, 'finite', (1.0, 0.0, 0.0)))
  rows[4] = dataclasses.replace(idle, seeds=seeds(idle, 'changed', (0.0, 1.0, 1.0)))
  notes = problem_report.warnings(rows_lib.Results(rows))
  assert 'good is destroyed in 2 of 3 models: its outputs are not finite' in notes
  assert [note for note in notes if note.startswith('idle had no effect in 1 of 3 models: ')]


def test_a_void_alignment_is_nearest_to_nothing_and_equal_settings_have_their_names(rows):
  rows[3].seeds[0].update(da_rank=2.0, dimensional_alignment=0.9)  # gold's, at another rank
  for row in (*rows[:3], rows[4]):
    row.seeds[0]['da_rank'] = 5.0
  nearest = headline.nearest(rows_lib.Results(rows), {'good', 'idle'})
  assert 'idle in features (DA)' in nearest
  again = dataclasses.replace(rows[3], name='good,rounds=1')
  words = headline._floors(rows_lib.Results([*rows, again]))
  assert 'good, ' in words and 'good,rounds=1' in words


def test_no_effect_and_poor_separation_are_warned_of(rows):
  notes = _warnings(rows)
  assert [n for n in notes if n.startswith('idle had no effect')]
  assert not [n for n in notes if 'floors apart' in n]
  rows[0].seeds[0].update(dimensional_alignment=0.87, activation_distance=0.21)
  assert len([n for n in _warnings(rows) if 'floors apart' in n]) == 2


def _seeds(row, **changes):
  """The row with several seeds; each change gives a scalar's value for each seed."""
  count = len(next(iter(changes.values())))
  seeds = [
    {**row.seeds[0], **{key: values[i] for key, values in changes.items()}} for i in range(count)
  ]
  return dataclasses.replace(row, seeds=tuple(seeds))


def test_gaps_over_seeds_do_not_cancel(rows):
  rows[1] = _seeds(rows[1], test_accuracy=[0.8, 0.9])
  rows[3] = _seeds(rows[3], test_accuracy=[0.9, 0.8])
  cell = {line.row.name: line.cells for line in table.lines(rows_lib.Results(rows))}['good'][
    'test_accuracy'
  ]
  assert cell.value == pytest.approx(0.85) and cell.gap == pytest.approx(0.1)
  assert cell.interval == pytest.approx(12.706 * 0.05, rel=1e-3)
  column = next(c for c in table.columns(rows_lib.Results(rows)) if c.key == 'test_accuracy')
  assert table.format_cell(column, cell) == '85.0 ± 63.5'


def test_gaps_pair_the_seeds_that_both_have(rows):
  rows[1] = _seeds(rows[1], attack=[0.9, 0.5, 0.1])
  method = _seeds(rows[3], attack=[0.0, 0.5, 0.1])
  rows[3] = dataclasses.replace(
    method, seeds=({k: v for k, v in method.seeds[0].items() if k != 'attack'}, *method.seeds[1:])
  )
  column = next(c for c in table.columns(rows_lib.Results(rows)) if c.key == 'attack')
  assert table._gap(column, rows[3], rows[1]) == 0


def test_group_figures_have_their_own_intervals_and_table(rows):
  group = {'klom_forget': 0.5, 'u_lira_auc': 0.6, 'forgetting_quality': 0.2}
  rows[1] = dataclasses.replace(rows[1], group={'u_lira_auc': 0.5})
  rows[3] = dataclasses.replace(rows[3], group=group, group_intervals={'u_lira_auc': 0.02})
  assert [c.key for c in table.columns(rows_lib.Results(rows), 'full')] == [
    'klom_forget',
    'forgetting_quality',
    'u_lira_auc',
  ]
  line = table.lines(rows_lib.Results(rows))[3]
  assert line.cells['u_lira_auc'] == table.Cell(0.6, pytest.approx(0.1), False, 0.02)
  assert line.final_score == pytest.approx(0.2 * 1.0 * 0.8 / 0.9)
  assert '0.600 ± 0.020' in table.markdown(rows_lib.Results(rows), 'full')
  assert 'u_lira' not in table.markdown(rows_lib.Results(rows)) and 'U-LiRA' not in table.markdown(
    rows_lib.Results(rows)
  )


def test_rankings_stand_side_by_side(rows):
  for row in rows[3:]:
    row.group['klom_forget'] = 1.0
  assert table.ranking(rows_lib.Results(rows)) == [
    ['rank by', 'Avg Gap', 'ToW', 'KLOM F'],
    ['good', '1', '1', '1'],
    ['idle', '2', '2', '1'],
  ]
  assert table.ranking(rows_lib.Results(rows[:3])) == []


def test_attacks_that_miss_the_planted_leak_are_warned_of(rows):
  rows[1].group['u_lira_auc'] = 0.5
  leak = _row('planted_leak', 'control')
  leak.group['u_lira_auc'] = 0.9
  assert not [
    n for n in problem_report.warnings(rows_lib.Results([*rows, leak])) if 'too weak' in n
  ]
  leak.group_intervals['u_lira_auc'] = 0.5
  assert [
    n
    for n in problem_report.warnings(rows_lib.Results([*rows, leak]))
    if n.startswith('U-LiRA does not tell')
  ]
  other = dataclasses.replace(leak, name='head_only')  # a control that attacks need not find
  assert not [n for n in _warnings([*rows, other]) if 'too weak' in n]


def test_training_that_stopped_before_its_last_epoch_is_drawn(tmp_path):
  log = tmp_path / 'train.jsonl'
  log.write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2}\n', encoding='utf-8')
  of = looks.of_models([('stopped', 'unlearned')])
  (panel,) = plots.training_curves('unlearning', '', {'stopped': log}, of).panels
  assert [(list(s.x), list(s.y)) for s in panel.series] == [([1], [0.5])]


def test_methods_that_hardly_move_are_warned_of(rows):
  rows[3].seeds[0]['moved'] = 0.5
  assert not [n for n in _warnings(rows) if 'hardly any effect' in n]
  rows[3].seeds[0]['moved'] = 0.1  # gold is 1.2 away
  assert [n for n in _warnings(rows) if n.startswith('good had hardly any effect')]


def test_standing_counts_columns_at_the_floor(rows):
  columns = len(table.columns(rows_lib.Results(rows)))
  good = sum(cell.at_floor for cell in table.lines(rows_lib.Results(rows))[3].cells.values())
  words = headline._floors(rows_lib.Results(rows))
  assert words.startswith(f'Within the golds in so many of {columns} columns: good in {good}')


def test_summary_fits_a_terminal(tmp_path):
  job = made_up.job(tmp_path)
  long = f'muda,{"x" * 90}=1'
  lines = terminal.summary(made_up.rows(job, (long, 'muda', 'head_only'))).splitlines()
  assert len(lines) == 8 and max(map(len, lines)) <= terminal.WIDTH
  for head in ('forget', 'test', 'DA', 'AD', 'Avg Gap', 'ToW'):
    assert f' {head} |' in lines[0]
  assert '…' in lines[5] and lines[6].startswith('| muda ')


def test_quiet_leaves_verdict_warnings_and_where_the_report_is(tmp_path, capsys, monkeypatch):
  rows = made_up.rows(made_up.job(tmp_path))
  monkeypatch.setattr(progress, '_is_muted', False)
  terminal.show(tmp_path, rows, 'Said first.', ['w ' * 80])
  loud = capsys.readouterr().out
  assert max(map(len, loud.splitlines()[:-1])) <= terminal.WIDTH and '| model' in loud
  progress.mute()
  terminal.show(tmp_path, rows, 'Said first.', ['w ' * 80])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'Said first.' and lines[1].startswith('warning: w w')
  assert lines[-1] == f'report: {tmp_path / "report.html"}' and len(lines) == 4
  with progress.bar('title') as shown, monkeypatch.context() as patch:
    patch.setattr(stopping, 'check', lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # a muted run can be stopped
      shown.update(1, 2, '')
  assert capsys.readouterr().out == ''


def test_forgotten_images_stand_beside_each_answer_and_never_in_deletion_requests(tmp_path):
  job = made_up.job(tmp_path, show_images=True)
  rows = made_up.rows(job)
  found = forgotten_images.sample(job, rows)
  assert found['models'] == ['original', 'gold', 'second gold', 'finetune', 'muda', 'head_only']
  assert len(found['lines']) == forgotten_images.NUMBER
  for picture, label, answers in found['lines']:
    assert picture.startswith('data:image/png;base64,') and label == 'class 3'
    assert answers[0] == 'class 3' and answers[1] != 'class 3'
  with pytest.raises(errors.InputError, match=r'show_images: --forget=ids:x\.csv is a deletion'):
    made_up.job(tmp_path, show_images=True, forget='ids:x.csv')


def test_groups_of_two_seeds_have_a_file_each(tmp_path):
  run_folders = lambda label, seed=None: [tmp_path / label / f'seed_{seed or 0}']
  job = types.SimpleNamespace(
    folder=tmp_path,
    config=types.SimpleNamespace(methods=('muda',), unlearn_seed=0),
    run_folders=run_folders,
    run_shadow_folders=lambda label, seed=None: [],
  )
  alone = seed_groups.of_run(job, 'muda', 'muda')  # as it is measured
  pair = [seed_groups.of_run(job, 'muda', f'muda (seed {seed})', seed) for seed in (0, 1)]
  files = [group.file(job, '.json').name for group in (alone, *pair)]
  assert files == ['muda-seed_0.json', 'muda-seed_0.json', 'muda-seed_1.json']

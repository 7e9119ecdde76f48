"""Deletion requests: from a run, from one's own checkpoint, in a chain; misuse and tampering."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dalign_jax import checkpoints, errors
from dalign_jax import data as data_lib
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import (
  carry_out,
  commitments,
  record_files,
  record_keys,
  replay,
  traces,
  verdict,
)
from dalign_jax.deletion import summary as summary_lib
from dalign_jax.store import files, model_folder
from experiments import config, stages
from tests import experiments_test

ROOT = pathlib.Path(__file__).parents[1]
METHOD = {
  'method': 'muda',
  'hparam': ('muda.rounds=1',),
  'verdict': 'quick',
  'accept': verdict.ACCEPTABLE,
}
CONFIG = config.Config(num_devices=1, cache_dir='', compilation_cache_dir='')


def write(path, ids):
  path.write_text('id,reason\n' + ''.join(f'{name},asked\n' for name in ids), encoding='utf-8')
  return str(path)


def forget(folder, checkpoint, ids, shared=CONFIG, **changes):
  request = write(folder.with_suffix('.csv'), ids)
  settings = {**METHOD, 'checkpoint': str(checkpoint), 'ids': request, 'out': str(folder)}
  return carry_out.forget(settings_lib.Request(**{**settings, **changes}), shared)


def verify(folder, again=True, **places):
  places = {'keys': str(folder.parent / record_keys.NAME), **places}
  settings = {'compilation_cache_dir': ''}
  replay.verify(folder / 'record.json', places=places, settings=settings, replay=again)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The original of a run, and ids that it was trained on."""
  workdir = tmp_path_factory.mktemp('run')
  settings = experiments_test.TINY | {
    'forget': 'random:0.1',
    'workdir': str(workdir),
    'methods': ('muda',),
  }
  run_config = config.Config(**settings, stages=('prepare', 'train_original'))
  stages.run(run_config)
  folder = workdir / run_config.problem_name()
  split = data_lib.load_split(folder / 'splits.npz')
  ids = data_lib.load('digits').dataset.ids
  trained = ids[np.union1d(split.retain, split.forget)].tolist()
  return folder / 'original' / 'seed_0' / 'model', trained, ids[split.test].tolist()


@pytest.fixture(scope='module')
def chain(run, tmp_path_factory):
  """Two requests, one after the other."""
  checkpoint, trained, _ = run
  folder = tmp_path_factory.mktemp('chain')
  forget(folder / 'first', checkpoint, trained[:20], compare_gold=1)
  forget(folder / 'second', folder / 'first', trained[20:25])
  return folder


def test_of_a_run_originals_alone_are_started_from(run, tmp_path):
  checkpoint, trained, _ = run
  gold = checkpoint.parents[2] / 'gold' / 'seed_100' / 'model'
  shutil.copytree(checkpoint, gold)
  try:
    with pytest.raises(errors.InputError, match=r'checkpoint: .* is one of gold/ in .* all of its'):
      forget(tmp_path / 'out', gold, trained[:5])
  finally:
    shutil.rmtree(gold.parents[1])
  with pytest.raises(errors.InputError, match=r'held_out: .* has held-out samples of its own'):
    forget(tmp_path / 'out', checkpoint, trained[:5], held_out='npz:others.npz')
  assert not (tmp_path / 'out').exists()


def test_record_says_what_was_done(run, chain):
  _, trained, _ = run
  record = record_files.read(chain / 'first' / 'record.json')
  key = record_keys.read(chain / record_keys.NAME)
  tags = sorted(commitments.tags(key, trained[:20]))
  assert record['request'] == {'count': 20, 'commitments': tags}
  train = record['samples']['train']
  assert (train['count_before'], train['count_after']) == (len(trained), len(trained) - 20)
  source = data_lib.load('digits').dataset
  left = source.take(np.flatnonzero(np.isin(source.ids, trained[20:])))
  assert train['after'] == commitments.root(left, key) != train['before']
  model, _ = checkpoints.restore(chain / 'first' / 'model')
  assert record['model']['after'] == model_folder.digest(model) != record['model']['before']
  assert record['method']['name'] == 'muda' and record['method']['hparams']['rounds'] == 1
  assert record['previous'] is None and record['number'] == 1
  assert set(record['metrics']) == {'original', 'unlearned', 'gold'}
  assert record['metrics']['unlearned']['attack_floor'] > 0
  summary = ' '.join(record['summary'])
  assert '20 of ' in summary and 'no proof' in summary and 'retrained' in summary
  exact = {**record, 'method': {**record['method'], 'name': 'retrain'}}
  assert 'no proof' not in ' '.join(summary_lib.sentences(exact))
  assert 'owes nothing' in ' '.join(summary_lib.sentences(exact))
  files_there = {p.name for p in (chain / 'first').iterdir()}
  assert files_there == {*traces.KEPT} - {'record.intoto.jsonl'}
  assert not [p for p in chain.iterdir() if p.name.startswith('.')]


def test_second_request_follows_the_first(run, chain):
  first, second = (record_files.read(chain / n / 'record.json') for n in ('first', 'second'))
  assert second['previous'] == first['hash'] and second['number'] == 2
  assert second['model']['before'] == first['model']['after']
  assert second['samples']['train']['before'] == first['samples']['train']['after']
  tags = [set(found['request']['commitments']) for found in (first, second)]
  assert len(tags[0]) == 20 and len(tags[1]) == 5 and tags[0].isdisjoint(tags[1])


def test_nothing_of_the_images_is_kept(run, chain):
  _, trained, _ = run
  source = data_lib.load('digits').dataset
  forgotten = source.images[np.isin(source.ids, trained[:25])]
  for path in chain.rglob('*'):
    if path.is_file():
      content = path.read_bytes()
      assert not [1 for image in forgotten if image.tobytes() in content], path
  members = files.read_json(chain / 'second' / record_files.MEMBERS)
  key = record_keys.read(chain / record_keys.NAME)
  there = {tag for of_set in members.values() for tag in of_set}
  assert not there.intersection(commitments.tags(key, trained[:25]))
  assert there.issuperset(commitments.tags(key, trained[25:]))


def test_what_a_method_shows_of_its_work_is_not_kept(run, tmp_path):
  """DLFD shows retain images in a benchmark: a later request may name them."""
  out, shown = tmp_path / 'out', []
  write_arrays = files.write_arrays

  def note(path, arrays):
    shown.append(path.name)
    write_arrays(path, arrays)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'write_arrays', note)
    forget(out, run[0], run[1][:20], method='dlfd', hparam=('dlfd.num_steps=1',))
  assert shown == ['perturbed.npz'] and not list(out.rglob('*.npz'))


def test_caches_of_the_data_are_dropped(run, tmp_path):
  cache = tmp_path / 'cache'
  data_lib.load('digits', cache_dir=cache)
  other = tmp_path / 'other.npz'
  np.savez(other, images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4))
  data_lib.load(f'npz:{other}', cache_dir=cache)
  shared = config.Config(num_devices=1, cache_dir=str(cache), compilation_cache_dir='')
  hparam = ('gradient_ascent.num_epochs=1',)
  changes = {'method': 'gradient_ascent', 'hparam': hparam}
  forget(tmp_path / 'out', run[0], run[1][:3], shared, **changes)
  left = [json.loads(p.read_text(encoding='utf-8')) for p in cache.glob('*/source.json')]
  assert [meta['key']['name'] for meta in left] == [f'npz:{other}']


def test_chain_is_verified_by_replay(chain, capsys):
  for name in ('first', 'second'):
    verify(chain / name)
    assert capsys.readouterr().out.endswith('verified\n')


def test_stopped_request_leaves_nothing_half_written(run, tmp_path, monkeypatch, capsys):
  def fail(*args, **kwargs):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(carry_out.evaluation, 'compare', fail)
    with pytest.raises(KeyboardInterrupt):
      forget(tmp_path / 'out', run[0], run[1][:5])
  assert not (tmp_path / 'out').exists()
  record = forget(tmp_path / 'out', run[0], run[1][:5])
  assert 'done before' in capsys.readouterr().out
  assert record == record_files.read(tmp_path / 'out' / 'record.json')
  assert {p.name for p in tmp_path.iterdir()} == {'out', 'out.csv', record_keys.NAME}


BAD = {
  'unknown': (['digits_99999'], '1 of 1 ids are not in the training data'),
  'none': ([], 'names no id'),
  'forgotten': ('forgotten', r'3 of 3 ids are forgotten already, by request 1 of 20'),
  'held out': ('test', r'2 of 2 ids were never trained on \(test data\)'),
  'all': ('all', 'leaves less than two classes'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_requests_are_refused_in_one_line(case, run, chain, tmp_path):
  ids, message = BAD[case]
  _, trained, test = run
  ids = (
    {'forgotten': trained[:3], 'test': test[:2], 'all': trained[25:]}.get(ids, ids)
    if (isinstance(ids, str))
    else ids
  )
  with pytest.raises(errors.InputError, match=message) as error:
    forget(tmp_path / 'out', chain / 'second', ids)
  assert 'ids' in str(error.value) and '\n' not in str(error.value)
  assert {p.name for p in tmp_path.iterdir()} == {'out.csv'}


def test_bad_settings_are_refused(run, chain, tmp_path):
  ids = run[1][:2]
  for changes, message in (
    ({'out': str(chain / 'first')}, 'out.*there already'),
    ({'checkpoint': 'nowhere'}, "checkpoint: there is no file or folder 'nowhere'"),
    ({'method': 'scrubb', 'hparam': ()}, "method: unknown method 'scrubb'"),
    ({'method': 'head_only', 'hparam': ()}, 'method: head_only is a control of the benchmark'),
    ({'data': 'mnist5k'}, 'data: mnist5k is not what .* was trained on'),
    ({'compare_gold': 3}, 'compare_gold: must be one of 0, 1, 2'),
    ({'hparam': ('muda.energy=2',)}, 'hparam.*energy'),
    ({'hparam': ('finetune.num_epochs=1',)}, "hparam: 'finetune.* is not of the method muda"),
  ):
    with pytest.raises(errors.InputError, match=message):
      forget(tmp_path / 'out', changes.pop('checkpoint', run[0]), ids, **changes)
  assert {p.name for p in tmp_path.iterdir()} == {'out.csv'}


@pytest.mark.parametrize(
  'changed',
  [{'forget': 'mislabelled:0.1'}, {'forget': 'backdoor:0.1:4'}, {'coarse': 'a=0,1;b=2,3'}],
  ids=['mislabelled', 'backdoor', 'coarse'],
)
def test_models_of_other_labels_or_images_than_the_data_s_are_refused(changed, run, tmp_path):
  problem = tmp_path / 'problem'
  shutil.copytree(run[0].parents[2], problem)
  stored = files.read_json(problem / 'problem.json')
  files.write_json(problem / 'problem.json', stored | {'identity': stored['identity'] | changed})
  with pytest.raises(errors.InputError, match=r'checkpoint.*trained on other labels or images'):
    forget(tmp_path / 'out', problem / 'original' / 'seed_0', run[1][:2])


@pytest.fixture
def copied(chain, tmp_path):
  shutil.copytree(chain, tmp_path / 'copy')
  return tmp_path / 'copy'


def test_changed_checkpoints_are_refused(copied, chain, run):
  for name, message in (
    ('second', 'are not those of the record'),
    ('first', 'not the one that its record speaks of'),
  ):
    place = copied / name / 'model'
    model, metadata = checkpoints.restore(place)
    kernel = model.params['head']['kernel'] + np.float32(1e-3)
    head = {**model.params['head'], 'kernel': kernel}
    checkpoints.save(place, model._replace(params={**model.params, 'head': head}), metadata)
    with pytest.raises(errors.InputError, match=message):
      verify(copied / 'second', checkpoint=str(copied / 'first'))
    shutil.rmtree(place)
    shutil.copytree(chain / name / 'model', place)
  with pytest.raises(errors.InputError, match='checkpoint: the model before'):
    verify(copied / 'second', checkpoint=str(run[0]))


def test_verify_without_a_place_says_which(copied):
  for changes, message in (
    ({'keys': ''}, 'keys: name the folder with the key'),
    ({'keys': str(copied / record_keys.NAME / 'record.key')}, 'checkpoint: name the model before'),
  ):
    with pytest.raises(errors.InputError, match=message):
      verify(copied / 'second', **changes)


@pytest.mark.slow
def test_commands_work_from_a_shell(run, tmp_path):
  request = write(tmp_path / 'request.csv', run[1][:5])
  shell = lambda *arguments: subprocess.run(
    [sys.executable, '-m', *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )
  flags = ['--method=muda', '--hparam=muda.rounds=1', '--cache_dir=', '--compilation_cache_dir=']
  places = [f'--checkpoint={run[0]}', f'--ids={request}', f'--out={tmp_path / "out"}']
  made = shell('experiments.forget', *places, *flags)
  assert made.returncode == 0 and 'approximate unlearning' in made.stdout, made.stderr
  record, keys = str(tmp_path / 'out' / 'record.json'), f'--keys={tmp_path / record_keys.NAME}'
  checked = shell('experiments.verify', record, keys)
  assert checked.returncode == 0 and checked.stdout.endswith('verified\n'), checked.stderr
  again = shell('experiments.forget', *places, *flags)
  assert again.returncode == 2 and again.stderr.count('\n') == 1, again.stderr
  assert again.stderr.startswith('error: --out')


def test_the_lines_of_a_request_add_up_in_its_record(run, tmp_path):
  """Named twice, spelled otherwise, quoted, in another column: what was read is in the record."""
  checkpoint, trained, _ = run
  lines = [
    'Sample;why',
    f'"{trained[0]}";"asked',
    'twice"',
    f' {trained[1]} ;',
    f'{trained[0]};',
    '',
  ]
  path = tmp_path / 'asked.csv'
  path.write_text('\ufeff' + '\r\n'.join(lines), encoding='utf-8')
  request = settings_lib.Request(
    checkpoint=str(checkpoint),
    ids=str(path),
    id_column='sample',
    out=str(tmp_path / 'out'),
    method='finetune',
    hparam=('finetune.num_epochs=1',),
    verdict='quick',
    accept=verdict.ACCEPTABLE,
  )
  record = carry_out.forget(request, CONFIG)
  read = record['read']
  key = record_keys.read(tmp_path / record_keys.NAME)
  assert record['request']['commitments'] == sorted(commitments.tags(key, trained[:2]))
  assert (read['lines_read'], read['header_lines'], read['further_lines']) == (5, 1, 1)
  assert (read['ids_found'], read['ids_repeated'], read['ids_asked']) == (3, 1, 2)
  assert any('named more than once' in note for note in read['notes'])
  verify(tmp_path / 'out')

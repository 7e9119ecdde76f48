"""Streams of deletion requests: order, batches, stops, the report, and when to retrain."""

import csv
import dataclasses
import io

import pytest

from dalign_jax import errors, methods
from dalign_jax import settings as settings_lib
from dalign_jax.deletion import carry_out, record_files, stream_report, streams, verdict
from experiments.benchmarks import file_kills

SHARED = settings_lib.Settings(
  width_multiplier=0.125,
  batch_size=20,
  num_epochs=4,
  num_devices=1,
  cache_dir='',
  compilation_cache_dir='',
)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Data and a model of one's own, and three requests: the second and the third share an id."""
  folder = tmp_path_factory.mktemp('streams')
  file_kills.write_place(folder)
  ids = file_kills.digits(slice(0, 120)).ids.tolist()
  (folder / 'requests').mkdir()
  for name, part in (('2.csv', ids[:5]), ('10.csv', ids[5:10]), ('11.txt', ids[10:15])):
    (folder / 'requests' / name).write_text('id\n' * (name[-1] == 'v') + '\n'.join(part))
  return folder


def _request(place, out, **changes):
  named = {
    'checkpoint': str(place / 'mine.npz'),
    'out': str(out),
    'data': f'npz:{place}/train.npz',
    'held_out': f'npz:{place}/held_out.npz',
    'near_copies': False,
    'method': 'finetune',
    'hparam': ('finetune.num_epochs=1', 'finetune.batch_size=20'),
    'verdict': 'quick',
    'accept': verdict.ACCEPTABLE,
  }
  return settings_lib.Request(**{**named, **changes})


def test_files_come_in_order_of_their_numbers(place, tmp_path):
  found = streams.request_files(str(place / 'requests'))
  assert [path.name for path in found] == ['2.csv', '10.csv', '11.txt']
  with pytest.raises(errors.InputError, match='requests: there is no folder'):
    streams.request_files(str(tmp_path / 'nowhere'))
  with pytest.raises(errors.InputError, match='requests: there is no file'):
    streams.request_files(str(tmp_path))


def test_a_stopped_stream_goes_on_and_leaves_a_report(place, tmp_path, monkeypatch):
  stream = settings_lib.Stream(requests=str(place / 'requests'), gold_at=('3',))
  request = _request(place, tmp_path / 'out')
  forget, made = carry_out.forget, []

  def stop_at_the_third(one, *arguments, **more):
    if len(made) == 2:
      raise KeyboardInterrupt
    made.append(one.out)
    return forget(one, *arguments, **more)

  with monkeypatch.context() as patch:
    patch.setattr(carry_out, 'forget', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
      streams.run(stream, request, SHARED)
  assert (tmp_path / 'out' / 'report.md').is_file() and (tmp_path / 'out' / streams.PLAN).is_file()
  with pytest.raises(errors.InputError, match=r'out: .* was begun with other hparam, method'):
    streams.run(stream, dataclasses.replace(request, method='retrain', hparam=()), SHARED)
  rows = streams.run(stream, request, SHARED)
  assert [row['requests'] for row in rows] == [1, 2, 3]
  assert [row['samples'] for row in rows] == [5, 5, 5]
  names = {p.name for p in (tmp_path / 'out').iterdir()}
  assert names >= {'0001', '0002', '0003', 'report.csv', 'report.md', 'rows.json'}
  assert not names & {streams.PLAN, '.lock'}
  text = (tmp_path / 'out' / 'report.csv').read_text(encoding='utf-8')
  table = list(csv.DictReader(io.StringIO(text)))
  assert len(table) == 3 and table[2]['distance_gap'] and not table[0]['distance_gap']
  report = (tmp_path / 'out' / 'report.md').read_text(encoding='utf-8')
  assert '# 3 requests, 15 samples: finetune' in report and 'second gold' in report
  with pytest.raises(errors.InputError, match=r'out: .* is there already'):
    streams.run(stream, request, SHARED)


def test_a_stream_that_is_at_work_keeps_its_plan(place, tmp_path, monkeypatch):
  out, other = tmp_path / 'out', tmp_path / 'other'
  other.mkdir()
  (other / '1.txt').write_text('someone', encoding='utf-8')
  plans = []

  def meanwhile(*arguments, **more):
    plans.append((out / streams.PLAN).read_bytes())
    with pytest.raises(errors.BusyError):
      streams.run(settings_lib.Stream(requests=str(other)), _request(place, out), SHARED)
    plans.append((out / streams.PLAN).read_bytes())
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(carry_out, 'forget', meanwhile)
    with pytest.raises(KeyboardInterrupt):
      streams.run(
        settings_lib.Stream(requests=str(place / 'requests')), _request(place, out), SHARED
      )
  assert len(plans) == 2 and plans[0] == plans[1]


def test_requests_may_add_up_to_more_than_a_method_takes_at_once(place, tmp_path, monkeypatch):
  most = methods.METHODS['finetune']._replace(most_share=0.05)  # a request has 5 of 120
  monkeypatch.setitem(methods.METHODS, 'finetune', most)
  stream = settings_lib.Stream(requests=str(place / 'requests'))
  rows = streams.run(stream, _request(place, tmp_path / 'out'), SHARED)
  assert [row['requests'] for row in rows] == [1, 2, 3]
  with pytest.raises(errors.InputError, match='method: finetune destroys a network'):
    streams.run(dataclasses.replace(stream, batch='all'), _request(place, tmp_path / 'all'), SHARED)


def test_a_batch_is_one_request_with_the_lines_of_all(place, tmp_path):
  stream = settings_lib.Stream(requests=str(place / 'requests'), batch='all')
  rows = streams.run(stream, _request(place, tmp_path / 'out'), SHARED)
  assert [(row['requests'], row['samples']) for row in rows] == [(3, 15)]
  assert [p.name for p in (tmp_path / 'out').iterdir() if p.is_dir()] == ['0001']


def test_files_that_are_left_are_read_before_any_work_and_may_be_mended(place, tmp_path):
  requests = tmp_path / 'requests'
  requests.mkdir()
  ids = file_kills.digits(slice(0, 120)).ids.tolist()
  write = lambda name, names: (requests / name).write_text('\n'.join(names), encoding='utf-8')
  write('1.txt', ids[:5])
  write('2.txt', ids[:5])  # who asks twice
  stream = settings_lib.Stream(requests=str(requests))
  request = _request(place, tmp_path / 'out')
  with pytest.raises(errors.InputError, match=r'requests: 2.txt: all ids are those of earlier'):
    streams.run(stream, request, SHARED)
  write('2.txt', [*ids[3:7], 'nobody'])
  with pytest.raises(errors.InputError, match='nobody'):
    streams.run(stream, request, SHARED)
  assert not (tmp_path / 'out' / '0001').exists()
  write('2.txt', ids[3:7])
  rows = streams.run(stream, request, SHARED)
  assert [row['samples'] for row in rows] == [5, 2]
  record = record_files.read(tmp_path / 'out' / '0002' / 'record.json')
  assert record['read']['ids_repeated'] == 2
  assert any('each is one request' in note for note in record['read']['notes'])


def test_bad_streams_are_refused(place, tmp_path):
  request = _request(place, tmp_path / 'out')
  good = settings_lib.Stream(requests=str(place / 'requests'))
  with pytest.raises(errors.InputError, match='requests: name either'):
    streams.run(good, dataclasses.replace(request, ids='one.csv'), SHARED)
  with pytest.raises(errors.InputError, match=r'gold_at: must be numbers of requests, 1 to 3'):
    streams.run(dataclasses.replace(good, gold_at=('4',)), request, SHARED)
  with pytest.raises(errors.InputError, match='batch: must be a number above 0, or all'):
    settings_lib.Stream(batch='0')
  assert not (tmp_path / 'out').exists()


ROW = {
  'verdict': 'forgot',
  'seconds': 1.0,
  'chance': 0.1,
  'remaining': 1000,
  'held_out': 200,
  'first_retain_accuracy': 1.0,
  'retain_accuracy': 1.0,
  'attack_so_far': 0.5,
  'attack_floor_so_far': 0.1,
}
CHANGES = {
  'lost_share': [{}, {'retain_accuracy': 0.95}],
  'unsuccessful': [{'verdict': 'worse'}, {'verdict': 'incomplete'}],
  'membership': [{}, {'attack_so_far': 0.62}],
  'cost': [{'gold_seconds': 1.5}, {}],
}


@pytest.mark.parametrize('key', CHANGES)
def test_each_rule_says_when_to_retrain(key):
  rows = [{**ROW, 'requests': i + 1, **change} for i, change in enumerate(CHANGES[key])]
  lines = stream_report.advice(rows)
  assert lines[-1] == 'From request 2 on, retrain instead.'
  assert sum('since request 2' in line for line in lines) == 1
  of_few = {'retain_accuracy': 0.95, 'remaining': 80}  # four answers of 80
  calm = [{**ROW, 'requests': i + 1, **(of_few if i == 4 else {})} for i in range(5)]
  assert stream_report.advice(calm)[-1] == 'No rule asks for a retrained model.'

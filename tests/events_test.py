"""Event files: read back by hand, as the format is documented; resumed without repeated steps."""

import pathlib
import struct

import pytest

from dalign_jax import errors
from dalign_jax.store import tensorboard
from experiments import config, stages
from experiments.report import problem_report, svg
from tests import experiments_test, made_up

tensorboardX = pytest.importorskip('tensorboardX')
from tensorboardX.proto import event_pb2  # noqa: E402

_CASTAGNOLI = 0x82F63B78


def _crc32c(data: bytes) -> int:
  """Bit by bit, masked as TFRecord files have it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read(folder: pathlib.Path):
  """Events of all files under the folder, in the order they were written."""
  for path in sorted(folder.rglob('events.out.tfevents.*')):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack('<Q', data[:8])
      body = data[12 : 12 + length]
      sums = struct.unpack('<I', data[8:12]), struct.unpack('<I', data[12 + length : 16 + length])
      assert sums == ((_crc32c(data[:8]),), (_crc32c(body),))
      yield event_pb2.Event.FromString(body)
      data = data[16 + length :]


def _scalars(folder):
  return [
    (event.step, value.tag, round(value.simple_value, 4))
    for event in _read(folder)
    for value in event.summary.value
  ]


def test_crc_is_that_of_the_standard():
  plain = (_crc32c(b'123456789') - 0xA282EAD8) & 0xFFFFFFFF
  assert (plain >> 17 | plain << 15) & 0xFFFFFFFF == 0xE3069283


def test_numbers_come_back(tmp_path):
  writer = tensorboard.Writer(tmp_path, 0)
  writer.write(1, {'loss': 0.5, 'forget_loss': 2.0})
  writer.write(2, {'loss': 0.25})
  writer.close()
  expected = [(1, 'loss', 0.5), (1, 'forget_loss', 2.0), (2, 'loss', 0.25)]
  assert _scalars(tmp_path) == expected
  assert next(_read(tmp_path)).file_version == 'brain.Event:2'


def test_resumed_run_takes_back_what_it_repeats(tmp_path):
  for finished in (0, 1):
    writer = tensorboard.Writer(tmp_path / str(finished), finished)
    writer.write(finished + 1, {'loss': 1.0})
    writer.close()
  starts = [e.step for e in _read(tmp_path / '1') if e.session_log.status]
  assert starts == [2]


def test_run_writes_what_train_jsonl_has(tmp_path):
  settings = experiments_test.TINY | {
    'workdir': str(tmp_path),
    'methods': ('muda',),
    'stages': ('train_original', 'unlearn'),
    'tensorboard': True,
    'num_epochs': 1,
  }
  made = config.Config(**settings)
  stages.run(made)
  folder = tmp_path / made.problem_name()
  original = _scalars(folder / 'original' / 'seed_0')
  assert [(step, tag) for step, tag, _ in original if step] == [(1, 'loss')]
  tags = {tag for step, tag, _ in _scalars(folder / 'runs') if step}
  assert tags == {'forget_loss', 'recover_loss'}
  (text,) = _texts(folder / 'runs')['made with/text_summary']
  assert '| method | muda |' in text and '| da_weight | 3.0 |' in text


def _texts(folder):
  """Texts by tag."""
  found = {}
  for event in _read(folder):
    for value in event.summary.value:
      if value.tensor.string_val:
        found.setdefault(value.tag, []).append(value.tensor.string_val[0].decode())
  return found


def test_report_gives_tables_images_and_hyper_parameters(tmp_path, monkeypatch):
  monkeypatch.setattr(svg, 'draw', lambda chart: '<svg/>')
  job = made_up.job(tmp_path, tensorboard=True)
  rows = made_up.rows(job)
  for row in rows.methods:
    row.record['hparams'] = {'da_weight': 5.0, 'layers': None}
  folder = tmp_path / 'tensorboard'
  earlier = tensorboard.Writer(tmp_path)
  earlier.write_text('report/tables', 'of an earlier report')
  earlier.close()
  problem_report.write_rows(job, rows)
  texts = _texts(folder)
  assert 'Nothing can be ranked here' in texts['report/verdict/text_summary'][0]
  (table,) = texts['report/tables/text_summary']
  assert '| muda ' in table and 'Avg Gap' in table
  values = [v for event in _read(folder) for v in event.summary.value]
  images = {v.tag: v.image for v in values if v.image.width}
  assert images['figures/unlearning'].width > 300 and 'figures/alignment' in images
  runs = {path.parent.name for path in folder.rglob('hparams/*/events.out.*')}
  assert runs == {row.name for row in rows.methods}
  gaps = {v.tag: v.simple_value for v in values if v.tag.startswith('gap/')}
  assert set(gaps) == {'gap/average', 'gap/activation_distance', 'gap/dimensional_alignment'}


def test_missing_package_is_named(monkeypatch):
  monkeypatch.setattr(tensorboard.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'tensorboard: needs tensorboardX: pip install'):
    tensorboard.require()

"""Methods and variants on the command line: what is set, what it is called, what is refused."""

import dataclasses
import pathlib

import numpy as np
import pytest

from dalign_jax import checkpoints, errors, hparams, methods
from experiments import config as config_lib
from experiments import stages
from tests import tiny

TINY = {
  'dataset': 'digits',
  'width_multiplier': 0.125,
  'num_epochs': 1,
  'batch_size': 64,
  'methods': ('muda', 'muda:no_da', 'muda:short'),
  'hparam': ('muda:no_da.da_weight=0', 'muda:short.recover_epochs=1', 'muda.rounds=1'),
  'num_devices': 1,
  'cache_dir': '',
  'compilation_cache_dir': '',
}


def test_a_variant_starts_with_what_is_set_for_its_method():
  settings = ('muda:x.rounds=2', 'muda.rounds=7', 'muda.energy=0.5', 'muda:y.rounds=9')
  found = hparams.resolve(('muda', 'muda:x', 'finetune'), settings)
  usual = hparams.defaults('muda')
  assert found == {
    'muda': {**usual, 'rounds': 7, 'energy': 0.5},
    'muda:x': {**usual, 'rounds': 2, 'energy': 0.5},  # the variant's own wins, wherever it stands
    'finetune': hparams.defaults('finetune'),
  }


def test_later_settings_win():
  assert (
    hparams.resolve(('muda:x',), ('muda:x.rounds=2', 'muda:x.rounds=3'))['muda:x']['rounds'] == 3
  )


def test_labels_of_methods_name_what_was_changed_and_labels_of_variants_their_name():
  changed = {**hparams.defaults('muda'), 'rounds': 1}
  assert hparams.label('muda', changed) == 'muda,rounds=1'
  assert hparams.label('muda', hparams.defaults('muda')) == 'muda'
  assert hparams.label('muda:short', changed) == 'muda:short'
  names = ('muda', 'muda,rounds=1', 'muda:short')
  assert {hparams.method_of(name) for name in names} == {'muda'}


@pytest.mark.parametrize(
  ('names', 'settings', 'message'),
  [
    (('mudda:x',), (), r"methods: unknown method 'mudda'; known:.*muda"),
    (('muda:',), (), r"methods: a variant is named by letters.*'muda:'"),
    (('muda:a/b',), (), r"methods.*'muda:a/b'"),
    (('muda:a:b',), (), r"methods.*'muda:a:b'"),
    (('muda:..',), (), r"methods.*'muda:..'"),
    (('muda',), ('muda:x.round=1',), r"hparam: muda has no 'round'; it has: .*rounds"),
    (('muda',), ('muda:x=1',), r'hparam.*method.name=value'),
    (('muda:x',), ('muda:x.rounds=many',), r"hparam: 'muda:x.rounds=many': rounds must be int"),
  ],
)
def test_bad_names_and_settings_are_refused(names, settings, message):
  with pytest.raises(errors.InputError, match=message):
    hparams.resolve(names, settings)


def _config(workdir, **changes):
  return config_lib.Config(**{**TINY, 'workdir': str(workdir), **changes})


def test_variants_of_one_method_stand_in_one_table(tmp_path, capsys):
  config = _config(tmp_path)
  stages.run(config)
  folder = tmp_path / config.problem_name()
  labels = ('muda,rounds=1', 'muda:no_da', 'muda:short')
  records = {}
  for label in labels:
    run = folder / 'runs' / label / 'seed_0'
    assert pathlib.Path(run / 'flags.txt').is_file()
    records[label] = checkpoints.restore(run / 'unlearned')[1]
  assert {label: r['hparams']['da_weight'] for label, r in records.items()} == {
    'muda,rounds=1': 3.0,
    'muda:no_da': 0.0,
    'muda:short': 3.0,
  }
  assert len({r['digest'] for r in records.values()}) > 1
  table = (folder / 'report.csv').read_text(encoding='utf-8')
  assert all(label in table for label in labels)
  text = (folder / 'runs' / 'muda:no_da' / 'seed_0' / 'flags.txt').read_text(encoding='utf-8')
  assert '--methods=muda:no_da\n' in text
  settings = tuple(line[9:] for line in text.splitlines() if line.startswith('--hparam='))
  assert hparams.resolve(('muda:no_da',), settings) == {
    'muda:no_da': {**hparams.defaults('muda'), 'rounds': 1, 'da_weight': 0.0}
  }
  capsys.readouterr()
  stages.run(config)
  assert capsys.readouterr().out.count('done before') == 7  # original, 2 golds, 3 runs, evaluate
  other = _config(tmp_path, hparam=('muda.rounds=1', 'muda:no_da.da_weight=1'))
  with pytest.raises(errors.InputError, match=r'muda:no_da.*made with other settings'):
    stages.run(other)


def test_a_request_too_large_for_a_method_is_refused_unless_asked_for(tmp_path):
  large = {'forget': 'random:0.5', 'hparam': (), 'stages': ('prepare',)}
  config = _config(tmp_path, methods=('salun',), **large)
  message = 'methods: salun destroys .*: at most 25 % of the training data, and these are 50 %'
  with pytest.raises(errors.InputError, match=message):
    stages.run(config)
  stages.run(dataclasses.replace(config, beyond_range=True))
  assert (tmp_path / config.problem_name() / 'problem.json').exists()
  ten = lambda count: np.arange(count) % 10  # labels
  methods.check_range('influence', ten(150), ten(850))
  with pytest.raises(errors.InputError, match='at most 15 % of the training data, and these are 1'):
    methods.check_range('influence', ten(160), ten(840))


def test_a_kind_of_request_that_harms_is_refused():
  threes, others = np.full(5, 3), np.arange(40) % 3
  kept, attributes = np.append(others, 3), np.ones((4, 2), np.int32)
  methods.check_range('cmf', threes, others)
  methods.check_range('tmu', threes, kept)
  methods.check_range('tmu', attributes, attributes)
  for forget in (threes, np.append(threes, 0)):
    with pytest.raises(errors.InputError, match='cmf is not for requests of single images'):
      methods.check_range('cmf', forget, kept)
  with pytest.raises(errors.InputError, match='tmu is not for requests of whole classes'):
    methods.check_range('tmu', threes, others)
  methods.check_range('tmu', np.append(threes, 0), others)  # a part of it stays


def test_dlfd_is_for_people(tmp_path):
  labels = np.arange(20) % 2
  for of_people in (True, None):
    methods.check_range('dlfd', labels, labels, of_people=of_people)
  message = 'dlfd forgets people, whose label others share'
  with pytest.raises(errors.InputError, match=message):
    methods.check_range('dlfd', labels, labels, of_people=False)
  with pytest.raises(errors.InputError, match=message):
    methods.check_range('dlfd', labels, labels + 2, of_people=True)  # people who are classes
  with pytest.raises(errors.InputError, match=f'methods: {message}'):
    stages.run(_config(tmp_path, methods=('dlfd',), forget='random:0.1', hparam=()))


@pytest.mark.parametrize(
  ('shared', 'expected'), [(0, True), (2, True), (3, False), (20, False), (None, None)]
)
def test_a_request_of_people_takes_nearly_all_images_of_each(shared, expected):
  """Of 20 images to forget, some are of people with further images."""
  group = lambda start: None if shared is None else np.arange(start, start + 20, dtype=np.int32)
  dataset = lambda start: dataclasses.replace(
    tiny.dataset().take(np.arange(20)), group=group(start)
  )
  retain = dataset(20 - (shared or 0))
  assert methods.forgets_people(dataset(0), retain) is expected


def test_class_only_methods_and_batches_are_checked_for_variants(tmp_path):
  config = _config(tmp_path, forget='random:0.1', methods=('head_only:x',), hparam=())
  with pytest.raises(errors.InputError, match='head_only forgets whole classes'):
    stages.run(config)
  config = _config(tmp_path, methods=('muda:x',), hparam=('muda:x.batch_size=0',))
  with pytest.raises(errors.InputError, match=r'muda:x\.batch_size=0'):
    stages.run(config)

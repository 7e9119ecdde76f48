"""The trials of interruptions: resumed behind the last line, and wrong where something is wrong."""

import json
import pathlib
import signal
import sys

from absl.testing import flagsaver
import pytest

from experiments.benchmarks import interruptions


@pytest.fixture
def counted(monkeypatch):
  """Trials that take no time; the list of those that were made."""
  made = []

  def trial(name, number, seconds, expected):
    made.append((name, number.name))
    assert expected == {'model': name}
    return seconds, 'other results: model' if len(made) == 5 else ''

  reference = lambda name: {'reference': name, 'seconds': 9.0, 'results': {'model': name}}
  monkeypatch.setattr(interruptions, 'trial', trial)
  monkeypatch.setattr(interruptions, 'reference', reference)
  if not interruptions.flags.FLAGS.is_parsed():
    interruptions.flags.FLAGS(['interruptions'])
  return made


def test_trials_are_kept_and_go_on(counted, tmp_path, capsys):
  path = tmp_path / 'i.jsonl'
  with flagsaver.flagsaver(output=str(path), trials=4):
    interruptions.main([])
  with flagsaver.flagsaver(output=str(path), trials=9), pytest.raises(SystemExit, match='1'):
    interruptions.main([])
  assert len(counted) == len(set(counted)) == 9  # three commands by three signals
  references, done = interruptions.read(path)
  assert references.keys() == interruptions.COMMANDS.keys() and len(done) == 9
  assert all(0.5 <= trial['after'] <= 9 for trial in done)
  with flagsaver.flagsaver(output=str(path), only_print=True), pytest.raises(SystemExit):
    interruptions.main([])
  assert len(counted) == 9
  last = capsys.readouterr().out.splitlines()[-1]
  assert last == '| all | | 9 | 1 |'


SCRIPTS = {  # code, and what is wrong after it was stopped by SIGTERM
  'good': ('import sys; sys.exit(143)', ''),
  'other': ('import sys; sys.exit(1)', 'exit code 1 after SIGTERM'),
  'loud': ('import sys; print("Traceback"); sys.exit(143)', 'a traceback after SIGTERM'),
}


@pytest.mark.parametrize('name', SCRIPTS)
def test_faults_are_found(name, monkeypatch, tmp_path):
  script, fault = SCRIPTS[name]
  (tmp_path / 'begun').write_text('')
  stopped = interruptions.Stopped(*_run(script))
  monkeypatch.setattr(interruptions, 'start', lambda *_: _process('print("done")'))
  found = interruptions._fault(name, signal.SIGTERM, tmp_path, stopped, {'begun': 'a file'})
  assert found.startswith(fault) and bool(found) == bool(fault)
  if not fault:
    lost = interruptions._fault(
      name, signal.SIGTERM, tmp_path, stopped, {'begun': 'a file', 'x': ''}
    )
    assert lost == 'other results: x'
    monkeypatch.setattr(interruptions, 'start', lambda *_: _process('import sys; sys.exit(2)'))
    again = interruptions._fault(name, signal.SIGTERM, tmp_path, stopped, {})
    assert again.startswith('it does not go on')


def _process(script):
  pipe = interruptions.subprocess.PIPE
  return interruptions.subprocess.Popen([sys.executable, '-c', script], stdout=pipe, text=True)


def _run(script):
  process = _process(script)
  text, _ = process.communicate()
  return process.returncode, text


def test_results_name_every_file_but_those_of_orbax(tmp_path):
  (tmp_path / 'a' / 'model' / '0' / 'state').mkdir(parents=True)
  (tmp_path / 'a' / 'model' / '0' / 'state' / 'x').write_text('')
  (tmp_path / 'a' / 'evaluation.json').write_text(json.dumps({}))
  (tmp_path / 'a' / '.evaluation.json.12').write_text('')  # left by a kill
  found = interruptions.results(pathlib.Path(tmp_path))
  assert found.keys() == {'a/evaluation.json', 'a/.evaluation.json.12'}

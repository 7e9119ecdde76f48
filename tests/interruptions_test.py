"""The trials of interruptions: resumed behind the last line, and wrong where something is wrong."""

import functools
import signal
import sys
import types

from absl import flags
import numpy as np
import pytest

from dalign_jax import checkpoints
from dalign_jax import types as model_types
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
  return made


@pytest.fixture
def main(monkeypatch):
  """The benchmark as a command, with flags of its own."""

  def run(*arguments):
    values = flags.FlagValues()
    names = ('DEFINE_integer', 'DEFINE_string', 'DEFINE_boolean')
    define = {n: functools.partial(getattr(flags, n), flag_values=values) for n in names}
    own = types.SimpleNamespace(FLAGS=values, **define)
    monkeypatch.setattr(interruptions, 'flags', own)
    interruptions.define_flags()
    values(['interruptions', *arguments])
    interruptions.main([])

  return run


def test_trials_are_kept_and_go_on(counted, main, tmp_path, capsys):
  path = tmp_path / 'i.jsonl'
  output = f'--output={path}'
  main(output, '--trials=4')
  with pytest.raises(SystemExit, match='1'):
    main(output, '--trials=9')
  assert len(counted) == len(set(counted)) == 9  # three commands by three signals
  references, done = interruptions.read(path)
  assert references.keys() == interruptions.COMMANDS.keys() and len(done) == 9
  assert all(0.5 <= trial['after'] <= 9 for trial in done)
  with pytest.raises(SystemExit):
    main(output, '--only_print')
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


def test_results_are_digests_and_the_names_of_files_but_those_of_orbax(tmp_path):
  model = model_types.ModelState({'w': np.ones(2)}, {})
  checkpoints.save(tmp_path / 'a' / 'model', model, {'digest': 'of w'})
  (tmp_path / 'a' / 'evaluation.json').write_text('{}')
  (tmp_path / 'a' / '.evaluation.json.12').write_text('')  # left by a kill
  found = interruptions.results(tmp_path)
  assert found.keys() == {'a/model', 'a/evaluation.json', 'a/.evaluation.json.12'}
  assert found['a/model'] == 'of w' and len(found['a/evaluation.json']) == 64

"""Checks the audit record of a deletion request, and carries the request out again.

python -m experiments.verify FOLDER/record.json
"""

import dataclasses
import pathlib

from absl import flags

from experiments import command, errors, records

_SETTINGS = ('data_dir', 'num_devices', 'compilation_cache_dir')
FLAGS = command.FLAGS


def main(arguments: list[str]) -> None:
  """Reads the record, starts the platform as it was, and replays."""
  if len(arguments) != 1:
    raise errors.UserError(f'give one record, as FOLDER/record.json; got {len(arguments)}')
  path = pathlib.Path(arguments[0]).expanduser()
  path = path / 'record.json' if path.is_dir() else path
  record = records.read(path)
  given = {name: FLAGS[name].value for name in _SETTINGS if FLAGS[name].present}
  command.start_platform(dataclasses.replace(records.config_of(record), **given))
  from experiments import verification  # imports JAX: after the platform's settings

  places = {name: FLAGS[name].value for name in ('checkpoint', 'data', 'held_out')}
  verification.verify(path, places=places, settings=given, replay=FLAGS.replay)


def _define() -> None:
  flags.DEFINE_string('checkpoint', '', 'Where the model before the request is now.')
  flags.DEFINE_string('data', '', 'Where the training data are now.')
  flags.DEFINE_string('held_out', '', 'Where the held-out data are now.')
  flags.DEFINE_string('data_dir', '', 'Where TFDS keeps its data.')
  flags.DEFINE_integer('num_devices', 0, 'Devices to use; 0: all.')
  flags.DEFINE_string('compilation_cache_dir', '', 'Where compiled programs are kept.')
  flags.DEFINE_boolean('replay', True, 'Unlearn again; needs the forgotten samples.')


if __name__ == '__main__':
  _define()
  command.launch(main, 'checkpoint')

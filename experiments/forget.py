"""Carries out a deletion request: writes a new checkpoint and an audit record.

python -m experiments.forget --checkpoint=MODEL --data=DATA --ids=request.csv --out=FOLDER
"""

import dataclasses

from experiments import command, errors, requests
from experiments import config as config_lib

_REQUEST = dataclasses.fields(requests.Request)
_SHARED = [f for f in dataclasses.fields(config_lib.Config) if f.name in requests.SHARED]


def main(arguments: list[str]) -> None:
  """Reads the flags, starts the platform and carries the request out."""
  if arguments:
    raise errors.UserError(f'unexpected argument {arguments[0]!r}; flags start with --')
  request = requests.Request(**command.values(_REQUEST))
  config = config_lib.Config(**command.values(_SHARED))
  command.start_platform(config)
  from experiments import deletion  # imports JAX: after the platform's settings

  record = deletion.forget(request, config)
  print('\n'.join(f'- {line}' for line in record['summary']))
  print(f'record: {request.out}/record.json, {record["hash"][:16]}')


if __name__ == '__main__':
  command.define([*_REQUEST, *_SHARED])
  command.launch(main, 'out')

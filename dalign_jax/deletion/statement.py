"""A record of format 2 as an in-toto Statement, and back.

The statement's subjects are the files of the model. Its predicate is laid out as SLSA provenance is
(`buildDefinition`, `runDetails`), and has what a deletion needs besides in `deletion`.

References:
  in-toto attestation framework, Statement v1. https://in-toto.io/Statement/v1
  SLSA provenance v1. https://slsa.dev/spec/v1.0/provenance
"""

import json
from typing import Any

from dalign_jax import errors
from dalign_jax.deletion import signing

STATEMENT_TYPE = 'https://in-toto.io/Statement/v1'
PREDICATE_TYPE = 'pkg:pypi/dalign-jax#deletion-record/v2'
BUILD_TYPE = 'pkg:pypi/dalign-jax#forget/v2'
BUILDER = 'pkg:pypi/dalign-jax#forget'
_EXTERNAL = ('method', 'configuration', 'request', 'read', 'copies')  # what was asked for
_INTERNAL = ('seeds', 'environment')  # what the command took besides
_ELSEWHERE = ('files', 'created')  # subjects, and when it was finished


def of_record(record: dict) -> dict[str, Any]:
  """The statement of a record.

  Args:
    record: of format 2.
  """
  parameters = {*_EXTERNAL, *_INTERNAL, *_ELSEWHERE}
  return {
    '_type': STATEMENT_TYPE,
    'subject': [
      {'name': name, 'digest': {'sha256': digest}} for name, digest in record['files'].items()
    ],
    'predicateType': PREDICATE_TYPE,
    'predicate': {
      'buildDefinition': {
        'buildType': BUILD_TYPE,
        'externalParameters': {name: record[name] for name in _EXTERNAL},
        'internalParameters': {name: record[name] for name in _INTERNAL},
        'resolvedDependencies': _dependencies(record),
      },
      'runDetails': {
        'builder': {'id': BUILDER, 'version': record['environment']['versions']},
        'metadata': {'invocationId': record['hash'], 'finishedOn': record['created']},
      },
      'deletion': {name: value for name, value in record.items() if name not in parameters},
    },
  }


def _dependencies(record) -> list[dict[str, Any]]:
  """What the model was made of; digests of arrays and sources have names of their own."""
  digests = [
    ('model before the request', 'dalign_jax_weights', record['model']['before']),
    ('source of the command', 'dalign_jax_source', record['code']),
    ('record of the request before', 'dalign_jax_record', record['previous']),
  ]
  return [{'name': name, 'digest': {kind: value}} for name, kind, value in digests if value]


def to_record(statement: Any) -> dict[str, Any]:
  """The record of a statement.

  Raises:
    errors.InputError: if the statement is not the one that the record has.
  """
  try:
    predicate = statement['predicate']
    definition = predicate['buildDefinition']
    record = {
      **predicate['deletion'],
      **{name: definition['externalParameters'][name] for name in _EXTERNAL},
      **{name: definition['internalParameters'][name] for name in _INTERNAL},
      'created': predicate['runDetails']['metadata']['finishedOn'],
      'files': {one['name']: one['digest']['sha256'] for one in statement['subject']},
    }
    again = of_record(record)
  except KeyError as error:
    raise errors.InputError(f'it has no {error.args[0]!r}') from None
  except (TypeError, AttributeError):
    raise errors.InputError('a part of it is of the wrong kind') from None
  if again != statement:
    raise errors.InputError(f'its {_first_difference(again, statement)} is not as it must be')
  return record


def _first_difference(wanted, found, name='statement') -> str:
  if isinstance(wanted, dict) and isinstance(found, dict):
    for key in [*wanted, *(k for k in found if k not in wanted)]:
      if key not in wanted or key not in found or wanted[key] != found[key]:
        return _first_difference(wanted.get(key), found.get(key), str(key))
  return name


def is_statement(value: Any) -> bool:
  """Whether a JSON value says that it is a statement of a record of format 2."""
  return isinstance(value, dict) and value.get('predicateType') == PREDICATE_TYPE


def text(record: dict) -> str:
  """The file of a record: exactly these bytes are signed."""
  return json.dumps(of_record(record), indent=2, allow_nan=False) + '\n'


def entry(record: dict, envelope: dict | None) -> dict[str, Any]:
  """A record as a line of a history: its envelope where it is signed."""
  return envelope or of_record(record)


def of_entry(value: Any, load) -> tuple[dict, dict | None]:
  """The record and the envelope of a line of a history.

  Args:
    value: a statement, or an envelope.
    load: reads JSON from bytes.

  Raises:
    errors.InputError: if it is neither.
  """
  envelope = value if isinstance(value, dict) and 'payload' in value else None
  statement = load(signing.payload_of(envelope)) if envelope else value
  return to_record(statement), envelope

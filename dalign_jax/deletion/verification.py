"""Verification of a record that somebody else made: all that needs no replay, field by field.

Nothing in a record is obeyed. No path, address or module that it names is opened or imported unless
whoever verifies names it too; what stays unchecked is said, for each field.
"""

from collections.abc import Collection, Sequence
import datetime
import hashlib
import json
import pathlib
from typing import Any

from dalign_jax import checkpoints, digests, errors
from dalign_jax.deletion import (
  model_source,
  page,
  record_files,
  signing,
  statement,
  untrusted,
)
from dalign_jax.store import model_folder, progress

POLICY = 'pkg:pypi/dalign-jax#verify/v2'
SUMMARY_TYPE = 'https://slsa.dev/verification_summary/v1'
MAY_DIFFER = ('code', 'environment', 'read')
_CHAIN = 'checked against the chain'
_SAID = 'its form alone: whoever made the record says it, and nothing can show it'
_FIELDS = {  # field -> what is checked without a replay, and with one (None: the same)
  'format': ('its form', None),
  'number': (_CHAIN, None),
  'previous': (_CHAIN, None),
  'history': ('compared with the file of the chain', None),
  'hash': ('compared with all other fields', None),
  'created': ('its form, and the order in the chain', None),
  'seconds': ('that they are not negative', None),
  'rights': (_SAID, None),
  'traces': (_SAID, None),
  'files': ('compared with the files of the model', None),
  'request': ('its number against other fields; not which samples', 'replayed'),
  'read': ('that its lines add up', 'replayed'),
  'copies': ('that it does not contradict the request', 'replayed'),
  'commitments': ('its form', 'replayed'),
  'samples': ('its numbers; the roots are said above', 'replayed'),
  'model': ('after: compared with the checkpoint; before: not checked', 'replayed'),
  'method': ('that it follows from the configuration; not that it was used', 'replayed'),
  'seeds': ('that they follow from the configuration', 'replayed'),
  'configuration': ('its form', 'used for the replay, and compared with what it came to'),
  'metrics': ('their names and ranges; not that they were measured', 'replayed'),
  'guarantee': ('that it follows from the method and its hyper-parameters', 'replayed'),
  'verdict': ('that it follows from what it says was measured', 'replayed'),
  'summary': ('that it follows from other fields', 'replayed'),
  'code': ('its form', 'replayed'),
  'environment': ('its form', 'replayed'),
}


def chain_of(path: pathlib.Path) -> list[tuple[dict, dict | None]]:
  """The chain of a record that is named by its file or its folder.

  Raises:
    errors.InputError: if a record of it is damaged, contradicts itself, or does not follow.
  """
  folder = path if path.is_dir() else path.parent
  if not path.is_dir() and path.name != record_files.RECORD:
    raise errors.InputError(f'{path} is no {record_files.RECORD}; give the folder of a request')
  return record_files.chain_of(folder)


def check_signatures(chain, paths: Collection[str]) -> str:
  """Checks that every record of format 2 of a chain is signed by one of some keys.

  Args:
    chain: records with their envelopes.
    paths: of public keys; empty to check none.

  Returns:
    What was checked, in words.

  Raises:
    errors.InputError: if one is not signed by any of them.
  """
  if not paths:
    signed = sum(envelope is not None for _, envelope in chain)
    what = 'not signed' if chain[-1][1] is None else 'not checked: name the key by --public_key'
    return what if not signed or chain[-1][1] is None else f'{what} ({signed} of {len(chain)})'
  with errors.blame('public_key'):
    keys = [signing.read_public(path) for path in paths]
  signers: set[str] = set()
  for record, envelope in chain:
    if record['format'] == 2:
      signers.add(_signer(record, envelope, keys))
  if not signers:
    raise errors.InputError('the record is of format 1, which has no signatures')
  names = ', '.join(sorted(signers))
  old = sum(record['format'] == 1 for record, _ in chain)
  return f'of {names}' + (f'; {old} records of format 1 have none' if old else '')


def _signer(record, envelope, keys) -> str:
  if envelope is None:
    raise errors.InputError(f'request {record["number"]} is not signed')
  for key in keys:
    try:
      payload = signing.verify(envelope, key)
    except errors.InputError as error:
      reason = error
      continue
    if statement.to_record(untrusted.load_json(payload)) != record:
      raise errors.InputError(f'request {record["number"]}: another record is signed')
    return signing.keyid(key)[:16]
  raise errors.InputError(f'request {record["number"]}: {reason}')


def check_files(folder: pathlib.Path, record: dict) -> None:
  """Checks the files of the model and the model itself.

  Raises:
    errors.InputError: if they are not those of the record.
  """
  there = record_files.model_files(folder)  # of format 1 too: there must be no links
  if record['format'] == 2:
    said = record['files']
    changed = [name for name in sorted({*said, *there}) if said.get(name) != there.get(name)]
    if changed:
      how = 'changed' if changed[0] in said and changed[0] in there else 'missing or too many'
      raise errors.InputError(
        f'{len(changed)} files of the model are not those of the record, such as '
        f'{changed[0]!a} ({how}) in {folder}; bring back a copy'
      )
  try:
    model, _ = checkpoints.restore(folder / 'model')
    written = model_source.written(folder, model)
  except (errors.InputError, OSError) as error:  # of the record's own files: no flag is wrong
    raise errors.InputError(f'a model in {folder} cannot be read: {error}') from error
  if model_folder.digest(model) != record['model']['after']:
    raise errors.InputError(f'the model in {folder / "model"} is not the one of the record')
  wanted = record['configuration'].get('taken', {}).get('written', '')
  if sorted(written) != [wanted] * bool(wanted):
    raise errors.InputError(
      f'{folder} must hold {wanted or "no model"} beside model/, and holds '
      f'{", ".join(sorted(written)) or "none"}'
    )
  other = [name for name, digest in written.items() if digest != digests.of_model(model)]
  if other:
    raise errors.InputError(f'{folder / other[0]} is not the model of the record')


def check_alone(folder: pathlib.Path, chain, public_keys: Collection[str]) -> None:
  """Checks what a record, its chain and its model say of each other, and says each.

  Args:
    folder: of the request.
    chain: of `chain_of`.
    public_keys: paths of keys that must have signed.

  Raises:
    errors.InputError: for the first check that fails.
  """
  record, envelope = chain[-1]
  progress.say(f'record: request {record["number"]}, unchanged: {record["hash"][:16]}')
  progress.say(f'chain: unbroken, {len(chain)} long')
  progress.say(f'signature: {check_signatures(chain, public_keys)}')
  if record['format'] == 2:
    found = page.check(folder, record, is_signed=envelope is not None)
    progress.say(f'{record_files.PAGE}: {found}')
  check_files(folder, record)
  progress.say(f'model: the one of the record: {record["model"]["after"][:16]}')


def say_fields(record: dict, *, replayed: bool, differing: Collection[str] = ()) -> None:
  """Says field by field what was checked.

  Args:
    record: that was checked.
    replayed: whether it was carried out again.
    differing: fields that differed, and were allowed to.
  """
  for name in sorted(record, key=lambda n: list(_FIELDS).index(n)):
    alone, again = _FIELDS[name]
    if record['format'] == 1 and name == 'configuration':
      again = alone
    if record['format'] == 1 and name == 'read':
      again = alone
    words = (again or alone) if replayed else alone
    progress.say(f'  {name}: {"differs, as allowed" if name in differing else words}')


def check_summary(path: pathlib.Path, key_path: str) -> None:
  """Checks, before any work, that a summary can be written.

  Raises:
    errors.InputError: naming the flag.
  """
  if path.exists() or not path.absolute().parent.is_dir():
    what = 'is there already' if path.exists() else 'lies in a folder that is not there'
    raise errors.InputError(f'{path} {what}', argument='summary')
  if not key_path:
    raise errors.InputError(f'{path} needs --signing_key, which signs it', argument='summary')
  with errors.blame('signing_key'):
    signing.read_private(key_path)


def write_summary(
  path: pathlib.Path, folder: pathlib.Path, key_path: str, levels: Sequence[str]
) -> None:
  """Writes a verification summary, signed by whoever verified: SLSA's VSA in a DSSE envelope.

  Args:
    path: where to; must not exist.
    folder: of the request.
    key_path: the private key of the verifier.
    levels: that were verified; none where a check failed.
  """
  with errors.blame('signing_key'):
    key = signing.read_private(key_path)
  digest = {'sha256': hashlib.sha256(untrusted.read_bytes(folder / 'record.json')).hexdigest()}
  now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
  verifier = f'pkg:pypi/dalign-jax#verifier/{signing.keyid(key.public_key())}'
  said: dict[str, Any] = {
    '_type': statement.STATEMENT_TYPE,
    'subject': [{'name': record_files.RECORD, 'digest': digest}],
    'predicateType': SUMMARY_TYPE,
    'predicate': {
      'verifier': {'id': verifier, 'version': model_folder.versions()},
      'timeVerified': now.isoformat().replace('+00:00', 'Z'),
      'resourceUri': f'ni:///sha-256;{digest["sha256"]}?ct=application/json',
      'policy': {'uri': POLICY},
      'inputAttestations': [{'uri': record_files.RECORD, 'digest': digest}],
      'verificationResult': 'PASSED' if levels else 'FAILED',
      'verifiedLevels': list(levels) or ['FAILED'],
    },
  }
  envelope = signing.sign(json.dumps(said, indent=2).encode(), key)
  with open(path, 'x', encoding='utf-8') as file:
    file.write(json.dumps(envelope) + '\n')
  progress.say(f'summary: {path}, signed by {signing.keyid(key.public_key())[:16]}')

"""Signatures: envelopes that third parties check, keys, and summaries of verifications."""

import hashlib
import json
import pathlib
import shutil

from absl import flags
from absl.testing import flagsaver
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
import numpy as np
import pytest
from securesystemslib import dsse, exceptions
from securesystemslib import signer as sslib_signer

from dalign_jax import console, errors
from dalign_jax.deletion import (
  page,
  receipts,
  record_keys,
  signing,
)
from tests import deletion_place

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'record_v1'


def _third_party(path, public):
  """The payload of an envelope, checked by securesystemslib alone."""
  loaded = serialization.load_pem_public_key(pathlib.Path(public).read_bytes())
  key = sslib_signer.SSlibKey.from_crypto(loaded)
  envelope = dsse.Envelope.from_dict(json.loads(path.read_text(encoding='utf-8')))
  assert envelope.payload_type == 'application/vnd.in-toto+json'
  assert set(envelope.verify([key], 1)) == {key.keyid} == {signing.keyid(loaded)}
  return envelope.payload


def test_a_third_party_checks_signature_and_files_without_this_library(asked, tmp_path):
  out = asked / 'first'
  payload = _third_party(out / 'record.intoto.jsonl', asked / 'signing' / signing.PUBLIC)
  assert payload == (out / 'record.json').read_bytes()
  found = json.loads(payload)
  assert found['_type'] == 'https://in-toto.io/Statement/v1'
  assert found['predicateType'] == 'pkg:pypi/dalign-jax#deletion-record/v2'
  subjects = {one['name']: one['digest']['sha256'] for one in found['subject']}
  assert {'model.npz', 'model/0/_CHECKPOINT_METADATA'} < subjects.keys()
  for name, digest in subjects.items():
    assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
  definition = found['predicate']['buildDefinition']
  assert definition['externalParameters']['method']['name'] == 'finetune'
  assert {one['name'] for one in definition['resolvedDependencies']} == {
    'model before the request',
    'source of the command',
  }
  _, other = signing.keygen(tmp_path / 'other')
  with pytest.raises(exceptions.VerificationError):
    _third_party(out / 'record.intoto.jsonl', other)
  with pytest.raises(errors.InputError, match='no signature is of the key'):
    deletion_place.verify(out, again=False, public_keys=[str(other)])


def test_what_securesystemslib_signs_is_read(tmp_path):
  private, public = signing.keygen(tmp_path)
  key = serialization.load_pem_private_key(private.read_bytes(), None)
  envelope = dsse.Envelope(b'{}', signing.PAYLOAD_TYPE, {})
  envelope.sign(sslib_signer.CryptoSigner(key))
  assert signing.verify(envelope.to_dict(), signing.read_public(public)) == b'{}'


def test_keys_are_never_replaced_and_other_keys_are_refused(tmp_path):
  private, public = signing.keygen(tmp_path)
  with pytest.raises(errors.InputError, match='is there already; keys are never replaced'):
    signing.keygen(tmp_path)
  with pytest.raises(errors.InputError, match='is no private key in PEM'):
    signing.read_private(public)
  with pytest.raises(errors.InputError, match='is no public key in PEM'):
    signing.read_public(private)
  with pytest.raises(errors.InputError, match='cannot be read'):
    signing.read_public(tmp_path / 'nowhere')
  other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
  pem = other.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  (tmp_path / 'rsa.pem').write_bytes(pem)
  with pytest.raises(errors.InputError, match='is no private Ed25519 key'):
    signing.read_private(tmp_path / 'rsa.pem')


def test_a_missing_package_is_said_with_its_pip_line(asked, record, tmp_path, monkeypatch, capsys):
  for name in ('cryptography', 'jinja2'):
    monkeypatch.setitem(__import__('sys').modules, name, None)
  with pytest.raises(errors.InputError, match=r"cryptography: pip install 'dalign-jax.deletion.'"):
    signing.keygen(tmp_path)
  page.write(tmp_path, record, is_signed=True)
  assert "Jinja2: pip install 'dalign-jax[deletion]'" in capsys.readouterr().out
  assert "pip install 'dalign-jax[deletion]'" in page.check(asked / 'first', record, is_signed=True)


def _run(command, arguments, **given):
  console.COMMANDS[command].define()
  with flagsaver.flagsaver():
    for name, value in given.items():
      setattr(console.FLAGS, name, value)
    console.COMMANDS[command].main(arguments)


@pytest.fixture
def no_flags(monkeypatch):
  """The commands define flags, which others may have defined: none is there, and none stays."""
  monkeypatch.setattr(console.command, 'start_platform', lambda settings: None)
  before = {console.FLAGS[name].name: console.FLAGS[name] for name in console.FLAGS}
  for name in list(console.FLAGS):
    if name in console.FLAGS:  # a short name goes with the long one
      delattr(console.FLAGS, name)
  if not console.FLAGS.is_parsed():
    console.FLAGS.mark_as_parsed()
  yield
  for name in list(console.FLAGS):
    if name in console.FLAGS:
      delattr(console.FLAGS, name)
  for name, flag in before.items():
    console.FLAGS[name] = flag


def test_summary_of_a_verification_is_signed_by_whoever_verifies(asked, tmp_path, no_flags):
  signing.keygen(tmp_path)
  out, path = asked / 'first', tmp_path / 'summary.intoto.jsonl'
  given = {
    'keys': str(asked / record_keys.NAME),
    'replay': False,
    'compilation_cache_dir': '',
  }
  given |= {'signing_key': str(tmp_path / signing.PRIVATE), 'summary': str(path)}
  given |= {'public_key': [str(asked / 'signing' / signing.PUBLIC)]}
  _run('verify', [str(out)], **given)
  found = json.loads(_third_party(path, tmp_path / signing.PUBLIC))
  said = found['predicate']
  assert found['predicateType'] == 'https://slsa.dev/verification_summary/v1'
  assert said['verificationResult'] == 'PASSED'
  assert said['verifiedLevels'] == ['DALIGN_JAX_RECORD', 'DALIGN_JAX_SIGNED']
  digest = hashlib.sha256((out / 'record.json').read_bytes()).hexdigest()
  assert found['subject'] == [{'name': 'record.json', 'digest': {'sha256': digest}}]
  assert said['inputAttestations'][0]['digest'] == {'sha256': digest}


def test_summary_of_a_verification_that_failed(asked, tmp_path, no_flags):
  signing.keygen(tmp_path)
  shutil.copytree(asked / 'first', tmp_path / 'out')
  (tmp_path / 'out' / 'model' / 'more').write_text('x', encoding='utf-8')
  path = tmp_path / 'summary.intoto.jsonl'
  given = {'keys': '', 'replay': False, 'compilation_cache_dir': '', 'summary': str(path)}
  with pytest.raises(errors.InputError, match='files of the model'):
    _run('verify', [str(tmp_path / 'out')], signing_key=str(tmp_path / signing.PRIVATE), **given)
  found = json.loads(_third_party(path, tmp_path / signing.PUBLIC))['predicate']
  assert (found['verificationResult'], found['verifiedLevels']) == ('FAILED', ['FAILED'])


def test_no_summary_of_a_record_that_was_not_checked_to_the_end(asked, tmp_path, no_flags):
  private, _ = signing.keygen(tmp_path / 'auditor')
  target = tmp_path / 'summary.jsonl'
  console.COMMANDS['verify'].define()
  usual = {'summary': str(target), 'signing_key': str(private), 'compilation_cache_dir': ''}
  for changes in (
    {'signing_key': str(tmp_path / 'typo.pem')},
    {'summary': str(tmp_path / 'nowhere' / 'summary.jsonl')},
    {'keys': str(tmp_path)},
    {'keys': str(asked / 'record_keys'), 'max_minutes': 1e-6},
  ):
    with flagsaver.flagsaver(**usual | changes):
      with pytest.raises(errors.InputError) as raised:
        console.verify([str(asked / 'first')])
    assert raised.value.argument == list(changes)[-1] and not target.exists()


def test_receipt_and_keygen_commands(asked, tmp_path, capsys, no_flags):
  _run('keygen', [], keys=str(tmp_path / 'new'))
  text = capsys.readouterr().out
  assert f'{tmp_path}/new/signing.pem' in text and 'key id: ' in text
  path = next((asked / record_keys.NAME / 'first' / receipts.FOLDER).iterdir())
  np.save(tmp_path / 'pixels.npy', deletion_place.dataset(asked).images[0])
  given = {'receipt': str(path), 'public_key': [str(asked / 'signing' / signing.PUBLIC)]}
  for name in list(console.FLAGS):
    if name in ('keys', 'receipt', 'public_key', 'pixels'):
      delattr(console.FLAGS, name)
  _run('receipt', [str(asked / 'first')], pixels=str(tmp_path / 'pixels.npy'), **given)
  text = capsys.readouterr().out
  assert text.startswith('signature: of ') and 'The picture is the one' in text


@pytest.mark.parametrize('name', ['keygen', 'verify', 'receipt'])
def test_addresses_are_no_folders(name, no_flags):
  console.COMMANDS[name].define()
  flag = {'keygen': 'keys', 'verify': 'signing_key', 'receipt': 'receipt'}[name]
  with pytest.raises(flags.IllegalFlagValueError, match='must be a path of this machine'):
    flags.FLAGS([name, f'--{flag}=gs://bucket/k'])

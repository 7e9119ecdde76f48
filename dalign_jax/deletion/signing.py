"""Signatures of records: DSSE envelopes, Ed25519.

References:
  Dead Simple Signing Envelope, version 1. https://github.com/secure-systems-lab/dsse
  Josefsson and Liusvaara. Edwards-Curve Digital Signature Algorithm. RFC 8032.
"""

import base64
import binascii
import hashlib
import json
import os
import pathlib
from typing import Any

from dalign_jax import errors

PAYLOAD_TYPE = 'application/vnd.in-toto+json'
PRIVATE, PUBLIC = 'signing.pem', 'signing.pub.pem'


def _cryptography():
  try:
    from cryptography import exceptions
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
  except ImportError:
    raise errors.InputError(
      "signatures need cryptography: pip install 'dalign-jax[deletion]'"
    ) from None
  return exceptions, serialization, ed25519


def pae(payload_type: str, payload: bytes) -> bytes:
  """Pre-authentication encoding: the bytes that are signed.

  Example:
    >>> pae('http://example.com/HelloWorld', b'hello world')
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
  """
  name = payload_type.encode()
  return b'DSSEv1 %d %b %d %b' % (len(name), name, len(payload), payload)


def keygen(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Makes a pair of Ed25519 keys: the private one (PKCS 8, mode 0600) and the public one.

  Args:
    folder: for `signing.pem` and `signing.pub.pem`, which must not exist.

  Raises:
    errors.InputError: if one is there, or the package cryptography is not installed.
  """
  _, serialization, ed25519 = _cryptography()
  private, public = folder / PRIVATE, folder / PUBLIC
  for path in (private, public):
    if path.exists():
      raise errors.InputError(f'{path} is there already; keys are never replaced', argument='keys')
  key = ed25519.Ed25519PrivateKey.generate()
  secret = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  shown = key.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
  )
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  for path, content, mode in ((private, secret, 0o600), (public, shown, 0o644)):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), 'wb') as file:
      file.write(content)
  return private, public


def read_private(path: str | pathlib.Path) -> Any:
  """Reads a private key.

  Raises:
    errors.InputError: if the file is no private Ed25519 key.
  """
  _, serialization, ed25519 = _cryptography()
  load = lambda content: serialization.load_pem_private_key(content, None)
  return _read(path, load, ed25519.Ed25519PrivateKey, 'private')


def read_public(path: str | pathlib.Path) -> Any:
  """Reads a public key; as `read_private`."""
  _, serialization, ed25519 = _cryptography()
  return _read(path, serialization.load_pem_public_key, ed25519.Ed25519PublicKey, 'public')


def _read(path, load, kind, name):
  path = pathlib.Path(path).expanduser()
  try:
    key = load(path.read_bytes())
  except OSError as error:
    raise errors.InputError(f'{path} cannot be read: {error.strerror}') from None
  except (ValueError, TypeError) as error:
    raise errors.InputError(f'{path} is no {name} key in PEM: {error}') from None
  if not isinstance(key, kind):
    raise errors.InputError(f'{path} is no {name} Ed25519 key')
  return key


def keyid(public_key: Any) -> str:
  """The name of a public key, the same as securesystemslib gives it."""
  _, serialization, _ = _cryptography()
  raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
  fields = {'keytype': 'ed25519', 'keyval': {'public': raw.hex()}, 'scheme': 'ed25519'}
  text = json.dumps(fields, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def sign(payload: bytes, private_key: Any) -> dict[str, Any]:
  """A DSSE envelope around an in-toto statement, as JSON holds it."""
  signature = private_key.sign(pae(PAYLOAD_TYPE, payload))
  return {
    'payload': base64.b64encode(payload).decode(),
    'payloadType': PAYLOAD_TYPE,
    'signatures': [
      {'keyid': keyid(private_key.public_key()), 'sig': base64.b64encode(signature).decode()}
    ],
  }


def payload_of(envelope: Any) -> bytes:
  """The payload of an envelope; its signatures are not checked.

  Raises:
    errors.InputError: if it is no envelope around an in-toto statement.
  """
  payload, _ = _parts(envelope)
  return payload


def _parts(envelope) -> tuple[bytes, list[bytes]]:
  try:
    if envelope.keys() != {'payload', 'payloadType', 'signatures'}:
      raise ValueError('its keys are not payload, payloadType and signatures')
    if envelope['payloadType'] != PAYLOAD_TYPE:
      raise ValueError(f'its payloadType is not {PAYLOAD_TYPE}')
    payload = base64.b64decode(envelope['payload'], validate=True)
    found = [base64.b64decode(one['sig'], validate=True) for one in envelope['signatures']]
  except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
    raise errors.InputError(f'this is no DSSE envelope: {error}') from None
  return payload, found


def verify(envelope: Any, public_key: Any) -> bytes:
  """The payload of an envelope that a key has signed.

  Every signature is tried: a key id is a hint that nobody has signed.

  Raises:
    errors.InputError: if the key signed none of it.
  """
  exceptions, _, _ = _cryptography()
  payload, found = _parts(envelope)
  for signature in found:
    try:
      public_key.verify(signature, pae(PAYLOAD_TYPE, payload))
    except exceptions.InvalidSignature:
      continue
    return payload
  raise errors.InputError(f'no signature is of the key {keyid(public_key)[:16]}')

"""The request as an exercise of a right, in the words of the W3C Data Privacy Vocabulary.

What stands here is said by whoever makes the record: no command can check it.

References:
  Pandit et al. Data Privacy Vocabulary (DPV), version 2. https://w3id.org/dpv
"""

import datetime
from typing import Any

from dalign_jax import errors

CONTEXT = {
  'dpv': 'https://w3id.org/dpv#',
  'eu-gdpr': 'https://w3id.org/dpv/legal/eu/gdpr#',
  'justifications': 'https://w3id.org/dpv/justifications#',
  'dct': 'http://purl.org/dc/terms/',
}
GROUNDS = {  # GDPR, article 17 (1): word, term, point
  'not_necessary': 'justifications:NonNecessityObjection',  # (a)
  'consent_withdrawn': 'justifications:LegalityLackingObjection',  # (b)
  'objection': 'justifications:Objection',  # (c)
  'unlawful': 'justifications:UnlawfulActivityObjection',  # (d)
  'legal_obligation': 'justifications:LegalObligation',  # (e)
  'child_service': 'justifications:InformationSocietyServicesOffer',  # (f)
}
DECISIONS = {
  'accepted': 'dpv:RequestAccepted',
  'fulfilled': 'dpv:RequestFulfilled',
  'unfulfilled': 'dpv:RequestUnfulfilled',
}
_KEYS = {
  'received': 'dct:dateSubmitted',
  'answered': 'dct:issued',
  'ground': 'dpv:hasJustification',
  'decision': 'dpv:hasStatus',
}


def described(*, received: str, due: str, answered: str, ground: str, decision: str) -> dict:
  """The words of the record; what is empty is left out.

  Args:
    received: date of the request, as 2026-05-01.
    due: date by which it must be answered.
    answered: date of the answer.
    ground: one of `GROUNDS`.
    decision: one of `DECISIONS`.

  Raises:
    errors.InputError: if a date is none, or they contradict each other.

  Example:
    >>> described(received='2026-05-01', due='', answered='', ground='', decision='accepted')[
    ...   'dpv:hasStatus'
    ... ]
    'dpv:RequestAccepted'
  """
  for name, text in (('received', received), ('due', due), ('answered', answered)):
    if text and not is_date(text):
      raise errors.InputError(f'must be a date such as 2026-05-01, got {text!r}', argument=name)
  for name, text in (('due', due), ('answered', answered)):
    if text and received and text < received:
      raise errors.InputError(f'{text} is before {received}, when it was received', argument=name)
  found: dict[str, Any] = {
    '@context': CONTEXT,
    '@type': 'dpv:RightExerciseActivity',
    'dpv:hasRight': 'eu-gdpr:A17' if ground else 'dpv:DataSubjectRight',
  }
  said = {
    'received': received,
    'answered': answered,
    'ground': GROUNDS.get(ground, ''),
    'decision': DECISIONS.get(decision, ''),
  }
  found |= {_KEYS[name]: value for name, value in said.items() if value}
  if due:
    found['dpv:hasDuration'] = {'@type': 'dpv:UntilTimeDuration', 'dct:date': due}
  return found


def words(said: dict) -> dict[str, str]:
  """The flags that `described` was called with, from what it gave.

  Raises:
    errors.InputError: if it gave no such thing.
  """
  names = {term: word for table in (GROUNDS, DECISIONS) for word, term in table.items()}
  try:
    found = {name: said.get(key, '') for name, key in _KEYS.items()}
    found |= {name: names[found[name]] for name in ('ground', 'decision') if found[name]}
    found['due'] = said.get('dpv:hasDuration', {}).get('dct:date', '')
    if described(**found) == said:
      return found
  except (AttributeError, KeyError, TypeError, ValueError):
    pass
  raise errors.InputError('its rights are not as this version writes them')


def is_date(text: Any) -> bool:
  """Whether a text is a date in the one form of the record."""
  try:
    return datetime.date.fromisoformat(text).isoformat() == text
  except (TypeError, ValueError):
    return False

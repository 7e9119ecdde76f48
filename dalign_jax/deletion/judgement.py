"""The judgement of a request by the declared rules: a word, and its reasons in sentences."""

from typing import Any

from dalign_jax.deletion import verdict_rules

_RULE = {rule.key: rule.threshold for rule in verdict_rules.RULES}
_PARTS = {'samples': 'the samples', 'classes': 'the samples of classes that go whole'}


def judge(measured: dict[str, Any]) -> tuple[str, list[str]]:
  """The word and its reasons, by `verdict_rules.RULES`.

  Args:
    measured: by `evidence.measure`.
  """
  before, after = (_stands_out(measured, moment) for moment in ('before', 'after'))
  lost, grown, effect = _lost(measured), _grown(measured), _effect(measured)
  if lost:
    return 'destroyed', lost
  if not measured['parameters_moved']['after']:
    return 'no measurable effect', ['The method changed no parameter of the model.']
  if measured['exact']:
    return 'forgot', [
      'The model was trained anew without the samples: this follows from how it was made and not '
      'from a measurement, and no dummy request was needed.'
    ]
  if grown:
    return 'worse', grown
  if not _is_compared(measured):
    return 'no measurable effect', [
      'Too few held-out samples are of the classes of these samples: nothing can tell whether they '
      'stand out.'
    ]
  if not before and not after and (effect or not _few(measured)):
    return 'nothing to forget', _nothing(measured)
  if not effect:
    return 'no measurable effect', [_movement(measured)]
  if after:
    return 'incomplete', [*effect, *after]
  return 'forgot', [*effect, _within(measured)]


def _lost(measured) -> list[str]:
  """Reasons to call a model destroyed."""
  found = []
  for name, kept in measured['kept'].items():
    share = lost_share(kept['before'], kept['after'], measured['chance'])
    if is_lost(**kept, chance=measured['chance'], most=_RULE['lost_share']):
      found.append(
        f'Accuracy on {name} fell from {_percent(kept["before"])} to {_percent(kept["after"])}: '
        f'{_percent(share)} of what was above chance, and {_percent(_RULE["lost_share"])} is the '
        'most that is declared.'
      )
  return found


def is_lost(before: float, after: float, count: float, chance: float, most: float) -> bool:
  """Whether more than this share of an accuracy above chance went, and more than a few answers.

  Example:
    >>> [is_lost(0.96, 0.94, count, 0.95, 0.1) for count in (200, 1000)]
    [False, True]
  """
  answers = round((before - after) * count)
  return lost_share(before, after, chance) > most and answers >= _RULE['lost_answers']


def lost_share(before: float, after: float, chance: float) -> float:
  """The share of an accuracy above chance that was lost.

  Example:
    >>> lost_share(0.9, 0.7, 0.1)
    0.25
  """
  return round((before - after) / max(before - chance, 1e-6), 6)


def _stands_out(measured, moment) -> list[str]:
  """What tells the samples from those that the model never saw."""
  found = []
  for name, part in measured['parts'].items():
    accuracy, other = part['accuracy'][moment], part['held_out'].get(moment)
    if 'allowed' in part and accuracy > part['allowed']:
      found.append(
        f'{_begin(name)} are recognised with {_percent(accuracy)}; a model that never saw their '
        f'class is right in {_percent(part["allowed"])} at most, by chance.'
      )
    elif part['p'].get(moment, 1.0) <= _RULE['significance']:
      found.append(
        f'{_begin(name)} are recognised with {_percent(accuracy)} and held-out ones of the same '
        f'classes with {_percent(other)} (p = {part["p"][moment]:.3f}).'
      )
    if part.get('p_gold', {}).get(moment, 1.0) <= _RULE['significance']:
      found.append(
        f'{_begin(name)} are recognised with {_percent(accuracy)} and by a retrained model with '
        f'{_percent(part["accuracy"]["gold"])} (p = {part["p_gold"][moment]:.3f}).'
      )
  attack = measured['attack']
  if attack and abs(attack[moment] - 0.5) > attack['floor']:
    found.append(
      f'An attack by the loss tells them from held-out ones: {attack[moment]:.3f}, where chance is '
      f'0.5 and its floor {attack["floor"]:.3f}.'
    )
  return found


def _grown(measured) -> list[str]:
  """Reasons to say that the samples stand out more than before."""
  found, level = [], _RULE['significance']
  attack = measured['attack']
  if attack:
    before, after = (abs(attack[moment] - 0.5) for moment in ('before', 'after'))
    if after > attack['floor'] and after - before > attack['floor']:
      found.append(
        f'An attack by the loss was right in {attack["before"]:.3f} of cases before and is in '
        f'{attack["after"]:.3f} now: it grew by more than its floor, {attack["floor"]:.3f}.'
      )
  for name, part in measured['parts'].items():
    p = part['p']
    if p.get('after', 1.0) <= level < p.get('before', 1.0):
      found.append(
        f'{_begin(name)} are recognised with {_percent(part["accuracy"]["after"])} and held-out '
        f'ones of the same classes with {_percent(part["held_out"]["after"])} '
        f'(p = {p["after"]:.3f}); before, they did not stand out.'
      )
  return found


def _effect(measured) -> list[str]:
  """What the request did to the samples beyond the noise."""
  moved, level = measured['moved'], _RULE['significance']
  fell = measured['fell']
  found = []
  if moved['after'] > _needed(measured) and (_few(measured) or moved.get('p', 0.0) <= level):
    found.append(_movement(measured))
  if fell['p'] <= level:
    what = 'without the request' if measured['mode'] == 'quick' else 'under a dummy request'
    found.append(
      f'They are recognised with {_percent(fell["after"])}, and {_percent(fell["other"])} {what} '
      f'(p = {fell["p"]:.3f}).'
    )
  return found


def _is_compared(measured) -> bool:
  """Whether something could have shown that the samples stand out."""
  against = lambda part: (
    'allowed' in part or 'p_gold' in part or part['held_out_count'] >= _RULE['few']
  )
  return bool(measured['attack']) or all(against(part) for part in measured['parts'].values())


def _few(measured) -> bool:
  return measured['count'] < _RULE['few']


def _needed(measured) -> float:
  """How far the outputs must move."""
  factor = _RULE['movement_ratio_few' if _few(measured) else 'movement_ratio']
  return max(_RULE['movement_least'], factor * measured['moved'].get('dummy', 0.0))


def _movement(measured) -> str:
  moved = measured['moved']
  line = f'The outputs on the samples moved by {moved["after"]:.3f}'
  if 'dummy' not in moved or moved['after'] < _RULE['movement_least']:
    return f'{line}; {_RULE["movement_least"]} is declared as the least.'
  test = f' (p = {moved["p"]:.3f})' if 'p' in moved else ''
  return f'{line}, and by {moved["dummy"]:.3f} under a dummy request for others{test}.'


def _nothing(measured) -> list[str]:
  lines = [
    'Before the request and after it, the model treats the samples as it treats others of the '
    f'same classes that it never saw, as far as {measured["count"]} samples can tell.'
  ]
  if _few(measured):
    lines.append('So few samples can show little.')
  if not any('gold' in part['accuracy'] for part in measured['parts'].values()):
    lines.append(
      'Hard samples that were learned by heart can look like easy ones; only a retrained model '
      '(--compare_gold=1) tells them apart.'
    )
  return lines


def _within(measured) -> str:
  line = 'They are recognised no better and no worse than held-out ones of the same classes'
  attack = measured['attack']
  if attack:
    return f'{line}, and an attack by the loss is inside its floor ({attack["after"]:.3f}).'
  return f'{line}; they are too few for an attack.'


def _begin(name: str) -> str:
  return _PARTS[name].capitalize()


def _percent(share: float) -> str:
  return f'{100 * share:.1f} %'

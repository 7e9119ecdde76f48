"""The verdict of a deletion request: what is signed, how its samples count, and its words.

`evidence.measure` makes the numbers; `judgement.judge` compares them with declared thresholds;
`words` says it in sentences, on the screen, in the record and on its page.
"""

from collections.abc import Collection
from typing import Any

from dalign_jax import errors
from dalign_jax.deletion import judgement, verdict_rules

ACCEPTABLE = tuple(v.accept for v in verdict_rules.VERDICTS if v.accept)
FORGOTTEN, REQUESTED = 'forgotten', 'requested'


class NotForgottenError(errors.InputError):
  """A request was carried out and nothing was signed: its verdict is not that it forgot.

  Attributes:
    verdict: of the request.
  """

  def __init__(self, verdict: dict[str, Any]):
    kind, counts_as = verdict_rules.of_word(verdict['word']), verdict['counts_as']
    signs = f'; --accept={kind.accept} signs it all the same, and the samples count as {counts_as}'
    super().__init__(
      f'{kind.word}: {" ".join(verdict["reasons"])} Nothing was signed. Try another method or '
      f'other hyper-parameters{signs if counts_as else ""}',
      argument='verdict',
    )
    self.verdict = verdict

  @property
  def code(self) -> int:
    """The exit code."""
    return verdict_rules.of_word(self.verdict['word']).code


def make(measured: dict[str, Any]) -> dict[str, Any]:
  """The verdict as the record has it.

  Args:
    measured: by `evidence.measure`.
  """
  word, reasons = judgement.judge(measured)
  return {
    'word': word,
    'counts_as': REQUESTED
    if verdict_rules.of_word(word).accept and not measured['exact']
    else FORGOTTEN,
    'mode': measured['mode'],
    'reasons': reasons,
    'measured': measured,
    'rules': [rule._asdict() for rule in verdict_rules.RULES],
  }


def check_signed(found: dict[str, Any], accepted: Collection[str]) -> None:
  """Raises unless a verdict may be signed.

  Args:
    found: the verdict.
    accepted: values of `--accept`.

  Raises:
    NotForgottenError: if it is neither that the model forgot nor accepted.
  """
  accept = verdict_rules.of_word(found['word']).accept
  if accept and accept not in accepted:
    raise NotForgottenError(found)


def not_finite() -> NotForgottenError:
  """The error of a model whose outputs are not finite: nothing of it can be measured or signed."""
  reasons = ['The outputs of the model are not finite.']
  return NotForgottenError({'word': 'destroyed', 'counts_as': '', 'reasons': reasons})


def is_changed(record: dict) -> bool:
  """Whether the method changed any parameter, as far as a record says it."""
  measured = (record.get('verdict') or {}).get('measured', {})
  return measured.get('parameters_moved', {}).get('after') != 0


def is_forgotten(record: dict) -> bool:
  """Whether the samples of a record count as forgotten; those of records without a verdict do."""
  return (record.get('verdict') or {}).get('counts_as', FORGOTTEN) == FORGOTTEN


def counted(read: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
  """The counts of a request, where its samples may count as requested only."""
  if found is None or found['counts_as'] == FORGOTTEN:
    return read
  return {**read, 'ids_forgotten': 0, 'ids_requested': read['ids_forgotten']}


def words(record: dict) -> list[str]:
  """Sentences on the verdict of a record; none where it has no verdict.

  Args:
    record: or its contents so far.
  """
  found = record.get('verdict')
  if not found:
    return []
  kind = verdict_rules.of_word(found['word'])
  lines = [f'Verdict: {kind.word}.', *found['reasons']]
  if found['mode'] == 'quick' and not found['measured']['exact']:
    lines.append('The movement was not compared with that of a dummy request (--verdict=quick).')
  if found['counts_as'] == REQUESTED:
    lines.append(
      'This was accepted and signed all the same: the samples count as requested, not as '
      'forgotten. They stay in the list of samples that the model may owe something to, no later '
      'request trains on them, and a later request may name them again.'
    )
  return lines

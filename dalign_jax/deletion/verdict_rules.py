"""The declared rules of the verdict of a request, and the words that it may have."""

from typing import NamedTuple


class Rule(NamedTuple):
  """A declared threshold.

  Attributes:
    key: its name.
    threshold: the number.
    meaning: what it decides.
    reason: why this number.
  """

  key: str
  threshold: float
  meaning: str
  reason: str


class Verdict(NamedTuple):
  """An outcome of a request.

  Attributes:
    word: of the record.
    accept: value of `--accept` that signs it all the same; empty where it needs none.
    code: exit code of the command where it is not accepted.
    meaning: in a sentence.
  """

  word: str
  accept: str
  code: int
  meaning: str


RULES = (
  Rule(
    'lost_share',
    0.10,
    'destroyed: of the accuracy above chance on the samples kept, or on held-out samples of their '
    'classes, more than this share is lost',
    'two trainings of one recipe differ by a few points at most; a tenth is damage that users see',
  ),
  Rule(
    'lost_answers',
    5,
    'nothing is destroyed by fewer wrong answers more than this',
    'where nearly all samples are of one class, one answer is a large share of what is above '
    'chance; five of five changes for the worse come by chance with p = 1/32',
  ),
  Rule(
    'significance',
    0.05,
    'samples stand out from held-out ones of the same classes, or moved more than under a dummy '
    'request, if chance would show as much with at most this probability',
    'the usual level; the attack is compared with its own 95 % null floor',
  ),
  Rule(
    'movement_ratio',
    1.25,
    'the outputs on the samples must move this many times as far as under a dummy request',
    'two dummy requests differ by their seeds alone, which a test over samples cannot see',
  ),
  Rule(
    'movement_ratio_few',
    2.0,
    'the same for fewer samples than `few`, without a test',
    'a test over so few samples cannot reach the level of significance',
  ),
  Rule(
    'few',
    5,
    'fewer samples than this are few: they cannot show that there was nothing to forget, so the '
    'request must at least have moved them; so few held-out samples of their classes show nothing',
    'four signs are equal by chance with p = 1/16',
  ),
  Rule(
    'movement_least',
    0.02,
    'the outputs must move so far at least (activation distance), whatever a dummy request does',
    'a smaller movement changes no probability by more than two points; the most is 1.414',
  ),
  Rule(
    'knowledge',
    3.0,
    'a model knows nothing, and is refused, if its training accuracy is not above that of the '
    'commonest label by this many standard errors',
    'three standard errors are passed by chance once in 700 times',
  ),
)
VERDICTS = (
  Verdict(
    'forgot',
    '',
    0,
    'the samples stood out before and do not now, and the request did more to them than a request '
    'for others would have done',
  ),
  Verdict(
    'nothing to forget',
    '',
    0,
    'before and after, the model treats the samples as it treats others of the same classes that '
    'it never saw',
  ),
  Verdict(
    'no measurable effect',
    'no_effect',
    3,
    'the request changed no parameter, or did no more to the samples than a request for others '
    'would have done, or nothing held out can tell',
  ),
  Verdict('worse', 'worse', 4, 'the samples stand out more than before'),
  Verdict('destroyed', 'destroyed', 5, 'the model lost what it was to keep'),
  Verdict('incomplete', 'incomplete', 6, 'the samples moved and still stand out'),
)


def of_word(word: str) -> Verdict:
  """The entry of a word in `VERDICTS`."""
  return next(kind for kind in VERDICTS if kind.word == word)


def markdown() -> str:
  """The verdicts and the rules as tables for the docs."""
  lines = ['| verdict | exit code | `--accept` | meaning |', '|---|---:|---|---|']
  for kind in VERDICTS:
    accept = f'`{kind.accept}`' if kind.accept else '-'
    lines.append(f'| `{kind.word}` | {kind.code} | {accept} | {kind.meaning} |')
  lines += ['', '| rule | threshold | what it decides | why |', '|---|---:|---|---|']
  lines += [f'| `{r.key}` | {r.threshold:g} | {r.meaning} | {r.reason} |' for r in RULES]
  return '\n'.join(lines) + '\n'

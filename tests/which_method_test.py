"""The page "which method for which request": its rules on made-up rows, and the docs' page."""

import pathlib

import pytest

from experiments.report import which_method

ROOT = pathlib.Path(__file__).parents[1]
HEAD = (
  'scenario,model,kind,forget_accuracy,test_accuracy,test_accuracy_at_floor,activation_distance,'
  'activation_distance_at_floor,dimensional_alignment,dimensional_alignment_at_floor,da_rank,'
  'passes,reason'
)


def _request(*rows, scenario='digits-cnn-class_3', original=1.1, floor=0.1):
  standing = [
    f'{scenario},original,original,1,.9,False,{original},False,.6,False,4,10,',
    f'{scenario},gold,gold,0,.9,False,,False,.9,False,5,8,',
    f'{scenario},second gold,second gold,0,.9,False,{floor},True,.91,True,5,8,',
  ]
  (found,) = which_method.read_csv([HEAD, *standing, *(f'{scenario},{row}' for row in rows)])
  return found


@pytest.mark.parametrize(
  ('row', 'word'),
  [
    ('muda,unlearned,0,.9,True,.1,True,.9,True,5,1.6,', 'like gold'),
    ('muda,unlearned,0,.9,True,.6,False,.9,True,5,1.6,', 'half way'),
    ('muda,unlearned,0,.9,True,.99,False,.9,True,5,1.6,', 'a little'),
    ('muda,unlearned,0,.9,True,1.05,False,.9,True,5,1.6,', 'no effect'),
    ('muda,unlearned,0,.9,True,1.3,False,.9,True,5,1.6,', 'away'),
    ('muda,unlearned,0,.87,False,.1,True,.9,True,5,1.6,', 'harm'),
    ('muda,unlearned,0,.87,True,.1,True,.9,True,5,1.6,', 'like gold'),  # as another gold could
    ('muda,unlearned,0,.89,False,.1,True,.9,True,5,1.6,', 'like gold'),  # less than two points
    ('muda,unlearned,0,,False,,False,,False,,1.6,', 'harm'),  # nothing finite
    ('muda,refused,,,,,,,,,,forgets whole classes', 'refused'),
    ('muda,failed,,,,,,,,,,killed', 'failed'),
  ],
)
def test_outcomes_follow_the_rules(row, word):
  assert which_method.outcome(_request(row), 'muda').word == word


def test_nothing_is_told_within_a_floor_but_harm():
  rows = ['muda,unlearned,1,.9,True,.1,True,.9,True,5,1.6,']
  rows += ['ssd,unlearned,1,.5,False,.1,True,.9,True,5,1.6,']
  request = _request(*rows, original=0.1)
  assert which_method.outcome(request, 'muda').word == 'nothing to tell'
  assert which_method.outcome(request, 'ssd').word == 'harm'
  assert which_method.outcome(request, 'scrub') is None


def test_page_has_requests_methods_and_doubt():
  row = 'muda,unlearned,0,.9,True,.6,False,.905,True,5,1.6,'
  text = which_method.markdown([_request(row, original=0.25)], ['some.csv'])
  assert 'which_method some.csv`' in text and '| digits, one class |' in text
  assert '- *(away)*: `muda`' in text  # 2.5 floors: in parentheses
  (line,) = [x for x in text.splitlines() if x.startswith('| `muda`')]
  cells = [cell.strip() for cell in line.split('|')[2:-1]]
  assert cells == ['all retain, forget, validation', 'any request', 'none', '0.20', '-233 %']
  assert '0.905 (k 5.0) =' in text and '`amun`' in text.partition('In none of these tables:')[2]


@pytest.mark.parametrize(
  ('name', 'serves'),
  [
    ('esc', 'whole classes'),
    ('cmf', 'whole classes'),
    ('tmu', 'all but whole classes'),
    ('influence', 'up to 15 %'),
    ('muda', 'any request'),
  ],
)
def test_a_method_serves_what_it_does_not_refuse(name, serves):
  assert which_method._serves(name) == serves


def test_a_request_whose_preparation_failed_is_named():
  failed = ['digits-cnn-class_9,,failed,,,,,,,,,,no class 9']
  made = _request('muda,unlearned,0,.9,True,.6,False,.905,True,5,1.6,')
  text = which_method.markdown([made, *which_method.read_csv([HEAD, *failed])], ['some.csv'])
  assert 'Without an original or golds: digits, one class.' in text


@pytest.mark.parametrize(
  ('scenario', 'title'),
  [
    ('digits-cnn-random_1', 'digits, one image'),
    ('digits-cnn-random_10', 'digits, 10 images'),
    ('digits-cnn-random_0.5', 'digits, 50 % of the images'),
    ('digits-cnn-classes_3,5', 'digits, 2 classes'),
    ('digits-cnn-class_3_0.1', 'digits, class_3_0.1'),
    ('digits-cnn-memorised_0.1', 'digits, memorised_0.1'),
    ('faces-cnn-people_20', 'faces, people_20'),
  ],
)
def test_requests_are_said_in_words(scenario, title):
  lines = [HEAD, f'"{scenario}",original,original,1,.9,False,1,False,.6,False,4,1,']
  (request,) = which_method.read_csv(lines)
  assert request.title == title


def test_tables_of_a_report_are_read():
  text = """# Page

## One class

| model | forget | test | DA | AD | of gold |
| --- | ---: | ---: | ---: | ---: | ---: |
| original | 99.6 ± 0.7 | 97.4 ± 2.3 = | 0.599 ± 0.167 | 1.302 ± 0.045 | 1.09 |
| gold | 0.0 ± 0.0 | 97.7 ± 1.1 | 0.939 ± 0.031 | - | 1.00 |
| second gold | 0.0 | 97.9 = | 0.906 = | 0.464 = | 1.00 |
| muda | 0.0 ± 0.0 = | 97.6 ± 1.7 = | 0.973 ± 0.019 | 0.537 ± 0.366 | 3.89 |
| ssd | 0.0 ± 0.0 = | 74.2 ± 79.7 | 0.754 ± 0.556 | 0.725 ± 0.163 | 0.25 |

## Words alone
"""
  (request,) = which_method.read_tables(text)
  assert request.title == 'One class' and request.floors == pytest.approx(1.302 / 0.464)
  assert which_method.outcome(request, 'ssd').loss == pytest.approx(0.235)
  found = which_method.outcome(request, 'muda')
  assert found.word == 'half way' and found.way == pytest.approx((1.302 - 0.537) / 0.838)


def test_page_of_the_docs_is_made_from_its_tables():
  sources = ['docs/benchmark.md', 'docs/benchmark_cifar10.md', 'docs/benchmark/sizes_digits.csv']
  requests = [request for path in sources for request in which_method.read(ROOT / path)]
  assert len(requests) == 9
  page = (ROOT / 'docs' / 'which_method.md').read_text('utf-8')
  assert page == which_method.markdown(requests, sources)

"""The columns of the tables: measures of one model, then those of a group of models."""

from dalign_jax import evaluation
from experiments.measure import many_seeds

Column = evaluation.Measure

COLUMNS = tuple(m for m in (*evaluation.MEASURES, *many_seeds.MEASURES) if m.head)


def markdown() -> str:
  """Every column as a table for the docs, which `tests/docs_test.py` compares with the page."""
  lines = ['| column | key | what it is | nearer to gold is better by |', '|---|---|---|---|']
  for column in COLUMNS:
    direction = 'being small: it is a distance' if column.is_distance else "its gap to gold's"
    meaning = column.meaning.replace('|', '\\|')
    lines.append(f'| {column.head} | `{column.key}` | {meaning} | {direction} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  print(markdown())

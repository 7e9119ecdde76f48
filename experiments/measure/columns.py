"""The columns of the tables: of one model, of a group of models, of recovery and audits."""

from dalign_jax import evaluation
from experiments.measure import audit_columns, many_seeds, recovery

Column = evaluation.Measure

_ALL = (
  *evaluation.MEASURES,
  *many_seeds.MEASURES,
  *recovery.MEASURES,
  *audit_columns.MEASURES,
)
COLUMNS = tuple(m for m in _ALL if m.head)


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

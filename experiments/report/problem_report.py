"""Writes `report.html` (one file, works offline), `report.md`, `report.csv` and `rows.json`."""

from collections.abc import Sequence

from dalign_jax import hparams
from dalign_jax.store import files
from experiments import config as config_lib
from experiments.measure import attacks, datamodel_margins, evaluate, many_seeds, predictions
from experiments.measure import rows as rows_lib
from experiments.measure import verdict as verdict_lib
from experiments.problem import preparation
from experiments.report import (
  error_rates,
  events,
  figures,
  forgotten_images,
  headline,
  looks,
  pages,
  pairs,
  rows_file,
  table,
  tables,
  terminal,
)
from experiments.report import parts as parts_lib

_RUN = ('unlearned', 'oracle')
_LEAST_MOVE = 0.1  # of the way from original to gold: below it, a method did next to nothing
READING = (
  'Compare every number with that of gold, the model retrained without the '
  'forget set: nearer to gold is better; higher or lower is not. "=" marks a value that '
  'another gold could have: inside the 95 % band of golds, or, with fewer than four golds and for '
  'what is measured of all models together (distributions, attacks), no further from gold than a '
  'second gold. Avg Gap: mean absolute gap to gold over forget, '
  'retain and test accuracy and the attack, in points. ToW: product of one minus the three '
  'accuracy gaps, 1 is gold. '
  'Seconds without compilation; "of gold" is the share of the time that training gold took. '
  'Passes: epochs of the original that cost as much, counted in operations of matrix products and '
  "convolutions (PFLOP). In report.html, a method's name links to its resolved flags."
)


_CLASSES = (
  'Accuracy on images of the classes that lose some, and on test images of all classes, %: '
  'knowledge of the class may stay.'
)
_ORACLE = (
  'An oracle knows which forget images gold gets right: it shows what could be reached, is no '
  'method, and is not ranked'
)
_PRETRAINED = (
  'Originals and golds were fine-tuned from the same pretrained weights. The data of the '
  'pretraining may hold forgotten samples: gold then knows of them too, and no column shows that.'
)
_RANKS = 'Ranks have no error rate: what can be told apart is said in the headline.'

Section = tuple[str, list[list[str]], str]  # title, table, words


def write(job: preparation.Job) -> None:
  """Writes the reports of what was evaluated, and prints a summary and where they are."""
  write_rows(job, evaluate.read_rows(job))


def write_rows(job: preparation.Job, rows: rows_lib.Results) -> None:
  """Writes the reports of these rows; see `write`."""
  notes = warnings(rows)
  verdict = verdict_lib.judge(rows, seed=job.config.evaluation_seed, harmful=harmful(rows))
  sections, first = _sections(job, rows, verdict), headline.words(rows, verdict)
  text = markdown_tables(rows, sections)
  title = f'Unlearning {job.config.forget} from {job.config.model} on {job.config.dataset}'
  files.write_text(job.folder / 'report.csv', table.to_csv(rows))
  files.write_text(
    job.folder / 'report.md', _markdown(job, rows, title, text, notes, first, sections)
  )
  rows_file.write(job.folder, rows_file.Record(title, notes, rows))
  drawn = figures.draw(job, rows)
  figures.write(job, drawn)
  files.write_text(
    job.folder / 'report.html', _html(job, rows, title, notes, drawn, verdict, first, sections)
  )
  if job.config.tensorboard:
    events.write(job, rows, [first, *notes], text, drawn)
  terminal.show(job.folder, rows, first, notes)


def markdown_tables(rows: rows_lib.Results, sections: Sequence[Section] = ()) -> str:
  """The tables as Markdown: methods against gold, distributions and attacks, rankings, sections."""
  found = [table.markdown(rows)]
  for part, (title, _) in parts_lib.PARTS.items():
    found += [f'**{title}**', text] if (text := table.markdown(rows, part)) else []
  found += [table.grid(cells)] if (cells := table.ranking(rows)) else []
  for title, cells, _ in sections:
    found += [f'**{title}**', table.grid(cells)]
  return '\n\n'.join(found)


def _sections(job, rows, verdict) -> list[Section]:
  """Title, table and words of what only some problems and methods have."""
  sections = [
    ('Verdict', headline.grid(verdict), headline.WORDS),
    (
      'False alarms of the columns',
      error_rates.table(table.columns(rows), rows),
      error_rates.WORDS,
    ),
    ('Inside the classes', predictions.class_table(rows, job.class_names), _CLASSES),
    (
      'Predictions of what gold knows',
      predictions.prediction_table(rows, job.config.evaluation_seed),
      predictions.WORDS,
    ),
    (
      'Predicted and true margins of gold',
      datamodel_margins.table(
        rows,
        job.config.memorisation_models,
        *(len(job.sets[name]) for name in ('retain', 'forget')),
      ),
      datamodel_margins.WORDS,
    ),
  ]
  return [section for section in sections if section[1]]


def harmful(rows: rows_lib.Results) -> set[str]:
  """Names of models that lost what they should keep, or are destroyed."""
  lost = {line.row.name for line in table.lines(rows) if table.harm(line, rows)}
  return lost | {row.name for row in rows if _in_how_many(row, 'finite') is not None}


def warnings(rows: rows_lib.Results) -> list[str]:
  """Warnings that a reader needs before trusting the table."""
  notes = []
  for column in table.columns(rows):
    if column.key not in ('activation_distance', 'dimensional_alignment'):
      continue
    apart = table.separation(column, rows)
    if apart < 3:
      notes.append(
        f'original and gold are only {apart:.1f} floors apart in {column.head} (three are needed '
        'to rank methods by it); train longer, without augmentation or with a wider network'
      )
  together = rows.gold.record.get('trained_together', 1)
  if together > 1:
    notes.append(
      f'gold models were trained {together} at a time: their seconds are shares of that, and "of '
      'gold" may say more of the machine than of methods; compare passes'
    )
  notes += _missed_leaks(rows)
  for line in table.lines(rows):
    if line.row.kind == 'unlearned' and (loss := table.harm(line, rows)):
      notes.append(
        f'{line.row.name} harms the network: its test accuracy is {100 * loss:.1f} points below '
        "gold's, outside the noise floor"
      )
  for row in rows:
    destroyed, same = (_in_how_many(row, key) for key in ('finite', 'changed'))
    if destroyed is not None:
      notes.append(f'{row.name} is destroyed{destroyed}: its outputs are not finite')
    if row.kind == 'unlearned' and same is not None:
      notes.append(
        f"{row.name} had no effect{same}: its outputs on the forget set are the original's"
      )
    elif row.kind == 'unlearned' and _moved(row) < _LEAST_MOVE * _way(rows):
      notes.append(
        f'{row.name} had hardly any effect: on the forget set its outputs moved by '
        f'{_moved(row):.3f} (activation distance), and gold is {_way(rows):.3f} away'
      )
  return notes


def _in_how_many(row, key) -> str | None:
  """In how many models of a row a scalar is 0, in words; empty for all of them, None for none."""
  values = row.of_seeds(key)
  count = sum(not value for value in values)
  if not count:
    return None
  return f' in {count} of {len(values)} models' if count < len(values) else ''


def _moved(row) -> float:
  """Activation distance from the original."""
  return row.values.get('moved', float('inf'))


def _way(rows) -> float:
  """Activation distance from the original to gold."""
  return rows.original.values.get('activation_distance', 0.0)


def _missed_leaks(rows) -> list[str]:
  """Attacks that cannot tell the planted leak from gold: what they say of methods means nothing."""
  notes = []
  for leak in (row for row in rows if hparams.method_of(row.name) == config_lib.CONTROL):
    for attack in attacks.ATTACKS:
      key = f'{attack.key}_auc'
      if key in leak.group and key in rows.gold.group:
        margin = sum(row.interval(key) or 0.0 for row in (leak, rows.gold))
        if leak.values[key] - rows.gold.values[key] <= margin:
          notes.append(
            f'{attack.title} does not tell {leak.name} from gold (AUC {leak.values[key]:.3f} and '
            f'{rows.gold.values[key]:.3f}, intervals overlap): it is too weak here to judge a '
            'method'
          )
  return notes


def _facts(job, rows) -> list[str]:
  sizes = ', '.join(f'{name} {len(d):,}' for name, d in job.sets.items())
  gold = rows.gold
  ranks = [row.values.get('da_rank', 0) for row in (rows.original, gold)]
  return [
    f'Sets: {sizes}. Recipe: {job.recipe}.',
    *(f'{note}.' for note in job.notes),
    *([_PRETRAINED] if job.config.pretrained else []),
    f'DA keeps {job.config.da_energy:.0%} of the spectrum: rank {ranks[1]:.0f} for gold, '
    f'{ranks[0]:.0f} for the original. Attack: chance is 0.5; 95 % of identical distributions '
    f'at these sizes stay within {gold.values.get("attack_floor", 0.5):.3f} of it.',
    *(
      [f'Forgetting score: 95 % of identical distributions stay below {floor:.3f}.']
      if (floor := gold.values.get('forgetting_score_floor'))
      else []
    ),
    f'Made on {gold.record["devices"]}; versions: '
    + ', '.join(f'{k} {v}' for k, v in gold.record['versions'].items())
    + '.',
  ]


def _markdown(job, rows, title, text, notes, first, sections) -> str:
  parts = [f'# {title}', first]
  parts += [f'**Warning:** {note}.' for note in notes]
  parts += [text, READING, _RANKS, *(words for _, _, words in sections), *_oracles(rows)]
  parts += _words_of_parts(job, rows)
  parts += ['\n'.join(f'- {c.head}: {c.meaning}' for c in table.columns(rows))]
  parts += _facts(job, rows)
  return '\n\n'.join(parts) + '\n'


def _words_of_parts(job, rows) -> list[str]:
  """Words under the tables that a report has, with the null floors of full evaluation."""
  shown = {part: words for part, (_, words) in parts_lib.PARTS.items() if table.columns(rows, part)}
  return [_null_floors(job) if part == 'full' else words for part, words in shown.items()]


def _html(job, rows, title, notes, drawn, verdict, first, sections) -> str:
  flags = _flags(rows)
  anchors = {name: anchor for name, anchor, _ in flags}
  words = _words_of_parts(job, rows)
  shown = [(part, head) for part, (head, _) in parts_lib.PARTS.items() if table.columns(rows, part)]
  return pages.render(
    'problem.html.j2',
    title=title,
    verdict=first,
    is_open=bool(verdict.reason) or not rows.methods,
    notes=notes,
    main=tables.results(rows, anchors=anchors),
    reading=READING,
    looks=looks.of_rows(rows),
    figures=[figure.for_page() for figure in drawn if figure.in_page],
    pairs=pages.data(pairs.data(job, rows)),
    images=forgotten_images.sample(job, rows) if job.config.show_images else None,
    parts=[
      (head, tables.results(rows, part, anchors=anchors), text)
      for (part, head), text in zip(shown, words, strict=True)
    ],
    ranking=table.ranking(rows),
    ranks_words=_RANKS,
    oracles=_oracles(rows),
    sections=sections,
    meanings=[(c.head, c.meaning) for c in table.columns(rows)],
    flags=flags,
    facts=_facts(job, rows),
  )


def _flags(rows) -> list[tuple[str, str, str]]:
  """Name, anchor and text of the resolved flags of each row that has them."""
  found = []
  for i, row in enumerate(rows):
    path = row.folder / 'flags.txt'
    if path.exists():
      found.append((row.name, f'flags-{i}', path.read_text(encoding='utf-8', errors='replace')))
  return found


def _oracles(rows) -> list[str]:
  names = [row.name for row in rows.oracles]
  return [f'{_ORACLE}: {", ".join(names)}.'] if names else []


def _null_floors(job) -> str:
  floors = many_seeds.floors(job)
  config = job.config
  return (
    'Null floors, what identical distributions give at these numbers of models '
    f'({config.seeds} seeds, {config.golds // 2} golds, {config.shadows} shadows): '
    f'KLOM {floors["klom"]:.2f} on average, {floors["klom_p95"]:.2f} at the 95th percentile '
    f'({many_seeds.num_bins(job)} bins); '
    f'FQ {floors["forgetting_quality"]:.2f}; AUC of an attack 0.5. ± is half the 95 % interval '
    'over training seeds (U-LiRA: over shadows). ' + _of_attacks(job)
  )


def _of_attacks(job) -> str:
  """How the attacks were fitted."""
  pooled = attacks.pools_variance(job)
  how = 'one variance for all examples' if pooled else 'a variance of each example'
  return (
    f'U-LiRA fits {how} ({"fewer than" if pooled else "at least"} 16 models on each side); '
    "RMIA's a is tuned on a shadow."
  )

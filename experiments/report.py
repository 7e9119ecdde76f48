"""Writes `report.html` (one file, works offline), `report.md` and `report.csv`."""

import html

from experiments import distributions, evaluation, files, page, plots, problems, progress, table

_LEAST_MOVE = 0.1  # of the way from original to gold: below it, a method did next to nothing
_READING = (
  'Every number is to be read beside the same number of gold, the model retrained without the '
  'forget set: nearer to gold is better, higher or lower is not. "=" marks a gap to gold no larger '
  'than the gap between two golds (the floor). Avg Gap: mean absolute gap to gold over forget, '
  'retain and test accuracy and the attack, in points. ToW: product of one minus the three '
  'accuracy gaps, 1 is gold. '
  'Seconds without compilation; "of gold" is the share of the time that training gold took.'
)


def write(job: problems.Job) -> None:
  """Writes the three reports and prints the table and where they are."""
  rows = evaluation.read_rows(job)
  notes = warnings(rows)
  text = _tables(rows)
  title = f'Unlearning {job.config.forget} from {job.config.model} on {job.config.dataset}'
  files.write_text(job.folder / 'report.csv', table.to_csv(rows))
  files.write_text(job.folder / 'report.md', _markdown(job, rows, title, text, notes))
  files.write_text(job.folder / 'report.html', _html(job, rows, title, notes))
  progress.say(f'\n{text}\n\n= within the gold-gold floor')
  for note in notes:
    progress.say(f'warning: {note}')
  progress.say(f'report: {job.folder / "report.html"}')


def _tables(rows) -> str:
  """The tables as Markdown: methods against gold, laws and attacks, rankings."""
  ranking = table.ranking(rows)
  parts = [
    table.markdown(rows),
    table.markdown(rows, 'full'),
    table.grid(ranking) if ranking else '',
  ]
  return '\n\n'.join(part for part in parts if part)


def warnings(rows: list[evaluation.Row]) -> list[str]:
  """What a reader must know before trusting the table."""
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
  notes += _missed_leaks(rows)
  for row in rows:
    if not row.values['finite']:
      notes.append(f'{row.name} is destroyed: its outputs are not finite')
    if row.kind == 'unlearned' and not row.values['changed']:
      notes.append(f"{row.name} had no effect: its outputs on the forget set are the original's")
    elif row.kind == 'unlearned' and _moved(row) < _LEAST_MOVE * _way(rows):
      notes.append(
        f'{row.name} had hardly any effect: on the forget set its outputs moved by '
        f'{_moved(row):.3f} (activation distance), and gold is {_way(rows):.3f} away'
      )
  return notes


def _moved(row) -> float:
  """Activation distance from the original."""
  return row.values.get('moved', float('inf'))


def _way(rows) -> float:
  """Activation distance from the original to gold."""
  return rows[0].values.get('activation_distance', 0.0)


def _missed_leaks(rows) -> list[str]:
  """Attacks that cannot tell the planted leak from gold: what they say of methods means nothing."""
  notes = []
  for leak in (row for row in rows if row.kind == 'control'):
    for attack, title in plots.ATTACKS.items():
      key = f'{attack}_auc'
      if key in leak.group and key in rows[1].group:
        margin = sum(row.interval(key) or 0.0 for row in (leak, rows[1]))
        if leak.values[key] - rows[1].values[key] <= margin:
          notes.append(
            f'{title} does not tell {leak.name} from gold (AUC {leak.values[key]:.3f} and '
            f'{rows[1].values[key]:.3f}, intervals overlap): it is too weak here to judge a method'
          )
  return notes


def verdict(rows: list[evaluation.Row]) -> str:
  """The table in words."""
  lines = [line for line in table.lines(rows) if line.row.kind == 'unlearned']
  if not lines:
    return 'No method has been run yet.'
  best = {
    'output (activation distance)': min(lines, key=lambda x: x.row.values['activation_distance']),
    'features (DA)': min(lines, key=_alignment_gap),
    'accuracies and attack (Avg Gap)': min(lines, key=_average_gap),
  }
  parts = [f'{line.row.name} in {what}' for what, line in best.items()]
  return 'Nearest to gold: ' + '; '.join(parts) + '.'


def nearness(rows: list[evaluation.Row]) -> str:
  """In how many columns each method is as near to gold as another gold."""
  lines = [line for line in table.lines(rows) if line.row.kind == 'unlearned']
  counts = {x.row.name: sum(cell.at_floor for cell in x.cells.values()) for x in lines}
  if not counts:
    return ''
  order = sorted(counts, key=counts.get, reverse=True)
  total = len(table.columns(rows))
  parts = [f'{name} in {counts[name]}' for name in order]
  return f'As near to gold as another gold, of {total} columns: {", ".join(parts)}.'


def _alignment_gap(line) -> float:
  cell = line.cells.get('dimensional_alignment')
  return float('inf') if cell is None or cell.gap is None else cell.gap


def _average_gap(line) -> float:
  return float('inf') if line.average_gap is None else line.average_gap


def _facts(job, rows) -> list[str]:
  sizes = ', '.join(f'{name} {len(d):,}' for name, d in job.sets.items())
  gold = rows[1]
  ranks = [row.values.get('da_rank', 0) for row in rows[:2]]
  return [
    f'Sets: {sizes}. Recipe: {job.recipe}.',
    *(f'{note}.' for note in job.notes),
    f'DA keeps {job.config.da_energy:.0%} of the spectrum: rank {ranks[1]:.0f} for gold, '
    f'{ranks[0]:.0f} for the original. Attack: chance is 0.5; 95 % of equal laws at these '
    f'sizes stay within {gold.values.get("mia_floor", 0.5):.3f} of it.',
    *(
      [f'Forgetting score: 95 % of equal laws stay below {floor:.3f}.']
      if (floor := gold.values.get('forgetting_score_floor'))
      else []
    ),
    f'Made on {gold.record["devices"]}; versions: '
    + ', '.join(f'{k} {v}' for k, v in gold.record['versions'].items())
    + '.',
  ]


def _markdown(job, rows, title, text, notes) -> str:
  parts = [f'# {title}', f'{verdict(rows)} {nearness(rows)}'.strip()]
  parts += [f'**Warning:** {note}.' for note in notes]
  parts += [text, _READING]
  if table.columns(rows, 'full'):
    parts += [_null_floors(job)]
  parts += ['\n'.join(f'- {c.head}: {c.meaning}' for c in table.columns(rows))]
  parts += _facts(job, rows)
  return '\n\n'.join(parts) + '\n'


def _html(job, rows, title, notes) -> str:
  escape = html.escape
  body = [f'<h1>{escape(title)}</h1>']
  body += [f'<p class="verdict">{escape(verdict(rows))} {escape(nearness(rows))}</p>']
  body += [f'<p class="warning">Warning: {escape(n)}.</p>' for n in notes]
  body += [_html_table(rows), f'<p>{escape(_READING)}</p>']
  if table.columns(rows, 'full'):
    body += ['<h2>Laws of outputs and strong attacks</h2>', _html_table(rows, 'full')]
    body += [f'<p>{escape(_null_floors(job))}</p>']
  body += ['<h2>Rankings</h2>', _html_grid(table.ranking(rows))]
  body += ['<h2>Figures</h2>', *_figures(job, rows)]
  body += ['<h2>What the columns say</h2><dl>']
  body += [f'<dt>{escape(c.head)}</dt><dd>{escape(c.meaning)}</dd>' for c in table.columns(rows)]
  body += ['</dl><h2>How it was made</h2>', *(f'<p>{escape(f)}</p>' for f in _facts(job, rows))]
  links = []
  for row in rows:
    if row.kind in ('unlearned', 'control'):
      target = escape(str((row.folder / 'flags.txt').relative_to(job.folder)))
      links.append(f'<li><a href="{target}">{escape(row.name)}</a></li>')
  body += ['<p>Resolved flags of each run:</p><ul>', *links, '</ul>']
  return page.page(title, body)


def _null_floors(job) -> str:
  floors = distributions.floors(job)
  config = job.config
  return (
    f'Null floors, what equal laws give at these numbers of models ({config.seeds} seeds, '
    f'{config.golds // 2} golds, {config.shadows} shadows): KLOM {floors["klom"]:.2f} on average, '
    f'{floors["klom_p95"]:.2f} at the 95th percentile ({distributions.num_bins(job)} bins); '
    f'FQ {floors["forgetting_quality"]:.2f}; AUC of an attack 0.5. ± is half the 95 % interval '
    'over training seeds (U-LiRA: over shadows).'
  )


def _html_grid(cells) -> str:
  if not cells:
    return '<p>No method has been run yet.</p>'
  escape = lambda row, tag: ''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in row)
  body = ''.join(f'<tr>{escape(row, "td")}</tr>' for row in cells[1:])
  return (
    f'<div class="wide"><table><thead><tr>{escape(cells[0], "th")}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def _html_table(rows, part='main') -> str:
  shown = table.columns(rows, part)
  meanings = {c.head: c.meaning for c in shown}
  head = ''.join(
    f'<th title="{html.escape(meanings.get(h, ""))}">{html.escape(h)}</th>'
    for h in table.heads(shown, part)
  )
  body = []
  for line in table.lines(rows):
    text = table.texts(line, shown, part)
    cells = [f'<td>{html.escape(text[0])}</td>']
    for column, cell_text in zip(shown, text[1:], strict=False):
      cell = line.cells[column.key]
      gap = (
        ''
        if cell.gap is None or column.is_distance
        else (f'<small>gap {cell.gap * column.scale:.{column.digits}f}</small>')
      )
      cells.append(
        f'<td{" class=floor" if cell.at_floor else ""}>{html.escape(cell_text)}{gap}</td>'
      )
    cells += [f'<td>{html.escape(t)}</td>' for t in text[1 + len(shown) :]]
    kind = ' class=gold' if line.row.kind.endswith('gold') else ''
    body.append(f'<tr{kind}>{"".join(cells)}</tr>')
  rows_html = ''.join(body)
  return (
    f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{rows_html}</tbody></table></div>'
  )


def _figures(job, rows) -> list[str]:
  logs = {row.name: row.folder / 'train.jsonl' for row in rows}
  logs = {name: path for name, path in logs.items() if path.exists()}
  standing = {name: logs[name] for name in ('original', 'gold') if name in logs}
  unlearning = {r.name: logs[r.name] for r in rows if r.kind == 'unlearned' and r.name in logs}
  overview = plots.nearness(rows)
  drawn = [
    (
      plots.alignment(rows, job.config.da_energy),
      'DA against the share of the spectrum kept; both are shares of 1.',
    ),
    (
      plots.spectrum(rows),
      "Eigenvalue spectrum of the retain features' second moment, as shares of its trace.",
    ),
    (
      plots.training_curves(standing),
      'Training of original and gold: mean loss of each epoch, nats.',
    ),
    (plots.class_accuracy(rows, job.class_names), 'Test accuracy by class, %.'),
    (
      plots.projection(rows),
      'Training features of each model on their own first two principal components; '
      'crosses: the forget set.',
    ),
  ]
  drawn.append(
    (
      plots.histograms(rows),
      'Margins (log odds of the true label) of forget and of unseen images of the same classes.',
    )
  )
  if any('u_lira_curve' in row.arrays for row in rows):
    drawn += [
      (plots.roc(rows, attack), f'{title}: true against false positives, both in log scale.')
      for attack, title in plots.ATTACKS.items()
    ]
    floor = distributions.floors(job)['klom']
    drawn.append(
      (plots.klom(rows, floor), 'KLOM of the forget examples; grey: mean of equal laws.')
    )
  if unlearning:
    drawn.insert(
      3, (plots.training_curves(unlearning), 'Losses of each epoch while unlearning, nats.')
    )
  if overview:
    files.write_text(job.folder / 'nearness.svg', overview.decode())
    caption = 'Distance to gold in outputs and in features; shaded: as near as another gold.'
    drawn.insert(0, (plots.as_source(overview), caption))
  return [
    f'<figure><img src="{src}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
    '</figcaption></figure>'
    for src, caption in drawn
  ]

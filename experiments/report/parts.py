"""The tables of a report after the main one: by the `part` of their columns, title and words."""

PARTS = {
  'features': (
    'Features',
    'A DA can be compared with that of gold only where their ranks k are alike. "≠k" marks one '
    "that cannot: its k differs from gold's by more than the golds' differ.",
  ),
  'full': ('Distributions of outputs and strong attacks', ''),  # words: the null floors
  'recovery': (
    'What comes back',
    'Each column is the area between forget-accuracy curves after a recovery procedure, in units '
    "of the second golds' area: 1 is as far from gold as another gold. head_only and planted_leak "
    'are controls that must stand out. The curves are in recovery.json next to each model.',
  ),
  'leakage': (
    'What the update gives away',
    'An attacker holds the models before and after. Retraining gives something away too: compare '
    'with gold. Bounds on epsilon are lower bounds, never guarantees.',
  ),
  'difficulty': (
    'By difficulty',
    'The forget set in thirds of a score. The low third of memorisation is a negative control: '
    'there is little to forget.',
  ),
  'groups': (
    'Who pays',
    'Test accuracy, linear probe and attack by group, of groups with enough images.',
  ),
}

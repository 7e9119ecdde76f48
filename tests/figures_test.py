"""Figures of a report that depend on what a run has: drawn if there, left out if not."""

import pathlib
from xml.etree import ElementTree

import numpy as np

from dalign_jax.store import files
from experiments.measure import predictions
from experiments.measure import rows as rows_lib
from experiments.report import figures, plot_style, plots


def _row(name, kind, folder, **values):
  seeds = tuple({'test_accuracy': 0.9 - 0.1 * i, **values} for i in range(2))
  return rows_lib.Row(name, kind, seeds, {}, {}, pathlib.Path(folder))


def _texts(svg):
  """The words of a plot: matplotlib leaves each as a comment beside its outlines."""
  parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
  tree = ElementTree.fromstring(svg, parser)
  return {e.text.strip() for e in tree.iter() if e.tag is ElementTree.Comment}


def test_trade_off_names_every_model_and_prefers_the_forgetting_score(tmp_path):
  rows = [
    _row('original', 'original', tmp_path, attack=0.7, forgetting_score=0.2),
    _row('gold', 'gold', tmp_path, attack=0.5, forgetting_score=0.01),
  ]
  (figure,) = figures._trade_off(rows_lib.Results(rows))
  assert {'original', 'gold', 'test accuracy (%)'} <= _texts(figure.svg)
  assert any(text.startswith('forgetting score') for text in _texts(figure.svg))
  without = [_row(r.name, r.kind, tmp_path, attack=0.5) for r in rows]
  (figure,) = figures._trade_off(without)
  assert any(text.startswith('accuracy of the attack') for text in _texts(figure.svg))
  assert figures._trade_off([*without, _row('small', 'unlearned', tmp_path)]) == []


def test_perturbed_images_are_shown_where_a_run_left_them(tmp_path):
  rng = np.random.default_rng(0)
  before = rng.uniform(0, 0.9, (3, 5, 5, 3)).astype(np.float32)
  assert figures._perturbed([_row('dlfd', 'unlearned', tmp_path)]) == []
  files.write_arrays(tmp_path / 'perturbed.npz', {'before': before, 'after': before + 0.1})
  (figure,) = figures._perturbed([_row('dlfd', 'unlearned', tmp_path)])
  assert figure.name == 'perturbed_dlfd' and '0.100' in ' '.join(_texts(figure.svg))
  assert figure.svg.count('<image') == 9


def test_a_figure_in_a_page_needs_no_other_file():
  figure = figures.Figure('x', '<svg>"</svg>', 'a < b')
  assert 'data:image/svg+xml;base64,PHN2Zz4iPC9zdmc+' in figure.in_html()
  assert 'a &lt; b' in figure.in_html()


def test_grey_images_have_one_channel():
  svg = plots.perturbed(np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 1)))
  assert svg.count('<image') == 6


def test_each_method_is_drawn_beside_original_and_gold(tmp_path):
  rng = np.random.default_rng(0)
  rows = [_row('gold', 'gold', tmp_path), _row('original', 'original', tmp_path)]
  rows += [
    _row('salun,num_epochs=3', 'unlearned', tmp_path),
    _row('tmu:oracle', 'oracle', tmp_path),
  ]
  for row in rows:
    sides = {f'margin_{name}': rng.normal(size=40) for name in ('forget', 'unseen')}
    curve = np.linspace(0.5, 0.9, 5)
    row.arrays.update(sides | {'energies': curve, 'alignment': curve})
  drawn = figures._methods(rows_lib.Results(rows))
  assert [f.name for f in drawn] == ['method_salun', 'method_tmu:oracle']
  words = {'original', 'gold', 'salun', 'forget images', 'unseen images', 'features'}
  assert words <= _texts(drawn[0].svg)


def test_many_names_stand_beside_the_plot_and_differ_in_look(tmp_path):
  rows = [_row(f'method_{i},learning_rate=0.1', 'unlearned', tmp_path) for i in range(25)]
  looks = [plot_style.style(row, i) for i, row in enumerate(rows)]
  assert len({(look['color'], look['linestyle']) for look in looks}) == 25
  points = [plot_style.point_style(row, i) for i, row in enumerate(rows)]
  assert len({(point['color'], point['marker']) for point in points}) == 25
  for count, beside in ((5, False), (25, True)):
    fig, ax = plot_style.axes()
    width = fig.get_figwidth()
    for look in looks[:count]:
      ax.plot([0, 1], **look)
    plot_style.legend(ax)
    assert bool(fig.legends) == beside and (fig.get_figwidth() > width) == beside
  assert 'method_24' in _texts(plot_style.svg(fig))


def test_of_many_classes_those_that_change_most_are_shown(tmp_path):
  """A thousand classes: forty in the plot, twenty in the table, the ones that differ from gold."""
  accuracy = np.full(1000, 0.9)
  hurt = accuracy.copy()
  hurt[[7, 500, 999]] = 0.1
  rows = [
    _row('original', 'original', tmp_path, test_accuracy_same=0.9),
    _row('gold', 'gold', tmp_path, test_accuracy_same=0.9),
    _row('scrub', 'unlearned', tmp_path, test_accuracy_same=0.1),
  ]
  for row, values in zip(rows, (accuracy, accuracy, hurt), strict=True):
    row.arrays['class_accuracy'] = values
    row.seeds[0].update({f'test_accuracy_{k}': v for k, v in enumerate(values)})
  names = tuple(f'class {k}' for k in range(1000))
  words = _texts(plots.class_accuracy(rows_lib.Results(rows), names, forgotten=[3]))
  shown = {word for word in words if word.startswith('class ')}
  assert shown == {'class 3', 'class 7', 'class 500', 'class 999'}
  assert '4 of 1000 classes: forgotten, or differing most from gold' in words
  hurt[:] = 0.1
  words = _texts(plots.class_accuracy(rows_lib.Results(rows), names, forgotten=[998]))
  shown = {word for word in words if word.startswith('class ')}
  assert 'class 998' in shown and len(shown) == plots.MOST_CLASSES
  hurt[:] = np.where(np.isin(np.arange(1000), [7, 500, 999]), 0.1, 0.9)
  head, *body = predictions.class_table(rows_lib.Results(rows), names)
  tested = [name for name in head if name.startswith('test class')]
  assert {'test class 7', 'test class 500', 'test class 999'} < set(tested) and len(tested) == 20
  assert len(body) == 3

"""Figures of a report that depend on what a run has: drawn if there, left out if not."""

import dataclasses
import json
import pathlib
from xml.etree import ElementTree

import numpy as np

from dalign_jax.store import files
from experiments.measure import predictions
from experiments.measure import rows as rows_lib
from experiments.report import charts, figures, looks, pages, plots, svg
from tests import made_up


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


def test_a_picture_in_a_page_needs_no_other_file():
  found = figures.Figure('x', '<svg>"</svg>', 'a < b').for_page()
  assert found['picture'] == 'data:image/svg+xml;base64,PHN2Zz4iPC9zdmc+'


def test_a_chart_in_a_page_is_data_that_ends_no_script():
  look = looks.Look('#123456', label='</script>')
  series = [charts.Series(x=[1, 2], y=[0.5, float('nan')], look=look, model='m')]
  found = pages.chart(charts.Chart('x', 'c', [charts.Panel(series=series)]))
  (text,) = found['panels']
  assert '<' not in text
  (trace,) = json.loads(text)['data']
  assert trace['line']['color'] == '#123456' and trace['meta']['model'] == 'm'


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


def test_many_names_stand_beside_the_plot_and_differ_in_look():
  names = [f'method_{i},learning_rate=0.1' for i in range(25)]
  of = looks.of_models((name, 'unlearned') for name in names)
  assert len({(look.color, look.dash) for look in of.values()}) == 25
  assert len({(look.color, look.marker) for look in of.values()}) == 25
  for count, beside in ((5, False), (25, True)):
    series = [
      charts.Series(x=[0, 1], y=[0, 1], look=of[name], model=name) for name in names[:count]
    ]
    chart = charts.Chart('x', 'c', [charts.Panel(series=series)])
    fig = svg.figure(chart)
    assert bool(fig.legends) == beside and (fig.get_figwidth() > chart.width) == beside
  assert 'method_24' in _texts(svg.draw(chart))


def _contrast(color, background):
  """Contrast ratio of the Web Content Accessibility Guidelines 2.2."""

  def luminance(name):
    shares = [int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05

  found = sorted((luminance(color), luminance(background)))
  return found[1] / found[0]


def test_colours_are_told_from_white_and_from_black():
  standing = looks.of_models((kind, kind) for kind in ('original', 'gold'))
  for color in (*looks.PALETTE, *(look.color for look in standing.values())):
    for background in looks.BACKGROUNDS.values():
      assert _contrast(color, background) >= 3, (color, background)


def test_a_colour_is_that_of_a_method_in_every_figure(tmp_path, monkeypatch):
  monkeypatch.setattr(svg, 'draw', lambda chart: '<svg/>')
  job = made_up.job(tmp_path)
  rows = made_up.rows(job)
  found = {}
  for figure in figures.draw(job, rows):
    for panel in figure.chart.panels:
      for series in panel.series:
        if series.model:
          found.setdefault(series.model, set()).add(series.look.color)
  assert set(found) == {row.name for row in rows}
  assert all(len(colors) == 1 for colors in found.values())
  others = [next(iter(found[name])) for name in found if name != 'second gold']
  assert len(set(others)) == len(others)


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
  words = _texts(svg.draw(plots.class_accuracy(rows_lib.Results(rows), names, forgotten=[3])))
  shown = {word for word in words if word.startswith('class ')}
  assert shown == {'class 3', 'class 7', 'class 500', 'class 999'}
  assert '4 of 1000 classes: forgotten, or differing most from gold' in words
  hurt[:] = 0.1
  words = _texts(svg.draw(plots.class_accuracy(rows_lib.Results(rows), names, forgotten=[998])))
  shown = {word for word in words if word.startswith('class ')}
  assert 'class 998' in shown and len(shown) == plots.MOST_CLASSES
  hurt[:] = np.where(np.isin(np.arange(1000), [7, 500, 999]), 0.1, 0.9)
  head, *body = predictions.class_table(rows_lib.Results(rows), names)
  tested = [name for name in head if name.startswith('test class')]
  assert {'test class 7', 'test class 500', 'test class 999'} < set(tested) and len(tested) == 20
  assert len(body) == 3


def test_margins_are_left_out_where_nothing_unseen_is_of_the_forgotten_classes(tmp_path):
  arrays = {'margin_forget': np.ones(3), 'margin_unseen': np.zeros(0)}
  rows = [
    dataclasses.replace(_row(k, k, tmp_path), arrays=arrays) for k in ('original', 'unlearned')
  ]
  assert not figures._has_margins(rows) and figures._methods(rows) == []

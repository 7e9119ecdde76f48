"""Pages in a headless browser: they fit, sort, follow the dark, and ask the network for nothing."""

import json
import pathlib
import re

import numpy as np
import pytest

from dalign_jax import errors
from dalign_jax.store import files
from experiments import config as config_lib
from experiments import sweep_cells
from experiments.benchmarks import screens
from experiments.report import looks, problem_report, rows_file, side_by_side, svg, sweep_report
from tests import made_up

sync_api = pytest.importorskip('playwright.sync_api')
CHROMIUM = screens.chromium()
pytestmark = [
  pytest.mark.skipif(not CHROMIUM, reason='no Chromium on the path'),
  pytest.mark.slow,
]
WIDE, PHONE = {'width': 1440, 'height': 900}, {'width': 390, 'height': 844}
KINDS = ('problem', 'classes', 'sweep', 'compare')
_MANY = tuple(f'method_{i},learning_rate=0.{i}' for i in range(1, 13))


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    found = playwright.chromium.launch(
      executable_path=CHROMIUM, args=['--no-sandbox'], timeout=180_000
    )
    yield found
    found.close()


@pytest.fixture(scope='module')
def pages(tmp_path_factory) -> dict[str, pathlib.Path]:
  """One page of each kind, of made-up numbers; SVG files are not drawn, which takes longer."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(svg, 'draw', lambda chart: '<svg/>')
    return _pages(tmp_path_factory)


def _pages(tmp_path_factory):
  root = tmp_path_factory.mktemp('pages')
  problem = made_up.job(root / 'problem', dataset='npz:/home/somebody/photos.npz')
  problem_report.write_rows(problem, made_up.rows(problem))
  classes = made_up.job(root / 'classes', num_classes=1000, show_images=True)
  problem_report.write_rows(classes, made_up.rows(classes, _MANY))
  for folder, digest in ((problem.folder, 'a'), (classes.folder, 'b')):
    files.write_json(folder / 'problem.json', {'identity': {'split_hash': digest}})
  parts = []
  for name in ('class_3', 'random_0.1'):
    config = config_lib.Config(workdir=str(root), problem=name, methods=('muda', 'head_only'))
    rows = made_up.rows(made_up.job(root / name))
    record = rows_file.Record(f'Unlearning {name}', [], rows)
    parts.append(sweep_report.Part(sweep_cells.Scenario(name, config), record))
  failure = sweep_cells.Failure(
    sweep_cells.preparation(parts[0].scenario), f'no <memory> in {root}/x.log'
  )
  sweep_report.write(root / 'sweep', parts, [failure])
  runs = side_by_side.read([problem.folder, classes.folder])
  side_by_side.write(root / 'compare', runs)
  files_of = {'compare': 'compare.html'}
  return {kind: root / kind / files_of.get(kind, 'report.html') for kind in KINDS}


class Opened:
  """A page without a network, and what it complained about or asked for."""

  def __init__(self, browser, path, **how):
    self.complaints, self.asked = [], []
    self._context = browser.new_context(offline=True, viewport=WIDE, **how)
    self.page = self._context.new_page()
    self.page.set_default_timeout(180_000)
    self.page.on('console', lambda said: self._note(said.type, said.text))
    self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
    self.page.on('request', lambda request: self.asked.append(request.url))
    self.page.goto(path.as_uri())

  def _note(self, kind, text):
    if kind in ('error', 'warning'):
      self.complaints.append(text)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._context.close()

  def draw(self):
    """Draws every figure, as printing does."""
    self.page.evaluate('dispatchEvent(new Event("beforeprint"))')

  def overflow(self) -> int:
    """Pixels by which the page is wider than the window."""
    width = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'
    return self.page.evaluate(width)


_TABLES = """[...document.querySelectorAll('table.results')].map(table => {
  const box = table.parentElement, at = box.getBoundingClientRect();
  return [at.left, at.right, box.scrollWidth - box.clientWidth];
})"""


@pytest.mark.parametrize('kind', KINDS)
def test_page_fits_and_is_whole(kind, pages, browser):
  with Opened(browser, pages[kind]) as opened:
    opened.draw()
    page = opened.page
    page.wait_for_function('[...document.querySelectorAll(".panel")].some(p => p.data)')
    main = page.evaluate("[...document.querySelector('main').children].map(e => e.className)")
    assert main[1].startswith('verdict')
    for size in (WIDE, PHONE):
      page.set_viewport_size(size)
      page.wait_for_function(f'document.documentElement.clientWidth === {size["width"]}')
      page.wait_for_timeout(300)
      assert opened.overflow() == 0
      for left, right, hidden in page.evaluate(_TABLES):
        assert left >= 0 and right <= size['width'] and hidden <= 1
    assert not opened.complaints
    assert [url for url in opened.asked if not url.startswith(('data:', 'blob:'))] == [
      pages[kind].as_uri()
    ]


def test_colours_are_those_of_the_models_in_every_figure(pages, browser):
  read = """[...document.querySelectorAll('.panel')].flatMap(p => p.data ?? []).map(t =>
    [t.meta?.model ?? '', t.line ? t.line.color : t.marker?.color])"""
  with Opened(browser, pages['problem']) as opened:
    opened.draw()
    drawn = [(model, color) for model, color in opened.page.evaluate(read) if model]
  of = looks.of_models([(k, k) for k in ('original', 'gold', 'second gold')])
  of |= looks.of_models((name, 'unlearned') for name in made_up.METHODS)
  assert {model for model, _ in drawn} == set(of)
  assert all(color == of[model].color for model, color in drawn)


def test_figures_and_page_follow_the_dark(pages, browser):
  cross = '#figure-projection .panel .scatterlayer .trace:last-child path'
  colors = f"""() => [getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector('.panel .xtick text')).fill,
    getComputedStyle(document.querySelector('{cross}')).fill]"""
  with Opened(browser, pages['problem'], color_scheme='light') as opened:
    opened.draw()
    light = opened.page.evaluate(colors)
    opened.page.emulate_media(color_scheme='dark')
    opened.page.wait_for_timeout(500)
    dark = opened.page.evaluate(colors)
  bright = lambda text: sum(int(x) for x in text[4:-1].split(','))
  assert bright(light[0]) > 700 and bright(dark[0]) < 120
  assert all(bright(text) < 200 for text in light[1:])
  assert all(bright(text) > 500 for text in dark[1:])


def _column(page, head):
  """The shown texts of a column of the main table, by its head."""
  return page.evaluate(
    """head => {
    const table = document.querySelector('table.results'), heads = [...table.tHead.rows[1].cells];
    const i = heads.findIndex(h => h.textContent === head);
    return [...table.tBodies[0].rows].map(r => r.cells[i + 1]).filter(c => !c.hidden)
      .map(c => parseFloat(c.firstChild.textContent));
  }""",
    head,
  )


def test_columns_sort_are_chosen_and_say_what_they_mean(pages, browser):
  with Opened(browser, pages['problem']) as opened:
    page, table = opened.page, opened.page.locator('table.results').first
    head = table.locator('thead button', has_text=re.compile('^test$'))
    head.click()
    up = _column(page, 'test')
    head.click()
    assert up == sorted(up) and _column(page, 'test') == up[::-1] and len(up) == 6
    assert head.locator('..').get_attribute('aria-sort') == 'descending'
    page.locator('.chooser summary').first.click()
    page.locator('.chooser').first.get_by_label('DA', exact=True).uncheck()
    assert _column(page, 'DA') == [] and 'features' in table.inner_text()
    for name in ('LP', 'LP forgotten', 'NMI', 'F1'):
      page.locator('.chooser').first.get_by_label(name, exact=True).uncheck()
    assert 'features' not in table.inner_text()
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(300)
    assert len(_column(page, 'retain')) == 6  # what was chosen stays
    page.set_viewport_size(WIDE)
    table.locator('tbody tr', has_text='muda').locator('td').nth(2).hover()
    hint = page.locator('#tip').inner_text()
    assert 'Accuracy on test images' in hint and 'Gold: 95.' in hint and 'muda: ' in hint


def test_models_are_switched_off_in_all_figures_and_compared_by_pairs(pages, browser):
  shown = """[...document.querySelectorAll('.panel')].flatMap(p => p.data ?? [])
    .filter(t => t.meta?.model === 'muda').map(t => t.visible !== false)"""
  with Opened(browser, pages['problem']) as opened:
    opened.draw()
    page = opened.page
    assert len(page.evaluate(shown)) > 4 and all(page.evaluate(shown))
    page.get_by_role('button', name='muda', exact=True).click()
    assert not any(page.evaluate(shown))
    page.locator('.pairs').scroll_into_view_if_needed()
    page.wait_for_function('document.querySelector("[data-view=matrix]").data')
    page.locator('[data-side="0"]').select_option(label='gold')
    counts = page.evaluate('document.querySelector("[data-view=matrix]").data[0].text')
    assert np.array_equal(counts, np.diag(np.diag(counts)))  # gold against gold
    page.locator('[data-side="0"]').select_option(label='original')
    counts = np.array(page.evaluate('document.querySelector("[data-view=matrix]").data[0].text'))
    assert counts.sum() > counts.trace() > 0
    names = page.evaluate('document.querySelector("[data-view=scores]").data.map(t => t.name)')
    assert names[0] == 'A: original, forget' and names[3] == 'B: gold, unseen'
    assert not opened.complaints


def test_verdict_and_table_need_no_script(pages, browser):
  with Opened(browser, pages['problem'], java_script_enabled=False) as opened:
    assert opened.page.locator('.verdict').is_visible()
    cells = opened.page.locator('table.results').first.locator('tbody td')
    assert cells.count() == 6 * 19 and cells.first.is_visible()
    assert 'in the folder figures/' in opened.page.locator('noscript').first.inner_text()


@pytest.mark.parametrize('kind', KINDS)
def test_pages_hold_flags_and_no_folder_of_this_machine(kind, pages):
  text = pages[kind].read_text(encoding='utf-8')
  assert str(pages[kind].parents[1]) not in text and '/home/somebody' not in text
  assert len(text) < 8_000_000
  assert ('id="images"' in text) == (kind == 'classes')
  if kind != 'compare':
    assert '--methods=muda' in text or '--methods=method_1' in text


@pytest.mark.parametrize('kind', ['problem'])
def test_title_keeps_the_last_part_of_a_path(kind, pages):
  assert '<h1>Unlearning class:3 from cnn on npz:photos.npz</h1>' in pages[kind].read_text('utf-8')


def test_record_fits_and_prints(asked, browser, tmp_path):
  with Opened(browser, asked / 'first' / 'record.html') as opened:
    for size in (WIDE, PHONE):
      opened.page.set_viewport_size(size)
      assert opened.overflow() == 0
    background = 'getComputedStyle(document.documentElement).colorScheme'
    assert opened.page.evaluate(background) == 'light dark'
    printed = opened.page.pdf(path=tmp_path / 'record.pdf', prefer_css_page_size=True)
    assert printed.startswith(b'%PDF') and 1 <= printed.count(b'/Type /Page\n') <= 6
    assert not opened.complaints and len(opened.asked) == 1


def test_data_of_a_page_are_json(pages):
  text = pages['problem'].read_text(encoding='utf-8')
  blocks = text.split('<script type="application/json">')[1:]
  for block in blocks:
    json.loads(block.partition('</script>')[0])
  assert len(blocks) > 10


def test_pictures_of_the_gallery_are_of_pages_without_faults(pages, browser, tmp_path):
  image = screens.take(browser, pages['problem'], screens.LOOKS['phone'], 'figures')
  assert image.size == (390, 844) and len(image.getcolors(2**20)) > 10
  page = tmp_path / 'page.html'
  for body, fault in (
    ('<img src="http://localhost:1/a.png">', 'asks for http://localhost:1/a.png'),
    ('<script>throw new Error("broken")</script>', 'broken'),
    ('<div style="width: 500px">.</div>', 'is 508 pixels wide in a window of 390'),
  ):
    page.write_text(f'<!doctype html><body>{body}</body>', encoding='utf-8')
    with pytest.raises(errors.InputError, match=fault):
      screens.take(browser, page, screens.LOOKS['phone'])

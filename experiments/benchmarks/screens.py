"""The pictures of docs/gallery.md: pages of small runs, in a headless Chromium.

python -m experiments.benchmarks.screens --workdir=runs

Runs what is not there yet (a few minutes), opens each page without a network, and writes
pictures at 1440 and 390 pixels and in dark mode. Fails if a page complains on the console, asks for
another file or the network, or is wider than the window. Needs the extra `browser` and a Chromium.
"""

import io
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

from absl import app, flags
from PIL import Image

from dalign_jax import errors

_RUN = ('-m', 'experiments.run')


class Page(NamedTuple):
  """A page of the gallery.

  Attributes:
    file: in the work folder.
    command: that writes it, without the work folder.
    shots: name -> look and the anchor that is at the top, empty for the top of the page.
  """

  file: str
  command: tuple[str, ...]
  shots: dict[str, tuple[str, str]]


class Look(NamedTuple):
  """A window."""

  width: int
  height: int
  colors: str


LOOKS = {
  'wide': Look(1440, 900, 'light'),
  'dark': Look(1440, 900, 'dark'),
  'phone': Look(390, 844, 'light'),
}
PAGES = {
  'quickstart': Page(
    'mnist5k-cnn-class_3/report.html',
    (*_RUN, '--flagfile=experiments/flags/quickstart.flags'),
    {
      'wide': ('wide', ''),
      'dark': ('dark', 'figures'),
      'pairs': ('wide', 'pairs'),
      'phone': ('phone', ''),
    },
  ),
  'sweep': Page(
    'sweep/report.html',
    ('-m', 'experiments.sweep', '--flagfile=experiments/flags/sweep_digits.flags'),
    {'wide': ('wide', ''), 'dark': ('dark', 'figures')},
  ),
  'full': Page(
    'digits-full/report.html',
    (*_RUN, '--flagfile=experiments/flags/full_digits.flags'),
    {'wide': ('wide', ''), 'dark': ('dark', 'figures'), 'phone': ('phone', '')},
  ),
}
_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


def chromium() -> str | None:
  """The program of a Chromium, None if there is none on the path."""
  return next(filter(None, map(shutil.which, _BROWSERS)), None)


def take(browser: Any, path: pathlib.Path, look: Look, anchor: str = '') -> Image.Image:
  """A picture of a page.

  Args:
    browser: of Playwright.
    path: of the page.
    look: of the window.
    anchor: id of the element at the top, empty for the top of the page.

  Raises:
    errors.InputError: if the page complains, asks for something, or is wider than the window.
  """
  size = {'width': look.width, 'height': look.height}
  context = browser.new_context(offline=True, viewport=size, color_scheme=look.colors)
  page = context.new_page()
  faults: list[str] = []
  page.on('request', lambda request: faults.append(f'asks for {request.url}'))
  page.on('pageerror', lambda error: faults.append(str(error)))
  page.on('console', lambda said: said.type in ('error', 'warning') and faults.append(said.text))
  page.goto(path.as_uri())
  if anchor:
    page.evaluate(f'document.getElementById("{anchor}").scrollIntoView()')
  page.wait_for_timeout(2000)  # figures draw themselves when they come into view
  if (width := page.evaluate('document.documentElement.scrollWidth')) > look.width:
    faults.append(f'is {width} pixels wide in a window of {look.width}')
  image = Image.open(io.BytesIO(page.screenshot())).convert('RGB')
  context.close()
  faults = [f for f in faults if f != f'asks for {path.as_uri()}' and not _is_inside(f)]
  if faults:
    raise errors.InputError(f'{path.name}: {"; ".join(faults)}')
  return image


def _is_inside(fault: str) -> bool:
  return fault.startswith(('asks for data:', 'asks for blob:'))


def main(argv) -> None:
  """Makes the runs that are missing and takes all pictures."""
  del argv
  from playwright import sync_api

  program = chromium()
  if not program:
    raise errors.InputError(f'no browser on the path: install one of {", ".join(_BROWSERS)}')
  workdir = pathlib.Path(flags.FLAGS.workdir).expanduser().resolve()
  folder = pathlib.Path(flags.FLAGS.figures)
  folder.mkdir(parents=True, exist_ok=True)
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
    for name, page in PAGES.items():
      if not (workdir / page.file).is_file():
        subprocess.run([sys.executable, *page.command, f'--workdir={workdir}'], check=True)
      for shot, (look, anchor) in page.shots.items():
        image = take(browser, workdir / page.file, LOOKS[look], anchor)
        path = folder / f'{name}_{shot}.webp'
        image.save(path, lossless=True)  # colours are what models are known by
        print(f'{path}: {path.stat().st_size / 1e3:.0f} kB', flush=True)
    browser.close()


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs', 'Where the runs are.')
  flags.DEFINE_string('figures', 'docs/figures/gallery', 'Folder of the pictures.')
  app.run(main)

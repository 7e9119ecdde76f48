"""A report as one HTML page that needs no network: readable on a phone and in the dark."""

import html

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 92rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.2; overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; border-left: 4px solid #2a8; padding-left: .8rem; }
.warning { border-left: 4px solid #d80; padding-left: .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas;
                                 max-width: 45vw; overflow: hidden; text-overflow: ellipsis; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: ' \\2191'; }
th[aria-sort=descending] button::after { content: ' \\2193'; }
td.floor { background: #2a02; }
td.grey, th.grey { opacity: .4; }
td small { display: block; opacity: .65; }
tr.gold td { background-color: color-mix(in srgb, Canvas 86%, #da3); }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; max-width: 100%; }
figure img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
figcaption { max-width: 34rem; opacity: .8; }
"""

# A click on a head sorts by its column, a second one the other way round; no number comes last.
_SCRIPT = """
for (const table of document.querySelectorAll('table')) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const sign = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      const key = row => row.cells[column].firstChild?.textContent ?? '';
      heads.forEach(h => h.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
      body.append(...[...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)], [m, n] = [parseFloat(x), parseFloat(y)];
        if (column && isNaN(m) !== isNaN(n)) return isNaN(m) - isNaN(n);
        return sign * (column && !isNaN(m) ? m - n : x.localeCompare(y));
      }));
    };
  });
}
"""


def page(title: str, body: list[str]) -> str:
  """The whole document.

  Args:
    title: plain text.
    body: pieces of HTML. Tables have a head of one row and one body, and become sortable.
  """
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
    f'<style>{_STYLE}</style></head><body>'
    + '\n'.join(body)
    + f'<script>{_SCRIPT}</script></body></html>\n'
  )

'use strict';
// Tables: sorting, hints, choice of columns.

const narrow = box => box.scrollWidth > box.clientWidth + 1;

function makeSortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const first = table.tHead.rows.length > 1 ? [table.tHead.rows[0].cells[0]] : [];
  const columns = [...first, ...heads];
  columns.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const sign = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      const key = row => {
        const cell = row.cells[column];
        return column ? cell.firstChild?.textContent ?? '' : cell.textContent;
      };
      columns.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
      body.append(...[...body.rows].sort((a, b) => {  // what is no number comes last
        const [x, y] = [key(a), key(b)], [m, n] = [parseFloat(x), parseFloat(y)];
        if (column && isNaN(m) !== isNaN(n)) return isNaN(m) - isNaN(n);
        return sign * (column && !isNaN(m) ? m - n : x.localeCompare(y));
      }));
    };
  });
}

function showColumns(table, shown) {
  const [groups, heads] = [[...table.tHead.rows[0].cells].slice(1), headsOf(table)];
  heads.forEach((head, i) => { head.hidden = !shown.has(i); });
  for (const row of table.tBodies[0].rows) {
    [...row.cells].slice(1).forEach((cell, i) => { cell.hidden = !shown.has(i); });
  }
  if (table.tHead.rows.length < 2) return;
  let start = 0;
  for (const group of groups) {
    const width = Number(group.dataset.width ??= group.colSpan);
    const left = heads.slice(start, start + width).filter(head => !head.hidden).length;
    group.hidden = !left;
    group.colSpan = left || 1;
    start += width;
  }
}

const headsOf = table => table.tHead.rows.length > 1
  ? [...table.tHead.rows[1].cells] : [...table.tHead.rows[0].cells].slice(1);

function makeChoosable(table) {
  const box = table.parentElement, heads = headsOf(table);
  if (heads.length < 4) return;
  const details = document.createElement('details'), summary = document.createElement('summary');
  const fields = document.createElement('div'), inputs = [];
  details.className = 'chooser';
  details.append(summary, fields);
  let field, group = null;
  heads.forEach((head, i) => {
    if (head.dataset.group !== group) {
      group = head.dataset.group;
      field = document.createElement('fieldset');
      const legend = document.createElement('legend');
      legend.textContent = group;
      if (group) field.append(legend);
      fields.append(field);
    }
    const label = document.createElement('label'), input = document.createElement('input');
    input.type = 'checkbox';
    input.onchange = () => { chosen = true; show(new Set([...inputs.keys()].filter(k => inputs[k].checked))); };
    label.append(input, ` ${head.textContent}`);
    field.append(label);
    inputs.push(input);
  });
  let chosen = false;
  const show = shown => {
    showColumns(table, shown);
    inputs.forEach((input, i) => { input.checked = shown.has(i); });
    summary.textContent = `Choose columns (${shown.size} of ${heads.length} shown)`;
  };
  // Where it is too narrow, later columns of each group go first, and of equal ones the last.
  const order = [...heads.keys()].sort((a, b) =>
    heads[b].dataset.place - heads[a].dataset.place || b - a);
  const fit = () => {
    if (chosen) return;
    const shown = new Set(heads.keys());
    show(shown);
    for (const column of order) {
      if (!narrow(box) || shown.size < 3) break;
      shown.delete(column);
      show(shown);
    }
  };
  box.before(details);
  fit();
  addEventListener('resize', fit);
}

function makeHints(table) {
  const heads = headsOf(table);
  heads.forEach(head => { head.dataset.meaning = head.title; head.removeAttribute('title'); });
  const tip = document.getElementById('tip');
  const hide = () => { tip.hidden = true; };
  table.addEventListener('pointerout', hide);
  table.addEventListener('pointerover', event => {
    const cell = event.target.closest('td, thead th');
    const column = cell?.matches('td') ? cell.cellIndex - 1 : heads.indexOf(cell);
    if (!(column >= 0)) return hide();
    const gold = table.querySelector('tr.gold')?.cells[column + 1];
    const value = c => c.firstChild?.textContent.trim() ?? '';
    const lines = [heads[column].dataset.meaning];
    if (gold) lines.push(`Gold: ${value(gold)}`);
    if (cell.matches('td') && cell.parentElement !== gold?.parentElement) {
      const gap = cell.querySelector('small')?.textContent;
      const floor = cell.classList.contains('floor') ? ', as another gold could be' : '';
      lines.push(`${cell.parentElement.cells[0].title}: ${value(cell)}${gap ? `, ${gap}` : ''}${floor}`);
    }
    const title = document.createElement('b');
    title.textContent = heads[column].textContent;
    tip.replaceChildren(title, ...lines.filter(Boolean).map(text => {
      const line = document.createElement('div');
      line.textContent = text;
      return line;
    }));
    tip.hidden = false;
    const at = cell.getBoundingClientRect(), room = document.documentElement.clientWidth;
    const left = Math.max(6, Math.min(at.left, room - tip.offsetWidth - 6));
    const above = at.top > tip.offsetHeight + 12;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above ? at.top - tip.offsetHeight - 6 : at.bottom + 6) + scrollY}px`;
  });
}

const tip = document.createElement('div');
tip.id = 'tip';
tip.role = 'tooltip';
tip.hidden = true;
document.body.append(tip);
for (const table of document.querySelectorAll('table')) makeSortable(table);
for (const table of document.querySelectorAll('table.results')) {
  makeHints(table);
  makeChoosable(table);
}

const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.matches('details')) target.open = true;
};
addEventListener('hashchange', open);
open();

// Figures: each is drawn when it comes near, in the colours of the page.

const dark = matchMedia('(prefers-color-scheme: dark)');
const hiddenModels = new Set();
const drawn = new Set();
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function template() {
  const [ink, line, background] = ['--ink', '--line', '--bg'].map(colour);
  const axis = {gridcolor: line, linecolor: line, zerolinecolor: line, zerolinewidth: 1, tickfont: {size: 11}};
  return {layout: {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {family: 'system-ui, sans-serif', size: 12, color: ink}, xaxis: axis, yaxis: axis,
    hoverlabel: {bgcolor: background, bordercolor: line, font: {color: ink}},
  }};
}

const isInk = trace => Boolean(trace.meta?.ink);
const settings = {displaylogo: false, responsive: true, modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};

function plot(panel, {data, layout}) {
  for (const trace of data) {
    if (isInk(trace)) trace.marker.color = colour('--ink');
    if (hiddenModels.has(trace.meta?.model)) trace.visible = false;
  }
  Plotly.react(panel, data, {...layout, template: template(), autosize: true}, settings);
  drawn.add(panel);
}

const near = (elements, show) => {
  const watch = new IntersectionObserver(entries => {
    for (const entry of entries.filter(e => e.isIntersecting)) {
      watch.unobserve(entry.target);
      show(entry.target);
    }
  }, {rootMargin: '600px'});
  for (const element of elements) watch.observe(element);
};
const described = [...document.querySelectorAll('.panel')].filter(p => p.querySelector('script'));
const drawPanel = panel => {
  const source = panel.querySelector('script');
  if (!source) return;
  const found = JSON.parse(source.textContent);
  source.remove();
  plot(panel, found);
};
near(described, drawPanel);
addEventListener('beforeprint', () => described.forEach(drawPanel));

dark.addEventListener('change', () => {
  for (const panel of drawn) {
    const inks = panel.data.map((trace, i) => isInk(trace) ? i : -1).filter(i => i >= 0);
    if (inks.length) Plotly.restyle(panel, {'marker.color': colour('--ink')}, inks);
    Plotly.relayout(panel, {template: template()});
  }
});

for (const chip of document.querySelectorAll('.chip')) {
  chip.onclick = () => {
    const model = chip.dataset.model, show = hiddenModels.has(model);
    hiddenModels[show ? 'delete' : 'add'](model);
    chip.setAttribute('aria-pressed', show);
    for (const panel of drawn) {
      const own = panel.data.map((trace, i) => trace.meta?.model === model ? i : -1).filter(i => i >= 0);
      if (own.length) Plotly.restyle(panel, {visible: show}, own);
    }
  };
}

// Any two models side by side.

function comparePairs(root) {
  const {models, class_names, forgotten, labels, is_forget, class_colors} =
    JSON.parse(root.querySelector('script').textContent);
  const [first, second, set] = root.querySelectorAll('select');
  const view = name => root.querySelector(`[data-view="${name}"]`);
  for (const select of [first, second]) {
    select.append(...models.map((model, i) => new Option(model.label, i)));
  }
  const method = models.findIndex(model => !['original', 'gold', 'second gold'].includes(model.kind));
  first.value = method < 0 ? 0 : method;
  second.value = models.findIndex(model => model.kind === 'gold');
  const margin = {l: 56, r: 12, t: 12, b: 44};
  const base = {margin, height: 300, showlegend: false, hovermode: 'closest'};
  const most = (scores, count) => [...scores.keys()]
    .sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count).sort((a, b) => a - b);

  function classes(pair) {
    const change = class_names.map((_, k) => Math.abs(pair[0].classes[k] - pair[1].classes[k])
      + (forgotten.includes(k) ? 1000 : 0));
    const shown = most(change, 40);
    plot(view('classes'), {
      data: pair.map((model, i) => ({
        type: 'bar', name: `${'AB'[i]}: ${model.label}`, x: shown.map(k => class_names[k]),
        y: shown.map(k => model.classes[k]), marker: {color: model.color, opacity: i && pair[0] === pair[1] ? .5 : 1},
      })),
      layout: {...base, barmode: 'group', hovermode: 'x unified', xaxis: {type: 'category', automargin: true},
        yaxis: {title: {text: 'test accuracy (%)'}}},
    });
  }

  function matrix(pair) {
    const [a, b] = pair.map(model => model.predicted[set.value]), score = class_names.map(() => 0);
    a.forEach((k, i) => { score[k] += 1e-3 + (k !== b[i]); score[b[i]] += 1e-3 + (k !== b[i]); });
    const shown = most(score, 20), place = new Map(shown.map((k, i) => [k, i]));
    const counts = shown.map(() => shown.map(() => 0));
    a.forEach((k, i) => { if (place.has(k) && place.has(b[i])) counts[place.get(k)][place.get(b[i])] += 1; });
    const names = shown.map(k => class_names[k]);
    const same = a.filter((k, i) => k === b[i]).length, few = shown.length <= 12;
    plot(view('matrix'), {
      data: [{
        type: 'heatmap', x: names, y: names, z: counts.map(row => row.map(n => Math.log1p(n))), text: counts,
        texttemplate: few ? '%{text}' : '', showscale: false, xgap: 1, ygap: 1,
        colorscale: [[0, colour('--panel')], [1, '#2f7ed8']],
        hovertemplate: 'A: %{y}<br>B: %{x}<br>%{text} images<extra></extra>',
      }],
      layout: {...base, margin: {...margin, t: 34}, title: {text: a.length
        ? `equal on ${same} of ${a.length} images` : 'no predicted classes were kept', font: {size: 13}, x: .02},
        xaxis: {type: 'category', title: {text: `B: ${pair[1].label}`}, automargin: true},
        yaxis: {type: 'category', autorange: 'reversed', title: {text: `A: ${pair[0].label}`}, automargin: true}},
    });
  }

  function scores(pair) {
    const all = pair.flatMap(model => Object.values(model.margins).flat()).sort((x, y) => x - y);
    const [low, high] = [all[Math.floor(.005 * all.length)], all[Math.ceil(.995 * (all.length - 1))]];
    const count = 25, size = Math.max(high - low, 1e-3) / count;
    const edges = Array.from({length: count + 1}, (_, i) => low + i * size);
    const density = values => {
      const bins = Array(count + 1).fill(0);
      for (const v of values) bins[Math.max(0, Math.min(count - 1, Math.floor((v - low) / size)))] += 1 / values.length / size;
      return bins;
    };
    plot(view('scores'), {
      data: pair.flatMap((model, i) => ['forget', 'unseen'].map(name => ({
        type: 'scatter', mode: 'lines', name: `${'AB'[i]}: ${model.label}, ${name}`, x: edges, y: density(model.margins[name]),
        line: {color: model.color, shape: 'hv', dash: name === 'forget' ? 'solid' : 'dot', width: 2},
        fill: name === 'forget' ? 'tozeroy' : 'none',
      }))),
      layout: {...base, xaxis: {title: {text: 'margin (nats)'}}, yaxis: {title: {text: 'density'}, showticklabels: false}},
    });
  }

  function projection(model, i) {
    const rows = wanted => model.points[0].map((_, k) => k).filter(k => Boolean(is_forget[k]) === wanted);
    const trace = (picked, marker, meta) => ({
      type: 'scatter', mode: 'markers', x: picked.map(k => model.points[0][k]), y: picked.map(k => model.points[1][k]), marker, meta,
      text: picked.map(k => class_names[labels[k]] ?? labels[k]), hovertemplate: '%{text}<extra></extra>',
    });
    const [kept, lost] = [rows(false), rows(true)];
    const hue = kept.map(k => class_colors[labels[k] % class_colors.length]);
    plot(view(`projection${i}`), {
      data: [trace(kept, {color: hue, size: 5}), trace(lost, {symbol: 'x', size: 5}, {ink: true})],
      layout: {...base, margin: {...margin, t: 34}, title: {text: `${'AB'[i]}: ${model.label}`, font: {size: 13}, x: .02},
        xaxis: {title: {text: 'component 1'}, showticklabels: false}, yaxis: {title: {text: 'component 2'}, showticklabels: false}},
    });
  }

  const show = () => {
    const pair = [models[first.value], models[second.value]];
    classes(pair);
    matrix(pair);
    scores(pair);
    pair.forEach(projection);
  };
  root.addEventListener('change', show);
  near([root], show);
}

for (const root of document.querySelectorAll('.pairs')) {
  root.hidden = false;
  comparePairs(root);
}

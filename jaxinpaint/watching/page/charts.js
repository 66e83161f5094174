// Line charts as SVG, with a cursor for mouse and keys, and a table of the same numbers.

import {make, text} from './talk.js';

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 220;
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 14, 10, 26];
const ROWS = 60; // of the table
let charts = 0;

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function number(value) {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace('-', '−');
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 3 : 4;
  return value.toLocaleString('en', {maximumFractionDigits: digits}).replace('-', '−');
}

export const whole = (step) => step.toLocaleString('en');

// The moving average with this weight of what was, without the pull of an empty beginning.
export function smoothed(values, weight) {
  if (!weight) return values;
  let [sum, total] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + value;
    total = weight * total + 1;
    return sum / total;
  });
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((k) => k * power >= rough) * power;
  const found = [];
  for (let i = Math.ceil(low / unit); i * unit <= high + 1e-9 * unit; i++) found.push(i * unit);
  return found;
}

// Whole powers of ten where there are enough of them, else also 2 and 5 times such.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const k of [1, 2, 5]) found.push(k * 10 ** power);
  }
  const inside = found.filter((x) => x >= low && x <= high);
  if (inside.length < 2) return ticks(low, high, 4).filter((x) => x > 0);
  const powers = inside.filter((x) => /^1(0*$|e|\.?0*e)/.test(x.toExponential()));
  if (powers.length < 4) return inside;
  return powers.filter((_, i) => i % Math.ceil(powers.length / 6) === 0);
}

// The place of the step nearest to this one, in ascending steps.
function nearest(steps, step) {
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  return high >= 0 && Math.abs(steps[high] - step) < Math.abs(steps[low] - step) ? high : low;
}

export class Chart {
  // place: gets the chart.
  constructor(place, title) {
    this.title = title;
    this.shown = null;
    this.cursor = null; // the step that is read
    this.clip = `clip${charts++}`;
    this.svg = draw('svg', {role: 'img', tabindex: 0, height: HEIGHT});
    this.read = make('output', {class: 'read'});
    this.table = make('table');
    this.summary = make('summary', {}, text('numbers'));
    this.details = make('details', {}, this.summary, make('div', {class: 'scroll'}, this.table));
    this.heading = make('figcaption', {}, title);
    this.figure = make('figure', {class: 'chart'}, this.heading, this.svg, this.read, this.details);
    place.append(this.figure);
    this.svg.addEventListener('pointermove', (event) => this.point(event));
    this.svg.addEventListener('pointerdown', (event) => this.point(event));
    this.svg.addEventListener('pointerleave', () => this.move(null));
    this.svg.addEventListener('blur', () => this.move(null));
    this.svg.addEventListener('keydown', (event) => this.key(event));
    this.details.addEventListener('toggle', () => this.list());
  }

  // lines: [{name, look, steps, means, lows, highs, bad}], look a class of the style sheet;
  // levels: [{name, look, value}], drawn across; options: {log, smooth: 0 to 1}.
  update(title, lines, levels = [], options = {}) {
    this.title = title;
    this.lines = lines.map((line) => ({...line, drawn: smoothed(line.means, options.smooth || 0)}));
    this.levels = levels;
    this.read.classList.toggle('several', lines.length > 1);
    this.options = options;
    this.draw();
    this.list();
  }

  scales() {
    const {log, smooth} = this.options;
    const values = this.levels.map((level) => level.value);
    const steps = [];
    for (const line of this.lines) {
      for (const value of line.drawn) if (value !== null) values.push(value);
      if (!smooth) for (const x of [...(line.lows || []), ...(line.highs || [])]) if (x !== null) values.push(x);
      if (line.steps.length) steps.push(line.steps[0], line.steps[line.steps.length - 1]);
    }
    const finite = values.filter((value) => Number.isFinite(value));
    let [low, high] = [Infinity, -Infinity];
    for (const value of finite) [low, high] = [Math.min(low, value), Math.max(high, value)];
    this.isLog = Boolean(log) && low > 0;
    if (!finite.length) [low, high] = [0, 1];
    if (this.isLog) {
      const margin = Math.max((high / low) ** 0.06, 1.02);
      [low, high] = [low / margin, high * margin];
    } else {
      const margin = Math.max(0.06 * (high - low), 1e-3 * Math.abs(high) || 1e-3);
      const above = low >= 0;
      [low, high] = [low - margin, high + margin];
      if (above && low < 0) low = 0;
    }
    const first = Math.min(...steps, Infinity);
    const last = Math.max(...steps, -Infinity);
    this.from = Number.isFinite(first) ? first : 0;
    this.to = Number.isFinite(last) ? Math.max(last, this.from + 1) : 1;
    [this.low, this.high] = [low, high];
  }

  x(step) {
    return LEFT + ((step - this.from) / (this.to - this.from)) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    const scale = this.isLog ? Math.log : (v) => v;
    const share = (scale(value) - scale(this.low)) / (scale(this.high) - scale(this.low));
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  }

  path(steps, values) {
    const parts = [];
    let pen = false;
    values.forEach((value, i) => {
      if (value === null || (this.isLog && value <= 0)) {
        pen = false;
        return;
      }
      parts.push(`${pen ? 'L' : 'M'}${this.x(steps[i]).toFixed(1)} ${this.y(value).toFixed(1)}`);
      pen = true;
    });
    // A lone point would not be seen: a line of no length has round ends.
    return parts.map((part, i) => (part[0] === 'M' && parts[i + 1]?.[0] !== 'L' ? `${part}h0` : part)).join('');
  }

  dot(line, place) {
    const [cx, cy] = [this.x(line.steps[place]).toFixed(1), this.y(line.drawn[place]).toFixed(1)];
    return draw('circle', {class: line.look, cx, cy, r: 3.5});
  }

  draw() {
    if (!this.lines) return;
    this.width = Math.max(this.figure.clientWidth, 200);
    this.scales();
    const {svg, width, lines, levels} = this;
    svg.setAttribute('width', width);
    svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute('aria-label', this.describe());
    const note = this.options.log && !this.isLog ? text('linear') : '';
    this.heading.replaceChildren(this.title, ...(note ? [make('small', {}, ` (${note})`)] : []));
    this.summary.textContent = text('numbers');
    const grid = draw('g', {class: 'grid'});
    const labels = draw('g', {class: 'labels'});
    for (const value of this.isLog ? logTicks(this.low, this.high) : ticks(this.low, this.high, 6)) {
      const y = this.y(value).toFixed(1);
      grid.append(draw('path', {d: `M${LEFT} ${y}H${width - RIGHT}`}));
      labels.append(draw('text', {x: LEFT - 6, y: Number(y) + 4, 'text-anchor': 'end'}, number(value)));
    }
    const steps = ticks(this.from, this.to, Math.max(2, Math.round(width / 110)));
    for (const step of steps.filter((x) => Number.isInteger(x))) {
      const x = this.x(step);
      const anchor = x > width - 30 ? 'end' : 'middle';
      labels.append(draw('text', {x: x.toFixed(1), y: HEIGHT - 8, 'text-anchor': anchor}, whole(step)));
    }
    const clip = draw('clipPath', {id: this.clip}, draw('rect', {
      x: LEFT - 4, y: TOP - 4, width: width - LEFT - RIGHT + 8, height: HEIGHT - TOP - BOTTOM + 8,
    }));
    const curves = draw('g', {'clip-path': `url(#${this.clip})`});
    for (const level of levels) {
      const y = this.y(level.value).toFixed(1);
      curves.append(draw('path', {class: `level ${level.look}`, d: `M${LEFT} ${y}H${width - RIGHT}`}));
    }
    for (const line of lines) {
      if (this.options.smooth) {
        curves.append(draw('path', {class: `raw ${line.look}`, d: this.path(line.steps, line.means)}));
      } else if (line.lows) {
        curves.append(draw('path', {class: `raw ${line.look}`, d: this.path(line.steps, line.lows)}));
        curves.append(draw('path', {class: `raw ${line.look}`, d: this.path(line.steps, line.highs)}));
      }
      curves.append(draw('path', {class: `line ${line.look}`, d: this.path(line.steps, line.drawn)}));
      const places = line.drawn.flatMap((value, place) => (value === null ? [] : [place]));
      if (places.length === 1) curves.append(this.dot(line, places[0])); // else it is hardly seen
      for (const place of Object.keys(line.bad || {})) {
        const x = this.x(line.steps[place]).toFixed(1);
        curves.append(draw('path', {class: 'bad', d: `M${x} ${HEIGHT - BOTTOM}v-9`}));
      }
    }
    this.mark = draw('g', {class: 'cursor'});
    svg.replaceChildren(clip, grid, labels, curves, this.mark);
    this.move(this.cursor);
  }

  describe() {
    const parts = this.lines.map((line) => {
      const last = line.means.length - 1;
      if (last < 0) return `${line.name}: ${text('noValues')}`;
      const values = {name: line.name, value: number(line.means[last]), step: whole(line.steps[last])};
      return text('chartLine', values);
    });
    parts.push(...this.levels.map((level) => `${level.name}: ${number(level.value)}`));
    return text('chart', {title: this.title, lines: parts.join('; ')});
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    this.move(this.from + Math.min(Math.max(share, 0), 1) * (this.to - this.from));
  }

  key(event) {
    const steps = [...new Set(this.lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    if (!steps.length) return;
    const now = this.cursor === null ? steps.length - 1 : nearest(steps, this.cursor);
    const places = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: steps.length - 1, Escape: null};
    if (!(event.key in places)) return;
    event.preventDefault();
    const place = this.cursor === null && event.key === 'ArrowLeft' ? now : places[event.key];
    this.move(place === null ? null : steps[Math.min(Math.max(place, 0), steps.length - 1)]);
  }

  // Shows the numbers at a step; null: none.
  move(step) {
    this.cursor = step;
    if (!this.mark) return;
    this.mark.replaceChildren();
    this.read.replaceChildren();
    if (step === null) return;
    const near = this.lines
      .filter((line) => line.steps.length)
      .map((line) => line.steps[nearest(line.steps, step)])
      .sort((a, b) => Math.abs(a - step) - Math.abs(b - step));
    if (!near.length) return;
    const [snapped] = near;
    // A run that ended before has nothing to say about this step.
    const shown = this.lines.filter((line) => line.steps[0] <= snapped && snapped <= line.steps.at(-1));
    const x = this.x(snapped).toFixed(1);
    this.mark.append(draw('path', {d: `M${x} ${TOP}V${HEIGHT - BOTTOM}`}));
    this.read.append(`${text('step')} ${whole(snapped)}`);
    for (const line of shown) {
      const place = nearest(line.steps, snapped);
      const value = line.drawn[place];
      if (value !== null && (!this.isLog || value > 0)) {
        this.mark.append(this.dot(line, place));
      }
      const bad = line.bad?.[place];
      const words = bad ? ` (${text('notFinite', {count: bad})})` : '';
      const key = make('span', {class: `key ${line.look}`});
      this.read.append(make('span', {}, key, `${line.name} `, make('b', {}, number(line.means[place])), words));
    }
  }

  list() {
    if (!this.details.open || !this.lines) return;
    const longest = this.lines.reduce((a, b) => (b.steps.length > a.length ? b.steps : a), []);
    const every = Math.ceil(longest.length / ROWS);
    const steps = longest.filter((_, i) => (longest.length - 1 - i) % every === 0);
    const names = [...this.lines, ...this.levels].map((line) => line.name);
    const cell = (line, step) => {
      if (!line.steps.length) return '–';
      const place = nearest(line.steps, step);
      return line.steps[place] === step || every > 1 ? number(line.means[place]) : '–';
    };
    this.table.replaceChildren(
      make('caption', {class: 'unseen'}, this.title),
      make('thead', {}, make('tr', {}, ...[text('step'), ...names].map((n) => make('th', {scope: 'col'}, n)))),
      make('tbody', {}, ...steps.map((step) => make('tr', {},
        make('th', {scope: 'row'}, whole(step)),
        ...this.lines.map((line) => make('td', {}, cell(line, step))),
        ...this.levels.map((level) => make('td', {}, number(level.value))),
      ))),
    );
  }
}

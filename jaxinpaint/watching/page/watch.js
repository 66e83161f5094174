// The page: asks for the runs, and shows them.

import {TEXTS} from './texts.js';
import {$, ask, language, make, text, translate, useTexts} from './talk.js';
import {Chart, number, whole} from './charts.js';
import {checkpoints, configs, duration, faults, moment, results} from './tables.js';

const POLL = 3000; // ms
const COLOURS = 10; // of the style sheet
const KEPT = 24; // pictures that stay in memory
const saved = $('saved') && JSON.parse($('saved').textContent);
const state = {
  runs: [], // as the server tells them
  leftOut: 0,
  hidden: new Set(), // numbers of runs that are not drawn
  noFills: new Set(), // names of fills that are not drawn
  charts: new Map(), // {key: Chart}
  pictures: new Map(), // {'run/step/time': address}
  grid: {run: null, step: null, newest: true}, // what is chosen
  read: null, // when the server last answered
  failed: '',
};

const colour = (run) => `series${run.id % COLOURS}`;
const drawn = () => state.runs.filter((run) => !state.hidden.has(run.id) && run.series);

// Asking.

async function read() {
  const known = state.runs.map((run) => `${run.id}:${run.version}`).join(',');
  const answer = await (await ask(`api/v1/runs?known=${known}`)).json();
  const before = new Map(state.runs.map((run) => [run.id, run]));
  let changed = answer.runs.length !== state.runs.length || answer.left_out !== state.leftOut;
  state.leftOut = answer.left_out;
  state.runs = answer.runs.map((run) => {
    const old = before.get(run.id);
    if (old?.state && old.state !== run.state) {
      $('announced').textContent = text('changed', {run: old.name, state: text(run.state)});
    }
    changed ||= !old || old.version !== run.version;
    return {...old, ...run};
  });
  state.read = new Date();
  return changed;
}

async function watch() {
  if (!document.hidden || !state.read) {
    try {
      const changed = await read();
      state.failed = '';
      if (changed) show();
      else showRuns();
    } catch (error) {
      state.failed = error.message;
    }
    showStatus();
  }
  setTimeout(watch, POLL);
}

// Words above the runs.

function showStatus() {
  const time = state.read?.toLocaleTimeString(language() === 'zh' ? 'zh-CN' : 'en-GB');
  if (saved) $('status').textContent = text('savedAt', {time: moment(saved.saved)});
  else $('status').textContent = time ? text('updated', {time, seconds: POLL / 1000}) : '';
  $('error').hidden = !state.failed;
  $('error').textContent = state.failed;
  const notes = [];
  if (state.leftOut) notes.push(text('runsLeftOut', {count: state.leftOut}));
  if (saved?.left_out_pictures) notes.push(text('picturesLeftOut', {count: saved.left_out_pictures}));
  if (saved?.quality) notes.push(text('jpeg', {quality: saved.quality}));
  for (const run of state.runs) {
    if (run.problem) notes.push(`${run.name}: ${run.problem}`);
    if (run.behind) notes.push(text('behind', {run: run.name}));
    if (run.broken_lines) notes.push(text('brokenLines', {run: run.name, count: run.broken_lines}));
    if (run.names_left_out) notes.push(text('namesLeftOut', {run: run.name, count: run.names_left_out}));
  }
  $('notes').hidden = !notes.length;
  $('notes').replaceChildren(...notes.map((note) => make('li', {}, note)));
}

const last = (run, name) => run.series[name]?.means.at(-1);

function card(run) {
  const {id, name, total, environment} = run;
  const box = make('input', {type: 'checkbox', 'aria-label': text('show', {run: name})});
  box.checked = !state.hidden.has(id);
  box.dataset.run = id;
  const badge = make('span', {class: `state ${run.state}`}, text(run.state));
  const head = make('label', {class: 'head'}, box, make('span', {class: `swatch ${colour(run)}`}), make('b', {}, name));
  const parts = [make('div', {class: 'top'}, head, badge)];
  const about = run.why || (TEXTS.en[`${run.state}About`] && text(`${run.state}About`, {folder: run.folder}));
  if (run.state !== 'waiting') {
    const step = run.step ?? 0;
    if (total) parts.push(make('progress', {max: total, value: Math.min(step, total), 'aria-label': text('stepOf', {step: whole(step), total: whole(total)})}));
    const facts = [total ? text('stepOf', {step: whole(step), total: whole(total)}) : text('stepOnly', {step: whole(step)})];
    if (run.left) facts.push(text('left', {time: duration(run.left)}));
    const speed = last(run, 'speed/img_per_s');
    if (speed) facts.push(text('imagesPerSecond', {value: number(speed)}));
    const wait = last(run, 'speed/data_wait');
    if (wait !== null && wait !== undefined) facts.push(text('waits', {value: `${(100 * wait).toFixed(1)} %`}));
    if (environment.devices) facts.push(environment.devices);
    if (run.seen !== null && !saved) facts.push(text('seen', {time: duration(run.seen)}));
    parts.push(make('p', {class: 'facts'}, ...facts.map((fact) => make('span', {}, fact))));
  }
  if (about) parts.push(make('p', {class: 'soft about'}, about));
  return make('article', {class: 'card'}, ...parts);
}

function showRuns() {
  const focused = document.activeElement?.dataset?.run;
  $('runs').replaceChildren(...state.runs.map(card));
  if (focused) document.querySelector(`[data-run="${focused}"]`)?.focus();
}

// Charts.

// Draws a chart for each of {key: {title, lines, levels, options}} in its place, and removes others.
function place(container, wanted) {
  const keep = new Set(Object.keys(wanted).map((key) => `${container.id}:${key}`));
  for (const [key, chart] of state.charts) {
    if (key.startsWith(`${container.id}:`) && !keep.has(key)) {
      chart.figure.remove();
      state.charts.delete(key);
    }
  }
  for (const [name, {title, lines, levels, options}] of Object.entries(wanted)) {
    const key = `${container.id}:${name}`;
    if (!state.charts.has(key)) state.charts.set(key, new Chart(container, title));
    state.charts.get(key).update(title, lines, levels, options);
  }
}

const named = (runs, prefix) => [...new Set(runs.flatMap((run) => Object.keys(run.series)))].filter((name) => name.startsWith(prefix));
const line = (run, name, label = run.name, look = colour(run)) => ({name: label, look, ...run.series[name]});
const linesOf = (runs, name) => runs.filter((run) => run.series[name]).map((run) => line(run, name));

const titleOf = (metric) => metric.replaceAll('_', ' ').replace('percent', '%').replace(/\b(psnr|ssim|l1)\b/, (word) => word.toUpperCase());

function showHeldOut(runs) {
  const names = named(runs, 'evaluation/');
  const own = names.filter((name) => name.split('/').length === 2);
  const fills = [...new Set(names.filter((name) => name.split('/').length === 3).map((name) => name.split('/')[1]))];
  $('held-out').hidden = !own.length;
  const counts = [...new Set(runs.map((run) => run.config['evaluation.quick_count']).filter(Boolean))];
  $('held-out-about').textContent = text('heldOutAbout', {count: counts.join(', ')});
  $('fills').hidden = !fills.length;
  const look = (fill) => `fill${fills.indexOf(fill) % 4}`;
  const label = (fill) => (TEXTS.en[fill] ? text(fill) : fill);
  const focused = document.activeElement?.dataset?.fill;
  $('fills').replaceChildren($('fills').firstElementChild, ...fills.map((fill) => {
    const box = make('input', {type: 'checkbox'});
    box.checked = !state.noFills.has(fill);
    box.dataset.fill = fill;
    const sample = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    sample.setAttribute('class', `sample ${look(fill)}`);
    sample.setAttribute('aria-hidden', 'true');
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', 'M0 6H34');
    path.setAttribute('class', `level ${look(fill)}`);
    sample.append(path);
    return make('label', {class: 'check'}, box, sample, label(fill));
  }));
  if (focused) document.querySelector(`[data-fill="${focused}"]`)?.focus();
  const wanted = {};
  for (const name of own) {
    const metric = name.split('/')[1];
    const levels = [];
    for (const fill of fills.filter((fill) => !state.noFills.has(fill))) {
      const values = runs.map((run) => last(run, `evaluation/${fill}/${metric}`)).filter((x) => x !== null && x !== undefined);
      for (const value of new Set(values)) levels.push({name: label(fill), look: look(fill), value});
    }
    wanted[name] = {title: titleOf(metric), lines: linesOf(runs, name), levels};
  }
  place($('held-out-charts'), wanted);
}

const smoothing = () => $('smooth').value / 100;

function showLosses(runs) {
  const names = named(runs, '').filter((name) => !/^(evaluation|speed|memory|time)\//.test(name));
  $('losses').hidden = !names.length;
  const groups = [...new Set(names.map((name) => (name.includes('/') ? name.split('/')[0] : '')))];
  const options = {log: $('log').checked, smooth: smoothing()};
  $('smooth-value').textContent = options.smooth.toFixed(2);
  for (const group of groups) {
    const id = `losses-${group}`;
    if (!$(id)) {
      const charts = make('div', {class: 'charts', id});
      $('loss-groups').append(make('section', {}, make('h3', {}, group.replaceAll('_', ' ') || '–'), charts));
    }
    const members = names.filter((name) => (name.includes('/') ? name.split('/')[0] : '') === group);
    const wanted = {};
    for (const name of members) {
      const title = name.slice(group.length && group.length + 1).replaceAll('_', ' ');
      wanted[name] = {title, lines: linesOf(runs, name), options};
    }
    place($(id), wanted);
  }
  for (const charts of $('loss-groups').querySelectorAll('.charts')) {
    const gone = !groups.includes(charts.id.slice('losses-'.length));
    if (gone) place(charts, {});
    charts.parentElement.hidden = gone;
  }
}

const SPEEDS = ['speed/img_per_s', 'step_ms', 'speed/data_wait', 'speed/mfu', 'memory/peak_gb', 'memory/host_peak_gb', 'time/goodput', 'time/compile_s'];

function showSpeed(runs) {
  const wanted = {};
  for (const name of SPEEDS) {
    const lines = name === 'step_ms'
      ? runs.filter((run) => run.series['speed/step_ms_median']).flatMap((run) => [
        line(run, 'speed/step_ms_median', `${run.name}, ${text('median')}`),
        ...(run.series['speed/step_ms_p95'] ? [line(run, 'speed/step_ms_p95', `${run.name}, ${text('p95')}`, `thin ${colour(run)}`)] : []),
      ])
      : linesOf(runs, name);
    const options = {smooth: /^(memory|time)/.test(name) ? 0 : smoothing()};
    if (lines.length) wanted[name] = {title: text(name.split('/').at(-1)), lines, options};
  }
  $('speed').hidden = !Object.keys(wanted).length;
  place($('speed-charts'), wanted);
}

// Pictures.

const withSamples = () => drawn().filter((run) => run.samples.length);

function gridRun() {
  const runs = withSamples();
  return runs.find((run) => run.id === state.grid.run) || runs.find((run) => run.state === 'running') || runs[0];
}

function showGrids() {
  const runs = withSamples();
  $('grids').hidden = !runs.length;
  if (!runs.length) return;
  const run = gridRun();
  $('grid-run-row').hidden = runs.length < 2;
  const ids = runs.map((one) => String(one.id)).join();
  if ([...$('grid-run').options].map((option) => option.value).join() !== ids) {
    $('grid-run').replaceChildren(...runs.map((one) => make('option', {value: one.id}, one.name)));
  }
  $('grid-run').value = run.id;
  const steps = run.samples.map((sample) => sample.step);
  let index = steps.length - 1;
  if (!state.grid.newest) index = Math.max(steps.findLastIndex((step) => step <= state.grid.step), 0);
  const {step, at} = run.samples[index];
  const [slider, end] = [$('grid-step'), steps.length - 1];
  [slider.max, slider.value] = [end, index];
  slider.disabled = !end;
  slider.setAttribute('aria-valuetext', `${text('step')} ${whole(step)}`);
  $('grid-value').textContent = whole(step);
  $('grid-back').disabled = index === 0;
  $('grid-on').disabled = index === end;
  $('grid-newest').checked = state.grid.newest;
  $('picture').classList.toggle('full', $('grid-full').checked);
  showPicture(run, step, at);
}

async function showPicture(run, step, at) {
  const image = $('grid');
  const key = `${run.id}/${step}/${at}`;
  image.dataset.key = key;
  const alt = text('gridAlt', {run: run.name, step: whole(step)});
  if (!state.pictures.has(key)) {
    let address = '';
    try {
      address = saved ? saved.pictures[run.id][step] : URL.createObjectURL(await (await ask(`api/v1/runs/${run.id}/samples/${step}`)).blob());
    } catch (error) {
      if (image.dataset.key !== key) return;
      image.alt = text('noPicture');
      image.removeAttribute('src'); // it is asked for again when the run changes
      return;
    }
    state.pictures.set(key, address);
    if (state.pictures.size > KEPT) {
      const [oldest, gone] = state.pictures.entries().next().value;
      state.pictures.delete(oldest);
      URL.revokeObjectURL(gone);
    }
  }
  if (image.dataset.key !== key) return; // another one is wanted by now
  if (image.getAttribute('src') !== state.pictures.get(key)) image.src = state.pictures.get(key);
  image.alt = alt;
}

function go(index) {
  const {samples, id} = gridRun();
  const place = Math.min(Math.max(index, 0), samples.length - 1);
  state.grid = {run: id, step: samples[place].step, newest: place === samples.length - 1 && state.grid.newest};
  showGrids();
}

// All of it.

function showTables(runs) {
  for (const [id, make] of Object.entries({results, checkpoints, faults, configs})) {
    const tables = make(runs);
    $(id).hidden = !tables.length;
    const shown = $(id).querySelector('.tables');
    // Only what is new, so that a table that somebody has scrolled stays where it is.
    const same = shown.textContent === tables.map((table) => table.textContent).join('');
    if (!same) shown.replaceChildren(...tables);
  }
}

function show() {
  showRuns();
  const runs = drawn();
  showHeldOut(runs);
  showGrids();
  showLosses(runs);
  showSpeed(runs);
  showTables(runs.filter((run) => run.state !== 'waiting'));
  showStatus();
}

$('runs').addEventListener('change', ({target}) => {
  const id = Number(target.dataset.run);
  if (target.checked) state.hidden.delete(id);
  else state.hidden.add(id);
  show();
});
$('fills').addEventListener('change', ({target}) => {
  if (target.checked) state.noFills.delete(target.dataset.fill);
  else state.noFills.add(target.dataset.fill);
  show();
});
$('language').addEventListener('change', ({target}) => {
  translate(target.value);
  show();
});
for (const id of ['smooth', 'log']) {
  $(id).addEventListener('input', () => {
    showLosses(drawn());
    showSpeed(drawn());
  });
}
$('grid-run').addEventListener('change', ({target}) => {
  state.grid = {...state.grid, run: Number(target.value)};
  showGrids();
});
$('grid-step').addEventListener('input', ({target}) => {
  state.grid.newest = false;
  go(Number(target.value));
});
$('grid-back').addEventListener('click', () => {
  state.grid.newest = false;
  go(Number($('grid-step').value) - 1);
});
$('grid-on').addEventListener('click', () => {
  state.grid.newest = false;
  go(Number($('grid-step').value) + 1);
});
$('grid-newest').addEventListener('change', ({target}) => {
  state.grid = {run: gridRun().id, step: gridRun().samples[$('grid-step').value].step, newest: target.checked};
  showGrids();
});
$('grid-full').addEventListener('change', showGrids);
let resized = 0;
window.addEventListener('resize', () => {
  cancelAnimationFrame(resized);
  resized = requestAnimationFrame(() => state.charts.forEach((chart) => chart.draw()));
});
document.addEventListener('visibilitychange', () => document.hidden || showStatus());

useTexts(TEXTS);
translate();
$('language').value = language();
if (saved) {
  [state.runs, state.leftOut] = [saved.runs, saved.left_out];
  show();
} else {
  watch();
}

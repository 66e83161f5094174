// What is shown as tables: checkpoints, faults, the result, what differs between configs.

import {whole} from './charts.js';
import {language, make, text} from './talk.js';

export function duration(seconds) {
  const chinese = language() === 'zh';
  const [h, min, s] = chinese ? [' 小时', ' 分', ' 秒'] : [' h', ' min', ' s'];
  const total = Math.round(seconds);
  if (total < 60) return `${total}${s}`;
  if (total < 3600) return `${Math.floor(total / 60)}${min}`;
  const hours = Math.floor(total / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)}${chinese ? ' 天' : ' days'}`;
  return `${hours}${h} ${String(Math.floor((total % 3600) / 60)).padStart(2, '0')}${min}`;
}

export function moment(seconds) {
  const options = {dateStyle: 'medium', timeStyle: 'short'};
  const locale = language() === 'zh' ? 'zh-CN' : 'en-GB';
  return new Intl.DateTimeFormat(locale, options).format(new Date(1000 * seconds));
}

function bytes(count) {
  if (count < 1e6) return `${Math.ceil(count / 1e3)} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}

// heads: words of the columns; rows: [[cells]], whose first is the head of its row; look: the class
// of the caption.
function table(caption, heads, rows, look) {
  const body = rows.map(([first, ...cells]) =>
    make('tr', {}, make('th', {scope: 'row'}, first), ...cells.map((c) => (c instanceof Element ? c : make('td', {}, c)))),
  );
  return make('div', {class: 'scroll', tabindex: 0, role: 'group', 'aria-label': caption},
    make('table', {},
      make('caption', {class: look}, caption),
      make('thead', {}, make('tr', {}, ...heads.map((h) => make('th', {scope: 'col'}, h)))),
      make('tbody', {}, ...body),
    ),
  );
}

export function checkpoints(runs) {
  return runs.filter((run) => run.checkpoints.length).map((run) =>
    table(run.name, [text('step'), text('saved'), text('size')],
      run.checkpoints.map((c) => [whole(c.step), moment(c.time), bytes(c.bytes)]).reverse()),
  );
}

const FAULTS = {stopped: 'stoppedFault', killed: 'killedFault'};

export function faults(runs) {
  return runs.map((run) => {
    if (!run.faults.length) return make('p', {class: 'soft'}, make('b', {}, run.name), ` ${text('noFaults')}`);
    return table(run.name, [text('time'), text('step'), text('what')],
      [...run.faults].reverse().map((fault) => [
        moment(fault.time),
        fault.step === null ? '–' : whole(fault.step),
        make('td', {class: 'words'}, text(FAULTS[fault.kind] || fault.kind, {text: fault.text})),
      ]));
  });
}

export function results(runs) {
  return runs.filter((run) => run.evaluation).map((run) => {
    const {step, count, metrics, bins, rows} = run.evaluation;
    const file = `evaluation/${step}/report.html`;
    const best = bins.map((_, b) => metrics.map((metric, m) => {
      const values = rows.map((row) => row.means[b][m]).filter((x) => x !== null && x !== undefined);
      return metric.better === 'higher' ? Math.max(...values) : Math.min(...values);
    }));
    const heads = [text('row'), text('holes'), ...metrics.map((m) => `${m.label} ${m.better === 'higher' ? '↑' : '↓'}`)];
    const cells = bins.flatMap((bin, b) => rows.map((row) => [
      row.name,
      bin,
      ...metrics.map((metric, m) => {
        const value = row.means[b][m];
        const known = value !== null && value !== undefined;
        const mark = known && value === best[b][m] ? 'best' : null;
        return make('td', {class: mark}, known ? value.toFixed(metric.digits) : '–');
      }),
    ]));
    return table(text('resultsAbout', {run: run.name, step: whole(step), count, file}), heads, cells);
  });
}

export function configs(runs) {
  if (runs.length < 2) return [];
  const fields = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].sort();
  const shown = (value) => (value === undefined ? text('absent') : JSON.stringify(value));
  const rows = fields
    .map((field) => [field, ...runs.map((run) => shown(run.config[field]))])
    .filter(([, first, ...others]) => others.some((value) => value !== first));
  if (!rows.length) return [];
  return [table(text('configs'), [text('field'), ...runs.map((run) => run.name)], rows, 'unseen')];
}

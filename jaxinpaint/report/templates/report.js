'use strict';
// The page is whole without this: it adds sorting, intervals on demand, and the slider.

for (const box of document.querySelectorAll('.switch')) {
  box.hidden = false;
  box.firstElementChild.addEventListener('change', (event) =>
    document.body.classList.toggle('intervals', event.target.checked));
}

const numberOf = (cell) => {
  const text = cell.dataset.value;
  if (text === undefined || text === '') return NaN;
  return text === 'inf' ? Infinity : Number(text);
};

// Sorts each body for itself, so that published rows never mix with measured ones.
const sortBy = (table, column, direction) => {
  const compare = (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (column === 0) return direction * x.textContent.localeCompare(y.textContent);
    const [u, v] = [numberOf(x), numberOf(y)];
    if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v);
    return u === v ? 0 : direction * (u < v ? -1 : 1);
  };
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains('divide'));
    rows.sort(compare).forEach((row) => body.append(row));
  }
};

for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'sort';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const now = head.getAttribute('aria-sort');
      // The best first, at the second press the other way round.
      const first = head.dataset.sort === 'higher' ? 'descending' : 'ascending';
      const other = first === 'ascending' ? 'descending' : 'ascending';
      const next = now === first ? other : first;
      heads.forEach((h) => h.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', next);
      sortBy(table, column, next === 'ascending' ? 1 : -1);
    });
  });
}

for (const viewer of document.querySelectorAll('.viewer')) {
  viewer.hidden = false;
  const get = (selector) => viewer.querySelector(selector);
  const [image, left, right] = ['[data-image]', '[data-left]', '[data-right]'].map(get);
  const [stage, range] = ['.stage', 'input[type=range]'].map(get);
  const thumbs = [...viewer.nextElementSibling.querySelectorAll('.thumb')];
  const thumb = (column) =>
    thumbs.find((t) => t.dataset.row === image.value && t.dataset.column === column);
  const put = (target, name, select) => {
    const source = thumb(select.value);
    target.hidden = !source;
    if (source) {
      target.src = source.firstElementChild.src;
      target.alt = source.firstElementChild.alt;
    }
    name.textContent = select.selectedOptions[0].textContent + (source ? '' : ' (not kept)');
  };
  const show = () => {
    put(get('[data-over]'), get('.side.left'), left);
    put(get('[data-under]'), get('.side.right'), right);
    const words = `left ${get('.side.left').textContent}, right ${get('.side.right').textContent}`;
    range.setAttribute('aria-valuetext', `${words}, divider at ${range.value} %`);
    stage.style.setProperty('--at', `${range.value}%`);
    thumbs.forEach((t) => t.setAttribute('aria-pressed', String(
      t.dataset.row === image.value && [left.value, right.value].includes(t.dataset.column))));
  };
  for (const input of [image, left, right, range]) input.addEventListener('input', show);
  for (const t of thumbs) {
    t.addEventListener('click', () => {
      image.value = t.dataset.row;
      left.value = t.dataset.column;
      show();
    });
  }
  // A native range moves by its thumb; here the divider follows the pointer wherever it goes down.
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    show();
  };
  range.addEventListener('pointerdown', (event) => {
    event.preventDefault();
    range.focus({preventScroll: true});
    range.setPointerCapture(event.pointerId);
    follow(event);
  });
  range.addEventListener('pointermove', (event) => {
    if (range.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}

// On paper everything is open.
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  opened.forEach((d) => { d.open = true; });
});
addEventListener('afterprint', () => opened.forEach((d) => { d.open = false; }));

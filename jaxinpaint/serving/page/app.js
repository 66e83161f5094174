// The page: what its buttons do, and how it talks to the server.

import {Stage} from './canvas.js';
import {$, ask, language, text, translate as translateAll, useTexts} from './talk.js';
import {TEXTS} from './texts.js';

const POLL = 400; // ms between two looks at a job
const KINDS = {
  'image/jpeg': ['jpg', 'JPEG'],
  'image/png': ['png', 'PNG'],
  'image/webp': ['webp', 'WebP'],
  'image/bmp': ['bmp', 'BMP'],
};
const state = {
  limits: null,
  file: null, // what is sent: the photograph's file, or the last result
  name: '', // of the photograph
  kind: 'image/png', // of the photograph
  result: null, // {blob, image}
  job: null, // {id, stop} of what runs
  said: null, // the last message, to be said again in another language
};

// Words.

function say(key, values) {
  state.said = [key, values];
  const words = key ? text(key, values) : '';
  // What is set anew is read out anew.
  if ($('status').textContent !== words) $('status').textContent = words;
}

function fail(sentence) {
  $('error').hidden = !sentence;
  $('error').textContent = sentence || '';
}

function warn(sentences) {
  $('warnings').hidden = !sentences.length;
  $('warnings').replaceChildren(
    ...sentences.map((sentence) => {
      const item = document.createElement('li');
      item.textContent = sentence;
      return item;
    }),
  );
}

function translate(chosen) {
  translateAll(chosen);
  $('language').value = language();
  if (state.said) say(...state.said);
  showFormats();
  describe();
}

// The picture.

const stage = new Stage($('stage'), holeChanged, showSize);

function holeChanged() {
  fail(''); // of the hole as it was
  describe();
}

function describe() {
  const {image} = stage;
  const share = percent(stage.share());
  $('stage').setAttribute(
    'aria-label',
    image ? text('stageSize', {width: image.width, height: image.height, share}) : text('stage'),
  );
  $('undo').disabled = !stage.steps.length || Boolean(state.job);
  $('redo').disabled = !stage.undone.length || Boolean(state.job);
  for (const id of ['clear', 'invert', 'mask', 'repair']) {
    $(id).disabled = !image || Boolean(state.job);
  }
  for (const id of ['in', 'out', 'fit']) $(id).disabled = !image;
  $('size').disabled = Boolean(state.result);
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 1 ? '< 1' : String(Math.round(value));
}

// The slider's middle is a small brush: 1 to 1000 pixels in equal ratios.
function showSize() {
  $('size').value = (100 * Math.log(stage.size)) / Math.log(1000);
  $('size-value').textContent = `${Math.round(stage.size)} px`;
  $('compare').value = 100 * stage.before;
}

async function open(file) {
  fail('');
  warn([]);
  if (!file) return;
  const {limits} = state;
  const mega = (value) => (value < 10 ? value.toFixed(1) : Math.round(value));
  if (limits && file.size > limits.max_bytes) {
    const [size, limit] = [file.size, limits.max_bytes].map((bytes) => mega(bytes / 2 ** 20));
    fail(text('tooLarge', {name: file.name, size, limit}));
    return;
  }
  let image;
  try {
    image = await createImageBitmap(file);
  } catch (error) {
    fail(text('notAPicture', {name: file.name || '?'}));
    return;
  }
  const pixels = (image.width * image.height) / 1e6;
  if (limits && pixels > limits.max_megapixels) {
    const values = {name: file.name, size: mega(pixels), limit: limits.max_megapixels};
    fail(text('tooManyPixels', values));
    return;
  }
  if (state.job) await cancel();
  Object.assign(state, {file, name: file.name || 'pasted.png', kind: file.type, result: null});
  $('empty').hidden = true;
  $('format').value = '';
  edit();
  stage.open(image);
  stage.setSize(Math.max(4, Math.min(image.width, image.height) / 14));
  say('opened', {name: state.name, width: image.width, height: image.height});
  showFormats();
  $('stage').focus({preventScroll: true});
}

async function openMask(file) {
  fail('');
  if (!file || !stage.image) return;
  let image;
  try {
    image = await createImageBitmap(file);
  } catch (error) {
    fail(text('notAPicture', {name: file.name}));
    return;
  }
  const {width, height} = stage.image;
  const scale = image.height / height;
  if (Math.abs(image.width - width * scale) > Math.max(1, scale)) {
    fail(text('maskShape', {width: image.width, height: image.height}));
    return;
  }
  edit();
  stage.readMask(image);
  const share = stage.share();
  say(share > 0.5 ? 'mostlyHole' : 'maskRead', {share: percent(share)});
}

// Shows the mask again.
function edit() {
  state.result = null;
  stage.show(null);
  $('done').hidden = $('compare-row').hidden = true;
  describe();
}

// The server.

async function loadModels() {
  try {
    state.limits = await (await ask('api/v1/models')).json();
  } catch (error) {
    fail(error.message);
    return;
  }
  $('model').replaceChildren(
    ...state.limits.models.map(({name}) => {
      const option = document.createElement('option');
      option.value = option.textContent = name;
      return option;
    }),
  );
}

const toBlob = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The blob of the result; null: it was cancelled.
async function run(file, mask, options) {
  const form = new FormData();
  form.append('image', file, 'image');
  form.append('mask', mask, 'mask');
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  const controller = new AbortController();
  const job = (state.job = {controller, id: null, cancelled: false});
  busy(true);
  say('sending');
  try {
    const {signal} = controller;
    let status = await (await ask('api/v1/jobs', {method: 'POST', body: form, signal})).json();
    job.id = status.id;
    while (!['done', 'failed', 'cancelled'].includes(status.state)) {
      showProgress(status);
      await sleep(POLL);
      if (job.cancelled) return null;
      status = await (await ask(`api/v1/jobs/${job.id}`, {signal})).json();
    }
    if (job.cancelled || status.state === 'cancelled') return null;
    if (status.state === 'failed') {
      const error = new Error(status.problem.detail);
      error.problem = status.problem;
      throw error;
    }
    warn(status.warnings);
    return await (await ask(`api/v1/jobs/${job.id}/result`, {signal})).blob();
  } catch (error) {
    if (job.cancelled) return null;
    throw error;
  } finally {
    state.job = null;
    busy(false);
  }
}

function showProgress(status) {
  const estimate = Math.max(1, Math.round(status.estimate || 0));
  const first = status.state === 'queued' && !status.position;
  const words = first ? (status.seconds < 2 ? 'starting' : 'next') : status.state;
  say(words, {estimate, position: status.position});
  // Beside the status, which is read out: not every second.
  $('elapsed').textContent = text('elapsed', {seconds: Math.round(status.seconds)});
  const bar = $('progress');
  if (status.estimate > status.seconds) bar.value = status.seconds / status.estimate;
  else bar.removeAttribute('value');
}

function busy(on) {
  $('progress').hidden = $('cancel').hidden = $('elapsed').hidden = !on;
  $('elapsed').textContent = '';
  $('progress').removeAttribute('value');
  for (const id of ['again', 'back', 'download', 'another']) $(id).disabled = on;
  describe();
}

async function cancel() {
  const {job} = state;
  if (!job) return;
  job.cancelled = true;
  job.controller.abort();
  if (job.id) {
    await ask(`api/v1/jobs/${job.id}`, {method: 'DELETE'}).catch((error) => fail(error.message));
  }
  say('cancelled');
}

async function repair() {
  fail('');
  warn([]);
  if (!stage.image) return fail(text('noPicture'));
  const {mask, hole} = stage.exportMask();
  if (!hole) return fail(text('noHole'));
  if (hole === stage.mask.width * stage.mask.height) return fail(text('allHole'));
  edit();
  // The page draws the mask itself, and says in its own words what is odd about it.
  const options = {exact_size: false, check_mask: false, blend: $('blend').checked ? 'poisson' : 'none'};
  if ($('model').value) options.model = $('model').value;
  try {
    const blob = await toBlob(mask);
    let result;
    try {
      result = await run(state.file, blob, {...options, format: 'png'});
    } catch (error) {
      // CMYK, which a PNG cannot hold.
      if (error.problem?.type !== 'urn:jaxinpaint:bad-picture' || kind()[0] === 'png') throw error;
      result = await run(state.file, blob, {...options, format: kind()[0]});
    }
    if (!result) return;
    state.result = {blob: result, image: await createImageBitmap(result)};
    stage.before = 0.5;
    stage.show(state.result.image);
    describe();
    showSize();
    $('done').hidden = $('compare-row').hidden = false;
    say('done');
    $('compare').focus();
  } catch (error) {
    say('');
    fail(error.message);
  }
}

function goOn() {
  const {blob, image} = state.result;
  const extension = KINDS[blob.type]?.[0] || 'png';
  state.file = new File([blob], `image.${extension}`, {type: blob.type});
  edit();
  stage.open(image);
  say('nextStep');
  $('stage').focus({preventScroll: true});
}

// The result as a file.

const kind = () => KINDS[state.kind] || KINDS['image/png'];

function showFormats() {
  const chosen = $('format').value;
  const formats = [['png', text('png')]];
  if (kind()[0] !== 'png') formats.unshift([kind()[0], text('asGiven', {kind: kind()[1]})]);
  $('format').replaceChildren(
    ...formats.map(([value, title]) => {
      const option = document.createElement('option');
      [option.value, option.textContent] = [value, title];
      return option;
    }),
  );
  if (formats.some(([value]) => value === chosen)) $('format').value = chosen;
}

async function download() {
  fail('');
  const format = $('format').value;
  let {blob} = state.result;
  try {
    if (KINDS[blob.type]?.[0] !== format) {
      // A mask without a hole: the server only writes the picture anew, with its metadata.
      const mask = await toBlob(stage.exportMask(true).mask);
      blob = await run(blob, mask, {format, check_mask: false});
      if (!blob) return;
      warn([]);
      say('done');
    }
  } catch (error) {
    fail(error.message);
    return;
  }
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `${state.name.replace(/\.[^.]*$/, '') || 'picture'}-repaired.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Buttons, keys, files.

// Changes the hole, which is shown again.
function change(action) {
  if (!stage.image || state.job) return;
  if (stage.result) edit();
  action();
}

const clicks = {
  undo: () => change(() => stage.undo()),
  redo: () => change(() => stage.redo()),
  clear: () => change(() => stage.add({kind: 'clear'})),
  invert: () => change(() => stage.add({kind: 'invert'})),
  in: () => stage.zoom(1.4),
  out: () => stage.zoom(1 / 1.4),
  fit: () => stage.fit(),
  choose: () => $('image-file').click(),
  another: () => $('image-file').click(),
  mask: () => $('mask-file').click(),
  repair,
  cancel,
  again: goOn,
  back: edit,
  download,
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener('click', action);

for (const [id, action] of [['image-file', open], ['mask-file', openMask]]) {
  $(id).addEventListener('change', (event) => {
    action(event.target.files[0]);
    event.target.value = ''; // so that the same file can be chosen again
  });
}

function choose(tool) {
  document.querySelector(`input[name=tool][value=${tool}]`).checked = true;
  stage.stopStep();
  stage.tool = tool;
  $('stage').dataset.tool = tool;
  if (stage.result) edit();
  stage.draw();
}

$('tools').addEventListener('change', (event) => choose(event.target.value));
$('size').addEventListener('input', (event) => stage.setSize(1000 ** (event.target.value / 100)));
$('compare').addEventListener('input', (event) => {
  stage.before = event.target.value / 100;
  stage.draw();
});
$('language').addEventListener('change', (event) => {
  translate(event.target.value);
});

document.addEventListener('keydown', (event) => {
  const typing = event.target.matches('input:not([type=range]):not([type=radio]), select');
  if (typing || document.querySelector('dialog[open]')) return;
  const control = event.ctrlKey || event.metaKey;
  const lower = event.key.toLowerCase();
  if (control && lower === 'z') (event.shiftKey ? clicks.redo() : clicks.undo());
  else if (control && lower === 'y') clicks.redo();
  else if (control || event.altKey) return;
  else if (event.target === $('stage') && stage.key(event)) event.preventDefault();
  else if ('berlm'.includes(lower) && lower.length === 1) {
    choose({b: 'brush', e: 'erase', r: 'rectangle', l: 'lasso', m: 'move'}[lower]);
  } else if (event.key === '[') stage.setSize(stage.size / 1.15);
  else if (event.key === ']') stage.setSize(stage.size * 1.15);
  else if (event.key === '+' || event.key === '=') stage.zoom(1.25);
  else if (event.key === '-') stage.zoom(1 / 1.25);
  else if (event.key === '0' && stage.image) stage.fit();
  else return;
  event.preventDefault();
});

const firstFile = (transfer) => [...(transfer?.files || [])][0];
document.addEventListener('paste', (event) => {
  const file = firstFile(event.clipboardData);
  if (file) open(file);
});
for (const type of ['dragover', 'drop']) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $('drop').classList.toggle('over', type === 'dragover');
    const file = type === 'drop' && firstFile(event.dataTransfer);
    if (file) open(file);
  });
}
document.addEventListener('dragleave', () => $('drop').classList.remove('over'));

useTexts(TEXTS);
translate();
showSize();
choose('brush');
loadModels();

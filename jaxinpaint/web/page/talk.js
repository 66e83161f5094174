// What the pages of this library share: their words in several languages, and questions to the
// server, with the token that it may want.

export const $ = (id) => document.getElementById(id);

const words = {all: {}, language: navigator.language.startsWith('zh') ? 'zh' : 'en'};

// {language: {key: text}}; {x} in a text is replaced.
export function useTexts(texts) {
  words.all = texts;
}

export function language() {
  return words.language;
}

export function text(key, values = {}) {
  const whole = words.all[words.language][key];
  return whole.replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
}

// Everything that has data-text or data-label.
export function translate(chosen = words.language) {
  words.language = chosen;
  document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en';
  for (const element of document.querySelectorAll('[data-text]')) {
    element.textContent = text(element.dataset.text);
  }
  for (const element of document.querySelectorAll('[data-label]')) {
    element.setAttribute('aria-label', text(element.dataset.label));
  }
}

// The tab's storage, so that the page can be loaded again; null where the browser stores nothing.
const storage = (() => {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
})();
const STORED = 'jaxinpaint.token';
let token = storage?.getItem(STORED) || '';

function keep(entered) {
  token = entered;
  storage?.setItem(STORED, token);
}

// The terminal prints an address with the token behind a #, which is not sent anywhere.
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  keep(given);
  history.replaceState(null, '', location.pathname);
}

// The answer; an error has the server's sentence, and its problem document.
export async function ask(path, options = {}) {
  const headers = {...options.headers};
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, {...options, headers, cache: 'no-store'});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error(text('unreachable'));
  }
  if (answer.status === 401) {
    await askToken();
    return ask(path, options);
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail || `${answer.status} ${answer.statusText}`);
    error.problem = problem;
    throw error;
  }
  return answer;
}

function askToken() {
  const dialog = $('token-dialog');
  $('token-wrong').hidden = !token;
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      'close',
      () => {
        keep($('token').value.trim());
        resolve();
      },
      {once: true},
    );
  });
}

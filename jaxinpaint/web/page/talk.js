// What the pages of this library share: their words in several languages, and questions to the
// server, with the token that it may want.

export const $ = (id) => document.getElementById(id);

// An element with attributes and children; text is never read as HTML.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const words = {all: {}, language: navigator.language.startsWith('zh') ? 'zh' : 'en'};

// Of the dialog that asks for the token.
const TOKEN_TEXTS = {
  en: {
    tokenTitle: 'Token',
    tokenAbout:
      'This server wants a token. It was printed when the server started, and stays in this tab ' +
      'only.',
    tokenWrong: 'The server does not take this token.',
    token: 'Token',
    useToken: 'Use it',
  },
  zh: {
    tokenTitle: '令牌',
    tokenAbout: '此服务器需要令牌。令牌在服务器启动时显示，只保存在当前标签页中。',
    tokenWrong: '服务器不接受此令牌。',
    token: '令牌',
    useToken: '使用',
  },
};

// {language: {key: text}}; {x} in a text is replaced. `ask` wants a text 'unreachable'.
export function useTexts(texts) {
  for (const name of Object.keys(texts)) words.all[name] = {...TOKEN_TEXTS[name], ...texts[name]};
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
  const dialog = $('token-dialog') || makeTokenDialog();
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

function makeTokenDialog() {
  const entry = {id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false'};
  const dialog = make(
    'dialog',
    {id: 'token-dialog', 'aria-labelledby': 'token-title'},
    make(
      'form',
      {method: 'dialog'},
      make('h2', {id: 'token-title', 'data-text': 'tokenTitle'}),
      make('p', {'data-text': 'tokenAbout'}),
      make('p', {id: 'token-wrong', class: 'warning', role: 'alert', 'data-text': 'tokenWrong'}),
      make('label', {class: 'row'}, make('span', {'data-text': 'token'}), make('input', entry)),
      make('button', {class: 'main', 'data-text': 'useToken'}),
    ),
  );
  document.body.append(dialog);
  translate();
  return dialog;
}

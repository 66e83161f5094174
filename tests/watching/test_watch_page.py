"""The page of watching: its words, nothing from outside, contrast; and in a browser, if any."""

import contextlib
import pathlib
import re
import threading

import pages
import pytest
import workdirs

from jaxinpaint.watching import app, document, page, run
from jaxinpaint.watching.runs import Runs
from jaxinpaint.web import http

HTML = page.live()
SCRIPTS = {name: page.read(name) for name in page.SCRIPTS}
CSS = '\n'.join(page.read(name) for name in page.STYLES)
ELEMENTS = pages.elements(HTML)


def test_both_languages_say_the_same_things():
  texts = pages.languages(SCRIPTS['texts.js'])
  used = {a[name] for _, a in ELEMENTS for name in ('data-text', 'data-label') if name in a}
  used |= set(re.findall(r"\btext\('(\w+)'", ''.join(SCRIPTS.values())))
  states = {value for name, value in vars(run).items() if name.isupper() and name[0] != '_'}
  assert len(states) == 8
  faults = {'error', 'stoppedFault', 'killedFault', 'returned', 'sick', 'broken'}
  speeds = re.findall(
    r"'(?:\w+/)?(\w+)'", re.findall(r'SPEEDS = \[(.*?)\]', SCRIPTS['watch.js'])[0]
  )
  pages.check_languages(texts, ELEMENTS, used | states | faults | set(speeds))
  said = {text for _, a in ELEMENTS for text in [a.get('data-text')] if text}
  for key in said:  # without its scripts the page says the same
    assert texts['en'][key].replace("'", '&#39;') in HTML or texts['en'][key] in HTML, key


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline():
  pages.check_nothing_from_elsewhere({'index.html': HTML, 'css': CSS, **SCRIPTS})
  pages.check_nothing_inline(ELEMENTS, SCRIPTS)


def test_every_id_is_there_once():
  ids = [a['id'] for _, a in ELEMENTS if 'id' in a]
  assert len(ids) == len(set(ids))
  own = ''.join(text for name, text in SCRIPTS.items() if name != 'talk.js')  # see tests/web
  named = set(re.findall(r"\$\('([\w-]+)'\)", own))
  assert named - {'saved'} <= set(ids), named - set(ids)


def test_the_modules_of_a_file_are_in_the_order_of_their_imports():
  seen = set()
  for name, text in SCRIPTS.items():
    imported = set(re.findall(r"^import .* from '\./([\w.]+)';$", text, re.M))
    assert imported <= seen, name
    seen.add(name)
  declared = [
    found
    for text in SCRIPTS.values()
    for found in re.findall(
      r'^(?:export )?(?:async )?(?:function|const|let|class) (\w+)', text, re.M
    )
  ]
  assert len(declared) == len(set(declared)), 'in one file, no name stands for two things'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_words_and_lines_have_enough_contrast(scheme):
  """WCAG 2.2, 1.4.3 (4.5 for text) and 1.4.11 (3 for the lines of charts)."""
  palette = pages.colours(CSS, scheme)
  words = [('ink', 'raised'), ('soft', 'paper'), ('soft', 'raised'), ('good', 'mark')]
  for ink, paper in [*words, ('good', 'raised'), ('bad', 'raised'), ('ink', 'mark')]:
    assert pages.contrast(palette, ink, paper) >= 4.5, (ink, paper)
  for line in [f's{i}' for i in range(10)]:
    assert pages.contrast(palette, line, 'paper') >= 3, line
    assert pages.contrast(palette, line, 'raised') >= 3, line


@pytest.fixture
def folders(tmp_path):
  made = []
  for name in ('first', 'second'):
    folder = workdirs.workdir(tmp_path / name, rows=range(1, 30))
    workdirs.metrics(folder, [30], **{'evaluation/psnr': 20.0, 'evaluation/telea/psnr': 25.0})
    workdirs.metrics(folder, [31], **{'generator/total': 'nan'})
    workdirs.sample(folder, 30, workdirs.png(200))
    made.append(folder)
  return made


@pytest.fixture
def address(folders):
  with serving(folders) as address:
    yield address


@contextlib.contextmanager
def serving(folders, token=''):
  begun = threading.Event()
  listening = http.listen('127.0.0.1', 0)
  server = http.make(app.create(Runs(folders), token=token), begun.set, 2)
  thread = threading.Thread(target=server.run, args=([listening],))
  thread.start()
  assert begun.wait(60)
  yield f'http://127.0.0.1:{listening.getsockname()[1]}/'
  server.should_exit = True
  thread.join(60)


@pytest.mark.slow
@pytest.mark.parametrize(
  'width, scheme, language', [(1300, 'light', 'en-GB'), (400, 'dark', 'zh-CN')]
)
@pytest.mark.parametrize('file', [False, True])
def test_a_person_watches(browser, folders, address, tmp_path, width, scheme, language, file):
  context = browser.new_context(
    viewport={'width': width, 'height': 860}, color_scheme=scheme, locale=language
  )
  shown, said, asked = context.new_page(), [], []
  shown.on('console', lambda m: said.append(m.text) if m.type in ('error', 'warning') else None)
  shown.on('pageerror', lambda error: said.append(str(error)))
  shown.on('request', lambda request: asked.append(request.url))
  if file:
    saved = pathlib.Path(tmp_path / 'runs.html')
    saved.write_text(document.save(Runs(folders), 1 << 20))
    address = saved.as_uri()
  shown.goto(address)
  assert shown.locator('.card').count() == 0 or shown.locator('.card').count() == 2
  shown.locator('.card').nth(1).wait_for()
  assert shown.locator('html').get_attribute('lang') == {'en-GB': 'en', 'zh-CN': 'zh-CN'}[language]
  assert shown.evaluate('document.documentElement.scrollWidth') <= width
  chart = shown.locator('#losses-generator svg').first
  assert chart.locator('.line').count() == 2 and chart.locator('.bad').count() == 2
  assert shown.locator('#held-out-charts .level').count() == 1
  assert 'first' in chart.get_attribute('aria-label')
  chart.focus()
  shown.keyboard.press('Home')
  shown.keyboard.press('ArrowRight')
  assert '0.5' in shown.locator('#losses-generator output').first.text_content()
  shown.uncheck('[data-run="0"]')
  assert chart.locator('.line').count() == 1
  shown.check('[data-run="0"]')
  shown.locator('#grid[src]').wait_for()
  newest = shown.locator('#grid').get_attribute('src')
  shown.click('#grid-back')
  shown.locator(f'#grid:not([src="{newest}"])').wait_for()
  assert shown.locator('#grid-value').text_content() == '0' and not shown.is_checked('#grid-newest')
  shown.locator('#losses-generator details summary').first.click()
  assert shown.locator('#losses-generator table').first.locator('tbody tr').count() == 31
  if not file:
    workdirs.metrics(folders[0], [40])
    shown.locator('.facts', has_text='40').wait_for()
    assert shown.locator('#losses-generator table').first.locator('tbody tr').count() == 32
  assert not said and all(url.startswith((address, 'data:', 'blob:')) for url in asked), said
  context.close()


@pytest.mark.slow
def test_a_lone_point_is_seen(browser, tmp_path):
  with serving([workdirs.workdir(tmp_path, rows=[1])]) as address:
    shown = browser.new_page()
    shown.goto(address)
    shown.locator('#losses-generator svg').wait_for()
    assert shown.locator('#losses-generator circle').bounding_box()['width'] > 5
    workdirs.metrics(tmp_path, [2])
    shown.locator('.facts', has_text='step 2').wait_for()
    assert not shown.locator('#losses-generator circle').count()
    shown.close()


@pytest.mark.slow
def test_a_tab_keeps_the_token(browser, folders):
  with serving(folders, token='sesame') as address:
    context = browser.new_context()
    for first in (address, f'{address}#token=sesame'):
      shown = context.new_page()  # a tab of its own, which knows nothing of the other one's token
      shown.goto(first)
      if first == address:
        for word in ('wrong', 'sesame'):
          shown.fill('#token', word)
          shown.press('#token', 'Enter')
          shown.locator('#token-wrong:not([hidden]), .card').first.wait_for()
      shown.locator('.card').nth(1).wait_for()
      assert 'sesame' not in shown.url
      shown.reload()
      shown.locator('.card, dialog[open]').first.wait_for()
      assert not shown.locator('dialog[open]').count() and shown.locator('.card').count() == 2
    context.close()
